#![allow(clippy::unwrap_used)]

use anstream::adapter::strip_str;

use super::*;
use crate::spec::model::Status;

fn node(name: &str, state: NodeState, detail: &str) -> NodeStatus {
    NodeStatus {
        node: name.parse().unwrap(),
        state,
        detail: detail.to_owned(),
        health: None,
        pid: None,
        leader_pid: None,
        age: None,
        restarts: 0,
        address: None,
        last_exit: None,
    }
}

fn status(nodes: Vec<NodeStatus>) -> StackStatus {
    StackStatus {
        stack: "prime".to_owned(),
        controller_pid: 7,
        version: "1".to_owned(),
        spec: "/srv/prime.yaml".into(),
        generation: 1,
        converged: false,
        spec_error: None,
        registry: None,
        nodes,
        outstanding: Vec::new(),
        ..StackStatus::default()
    }
}

#[test]
fn the_live_view_shows_what_is_not_there_yet() {
    let unwell = NodeStatus {
        health: Some(Status::Critical),
        ..node("services/prime/prime1", NodeState::Running, "")
    };
    let status = status(vec![
        node("registry", NodeState::Running, ""),
        node(
            "templates/upstream",
            NodeState::Waiting,
            "waiting on prime1 to pass",
        ),
        unwell,
        node("containers/prime2", NodeState::Starting, ""),
        node("processes/nginx", NodeState::Failed, "cannot start\nat all"),
    ]);
    insta::assert_snapshot!(strip_str(&view(&status, "0.4s", 80, 24)), @r"
    stack prime: 1 of 5 nodes ready, 0.4s
      x processes/nginx          failed    cannot start
      > containers/prime2        starting
      > services/prime/prime1    running   its checks do not pass yet
      . templates/upstream       waiting   waiting on prime1 to pass
    ");
}

#[test]
fn the_live_view_fits_the_terminal() {
    let nodes = (1..=50)
        .map(|n| {
            let name = format!("containers/prime{n}");
            node(&name, NodeState::Starting, &"long ".repeat(50))
        })
        .collect();
    let shown = strip_str(&view(&status(nodes), "1.0s", 40, 8)).to_string();
    assert_eq!(shown.lines().count(), 7, "{shown}");
    assert!(
        shown.lines().all(|line| line.chars().count() <= 40),
        "{shown}"
    );
    assert!(shown.contains("… and 45 more"), "{shown}");
}

#[test]
fn a_happening_is_a_line_and_its_further_lines_are_indented() {
    let text = "cannot start\nthe log's end:\u{1b}[2J".to_owned();
    let happening = Happening {
        node: Some("containers/prime1".parse().unwrap()),
        ..Happening::warning(0, text)
    };
    let shown = happening_line(&happening, "12:03:04");
    let shown = strip_str(&shown).to_string();
    let (first, rest) = shown.split_once('\n').unwrap();
    assert!(
        first.ends_with(" containers/prime1        cannot start"),
        "{first}"
    );
    assert_eq!(rest, "         the log's end:\\u{1b}[2J\n");
}
