#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::load::{MAX_DEPTH, MAX_INPUT, MAX_SCALAR, MAX_WEIGHT, Text};
use super::tree::{Node, NodeKind, Value};
use crate::spec::diagnostic::Diagnostic;

fn load(name: &str, source: &str) -> (Option<Arc<Node>>, Vec<Diagnostic>) {
    let loaded = super::load::load(&Text {
        name,
        source,
        base: 0,
        weight: 0,
        overlay: false,
        lookup: &|_| None,
    });
    (loaded.root, loaded.errors)
}

/// The tree as compact text, `?` for what is broken.
fn shape(node: &Node) -> String {
    match &node.kind {
        NodeKind::Scalar(scalar) => format!("{:?}", scalar.value()),
        NodeKind::Broken | NodeKind::Instead(_) => "?".to_owned(),
        NodeKind::List(items) => {
            let items: Vec<String> = items.iter().map(|item| shape(item)).collect();
            format!("[{}]", items.join(","))
        }
        NodeKind::Map(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|entry| format!("{}:{}", entry.key, shape(&entry.value)))
                .collect();
            format!("{{{}}}", entries.join(","))
        }
    }
}

fn tree(text: &str) -> Arc<Node> {
    let (root, errors) = load("t.yaml", text);
    assert!(errors.is_empty(), "{errors:?}");
    root.unwrap()
}

fn refused(text: &str) -> String {
    let begun = Instant::now();
    let (_, errors) = load("t.yaml", text);
    // The bound is generous: what it guards against takes minutes.
    assert!(begun.elapsed() < Duration::from_secs(5));
    errors.first().expect("an error").message.clone()
}

#[test]
fn scalars_mean_what_yaml_1_2_says() {
    let Node {
        kind: NodeKind::List(items),
        ..
    } = &*tree(
        "[ 5, '5', 0x10, 0o17, 0777, 1.5, -1, ~, null, true, yes, no, on, 1:30, 127.0.0.1, .inf, -g, 1_000 ]",
    )
    else {
        panic!("a list");
    };
    let values: Vec<Value<'_>> = items
        .iter()
        .map(|item| match &item.kind {
            NodeKind::Scalar(scalar) => scalar.value(),
            _ => panic!("a scalar"),
        })
        .collect();
    let number = |n: i64| Value::Number(n.into());
    assert_eq!(
        values[..4],
        [number(5), Value::Text("5"), number(16), number(15)]
    );
    assert_eq!(values[4], number(777));
    assert_eq!(
        values[5],
        Value::Number(serde_json::Number::from_f64(1.5).unwrap())
    );
    assert_eq!(
        values[6..],
        [
            number(-1),
            Value::Null,
            Value::Null,
            Value::Bool(true),
            Value::Text("yes"),
            Value::Text("no"),
            Value::Text("on"),
            Value::Text("1:30"),
            Value::Text("127.0.0.1"),
            Value::OddNumber,
            Value::Text("-g"),
            Value::Text("1_000"),
        ]
    );
}

#[test]
fn merge_keys_give_way_to_what_stands_there() {
    let root = tree("a: &a { x: 1, y: 1 }\nb: &b { y: 2, z: 2 }\nc: { <<: [*a, *b], x: 3 }\n");
    let text = shape(&root);
    assert!(
        text.ends_with("c:{x:Number(Number(3)),y:Number(Number(1)),z:Number(Number(2))}}"),
        "{text}"
    );
}

#[test]
fn spans_hold_exactly_what_is_written() {
    let text = "a:\n  b: 'x y'   # why\n  c: [1, 2]\nd: {e: f}\ng:\n  - h\n";
    let root = tree(text);
    let NodeKind::Map(entries) = &root.kind else {
        panic!("a mapping");
    };
    let written: Vec<(&str, &str)> = entries
        .iter()
        .map(|entry| {
            (
                &text[entry.key_span.clone()],
                &text[entry.value.span.clone()],
            )
        })
        .collect();
    assert_eq!(
        written,
        [
            ("a", "b: 'x y'   # why\n  c: [1, 2]"),
            ("d", "{e: f}"),
            ("g", "- h"),
        ]
    );
}

#[test]
fn alias_bombs_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let before = level - 1;
        writeln!(
            bomb,
            "a{level}: &a{level} [*a{before}, *a{before}, *a{before}, *a{before}, *a{before}]"
        )
        .unwrap();
    }
    assert_eq!(
        refused(&bomb),
        format!("the spec grows to more than {MAX_WEIGHT} values here")
    );
}

#[test]
fn long_texts_are_not_multiplied_by_aliases() {
    let long = "x".repeat(MAX_SCALAR);
    let uses = "*a, ".repeat(1000);
    assert!(refused(&format!("a: &a {long}\nb: [{uses}]\n")).starts_with("the spec grows"));
    let merges = "- { <<: *a }\n".repeat(10_000);
    let keyed = format!("a: &a\n  ? {long}\n  : 1\nb:\n{merges}");
    assert!(refused(&keyed).starts_with("the spec grows"));
}

#[test]
fn deep_nesting_is_refused() {
    const DEEP: &str = "this is nested too deeply";
    assert_eq!(refused(&"[".repeat(20_000)), DEEP);
    assert_eq!(refused(&"{a: ".repeat(20_000)), DEEP);
    assert_eq!(refused(&"- ".repeat(20_000)), DEEP);
    let mixed = format!("{}{}{}", "- ".repeat(20), "[".repeat(20), "]".repeat(20));
    assert_eq!(refused(&mixed), DEEP);
    let fits = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    assert!(load("t.yaml", &fits).1.is_empty());
}

#[test]
fn large_files_and_texts_are_refused() {
    let scalar = format!("a: {}", "x".repeat(10 * 1024 * 1024));
    assert!(refused(&scalar).contains("more than the 1048576"));
    assert!(refused(&format!("a: {}", "x".repeat(MAX_SCALAR + 1))).starts_with("this text is"));
    assert!(refused(&"a\n".repeat(MAX_INPUT / 2 + 1)).starts_with("`t.yaml` is"));
    assert!(refused(&"- x\n".repeat(MAX_INPUT / 4)).starts_with("the spec grows"));
}

#[test]
fn many_errors_do_not_add_up() {
    let mut twice = String::new();
    for _ in 0..2 {
        for key in 0..40_000 {
            writeln!(twice, "k{key}:").unwrap();
        }
    }
    let begun = Instant::now();
    let (root, errors) = load("t.yaml", &twice);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(root.is_none());
    assert!(errors.len() < 200, "{}", errors.len());
}
