//! What the next controller makes of lives that ended under another.

use super::*;
use crate::plan::model::NodeState;
use crate::plan::world::Exit;

/// How `job` stands in the eyes of a controller that finds it ended so, and whether it is run again
/// at once.
fn found(asked: bool, late: bool) -> (NodeState, bool) {
    let played = Played::default();
    let newest = spec("a", "good");
    let mut before = played.begin(newest.clone(), |_| {});
    before.settle();
    drop(before);
    {
        let mut scene = played.scene();
        let (exit, at) = (Exit::Code(0), scene.now);
        let life = scene.lives.first_mut().unwrap();
        (life.asked, life.late) = (asked, late);
        life.state = LifeState::Ended { exit, at };
    }
    let mut controlled = played.begin(newest, |_| {});
    controlled.pass();
    let status = controlled.status();
    let mut nodes = status.nodes.iter();
    let state = nodes.find(|node| node.node.name == "job").unwrap().state;
    let scene = played.scene();
    let runs = scene.lives.iter().any(|life| life.state == LifeState::Up);
    (state, runs)
}

#[test]
fn one_that_was_late_failed_though_it_was_asked_to_end() {
    let (_, runs) = found(true, false);
    assert!(runs, "what was asked to end is no failure");
    assert_eq!(found(true, true), (NodeState::Backoff, false));
    assert_eq!(found(false, false), (NodeState::Completed, false));
}
