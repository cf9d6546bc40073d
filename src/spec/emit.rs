//! A merged spec as text again: YAML that reads as the same spec, and JSON.

use super::places::{Path, Places};
use super::texts::{Place, Sources};
use super::variables::escaped;
use super::yaml::tree::{Entry, Node, NodeKind, Scalar, Value};

/// Lists of so many bytes stand in one line.
const SHORT: usize = 80;

/// The spec as YAML. With `origins`, every value says in a comment where it came from.
pub fn yaml(places: &Places, origins: Option<&Sources<'_>>) -> String {
    let mut out = String::new();
    if let Some(root) = places.root() {
        let emit = Yaml { origins };
        emit.entries(&sections(root), 0, &mut out);
    }
    out
}

/// The spec as JSON. A number that JSON cannot write as it stands in YAML (`0x10`, `+1`) becomes
/// its value. With `origins`, it is the field `spec` beside a list of where each value came from.
pub fn json(places: &Places, origins: Option<&Sources<'_>>) -> String {
    let top = places.root().map(sections).unwrap_or_default();
    let mut out = String::new();
    let Some(sources) = origins else {
        json_map(&top, 0, &mut out);
        return out + "\n";
    };
    out.push_str("{\n  \"spec\": ");
    json_map(&top, 2, &mut out);
    let lines: Vec<String> = traced(places, sources)
        .into_iter()
        .map(|(path, Place { file, line, column })| {
            let (path, file) = (string(&path.to_string()), string(&file));
            format!(
                "    {{ \"path\": {path}, \"file\": {file}, \"line\": {line}, \"column\": {column} }}"
            )
        })
        .collect();
    out.push_str(",\n  \"origins\": [\n");
    out.push_str(&lines.join(",\n"));
    out.push_str("\n  ]\n}\n");
    out
}

/// Where each value of the spec came from, in the spec's order.
fn traced(places: &Places, sources: &Sources<'_>) -> Vec<(Path, Place)> {
    let mut found = Vec::new();
    if let Some(root) = places.root() {
        for entry in sections(root) {
            trace(
                &Path::default().key(&*entry.key),
                &entry.value,
                sources,
                &mut found,
            );
        }
    }
    found
}

fn trace(path: &Path, node: &Node, sources: &Sources<'_>, found: &mut Vec<(Path, Place)>) {
    match &node.kind {
        NodeKind::Map(entries) if !entries.is_empty() => {
            for entry in entries {
                trace(&path.key(&*entry.key), &entry.value, sources, found);
            }
        }
        NodeKind::List(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                trace(&path.index(index), item, sources, found);
            }
        }
        _ => {
            let place = sources.locate(node.span.start);
            found.extend(place.map(|place| (path.clone(), place)));
        }
    }
}

/// The top level without the places for anchors.
fn sections(root: &Node) -> Vec<Entry> {
    match &root.kind {
        NodeKind::Map(entries) => {
            let sections = entries.iter().filter(|entry| !entry.key.starts_with("x-"));
            sections.cloned().collect()
        }
        _ => Vec::new(),
    }
}

struct Yaml<'a> {
    origins: Option<&'a Sources<'a>>,
}

impl Yaml<'_> {
    fn entries(&self, entries: &[Entry], indent: usize, out: &mut String) {
        for (at, entry) in entries.iter().enumerate() {
            // The first stands behind the dash of its list's item, if there is one.
            if at > 0 || out.is_empty() || out.ends_with('\n') {
                out.push_str(&" ".repeat(indent));
            }
            out.push_str(&quoted(&entry.key));
            out.push(':');
            self.value(&entry.value, indent, out);
        }
    }

    /// What stands behind a colon, with the end of the line.
    fn value(&self, node: &Node, indent: usize, out: &mut String) {
        match &node.kind {
            NodeKind::Map(entries) if !entries.is_empty() => {
                out.push('\n');
                self.entries(entries, indent + 2, out);
            }
            NodeKind::List(items) if !items.is_empty() => {
                if let Some(line) = self.short(items) {
                    out.push_str(&line);
                    return;
                }
                out.push('\n');
                self.items(items, indent + 2, out);
            }
            _ => {
                out.push(' ');
                self.leaf(node, out);
            }
        }
    }

    fn items(&self, items: &[std::sync::Arc<Node>], indent: usize, out: &mut String) {
        for (at, item) in items.iter().enumerate() {
            if at > 0 || out.ends_with('\n') {
                out.push_str(&" ".repeat(indent));
            }
            out.push_str("- ");
            match &item.kind {
                NodeKind::Map(entries) if !entries.is_empty() => {
                    self.entries(entries, indent + 2, out);
                }
                NodeKind::List(inner) if !inner.is_empty() => {
                    self.items(inner, indent + 2, out);
                }
                _ => self.leaf(item, out),
            }
        }
    }

    /// A list of a few scalars in one line, when nothing is said about each.
    fn short(&self, items: &[std::sync::Arc<Node>]) -> Option<String> {
        if self.origins.is_some() || !items.iter().all(|item| item.is_scalar()) {
            return None;
        }
        let words: Vec<String> = items.iter().map(|item| scalar(item)).collect();
        let line = words.join(", ");
        (line.len() <= SHORT).then(|| format!(" [ {line} ]\n"))
    }

    fn leaf(&self, node: &Node, out: &mut String) {
        out.push_str(&scalar(node));
        let place = self
            .origins
            .and_then(|sources| sources.locate(node.span.start));
        if let Some(place) = place {
            let file: String = place.file.chars().filter(|c| !c.is_control()).collect();
            out.push_str(&format!("  # {file}:{}", place.line));
        }
        out.push('\n');
    }
}

