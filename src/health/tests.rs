#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::graph::desired::{CheckNode, ProbeNode};
use crate::spec::time::Time;

fn check() -> CheckNode {
    CheckNode {
        id: "prime-prime-prime1:answers".to_owned(),
        name: "answers".to_owned(),
        probe: ProbeNode::Tcp("10.50.0.2:8080".to_owned()),
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(3),
        retries: 3,
        start_period: Duration::ZERO,
        start_interval: Duration::from_secs(1),
    }
}

fn answer(status: Status) -> Answer {
    Answer {
        status,
        output: format!("{status:?}"),
    }
}

const START: Time = Time(1_000_000_000_000);

/// Lets the next probe begin when it is due and end at once, and says when that was.
fn step(monitor: &mut Monitor, status: Status) -> (Time, Outcome) {
    let due = monitor.next_due().unwrap();
    assert!(monitor.begin(due));
    (due, monitor.finish(answer(status), due))
}

#[test]
fn starts_critical_and_the_first_pass_flips_it() {
    let mut monitor = Monitor::new(check(), START, 1, First::Started);
    assert_eq!(monitor.status(), Status::Critical);
    assert!(monitor.is_known() && !monitor.passed_once() && !monitor.failing());
    let (_, outcome) = step(&mut monitor, Status::Passing);
    assert_eq!(
        outcome.flip,
        Some(Flip {
            from: Status::Critical,
            to: Status::Passing
        })
    );
    assert!(outcome.first && outcome.tell && monitor.passed_once());
}

#[test]
fn only_retries_failures_in_a_row_make_it_critical() {
    let mut monitor = Monitor::new(check(), START, 1, First::Started);
    step(&mut monitor, Status::Passing);
    for status in [Status::Critical, Status::Critical, Status::Passing] {
        assert_eq!(step(&mut monitor, status).1.flip, None);
    }
    step(&mut monitor, Status::Critical);
    step(&mut monitor, Status::Critical);
    assert_eq!(monitor.status(), Status::Passing);
    let (_, outcome) = step(&mut monitor, Status::Critical);
    assert_eq!(outcome.flip.unwrap().to, Status::Critical);
    assert!(monitor.failing());
    assert_eq!(
        step(&mut monitor, Status::Passing).1.flip.unwrap().to,
        Status::Passing
    );
    assert!(!monitor.failing());
}

#[test]
fn a_warning_counts_at_once_and_is_no_failure() {
    let mut monitor = Monitor::new(check(), START, 1, First::Started);
    let (_, outcome) = step(&mut monitor, Status::Warning);
    assert_eq!(outcome.flip.unwrap().to, Status::Warning);
    assert!(!monitor.passed_once());
    step(&mut monitor, Status::Critical);
    step(&mut monitor, Status::Critical);
    step(&mut monitor, Status::Warning);
    step(&mut monitor, Status::Critical);
    step(&mut monitor, Status::Critical);
    assert_eq!(monitor.status(), Status::Warning);
}

#[test]
fn failures_within_the_start_period_do_not_count() {
    let mut slow = check();
    slow.retries = 1;
    slow.start_period = Duration::from_secs(30);
    let mut monitor = Monitor::new(slow.clone(), START, 1, First::Started);
    loop {
        let (at, _) = step(&mut monitor, Status::Critical);
        if at.since(START) >= slow.start_period {
            break;
        }
        assert_eq!(monitor.status(), Status::Critical);
        assert!(!monitor.failing(), "failing at {:?}", at.since(START));
    }
    assert!(monitor.failing());

    // The period ends with the first pass, as compose has it.
    let mut monitor = Monitor::new(slow, START, 1, First::Started);
    step(&mut monitor, Status::Passing);
    let (_, outcome) = step(&mut monitor, Status::Critical);
    assert_eq!(outcome.flip.unwrap().to, Status::Critical);
}

#[test]
fn before_the_first_pass_it_asks_often_and_never_slower_than_start_interval() {
    let mut monitor = Monitor::new(check(), START, 1, First::Started);
    let (mut before, _) = step(&mut monitor, Status::Critical);
    assert!(before.since(START) <= Duration::from_millis(50));
    let mut probes = 1;
    while before.since(START) < Duration::from_secs(20) {
        let (at, _) = step(&mut monitor, Status::Critical);
        let pause = at.since(before);
        assert!(
            pause <= Duration::from_millis(1100),
            "paused {pause:?} with a start_interval of 1s"
        );
        let late = pause.as_secs_f64() / at.since(START).as_secs_f64();
        assert!(before.since(START) < Duration::from_millis(200) || late < 0.25);
        before = at;
        probes += 1;
    }
    assert!(probes < 60, "{probes} probes in 20s");
}

#[test]
fn slow_probes_of_a_starting_instance_leave_room() {
    let mut monitor = Monitor::new(check(), START, 1, First::Started);
    let due = monitor.next_due().unwrap();
    monitor.begin(due);
    let took = Duration::from_millis(200);
    monitor.finish(answer(Status::Critical), due + took);
    assert!(monitor.next_due().unwrap().since(due) >= Duration::from_millis(360));
}

#[test]
fn a_start_interval_below_the_usual_pause_is_kept() {
    let mut quick = check();
    quick.start_interval = Duration::from_millis(10);
    let mut monitor = Monitor::new(quick, START, 1, First::Started);
    let (at, _) = step(&mut monitor, Status::Critical);
    assert!(at.since(START) <= Duration::from_millis(11));
    let (then, _) = step(&mut monitor, Status::Critical);
    assert!(then.since(at) <= Duration::from_millis(11));
}

