//! The planner against a model of the host: what it plans is done, and the world answers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod adoption;
mod applied;
mod corners;
mod crash;
mod edges;
mod effects;
mod explained;
mod farm;
mod found;
mod gone;
mod kept;
mod ports;
mod rehearsed;
mod rolling;
mod schema;
mod seats;
mod shared;
mod standing;
mod texts;
mod waits;
pub(super) mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::memory::{Attempt, Down, Memory};
use super::model::{Change, ErrorKind, Gate, Step};
use super::world::{BridgeView, Exit, FileView, LifeState};
use crate::graph::desired::*;
use crate::spec::node::{Kind, NodeId};

use farm::farm;
use world::{World, put};

#[test]
fn the_first_plan_adds_everything_and_says_what_waits() {
    let mut world = World::new(farm(4, "python3"));
    let plan = world.plan();
    assert_eq!(plan.counts(), (12, 0, 0));
    let nginx = plan
        .items
        .iter()
        .find(|item| item.node.name == "nginx")
        .unwrap();
    assert_eq!(
        nginx.gate,
        Gate::Waiting(vec!["templates/upstream".to_owned()])
    );
    let template = plan
        .items
        .iter()
        .find(|item| item.node.kind == Kind::Templates)
        .unwrap();
    let unknown = template.diff.as_ref().unwrap().unknown.as_deref().unwrap();
    assert_eq!(unknown, "known after an instance of `prime` that passes");
}

#[test]
fn a_farm_converges_in_order_and_then_plans_nothing() {
    let mut world = World::new(farm(4, "python3"));
    world.converge();
    assert!(world.plan().is_empty());
    let at = |what: fn(&Step) -> bool| world.done.iter().position(what).unwrap();
    let nginx = at(|s| matches!(s, Step::Start(start) if start.id.node.name == "nginx"));
    let network = at(|s| matches!(s, Step::CreateNetwork(_)));
    let first = at(|s| matches!(s, Step::Start(_)));
    let validated = at(|s| matches!(s, Step::Validate { .. }));
    let written = at(|s| matches!(s, Step::Write(_)));
    assert!(network < first && first < validated && validated < written && written < nginx);
}

#[test]
fn an_exit_leaves_the_file_first_and_restarts_after_its_delay() {
    let mut world = World::new(farm(4, "python3"));
    world.converge();
    let before = world.lives();
    world.done.clear();
    let node = NodeId::new(Kind::Containers, "prime2");
    world.exit(&node, Exit::Signal(9));
    let died = world.now;
    let plan = world.pass();
    let item = plan.items.iter().find(|item| item.node == node).unwrap();
    assert!(
        item.reason.starts_with("killed by SIGKILL"),
        "{}",
        item.reason
    );
    assert!(matches!(&item.gate, Gate::Waiting(on) if on[0].starts_with("its restart delay")));
    while !world
        .done
        .iter()
        .any(|step| matches!(step, Step::ReloadProcess { .. }))
    {
        world.pass();
    }
    assert!(
        world.now.since(died) < Duration::from_millis(100),
        "the reload waited"
    );
    world.converge();
    assert!(world.now.since(died) >= Duration::from_secs(1));
    let after = world.lives();
    let changed: Vec<_> = before
        .iter()
        .filter(|(node, life)| after[*node] != **life)
        .collect();
    assert_eq!(changed.len(), 1);
}

#[test]
fn scaling_touches_only_the_difference() {
    let mut world = World::new(farm(4, "python3"));
    world.converge();
    let before = world.lives();
    world.edit(farm(6, "python3"));
    world.converge();
    let six = world.lives();
    assert_eq!(six.len(), 7);
    assert!(before.iter().all(|(node, life)| six[node] == *life));
    world.edit(farm(2, "python3"));
    world.converge();
    let two = world.lives();
    assert_eq!(two.len(), 3);
    assert!(two.iter().all(|(node, life)| six[node] == *life));
    // The file forgot them before they were asked to end.
    let told = world
        .done
        .iter()
        .position(|s| matches!(s, Step::ReloadProcess { .. }))
        .unwrap();
    let asked = world
        .done
        .iter()
        .position(|s| matches!(s, Step::Signal { .. }))
        .unwrap();
    assert!(
        told < asked,
        "an instance was stopped while nginx still led to it"
    );
}

