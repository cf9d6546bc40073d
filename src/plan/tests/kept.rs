//! Where nothing is pruned, what left the spec runs on with all that it needs.

use super::*;
use crate::plan::KEPT;

/// A farm of two of which the second has left.
fn one_left() -> World {
    let mut world = World::new(farm(2, "python3"));
    world.converge();
    world.desired = farm(1, "python3");
    world.memory.keeps = true;
    world
}

fn second() -> NodeId {
    NodeId::new(Kind::Containers, "prime2")
}

#[test]
fn it_runs_on_and_is_found() {
    let mut world = one_left();
    let lives = world.lives();
    let plan = world.plan();
    let reasons: Vec<&str> = plan.items.iter().map(|item| item.reason.as_str()).collect();
    assert_eq!(reasons, ["hosts changed"], "the one that stays hears of it");
    let status = plan.nodes.iter().find(|status| status.node == second());
    assert_eq!(status.unwrap().detail, KEPT);
    world.converge();
    assert_eq!(world.lives(), lives);
    let registered = &world.observed.registered;
    assert!(registered.contains_key("t-prime-prime2"), "{registered:?}");
}

#[test]
fn its_remains_go_when_it_ends() {
    let mut world = one_left();
    world.exit(&second(), Exit::Code(1));
    world.converge();
    assert!(!world.lives().contains_key("containers/prime2"));
    assert!(!world.observed.registered.contains_key("t-prime-prime2"));
    let attachments = &world.observed.network.attachments;
    assert!(!attachments.contains_key("hatchery-t-prime2"));
}

#[test]
fn all_of_it_stays_where_all_of_it_left_and_goes_with_the_stack() {
    let mut world = World::new(farm(2, "python3"));
    world.converge();
    let lives = world.lives();
    let rendered = world.observed.files.clone();
    let all = world.desired.clone();
    world
        .desired
        .nodes
        .retain(|id, _| *id == NodeId::registry());
    world.desired.needs.clear();
    world.memory.keeps = true;
    assert!(world.plan().is_empty(), "{:#?}", world.plan().items);
    world.converge();
    assert_eq!(world.lives(), lives);
    assert_eq!(world.observed.files, rendered);
    assert_eq!(world.observed.network.bridges.len(), 1);

    // It is taken back as it is.
    world.desired = all;
    assert!(world.plan().is_empty(), "{:#?}", world.plan().items);

    world.memory.down = Some(Down { kill: false });
    world.converge();
    assert!(world.lives().is_empty());
    assert!(world.observed.network.bridges.is_empty());
}