#[test]
fn never_two_at_once() {
    let mut monitor = Monitor::new(check(), START, 1, First::Started);
    let due = monitor.next_due().unwrap();
    assert!(monitor.begin(due));
    assert_eq!(monitor.next_due(), None);
    assert!(!monitor.begin(due));
    monitor.finish(answer(Status::Passing), due + Duration::from_secs(9));
    assert_eq!(monitor.next_due(), Some(due + Duration::from_secs(9)));
}

#[test]
fn what_was_adopted_is_unknown_until_it_was_asked() {
    let now = START + Duration::from_secs(3600);
    let mut monitor = Monitor::new(check(), START, 1, First::Adopted);
    assert!(monitor.next_due().unwrap() <= now);
    assert!(!monitor.is_known());
    monitor.begin(now);
    let outcome = monitor.finish(answer(Status::Passing), now);
    assert!(outcome.first && outcome.flip.is_some() && monitor.is_known());
}

#[test]
fn one_failure_does_not_condemn_what_was_adopted() {
    let now = START + Duration::from_secs(3600);
    let mut monitor = Monitor::new(check(), START, 1, First::Adopted);
    monitor.begin(now);
    assert_eq!(
        monitor.finish(answer(Status::Critical), now),
        Outcome::default()
    );
    assert!(!monitor.is_known());
    step(&mut monitor, Status::Critical);
    let (at, outcome) = step(&mut monitor, Status::Critical);
    assert!(outcome.first && outcome.tell && outcome.flip.is_none());
    assert!(monitor.failing() && at.since(now) <= Duration::from_millis(2200));
}

#[test]
fn a_revised_check_keeps_its_status_until_it_has_an_answer() {
    let mut monitor = Monitor::new(check(), START, 1, First::Started);
    let (at, _) = step(&mut monitor, Status::Passing);
    monitor.begin(at);
    let mut other = check();
    other.probe = ProbeNode::Tcp("10.50.0.2:9090".to_owned());
    monitor.revise(other, at);
    assert_eq!(monitor.status(), Status::Passing);
    assert_eq!(monitor.next_due(), Some(at));
}

#[test]
fn a_check_that_others_answer_is_never_due() {
    let mut ttl = check();
    ttl.probe = ProbeNode::Ttl(Duration::from_secs(10));
    let monitor = Monitor::new(ttl, START, 1, First::Started);
    assert_eq!(monitor.next_due(), None);
}

#[test]
fn a_body_with_a_clock_in_it_is_no_news() {
    let mut monitor = Monitor::new(check(), START, 1, First::Started);
    step(&mut monitor, Status::Passing);
    let mut told = 0;
    let mut last = START;
    for turn in 0..60 {
        let due = monitor.next_due().unwrap();
        monitor.begin(due);
        let outcome = monitor.finish(
            Answer {
                status: Status::Passing,
                output: format!("it is {turn}"),
            },
            due,
        );
        told += u32::from(outcome.tell);
        last = due;
    }
    let minutes = last.since(START).as_secs() / 60;
    assert!(
        (1..=minutes).contains(&u64::from(told)),
        "told {told} times in {minutes} minutes"
    );

    let outcome = step(&mut monitor, Status::Critical).1;
    assert!(
        !outcome.tell,
        "a failure that does not count yet is no news"
    );
    step(&mut monitor, Status::Critical);
    step(&mut monitor, Status::Critical);
    let due = monitor.next_due().unwrap();
    monitor.begin(due);
    let refused = Answer {
        status: Status::Critical,
        output: "connection refused".to_owned(),
    };
    assert!(monitor.finish(refused, due).tell, "another failure is news");
}

#[test]
fn probes_of_equal_checks_spread() {
    let due = |seed| {
        let mut monitor = Monitor::new(check(), START, seed, First::Started);
        step(&mut monitor, Status::Passing);
        monitor.next_due().unwrap()
    };
    let all: std::collections::BTreeSet<_> = (0..32).map(due).collect();
    assert!(all.len() > 28, "{} different moments of 32", all.len());
}

fn statuses() -> impl Strategy<Value = Vec<(Status, u64)>> {
    let status = prop_oneof![
        Just(Status::Passing),
        Just(Status::Warning),
        Just(Status::Critical)
    ];
    prop::collection::vec((status, 0..4_000u64), 1..80)
}

proptest! {
    /// Against the rule said another way: the status is the last answer that was not a failure,
    /// unless the last `retries` answers were all failures that count.
    #[test]
    fn agrees_with_the_rule(
        answers in statuses(),
        retries in 1u32..5,
        period in 0u64..20,
        seed: u64,
    ) {
        let mut rule = check();
        rule.retries = retries;
        rule.start_period = Duration::from_secs(period);
        let mut monitor = Monitor::new(rule.clone(), START, seed, First::Started);
        let mut counted: Vec<Status> = Vec::new();
        let mut last_good = Status::Critical;
        for (status, took) in answers {
            let due = monitor.next_due().unwrap();
            let end = due + Duration::from_millis(took);
            monitor.begin(due);
            let before = monitor.status();
            let outcome = monitor.finish(answer(status), end);
            let starting = last_good == Status::Critical && end.since(START) < rule.start_period;
            if status != Status::Critical {
                last_good = status;
            }
            if status != Status::Critical || !starting {
                counted.push(status);
            }
            let run = counted.iter().rev().take_while(|s| **s == Status::Critical).count();
            let expected = if run >= retries as usize { Status::Critical } else { last_good };
            prop_assert_eq!(monitor.status(), expected);
            prop_assert_eq!(outcome.flip.is_some(), before != expected);

            let next = monitor.next_due().unwrap();
            prop_assert!(next >= end);
            let longest = if last_good == Status::Critical { rule.start_interval } else { rule.interval };
            prop_assert!(next <= (due + longest + longest / 10).max(end));
        }
    }
}