#[test]
fn a_changed_command_rolls_one_after_the_other() {
    let mut world = World::new(farm(4, "python3"));
    world.converge();
    world.edit(farm(4, "python4"));
    let mut least = usize::MAX;
    for _ in 0..400 {
        let plan = world.pass();
        let up = world
            .lives()
            .keys()
            .filter(|node| node.starts_with("containers/"))
            .count();
        least = least.min(up);
        if plan.is_empty() {
            break;
        }
    }
    assert!(world.plan().is_empty());
    assert_eq!(least, 3, "more than one instance was away at a time");
    let starts = world
        .done
        .iter()
        .filter(|s| matches!(s, Step::Start(_)))
        .count();
    assert_eq!(starts, 4, "nginx was started again, or an instance twice");
}

#[test]
fn a_refused_text_stays_out_and_the_last_good_file_serves() {
    let mut world = World::new(farm(2, "python3"));
    world.converge();
    let good = world.file().clone();
    world.accepts = false;
    world.exit(&NodeId::new(Kind::Containers, "prime1"), Exit::Code(1));
    let blocked = (0..10).any(|_| {
        world.pass().items.iter().any(
            |item| matches!(&item.gate, Gate::Blocked(why) if why.contains("refuses the new text")),
        )
    });
    assert!(blocked, "the refusal is not in the plan");
    assert_eq!(*world.file(), good);
}

#[test]
fn an_empty_list_keeps_the_last_good_file() {
    let mut world = World::new(farm(2, "python3"));
    world.converge();
    let good = world.file().clone();
    world.sick = ["prime1".to_owned(), "prime2".to_owned()].into();
    let plan = world.pass();
    assert!(
        plan.items
            .iter()
            .all(|item| item.node.kind != Kind::Templates)
    );
    assert_eq!(*world.file(), good);
}

#[test]
fn a_foreign_file_and_a_foreign_bridge_stop_their_node_alone() {
    let mut world = World::new(farm(1, "python3"));
    put(
        &mut world.observed,
        std::path::Path::new("/etc/upstream.conf"),
        "mine",
        None,
    );
    for _ in 0..50 {
        world.pass();
    }
    let plan = world.plan();
    let template = plan
        .items
        .iter()
        .find(|item| item.node.kind == Kind::Templates)
        .unwrap();
    assert!(matches!(&template.gate, Gate::Blocked(why) if why.contains("not written by")));
    assert!(world.lives().contains_key("containers/prime1"));
    assert!(
        world
            .done
            .iter()
            .all(|step| !matches!(step, Step::Write(_)))
    );

    let mut world = World::new(farm(1, "python3"));
    world.observed.network.bridges.insert(
        "prime0".to_owned(),
        BridgeView {
            ours: false,
            up: true,
            addresses: Vec::new(),
            holder: "docker".to_owned(),
        },
    );
    let plan = world.pass();
    let network = plan
        .items
        .iter()
        .find(|item| item.node.kind == Kind::Networks)
        .unwrap();
    assert!(matches!(&network.gate, Gate::Blocked(why) if why.contains("docker")));
}

