//! Failures that come too often: in a row, and within a window.

use std::time::Duration;

use super::farm::{farm, restart};
use super::world::World;
use crate::graph::desired::Node;
use crate::plan::memory::{LastExit, WorkloadMemory};
use crate::plan::model::{Gate, NodeState};
use crate::plan::world::Exit;
use crate::spec::model::Restart;
use crate::spec::node::{Kind, NodeId};
use crate::spec::time::Time;

fn nginx() -> NodeId {
    NodeId::new(Kind::Processes, "nginx")
}

fn world(restart: &Restart) -> World {
    let mut world = World::new(farm(1, "python3"));
    if let Some(Node::Workload(node)) = world.desired.nodes.get_mut(&nginx()) {
        node.restart = restart.clone();
    }
    world.converge();
    world
}

/// Lets nginx run for so long, then fail.
fn fail_after(world: &mut World, ran: Duration) {
    world.converge();
    world.now = world.now + ran;
    world.exit(&nginx(), Exit::Code(1));
}

fn given_up(world: &mut World) -> Option<String> {
    let plan = world.plan();
    let status = plan.nodes.iter().find(|s| s.node == nginx()).unwrap();
    let item = plan.items.iter().find(|item| item.node == nginx())?;
    match &item.gate {
        Gate::Blocked(why) if status.state == NodeState::Failed => Some(why.clone()),
        _ => None,
    }
}

#[test]
fn failures_in_a_row_are_forgotten_after_a_long_life() {
    let mut world = world(&Restart {
        max_attempts: Some(2),
        ..restart()
    });
    for _ in 0..4 {
        fail_after(&mut world, Duration::from_secs(20));
        assert_eq!(given_up(&mut world), None);
    }
    fail_after(&mut world, Duration::ZERO);
    assert_eq!(given_up(&mut world), None);
    fail_after(&mut world, Duration::ZERO);
    let why = given_up(&mut world).unwrap();
    assert!(why.ends_with("gave up after 3 failures in a row"), "{why}");
}

#[test]
fn within_a_window_they_count_in_a_row_or_not() {
    let restart = Restart {
        max_attempts: Some(2),
        window: Some(Duration::from_secs(300)),
        ..restart()
    };
    let mut world = world(&restart);
    fail_after(&mut world, Duration::from_secs(20));
    fail_after(&mut world, Duration::from_secs(20));
    assert_eq!(given_up(&mut world), None);
    fail_after(&mut world, Duration::from_secs(20));
    let why = given_up(&mut world).unwrap();
    assert!(
        why.ends_with("gave up after 3 failures within 5m00s"),
        "{why}"
    );
    // Waiting alone mends nothing.
    world.now = world.now + Duration::from_secs(3600);
    assert!(given_up(&mut world).is_some());

    // Another spec, or an operator's word, does.
    let failed = world.memory.clone();
    world.memory.begin_generation();
    assert_eq!(given_up(&mut world), None);
    world.converge();
    world.memory = failed;
    world
        .memory
        .workloads
        .get_mut(&nginx())
        .unwrap()
        .forget_failures();
    assert_eq!(given_up(&mut world), None);
}

#[test]
fn failures_that_are_far_apart_do_not_add_up() {
    let mut world = world(&Restart {
        max_attempts: Some(2),
        window: Some(Duration::from_secs(60)),
        ..restart()
    });
    for _ in 0..8 {
        fail_after(&mut world, Duration::from_secs(50));
        assert_eq!(given_up(&mut world), None);
    }
}

#[test]
fn no_more_failures_are_kept_than_count() {
    let restart = Restart {
        max_attempts: Some(3),
        window: Some(Duration::from_secs(3600)),
        ..restart()
    };
    let mut memory = WorkloadMemory::default();
    let note = |memory: &mut WorkloadMemory, incarnation: u64, asked: bool| {
        let last = LastExit {
            exit: Exit::Code(1),
            at: Time(incarnation * 1_000_000_000),
            incarnation,
            asked,
            late: false,
        };
        memory.note_exit(last, None, Some(&restart));
    };
    for incarnation in 1..=10 {
        note(&mut memory, incarnation, false);
        // Seen again, it is the same one.
        note(&mut memory, incarnation, false);
    }
    assert_eq!(memory.failures, 10);
    let seconds: Vec<u64> = memory
        .failed_at
        .iter()
        .map(|at| at.0 / 1_000_000_000)
        .collect();
    assert_eq!(seconds, [7, 8, 9, 10]);
    note(&mut memory, 11, true);
    assert_eq!((memory.failures, memory.failed_at.len()), (0, 0));
}