/// What has no parts, as YAML.
fn scalar(node: &Node) -> String {
    match &node.kind {
        NodeKind::Map(_) => "{}".to_owned(),
        NodeKind::List(_) => "[]".to_owned(),
        NodeKind::Scalar(scalar) => match scalar.value() {
            Value::Bool(value) => value.to_string(),
            Value::Number(_) | Value::OddNumber => scalar.text.clone(),
            Value::Text(text) => quoted(&escaped(text)),
            Value::Null => "null".to_owned(),
        },
        NodeKind::Broken | NodeKind::Instead(_) => "null".to_owned(),
    }
}

/// A text as YAML: bare where it cannot be taken for anything else.
fn quoted(text: &str) -> String {
    let bare = text.trim_start_matches('-');
    let simple =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-' | '@' | '+');
    let starts_well =
        bare.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/'));
    let read = Scalar {
        text: text.to_owned(),
        plain: true,
        verbatim: None,
    };
    if starts_well && text.chars().all(simple) && read.value() == Value::Text(text) {
        return text.to_owned();
    }
    string(text)
}

/// A text as JSON, which is YAML.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn json_map(entries: &[Entry], indent: usize, out: &mut String) {
    let fields = entries
        .iter()
        .map(|entry| (Some(&*entry.key), &*entry.value));
    json_parts(['{', '}'], fields, indent, out);
}

/// The parts of a list or a mapping, one a line.
fn json_parts<'n>(
    [open, close]: [char; 2],
    parts: impl Iterator<Item = (Option<&'n str>, &'n Node)>,
    indent: usize,
    out: &mut String,
) {
    out.push(open);
    let mut empty = true;
    for (key, node) in parts {
        out.push_str(if empty { "\n" } else { ",\n" });
        out.push_str(&" ".repeat(indent + 2));
        empty = false;
        if let Some(key) = key {
            out.push_str(&string(key));
            out.push_str(": ");
        }
        json_value(node, indent + 2, out);
    }
    if !empty {
        out.push('\n');
        out.push_str(&" ".repeat(indent));
    }
    out.push(close);
}

