#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::shape::MOUNT;
use super::*;
use crate::graph::effects::effects;
use crate::spec::model::Spec;
use crate::spec::{emit, parse};

const SPECS: [&str; 3] = [
    include_str!("../../../specs/prime/prime.yaml"),
    include_str!("../../../fixtures/specs/good/every-form.yaml"),
    include_str!("../../../fixtures/specs/good/from-nix.json"),
];

fn read(text: &str) -> (Spec, Places) {
    parse("t.yaml", text).unwrap_or_else(|errors| panic!("{errors:?} in {text}"))
}

/// The normal form, after it was found to read as the same spec and to be its own normal form.
fn config(text: &str) -> String {
    let (spec, places) = read(text);
    let normal_form = normal(&places);
    let printed = emit::yaml(&normal_form, None);
    for again in [&printed, &emit::json(&normal_form, None)] {
        let (same, places) = read(again);
        assert_eq!(same, spec, "{again}");
        assert_eq!(emit::yaml(&normal(&places), None), printed);
    }
    printed
}

#[test]
fn every_spec_has_a_normal_form_that_reads_the_same() {
    for text in SPECS {
        config(text);
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/specs/good");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), SPECS.len() - 1);
}

/// What people write from habit.
const SHORT: &str = r#"
x-note: { a: 1 }
templates: {}
processes:
  job:
    restart: always
    command: "sh -c 'echo $${HOME}'"
    environment: [ A=1, "B=x=y" ]
    watch: ./note
    depends_on: [ containers/web ]
    stop_signal: 15
    stop_grace_period: 90s
    ready: sd_notify
    log: { max_files: 0x3, max_size: 10240k }
name: t
containers:
  web:
    mounts: [ "./a:/a:ro", { target: /b, source: ./b } ]
    command: [ serve, 8080 ]
    firewall: { allow_from: 10.0.0.1, allow_tcp: 80, allow_ping: True }
    ready: { notify: { timeout: 1500ms } }
    depends_on: { processes/other: service_completed_successfully }
services:
  web:
    port: 0x50
    target: containers/web
    checks: [ { timeout: 1m, http: "http://{{ address }}/", interval: 3600s } ]
"#;

#[test]
fn what_is_written_in_two_ways_comes_out_in_one() {
    let spec = SHORT.replace("  job:\n", "  other: { command: [ a ] }\n  job:\n");
    insta::assert_snapshot!(config(&spec), @r#"
    name: t
    containers:
      web:
        command: [ serve, "8080" ]
        depends_on:
          processes/other:
            condition: completed
        ready:
          notify: true
          timeout: 1s500ms
        mounts:
          - source: "./a"
            target: /a
            read_only: true
          - source: "./b"
            target: /b
        firewall:
          allow_tcp: [ 80 ]
          allow_ping: true
          allow_from: [ 10.0.0.1/32 ]
    processes:
      other:
        command: [ a ]
      job:
        command: [ sh, -c, "echo $${HOME}" ]
        environment:
          A: "1"
          B: "x=y"
        watch: [ "./note" ]
        restart:
          policy: always
        stop_signal: SIGTERM
        stop_grace_period: 1m30s
        depends_on:
          containers/web:
            condition: started
        ready:
          notify: true
        log:
          max_size: 10MiB
          max_files: 3
    services:
      web:
        target: containers/web
        port: 80
        checks:
          - http:
              url: "http://{{ address }}/"
            interval: 1h
            timeout: 1m
    "#);
}

#[test]
fn every_value_still_says_where_it_came_from() {
    let text = "name: t\nprocesses:\n  a:\n    depends_on: processes/b\n    restart: no\n    \
                command: sleep 90\n  b: { command: [ sleep ] }\n";
    let source = crate::spec::SpecText::of("t.yaml", text);
    let (_, places) = read(text);
    insta::assert_snapshot!(emit::yaml(&normal(&places), Some(&source.sources())), @r#"
    name: t  # t.yaml:1
    processes:
      a:
        command:
          - sleep  # t.yaml:6
          - "90"  # t.yaml:6
        restart:
          policy: no  # t.yaml:5
        depends_on:
          processes/b:
            condition: started  # t.yaml:4
      b:
        command:
          - sleep  # t.yaml:7
    "#);
}

/// The fields of a shape, below each path that leads to it.
fn fields(shape: &Shape, path: &str, into: &mut BTreeSet<String>) {
    let mut all = |fields_of: &[(&str, Shape)]| {
        for (name, shape) in fields_of {
            let path = match path {
                "" => (*name).to_owned(),
                path => format!("{path}.{name}"),
            };
            into.insert(path.clone());
            fields(shape, &path, into);
        }
    };
    match shape {
        Shape::Fields(of) | Shape::FieldsOr(_, of) => all(of),
        Shape::CheckOrName => all(CHECK),
        Shape::Mount => all(MOUNT),
        Shape::Ready => {
            all(READY);
            all(&[("notify", Shape::Fields(&[("timeout", Shape::Duration)]))]);
            all(&[("sd_notify", Shape::Free)]);
        }
        Shape::DependsOn => fields(
            &Shape::Named(&Shape::Fields(&[("condition", Shape::Text)])),
            path,
            into,
        ),
        Shape::List(of) | Shape::Named(of) => fields(of, &format!("{path}.*"), into),
        _ => {}
    }
}

#[test]
fn every_field_has_its_place() {
    let mut placed = BTreeSet::new();
    fields(&Shape::Fields(TOP), "", &mut placed);
    let known: BTreeSet<String> = effects().into_iter().map(|field| field.path).collect();
    let lacks: Vec<&String> = known.difference(&placed).collect();
    let more: Vec<&String> = placed.difference(&known).collect();
    assert!(
        lacks.is_empty() && more.is_empty(),
        "lacks {lacks:#?}, has {more:#?}"
    );
}

#[test]
fn sizes_and_durations_have_one_text() {
    for (written, canonical) in [
        ("90s", "1m30s"),
        ("1h 60m", "2h"),
        ("0", "0s"),
        ("1500ms", "1s500ms"),
        ("36h", "1d12h"),
    ] {
        assert_eq!(duration_text(parse_duration(written).unwrap()), canonical);
    }
    for (written, canonical) in [
        ("10MB", "10MB"),
        ("10000kB", "10MB"),
        ("10m", "10MiB"),
        ("4096", "4KiB"),
        ("4097", "4097"),
        ("0", "0"),
    ] {
        assert_eq!(size_text(parse_size(written).unwrap()), canonical);
    }
}

proptest! {
    #[test]
    fn a_duration_comes_back(seconds in 0u64..31_000_000, nanos in 0u32..1_000_000_000) {
        let duration = Duration::new(seconds, nanos);
        prop_assert_eq!(parse_duration(&duration_text(duration)), Ok(duration));
    }

    #[test]
    fn a_size_comes_back(bytes in any::<u64>(), unit in 0u32..40) {
        let bytes = bytes >> unit << unit;
        prop_assert_eq!(parse_size(&size_text(bytes)), Some(bytes));
    }

    #[test]
    fn any_line_comes_back(line in "[a-z {}$'\"\\\\:=-]{1,16}", pair in "[A-Z]{1,3}=\\PC{0,8}", value in "[0-9a-fx.+eE-]{1,8}|true|no") {
        let text = serde_json::json!(line).to_string().replace("${", "$${");
        let pair = serde_json::json!(pair).to_string().replace("${", "$${");
        let spec = format!(
            "name: t\nvars: {{ v: {value} }}\nprocesses:\n  a:\n    command: {text}\n    environment: [ {pair} ]\n"
        );
        if let Ok((spec, places)) = parse("t.yaml", &spec) {
            let printed = emit::yaml(&normal(&places), None);
            prop_assert_eq!(parse("t.yaml", &printed).map(|(spec, _)| spec), Ok(spec.clone()), "{}", printed);
            let printed = emit::json(&normal(&places), None);
            prop_assert_eq!(parse("t.yaml", &printed).map(|(spec, _)| spec), Ok(spec), "{}", printed);
        }
    }
}
