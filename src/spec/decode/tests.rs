#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Which fields the decoders know, and that each has its line in the table of effects.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;
use std::sync::Arc;

use super::*;
use crate::graph::effects::effects;
use crate::spec::yaml::load::{self, Text};
use crate::spec::yaml::tree::NodeKind;

const EVERY_FORM: &str = include_str!("../../../fixtures/specs/good/every-form.yaml");

/// A mapping that was read.
pub(super) struct Mapping {
    /// Tells it from every other one of its tree.
    pub(super) entries: *const Entry,
    /// The line that opened it.
    pub(super) opened: &'static Location<'static>,
    /// The fields that were asked for.
    pub(super) fields: Vec<&'static str>,
}

/// The mappings of [`EVERY_FORM`], and its tree.
fn read() -> (Vec<Mapping>, Arc<Node>) {
    let loaded = load::load(&Text {
        name: "every-form.yaml",
        source: EVERY_FORM,
        base: 0,
        weight: 0,
        overlay: false,
        lookup: &|_| None,
    });
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    let root = loaded.root.unwrap();
    let mut d = Decoder::default();
    let mut decoded = Decoded {
        sound: empty_spec(String::new()),
        faulty: empty_spec(String::new()),
        errors: Vec::new(),
    };
    let mut fields = Fields::open(&mut d, &Slot::new(&root, "the spec"), "the spec").unwrap();
    fields.extensions = true;
    top_level(&mut d, &mut fields, &mut decoded);
    fields.finish(&mut d);
    assert!(d.errors.is_empty(), "{:?}", d.errors);
    (d.mappings, root)
}

/// The known fields of every mapping below `node`, whose own path is `path`. Keys that no
/// decoder knows are names, and `*` stands for them, as for the items of a list.
fn collect(
    node: &Node,
    path: &str,
    known: &BTreeMap<*const Entry, BTreeSet<&'static str>>,
    into: &mut BTreeSet<String>,
) {
    let below = |step: &str| match path {
        "" => step.to_owned(),
        path => format!("{path}.{step}"),
    };
    match &node.kind {
        NodeKind::Map(entries) => {
            let fields = known.get(&entries.as_ptr());
            into.extend(fields.into_iter().flatten().map(|field| below(field)));
            for entry in entries {
                let key = if fields.is_some() { &*entry.key } else { "*" };
                if !key.starts_with("x-") {
                    collect(&entry.value, &below(key), known, into);
                }
            }
        }
        NodeKind::List(items) => {
            for item in items {
                collect(item, &below("*"), known, into);
            }
        }
        NodeKind::Scalar(_) | NodeKind::Broken | NodeKind::Instead(_) => {}
    }
}

#[test]
fn every_field_has_an_effect_and_no_other_has() {
    let (mappings, root) = read();
    let mut known: BTreeMap<*const Entry, BTreeSet<&'static str>> = BTreeMap::new();
    for mapping in &mappings {
        known
            .entry(mapping.entries)
            .or_default()
            .extend(&mapping.fields);
    }
    let mut fields = BTreeSet::new();
    collect(&root, "", &known, &mut fields);
    let table: Vec<String> = effects().into_iter().map(|field| field.path).collect();
    let listed: BTreeSet<String> = table.iter().cloned().collect();
    assert_eq!(listed.len(), table.len(), "a field stands there twice");
    let missing: Vec<&String> = fields.difference(&listed).collect();
    let unknown: Vec<&String> = listed.difference(&fields).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "`graph::effects` lacks {missing:#?}; it names what no decoder knows (or what \
         `every-form.yaml` lacks): {unknown:#?}"
    );
}

/// Else the fields of a mapping that the fixture lacks would be forgotten.
#[test]
fn the_fixture_has_every_mapping_that_the_decoders_open() {
    let (mappings, _) = read();
    let opened: BTreeSet<(&str, u32)> = mappings
        .iter()
        .map(|mapping| {
            let file = mapping.opened.file();
            let name = file.rsplit('/').next().unwrap_or(file);
            (name, mapping.opened.line())
        })
        .collect();
    let sources = [
        ("check.rs", include_str!("check.rs")),
        ("container.rs", include_str!("container.rs")),
        ("rolling.rs", include_str!("rolling.rs")),
        ("template.rs", include_str!("template.rs")),
        ("top.rs", include_str!("top.rs")),
        ("workload.rs", include_str!("workload.rs")),
    ];
    for (file, source) in sources {
        let lines = (1..).zip(source.lines());
        for (number, _) in lines.filter(|(_, line)| line.contains("Fields::open(")) {
            assert!(
                opened.contains(&(file, number)),
                "`every-form.yaml` has nothing for line {number} of `{file}`"
            );
        }
    }
    // No decoder stands outside of the files above.
    let modules = include_str!("mod.rs").matches("\nmod ").count();
    assert_eq!(modules, sources.len() + 3, "a module that is not looked at");
}
