//! The table of effects tells the truth: each field is changed, and what the planner makes of it
//! is compared with what the table says.

mod edits;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use edits::{base, edits};

use super::world::{World, put};
use super::*;
use crate::graph::effects::{Effect, effects};
use crate::graph::identity::{Identity, identity};
use crate::graph::{CompileInputs, compile};

/// Sets what a path leads to; mappings on the way are made.
fn set(spec: &mut Value, path: &str, value: &Value) {
    let mut at = spec;
    let steps: Vec<&str> = path.split('.').filter(|step| !step.is_empty()).collect();
    let (last, way) = steps.split_last().unwrap();
    for step in way {
        at = match at {
            Value::Array(items) => &mut items[step.parse::<usize>().unwrap()],
            Value::Object(map) => map.entry(*step).or_insert_with(|| json!({})),
            other => panic!("{path} leads through {other}"),
        };
    }
    match (at, value) {
        (Value::Object(map), Value::Null) => drop(map.remove(*last)),
        (Value::Object(map), value) => drop(map.insert((*last).to_owned(), value.clone())),
        (Value::Array(items), value) => items[last.parse::<usize>().unwrap()] = value.clone(),
        (other, _) => panic!("{path} leads to {other}"),
    }
}

const SOURCES: [(&str, &str); 3] = [
    ("/spec/upstream.j2", "one"),
    ("/spec/other.j2", "two"),
    (
        "/spec/empty.j2",
        "{% for i in service('nobody') %}{{ i.address }}{% endfor %}",
    ),
];

fn compiled(spec: &Value) -> Desired {
    let text = spec.to_string();
    // Without validation: what a person should not write may be what shows an effect.
    let (spec, places) =
        crate::spec::parse("t.json", &text).unwrap_or_else(|errors| panic!("{errors:?} in {text}"));
    let inputs = CompileInputs {
        spec_dir: "/spec".into(),
        tree: None,
        dirs: Dirs {
            run: "/run".into(),
            state: "/state".into(),
            log: "/log".into(),
        },
        env: BTreeMap::new(),
        template_sources: SOURCES
            .map(|(path, text)| (path.into(), Ok(text.to_owned())))
            .into(),
        held: BTreeMap::new(),
    };
    compile(&spec, &places, &inputs).unwrap_or_else(|errors| panic!("{errors:?} in {text}"))
}

fn settle(world: &mut World) {
    for _ in 0..300 {
        for life in &mut world.observed.lives {
            life.notified = true;
            world.memory.ready.insert(life.id.clone());
        }
        if world.pass().is_empty() {
            return;
        }
    }
    panic!("no empty plan: {:#?}", world.plan().items);
}

/// What the planner did to get from one spec to another.
fn done(before: &Value, after: &Value) -> (Effect, Desired, Desired) {
    let (from, to) = (compiled(before), compiled(after));
    // Begun with a file that is good: that serves where the spec before has no text.
    let mut world = World::new(compiled(&base()));
    for (path, text) in SOURCES {
        let files = &mut world.observed.inputs.files;
        files.insert(path.into(), Ok(text.to_owned()));
    }
    let watched = PathBuf::from("/spec/watched");
    put(&mut world.observed, &watched, "watched", None);
    settle(&mut world);
    world.edit(from.clone());
    settle(&mut world);
    let lives = world.lives();
    world.edit(to.clone());
    settle(&mut world);
    let now = world.lives();
    let replaced = lives.iter().any(|(node, life)| now.get(node) != Some(life));
    let told = |step: &Step| {
        matches!(
            step,
            Step::ReloadProcess { .. } | Step::ReloadCommand { .. }
        )
    };
    let effect = if replaced {
        Effect::Replace
    } else if world.done.iter().any(told) {
        Effect::Reload
    } else if !world.done.is_empty() {
        Effect::InPlace
    } else {
        Effect::Nothing
    };
    (effect, from, to)
}

/// The identities of all that both have.
fn identities(desired: &Desired) -> BTreeMap<NodeId, Identity> {
    let watched = BTreeMap::from([(PathBuf::from("/spec/watched"), "hash".to_owned())]);
    desired
        .nodes
        .iter()
        .filter_map(|(id, node)| match node {
            Node::Workload(node) => Some((id.clone(), identity(node, &watched, desired.origin()))),
            _ => None,
        })
        .collect()
}

/// The path of the table for one of a concrete spec.
fn general(prefix: &str, field: &str) -> String {
    let sections = [
        "networks",
        "containers",
        "processes",
        "services",
        "checks",
        "templates",
    ];
    let path = format!("{prefix}{field}");
    let steps: Vec<&str> = path.split('.').collect();
    let shown = steps.iter().enumerate().map(|(at, step)| {
        let named = at == 1 && sections.contains(&steps[0]);
        let item = step.bytes().all(|byte| byte.is_ascii_digit());
        if named || item { "*" } else { step }
    });
    shown.collect::<Vec<&str>>().join(".")
}

#[test]
fn the_table_of_effects_tells_the_truth() {
    let table: BTreeMap<String, Effect> = effects()
        .into_iter()
        .map(|field| (field.path, field.effect))
        .collect();
    let mut tried = BTreeSet::new();
    let mut wrong = Vec::new();
    for (prefix, edits) in edits() {
        for edit in edits {
            let path = general(prefix, &edit.field);
            let at = format!("{prefix}{}", edit.at);
            let (mut before, mut after) = (base(), base());
            set(&mut before, &at, &edit.before);
            set(&mut after, &at, &edit.after);
            let (seen, from, to) = done(&before, &after);
            let (old, new) = (identities(&from), identities(&to));
            let another = old
                .iter()
                .any(|(id, identity)| new.get(id).is_some_and(|other| other != identity));
            let said = table.get(&path).copied();
            let right = match said {
                // A probe is exchanged by the monitors, which follow what is wanted.
                Some(Effect::InPlace) => {
                    seen == Effect::InPlace || (seen == Effect::Nothing && from != to)
                }
                // What no plan sees waits for the next controller.
                Some(Effect::Restart) => seen == Effect::Nothing,
                said => said == Some(seen),
            };
            if !right || another != (said == Some(Effect::Replace)) {
                wrong.push(format!(
                    "{path}: the table says {said:?}, the planner did {seen:?}, another identity: \
                     {another}"
                ));
            }
            tried.insert(path);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let untried: Vec<&String> = table.keys().filter(|path| !tried.contains(*path)).collect();
    // Another name is another stack, which no plan of this one sees.
    assert_eq!(untried, ["name"]);
}
