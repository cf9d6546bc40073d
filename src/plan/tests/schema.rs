//! Plans as JSON against the schema that `plan --schema` prints.

use serde_json::{Value, json};

use super::farm::farm;
use super::world::{World, put};
use crate::plan::memory::{Attempt, Down};
use crate::plan::model::{ErrorKind, Gate, Plan};
use crate::plan::view::PlanView;
use crate::plan::world::Exit;
use crate::spec::node::{Kind, NodeId};

fn validator() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(PlanView::SCHEMA).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

fn demand(plan: &Plan) -> Value {
    let json = serde_json::to_value(PlanView::new("t", plan)).unwrap();
    let errors: Vec<String> = validator()
        .iter_errors(&json)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:?}\n{json:#}");
    json
}

#[test]
fn plans_of_every_kind_have_the_form_that_is_documented() {
    let mut world = World::new(farm(2, "python3"));
    let fresh = demand(&world.plan());
    assert!(fresh["items"].as_array().unwrap().len() > 5);
    world.converge();
    assert_eq!(demand(&world.plan())["items"], json!([]));

    world.edit(farm(3, "python4"));
    let mut gates = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let plan = world.pass();
        demand(&plan);
        gates.extend(plan.items.iter().map(|item| match item.gate {
            Gate::Ready => "ready",
            Gate::Running => "running",
            Gate::Waiting(_) => "waiting",
            Gate::Blocked(_) => "blocked",
        }));
        if plan.is_empty() {
            break;
        }
    }
    assert_eq!(gates.into_iter().collect::<Vec<_>>(), ["ready", "waiting"]);

    world.exit(&NodeId::new(Kind::Containers, "prime1"), Exit::Code(1));
    demand(&world.plan());
    world.edit(farm(1, "python4"));
    let removal = demand(&world.plan());
    assert!(removal["destroy"].as_u64().unwrap() > 0);
    world.memory.down = Some(Down { kill: false });
    demand(&world.plan());
}

#[test]
fn what_is_blocked_and_what_is_under_way_have_it_too() {
    let mut world = World::new(farm(1, "python3"));
    put(
        &mut world.observed,
        std::path::Path::new("/etc/upstream.conf"),
        "mine",
        None,
    );
    for _ in 0..50 {
        world.pass();
    }
    let blocked = demand(&world.plan());
    assert!(
        blocked["items"][0]["gate"]["blocked"].is_string(),
        "{blocked:#}"
    );

    let mut world = World::new(farm(1, "python3"));
    let attempt = Attempt {
        running: true,
        attaches: None,
        life: None,
        failures: 1,
        error: Some((ErrorKind::Failed, "no".to_owned())),
        retry_at: world.now,
    };
    world.memory.attempts.insert(NodeId::registry(), attempt);
    let running = demand(&world.plan());
    assert_eq!(running["items"][0]["gate"], json!("running"));
}

#[test]
fn another_form_does_not_pass() {
    let mut world = World::new(farm(1, "python3"));
    let good = serde_json::to_value(PlanView::new("t", &world.plan())).unwrap();
    let validator = validator();
    assert!(validator.is_valid(&good));
    let broken: [fn(&mut Value); 5] = [
        |plan| plan["format_version"] = json!(2),
        |plan| plan["items"][0]["change"] = json!("explode"),
        |plan| plan["items"][0]["gate"] = json!({"waiting": "x"}),
        |plan| plan["items"][0]["node"] = json!("somewhere"),
        |plan| {
            plan.as_object_mut().unwrap().remove("waves");
        },
    ];
    for break_it in broken {
        let mut plan = good.clone();
        break_it(&mut plan);
        assert!(!validator.is_valid(&plan), "{plan:#}");
    }
}
