#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::schema;
use crate::graph::effects::effects;
use crate::spec::texts::SpecText;
use crate::spec::{Places, assemble, decode, emit, parse};

const EVERY_FORM: &str = include_str!("../../../fixtures/specs/good/every-form.yaml");

/// What the schema leaves to the decoders: ranges, what texts say inside, what several fields
/// say together.
const BEYOND_STRUCTURE: &[&str] = &[
    "must be at least",
    "must be an address and a port",
    "must be an IPv4",
    "must be a network",
    "must be a name of letters",
    "must be a duration",
    "must be the name of a Debian package",
    "must be a mount",
    "unknown signal",
    "is reserved for fleets",
    "cannot be both",
    "is empty",
    "cannot be empty",
    "cannot split",
    "is given twice",
    "bits beyond its prefix",
];

fn value_of(text: &str) -> Value {
    let (_, places) = parse("t.yaml", text).unwrap_or_else(|errors| panic!("{errors:?}"));
    serde_json::from_str(&emit::json(&places, None)).unwrap()
}

/// What the decoders say about the structure alone.
fn decoded(value: &Value) -> Vec<String> {
    let text = SpecText::of("t.json", value.to_string());
    let assembled = assemble::assemble(&text, &text.sources());
    let mut errors: Vec<String> = assembled.errors.into_iter().map(|e| e.message).collect();
    if let Some(root) = assembled.root {
        let found = decode::decode(&root).errors;
        errors.extend(found.into_iter().map(|error| error.message));
    }
    errors
}

/// Every value of the tree by its pointer.
fn pointers(value: &Value, at: String, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(value, format!("{at}/{key}"), into);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                pointers(value, format!("{at}/{index}"), into);
            }
        }
        _ => {}
    }
    into.push(at);
}

/// Each value of every form, replaced by others, taken away, and given a field more.
fn mutations(base: &Value) -> Vec<(String, Value)> {
    let others = [
        json!(null),
        json!(true),
        json!(5),
        json!(70000),
        json!("word"),
        json!(""),
        json!("5s"),
        json!("containers/fixed"),
        json!([]),
        json!({}),
        json!([true]),
        json!(["word", "other"]),
        json!({ "zz": null }),
    ];
    let mut all = Vec::new();
    let mut found = Vec::new();
    pointers(base, String::new(), &mut found);
    for pointer in found.iter().filter(|pointer| !pointer.is_empty()) {
        for other in &others {
            let mut value = base.clone();
            *value.pointer_mut(pointer).unwrap() = other.clone();
            all.push((format!("{pointer} = {other}"), value));
        }
        if let Some(first) = base.pointer(&format!("{pointer}/0")) {
            let mut value = base.clone();
            *value.pointer_mut(pointer).unwrap() = first.clone();
            all.push((format!("{pointer} = its first item"), value));
        }
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/").replace("~0", "~");
        let mut less = base.clone();
        if let Some(Value::Object(map)) = less.pointer_mut(parent) {
            map.remove(&key);
            all.push((format!("without {pointer}"), less));
        }
        let mut more = base.clone();
        if let Some(Value::Object(map)) = more.pointer_mut(pointer) {
            map.insert("unheard".to_owned(), json!("of"));
            all.push((format!("{pointer} with a field more"), more));
        }
    }
    all
}

