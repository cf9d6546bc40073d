#![allow(clippy::unwrap_used)]

use std::time::Duration;

use anstream::adapter::strip_str;

use super::*;
use crate::graph::identity::Identity;
use crate::plan::world::{Exit, LifeId};
use crate::spec::time::Time;

pub fn node(name: &str, state: NodeState) -> NodeStatus {
    NodeStatus {
        node: name.parse().unwrap(),
        state,
        detail: String::new(),
        health: None,
        pid: None,
        leader_pid: None,
        age: None,
        restarts: 0,
        address: None,
        last_exit: None,
    }
}

fn status() -> StackStatus {
    let prime = NodeStatus {
        health: Some(Status::Passing),
        pid: Some(4711),
        age: Some(Duration::from_secs(3725)),
        restarts: 2,
        address: Some("10.50.0.2".to_owned()),
        last_exit: Some("killed by SIGKILL".to_owned()),
        ..node("containers/prime1", NodeState::Running)
    };
    let nginx = NodeStatus {
        detail: "cannot start `nginx`:\n  port 80 is held by apache2 (pid 7)".to_owned(),
        ..node("processes/nginx", NodeState::Failed)
    };
    StackStatus {
        stack: "prime".to_owned(),
        controller_pid: 7,
        version: "1".to_owned(),
        spec: "/srv/prime.yaml".into(),
        generation: 3,
        converged: false,
        spec_error: None,
        registry: Some("127.0.0.1:8500".to_owned()),
        nodes: vec![node("registry", NodeState::Running), prime, nginx],
        outstanding: Vec::new(),
        ..StackStatus::default()
    }
}

#[test]
fn a_stack_reads_as_a_table() {
    insta::assert_snapshot!(strip_str(&text(&status())), @r"
    stack prime, generation 3, not converged
    spec /srv/prime.yaml
    registry http://127.0.0.1:8500

    NAME               STATE    HEALTH   AGE    RESTARTS  PID   ADDRESS    DETAIL
    registry           running  -        -      -         -     -
    containers/prime1  running  passing  1h02m  2         4711  10.50.0.2  last killed by SIGKILL
    processes/nginx    failed   -        -      -         -     -          cannot start `nginx`: port 80 is held by apache2 (pid 7)
    ");
}

#[test]
fn a_refused_edit_is_named() {
    let status = StackStatus {
        spec_error: Some("error: unknown field `replica`\n  --> /srv/prime.yaml:3:5\n".to_owned()),
        nodes: Vec::new(),
        converged: true,
        registry: None,
        ..status()
    };
    insta::assert_snapshot!(strip_str(&text(&status)), @r"
    stack prime, generation 3, converged
    spec /srv/prime.yaml
    the spec's last edit is not in force:
      error: unknown field `replica`
        --> /srv/prime.yaml:3:5

    NAME  STATE  HEALTH  AGE  RESTARTS  PID  ADDRESS  DETAIL
    ");
}

#[test]
fn without_a_controller_the_kernel_is_shown() {
    let life = |name: &str, state, main_pid| Life {
        commit: None,
        id: LifeId {
            node: name.parse().unwrap(),
            incarnation: 1,
        },
        identity: Identity::default(),
        started: Time(0),
        state,
        main_pid,
        leader_pid: main_pid,
        notified: false,
        applied: Default::default(),
        cgroup: "/".into(),
        farewell: None,
        asked: false,
        late: false,
    };
    let ended = LifeState::Ended {
        exit: Exit::Code(3),
        at: Time(0),
    };
    let lives = [
        life("containers/prime1", LifeState::Up, 11),
        life("processes/nginx", ended, 0),
    ];
    let shown = orphans("prime", &lives, |_| "2m05s".to_owned());
    insta::assert_snapshot!(strip_str(&shown), @r"
    no controller runs for stack `prime`; the kernel shows:

    NAME               STATE    AGE    PID  DETAIL
    containers/prime1  running  2m05s  11
    processes/nginx    ended    2m05s  -    exited 3
    ");
    insta::assert_snapshot!(orphans("prime", &[], |_| String::new()), @r"no controller runs for stack `prime`, and nothing of it runs");
}

#[test]
fn what_a_workload_that_failed_wrote_last_is_quoted() {
    let quoted = failed(&status(), |node| {
        assert_eq!(node.node.name, "nginx");
        vec!["bind() failed".to_owned(), "giving up".to_owned()]
    });
    insta::assert_snapshot!(strip_str(quoted.trim()), @r"
    processes/nginx wrote last:
      | bind() failed
      | giving up
    ");
    assert_eq!(failed(&status(), |_| Vec::new()), "");
}

#[test]
fn an_applied_plan_that_is_in_force_is_told() {
    let restricted = StackStatus {
        withheld: Some(2),
        ..status()
    };
    let shown = strip_str(&text(&restricted)).to_string();
    insta::assert_snapshot!(shown.lines().nth(3).unwrap(), @"only the applied plan is carried out, until the next spec is taken; 2 outstanding beside it");
}