fn json_value(node: &Node, indent: usize, out: &mut String) {
    match &node.kind {
        NodeKind::Map(entries) => json_map(entries, indent, out),
        NodeKind::List(items) => {
            let items = items.iter().map(|item| (None, &**item));
            json_parts(['[', ']'], items, indent, out);
        }
        NodeKind::Scalar(scalar) => match scalar.value() {
            Value::Null => out.push_str("null"),
            Value::Bool(value) => out.push_str(&value.to_string()),
            Value::Number(number) => {
                let same = serde_json::from_str::<serde_json::Number>(&scalar.text).is_ok();
                let value = number.to_string();
                out.push_str(if same { &scalar.text } else { &value });
            }
            Value::OddNumber => out.push_str(&string(&scalar.text)),
            Value::Text(text) => out.push_str(&string(&escaped(text))),
        },
        NodeKind::Broken | NodeKind::Instead(_) => out.push_str("null"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;
    use crate::spec::model::Spec;
    use crate::spec::parse;
    use crate::spec::texts::{Part, SpecText};

    fn read(text: &str) -> (Spec, Places) {
        parse("t.yaml", text).unwrap_or_else(|errors| panic!("{errors:?} in {text}"))
    }

    #[test]
    fn what_is_printed_reads_as_the_same_spec() {
        for text in [
            include_str!("../../specs/prime/prime.yaml"),
            include_str!("../../fixtures/specs/good/every-form.yaml"),
            include_str!("../../fixtures/specs/good/from-nix.json"),
        ] {
            let (spec, places) = read(text);
            let source = SpecText::of("t.yaml", text);
            for printed in [
                yaml(&places, None),
                yaml(&places, Some(&source.sources())),
                json(&places, None),
            ] {
                assert_eq!(read(&printed).0, spec, "{printed}");
            }
            let value: serde_json::Value = serde_json::from_str(&json(&places, None)).unwrap();
            assert_eq!(value["name"], spec.name);
        }
    }

    fn laid_over() -> SpecText {
        let mut text = SpecText::of(
            "/s/base.yaml",
            "name: t\nx-a: 1\nprocesses:\n  a:\n    command: [ sh, -c, \"echo $${A}\" ]\n    tmp: {}\n    list:\n    - - 1\n      - k: 0x10\n        l: on\n",
        );
        text.further.overlays.push(Part {
            path: "/s/prod.yaml".into(),
            text: "# over\nprocesses:\n  a: { replicas: 5, mode: 0o644 }\n".to_owned(),
            unread: None,
        });
        text
    }

    #[test]
    fn every_value_says_where_it_came_from() {
        let text = laid_over();
        let sources = text.sources().within("/s".as_ref());
        let assembled = super::super::assemble::assemble(&text, &sources);
        let places = Places::new(assembled.root.unwrap());
        insta::assert_snapshot!(yaml(&places, Some(&sources)), @r#"
        name: t  # base.yaml:1
        processes:
          a:
            command:
              - sh  # base.yaml:5
              - -c  # base.yaml:5
              - "echo $${A}"  # base.yaml:5
            tmp: {}  # base.yaml:6
            list:
              - - 1  # base.yaml:8
                - k: 0x10  # base.yaml:9
                  l: on  # base.yaml:10
            replicas: 5  # prod.yaml:3
            mode: 0o644  # prod.yaml:3
        "#);
        insta::assert_snapshot!(yaml(&places, None), @r#"
        name: t
        processes:
          a:
            command: [ sh, -c, "echo $${A}" ]
            tmp: {}
            list:
              - - 1
                - k: 0x10
                  l: on
            replicas: 5
            mode: 0o644
        "#);
    }

    #[test]
    fn json_says_it_in_a_list() {
        let text = laid_over();
        let sources = text.sources().within("/s".as_ref());
        let assembled = super::super::assemble::assemble(&text, &sources);
        let places = Places::new(assembled.root.unwrap());
        insta::assert_snapshot!(json(&places, Some(&sources)), @r#"
        {
          "spec": {
            "name": "t",
            "processes": {
              "a": {
                "command": [
                  "sh",
                  "-c",
                  "echo $${A}"
                ],
                "tmp": {},
                "list": [
                  [
                    1,
                    {
                      "k": 16,
                      "l": "on"
                    }
                  ]
                ],
                "replicas": 5,
                "mode": 420
              }
            }
          },
          "origins": [
            { "path": "name", "file": "base.yaml", "line": 1, "column": 7 },
            { "path": "processes.a.command[0]", "file": "base.yaml", "line": 5, "column": 16 },
            { "path": "processes.a.command[1]", "file": "base.yaml", "line": 5, "column": 20 },
            { "path": "processes.a.command[2]", "file": "base.yaml", "line": 5, "column": 24 },
            { "path": "processes.a.tmp", "file": "base.yaml", "line": 6, "column": 10 },
            { "path": "processes.a.list[0][0]", "file": "base.yaml", "line": 8, "column": 9 },
            { "path": "processes.a.list[0][1].k", "file": "base.yaml", "line": 9, "column": 12 },
            { "path": "processes.a.list[0][1].l", "file": "base.yaml", "line": 10, "column": 12 },
            { "path": "processes.a.replicas", "file": "prod.yaml", "line": 3, "column": 18 },
            { "path": "processes.a.mode", "file": "prod.yaml", "line": 3, "column": 27 }
          ]
        }
        "#);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "\\PC{0,20}|[-a${}:#'\"\\\\ \n\t~.0-9<&*!|>%@`,\\[\\]\u{85}\u{feff}\u{2028}\u{7f}]{0,12}", key in "[a-z]{1,5}|[-:# 0-9<{]{1,5}") {
            let written = serde_json::json!({ "name": "t", "vars": { &key: [text, { &key: text }] } });
            let written = written.to_string().replace("${", "$${");
            prop_assume!(!key.contains("${"));
            if let Ok((spec, places)) = parse("t.yaml", &written) {
                let printed = yaml(&places, None);
                let again = parse("t.yaml", &printed);
                prop_assert_eq!(again.map(|(spec, _)| spec), Ok(spec.clone()), "{}", printed);
                let printed = json(&places, None);
                let again = parse("t.yaml", &printed);
                prop_assert_eq!(again.map(|(spec, _)| spec), Ok(spec), "{}", printed);
            }
        }
    }
}