#[test]
fn the_schema_refuses_what_the_decoders_refuse_and_nothing_else() {
    let validator = jsonschema::validator_for(schema().as_value()).unwrap();
    let base = value_of(EVERY_FORM);
    let mut wrong = String::new();
    let (mut refused, mut taken) = (0, 0);
    for (what, value) in mutations(&base) {
        let errors = decoded(&value);
        let said = validator.iter_errors(&value).next();
        match (errors.is_empty(), said) {
            (true, None) => taken += 1,
            (false, Some(_)) => refused += 1,
            (true, Some(said)) => {
                wrong.push_str(&format!("only the schema refuses {what}: {said:.120}\n"));
            }
            (false, None) => {
                let beyond = |error: &String| BEYOND_STRUCTURE.iter().any(|b| error.contains(b));
                if !errors.iter().all(beyond) {
                    wrong.push_str(&format!("only the decoders refuse {what}: {errors:?}\n"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(refused > 1000 && taken > 100, "{refused} {taken}");
}

/// Fixtures in which the structure is right: what is wrong lies in what the values say.
const SEMANTIC: &[&str] = &["signals.yaml"];

/// The fixtures of a folder, and what each comes to before it is decoded; nothing when it is no
/// YAML.
fn fixtures(folder: &str) -> Vec<(String, Option<Value>)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found: Vec<_> = std::fs::read_dir(root.join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let end = path.extension().unwrap_or_default();
            end == "yaml" || end == "json"
        })
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let text = SpecText::of(&path, std::fs::read_to_string(&path).unwrap());
            let assembled = assemble::assemble(&text, &text.sources());
            let places = assembled.root.filter(|_| assembled.errors.is_empty());
            let json = places.map(|root| emit::json(&Places::new(root), None));
            (name, json.map(|json| serde_json::from_str(&json).unwrap()))
        })
        .collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    assert!(!found.is_empty());
    found
}

#[test]
fn the_fixtures_are_to_the_schema_what_they_are_to_the_parser() {
    let validator = jsonschema::validator_for(schema().as_value()).unwrap();
    for folder in ["specs/prime", "fixtures/specs/good"] {
        for (name, value) in fixtures(folder) {
            let value = value.expect(&name);
            let said: Vec<String> = validator
                .iter_errors(&value)
                .map(|e| e.to_string())
                .collect();
            assert!(said.is_empty(), "{name}: {said:#?}");
        }
    }
    let mut semantic = Vec::new();
    for (name, value) in fixtures("fixtures/specs/bad") {
        match value {
            None => assert!(name.starts_with("yaml-"), "{name} is no YAML"),
            Some(value) => {
                let taken = validator.is_valid(&value);
                let sound = decoded(&value).is_empty();
                assert!(taken || !sound, "only the schema refuses {name}");
                semantic.extend(taken.then_some(name));
            }
        }
    }
    assert_eq!(semantic, SEMANTIC, "the schema takes these");
}

#[test]
fn variables_may_stand_where_numbers_and_words_do() {
    let validator = jsonschema::validator_for(schema().as_value()).unwrap();
    let spec = |field: &str| {
        let mut process = json!({ "command": "x" });
        process[field] = json!("${N:-4}");
        json!({ "name": "${NAME}", "processes": { "a": process } })
    };
    for field in [
        "replicas",
        "restart",
        "stop_signal",
        "stop_grace_period",
        "ready",
        "user",
    ] {
        let spec = spec(field);
        assert!(validator.is_valid(&spec), "{spec}");
    }
    assert!(!validator.is_valid(&spec("update")));
}

/// The fields of the schema below `node`, `*` for names and items.
fn fields(root: &Value, node: &Value, path: &str, into: &mut BTreeSet<String>) {
    let below = |step: &str| match path {
        "" => step.to_owned(),
        path => format!("{path}.{step}"),
    };
    if let Some(Value::String(pointer)) = node.get("$ref") {
        let target = root.pointer(pointer.trim_start_matches('#')).unwrap();
        fields(root, target, path, into);
    }
    for forms in ["anyOf", "oneOf", "allOf"] {
        for form in node
            .get(forms)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            fields(root, form, path, into);
        }
    }
    for any in ["items", "additionalProperties"] {
        if let Some(value) = node.get(any) {
            fields(root, value, &below("*"), into);
        }
    }
    if let Some(Value::Object(properties)) = node.get("properties") {
        for (key, value) in properties {
            into.insert(below(key));
            fields(root, value, &below(key), into);
        }
    }
}

/// The table of effects names what the decoders know; another test holds that.
#[test]
fn the_schema_has_every_field_that_the_decoders_know_and_no_other() {
    let schema = schema();
    let mut found = BTreeSet::new();
    fields(schema.as_value(), schema.as_value(), "", &mut found);
    assert!(
        found.remove("include"),
        "files are put together before they are decoded"
    );
    // The table has `notify` alone, for both.
    found.retain(|path| !path.contains(".sd_notify."));
    let known: BTreeSet<String> = effects().into_iter().map(|field| field.path).collect();
    let missing: Vec<&String> = known.difference(&found).collect();
    let unknown: Vec<&String> = found.difference(&known).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "the schema lacks {missing:#?} and has what nobody reads: {unknown:#?}"
    );
}

/// Who completes a field sees what it is.
#[test]
fn every_field_is_described() {
    fn walk(value: &Value, at: &str, bare: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::Object(properties)) = map.get("properties") {
                    for (name, property) in properties {
                        if property.is_object() && property.get("description").is_none() {
                            bare.push(format!("{at}/{name}"));
                        }
                    }
                }
                for (key, value) in map {
                    walk(value, &format!("{at}/{key}"), bare);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, at, bare)),
            _ => {}
        }
    }
    let mut bare = Vec::new();
    walk(schema().as_value(), "", &mut bare);
    assert!(bare.is_empty(), "{bare:#?}");
}
