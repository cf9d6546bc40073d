//! Errors planted into good specs: each is reported at its line, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};

use hatchery::spec::position;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::model::read;
use crate::stack::{Stack, stacks};
use crate::straight;

/// One line with one error, and the section in which it stands. `NAME` is a name of its own.
const FAULTS: &[(&str, &str)] = &[
    ("networks", "NAME: { subnet: 10.99.0.0/40 }"),
    ("networks", "NAME: { subnet: 10.99.0.0/24, subnets: 2 }"),
    ("networks", "NAME: {}"),
    (
        "containers",
        "NAME: { command: [ /bin/a ], network: nowhere }",
    ),
    (
        "containers",
        "NAME: { command: [ /bin/a ], mounts: [ nothing ] }",
    ),
    ("containers", "NAME: { command: [ /bin/a ], root: hots }"),
    ("containers", "NAME: { root: host }"),
    (
        "containers",
        "NAME: { command: [ /bin/a ], comand: [ /bin/b ] }",
    ),
    (
        "containers",
        "NAME: { command: [ /bin/a ], firewall: { allow_tcp: [ 70000 ] } }",
    ),
    ("processes", "NAME: { command: [ /bin/a ], replicas: many }"),
    ("processes", "NAME: { command: [ /bin/a ], replicas: -1 }"),
    (
        "processes",
        "NAME: { command: [ /bin/a ], stop_grace_period: soon }",
    ),
    (
        "processes",
        "NAME: { command: [ /bin/a ], stop_signal: SIGWHAT }",
    ),
    (
        "processes",
        "NAME: { command: [ /bin/a ], restart: { policy: sometimes } }",
    ),
    (
        "processes",
        "NAME: { command: [ /bin/a ], depends_on: [ containers/nobody ] }",
    ),
    (
        "processes",
        "NAME: { command: [ /bin/a ], depends_on: [ zebra/a ] }",
    ),
    (
        "processes",
        "NAME: { command: [ /bin/a ], ready: { check: nothing } }",
    ),
    (
        "processes",
        "NAME: { command: [ /bin/a ], command: [ /bin/b ] }",
    ),
    ("services", "NAME: { target: containers/nobody, port: 1 }"),
    (
        "services",
        "NAME: { target: processes/idle-processes, port: 65536 }",
    ),
    ("services", "NAME: { target: processes/idle-processes }"),
    (
        "services",
        "NAME: { target: processes/idle-processes, port: 1, checks: [ nothing ] }",
    ),
    ("checks", "NAME: {}"),
    ("checks", "NAME: { tcp: \"a:1\", interval: fast }"),
    ("checks", "NAME: { tcp: \"a:1\", http: \"http://a/\" }"),
    ("templates", "NAME: { destination: /etc/NAME }"),
    (
        "templates",
        "NAME: { source: ./a, destination: /etc/NAME, reload: { process: nobody } }",
    ),
    (
        "templates",
        "NAME: { source: ./a, destination: /etc/NAME, mode: rw }",
    ),
];

/// The spec with these faults, and the lines on which they stand, counted from 1.
fn planted(stack: &Stack, faults: &[(Index, Index)]) -> (String, BTreeMap<usize, &'static str>) {
    let mut lines: Vec<(&str, String, Option<&'static str>)> = stack
        .lines(&straight())
        .into_iter()
        .map(|(section, line)| (section, line, None))
        .collect();
    for (number, (which, place)) in faults.iter().enumerate() {
        let (section, fault) = FAULTS[which.index(FAULTS.len())];
        let places: Vec<usize> = (0..lines.len())
            .filter(|at| lines[*at].0 == section)
            .collect();
        let line = format!("  {}", fault.replace("NAME", &format!("wrong{number}")));
        let at = places[place.index(places.len())];
        lines.insert(at, (section, line, Some(fault)));
    }
    let text: String = lines
        .iter()
        .map(|(_, line, _)| format!("{line}\n"))
        .collect();
    let numbered = lines.iter().enumerate();
    let marks = numbered.filter_map(|(at, (_, _, fault))| Some((at + 1, (*fault)?)));
    (text, marks.collect())
}

#[test]
fn each_fault_alone_is_an_error() {
    let stack = Stack {
        entries: Vec::new(),
        template_at: 0,
    };
    for (section, fault) in FAULTS {
        let mut text = String::new();
        for (of, line) in stack.lines(&[]) {
            if of == *section && !text.contains("wrong") {
                text.push_str(&format!("  {}\n", fault.replace("NAME", "wrong")));
            }
            text.push_str(&line);
            text.push('\n');
        }
        assert!(read(&text).is_err(), "`{fault}` is taken:\n{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_planted_error_is_reported_at_its_line(
        stack in stacks(),
        faults in prop::collection::vec((any::<Index>(), any::<Index>()), 1..6),
    ) {
        let (text, planted) = planted(&stack, &faults);
        let Err(errors) = read(&text) else {
            return Err(TestCaseError::fail(format!("taken:\n{text}")));
        };
        let told: BTreeSet<usize> = errors
            .iter()
            .map(|error| error.span.as_ref().map_or(0, |span| position(&text, span.start).0))
            .collect();
        for (line, fault) in &planted {
            prop_assert!(told.contains(line), "`{}` on line {} is not told:\n{}\n{:#?}", fault, line, text, errors);
        }
        prop_assert!(told.iter().all(|line| planted.contains_key(line)), "{}\n{:#?}", text, errors);
    }
}