#[test]
fn down_goes_in_reverse_and_leaves_nothing() {
    let mut world = World::new(farm(3, "python3"));
    world.converge();
    world.done.clear();
    world.memory.down = Some(Down { kill: false });
    world.converge();
    assert!(world.observed.lives.is_empty());
    assert!(world.observed.network.attachments.is_empty());
    assert!(world.observed.network.bridges.is_empty());
    assert_eq!(*world.file(), FileView::Missing);
    let signals: Vec<&str> = world
        .done
        .iter()
        .filter_map(|step| match step {
            Step::Signal { life, .. } => Some(life.node.name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(signals[0], "nginx");
    assert_eq!(signals.len(), 4);
}

#[test]
fn what_failed_waits_for_its_next_try_and_holds_nothing_else() {
    let mut world = World::new(farm(2, "python3"));
    let node = NodeId::new(Kind::Containers, "prime1");
    world.memory.attempts.insert(
        node.clone(),
        Attempt {
            running: false,
            attaches: None,
            life: None,
            failures: 3,
            error: Some((ErrorKind::Failed, "cannot start it".to_owned())),
            retry_at: world.now + Duration::from_secs(3600),
        },
    );
    for _ in 0..60 {
        let before = world.now;
        world.pass();
        if world.now.since(before) > Duration::from_secs(60) {
            world.now = before + Duration::from_millis(1);
        }
    }
    assert!(
        world.lives().contains_key("processes/nginx"),
        "an independent branch was held up"
    );
    assert!(!world.lives().contains_key("containers/prime1"));
    let plan = world.plan();
    assert_eq!(plan.items.len(), 2, "{:#?}", plan.items);
    assert!(plan.items.iter().all(|item| item.change == Change::Add));
}

#[test]
fn down_goes_through_when_an_earlier_spec_had_the_order_reversed() {
    let mut world = World::new(farm(1, "python3"));
    world.converge();
    let nginx = NodeId::new(Kind::Processes, "nginx");
    let prime = NodeId::new(Kind::Containers, "prime1");
    world.memory.past_needs.insert(prime, [nginx].into());
    world.memory.down = Some(Down { kill: false });
    world.converge();
    assert!(world.observed.lives.is_empty());
}

#[test]
fn a_file_of_somebody_else_with_our_very_text_is_taken_over() {
    let mut world = World::new(farm(1, "python3"));
    put(
        &mut world.observed,
        std::path::Path::new("/etc/upstream.conf"),
        "server addr-prime1:8080;\n",
        None,
    );
    world.converge();
    assert!(matches!(world.file(), FileView::File { mark: Some(_), .. }));
}

#[test]
fn a_group_that_is_restarted_leaves_one_after_the_other() {
    let mut world = World::new(farm(4, "python3"));
    world.converge();
    let lives: Vec<_> = world
        .observed
        .lives
        .iter()
        .map(|life| life.id.clone())
        .collect();
    let group = lives
        .into_iter()
        .filter(|life| life.node.kind == Kind::Containers);
    world.memory.restart = group.collect();
    let mut least = usize::MAX;
    for _ in 0..400 {
        let plan = world.pass();
        let up = world.lives();
        least = least.min(
            up.keys()
                .filter(|node| node.starts_with("containers/"))
                .count(),
        );
        let there: BTreeSet<_> = world
            .observed
            .lives
            .iter()
            .map(|life| life.id.clone())
            .collect();
        world.memory.restart.retain(|life| there.contains(life));
        if plan.is_empty() {
            break;
        }
    }
    assert!(world.plan().is_empty());
    assert_eq!(least, 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever edits and deaths come, in the end nothing is outstanding, every wanted
    /// workload has one life, and nothing else has any.
    #[test]
    fn any_history_ends_in_the_empty_plan(
        history in proptest::collection::vec((0u8..4, 1u32..6, 0usize..5), 1..12)
    ) {
        let mut world = World::new(farm(3, "v0"));
        let mut version = 0;
        for (what, number, passes) in history {
            match what {
                0 => world.edit(farm(number, &format!("v{version}"))),
                1 => {
                    version += 1;
                    let replicas = world.desired.nodes.keys()
                        .filter(|id| id.kind == Kind::Containers).count();
                    world.edit(farm(u32::try_from(replicas).unwrap(), &format!("v{version}")));
                }
                2 => {
                    let node = NodeId::new(Kind::Containers, format!("prime{number}"));
                    let up = world.lives().contains_key(&node.to_string());
                    if up {
                        world.exit(&node, Exit::Code(1));
                    }
                }
                _ => world.memory = Memory { unchecked: BTreeSet::new(), ..Memory::default() },
            }
            for _ in 0..passes {
                world.pass();
            }
        }
        world.converge();
        let wanted: BTreeSet<String> = world.desired.nodes.iter()
            .filter(|(_, node)| matches!(node, Node::Workload(_)))
            .map(|(id, _)| id.to_string())
            .collect();
        let lives: BTreeSet<String> = world.lives().keys().cloned().collect();
        prop_assert_eq!(wanted, lives);
        prop_assert!(world.observed.lives.iter().all(|life| life.state == LifeState::Up));
    }
}
