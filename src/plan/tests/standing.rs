//! How an instance stands: in its group, for those that need it, and in words.

use super::world::each_container;
use super::*;
use crate::plan::memory::LastExit;
use crate::plan::model::{Item, NodeState, NodeStatus, Plan};
use crate::plan::world::{Life, LifeId};
use crate::spec::model::{Condition, FailureAction};

const MILLI: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn prime(number: u32) -> NodeId {
    NodeId::new(Kind::Containers, format!("prime{number}"))
}

pub(super) fn nginx() -> NodeId {
    NodeId::new(Kind::Processes, "nginx")
}

pub(super) fn item<'a>(plan: &'a Plan, node: &NodeId) -> &'a Item {
    let item = plan.items.iter().find(|item| item.node == *node);
    item.unwrap_or_else(|| panic!("{node} has no item: {:#?}", plan.items))
}

fn state<'a>(plan: &'a Plan, node: &NodeId) -> &'a NodeStatus {
    let status = plan.nodes.iter().find(|status| status.node == *node);
    status.unwrap_or_else(|| panic!("{node} has no status"))
}

fn waits(on: &str) -> Gate {
    Gate::Waiting(vec![on.to_owned()])
}

pub(super) fn converged(desired: Desired) -> World {
    let mut world = World::new(desired);
    world.converge();
    world
}

fn life<'w>(world: &'w mut World, node: &NodeId) -> &'w mut Life {
    let mut lives = world.observed.lives.iter_mut().rev();
    lives.find(|life| life.id.node == *node).expect("a life")
}

fn id_of(world: &mut World, node: &NodeId) -> LifeId {
    life(world, node).id.clone()
}

/// A group that is to be replaced.
fn outdated(replicas: u32) -> World {
    let mut world = converged(farm(replicas, "python3"));
    world.edit(farm(replicas, "python4"));
    world
}

/// Leaves at once when it may: gone from the registry, with no connection to wait for.
fn leaves(plan: &Plan, node: &NodeId) -> bool {
    plan.notes.leaving.iter().any(|life| life.node == *node)
}

pub(super) fn check(id: &str) -> CheckNode {
    CheckNode {
        id: id.to_owned(),
        name: "answers".to_owned(),
        probe: ProbeNode::Tcp("0.0.0.0:8080".to_owned()),
        interval: SECOND,
        timeout: SECOND,
        retries: 1,
        start_period: Duration::ZERO,
        start_interval: SECOND,
    }
}

#[test]
fn eight_that_come_first_are_named_and_the_rest_is_counted() {
    for (replicas, more) in [(9, None), (12, Some("3 more of them"))] {
        let plan = outdated(replicas).plan();
        let Gate::Waiting(on) = &item(&plan, &prime(replicas)).gate else {
            panic!("{plan:#?}");
        };
        let named = (1..=8).map(|number| format!("{} to be well", prime(number)));
        let expected: Vec<String> = named.chain(more.map(str::to_owned)).collect();
        assert_eq!(*on, expected);
    }
}

#[test]
fn one_that_is_on_its_way_out_is_away_though_it_serves() {
    type Leave = fn(&mut World, LifeId);
    let ways: [Leave; 2] = [
        |world, id| world.memory.leaving.extend([(id, world.now)]),
        |world, id| world.memory.asked.extend([(id, world.now)]),
    ];
    for way in ways {
        let mut world = outdated(3);
        let id = id_of(&mut world, &prime(3));
        way(&mut world, id);
        let plan = world.plan();
        assert_eq!(
            item(&plan, &prime(1)).gate,
            waits("containers/prime3 to be well")
        );
        // It goes on itself, whoever else is away.
        assert!(item(&plan, &prime(3)).gate != item(&plan, &prime(1)).gate);
        assert!(
            leaves(&plan, &prime(3))
                || matches!(&item(&plan, &prime(3)).gate,
            Gate::Waiting(on) if on[0].starts_with("it to end"))
        );
    }
}

#[test]
fn one_that_does_not_serve_leaves_beside_others() {
    let mut world = outdated(3);
    world.sick.insert("prime3".to_owned());
    world.look();
    let plan = world.plan();
    assert_eq!(
        item(&plan, &prime(1)).gate,
        waits("containers/prime3 to be well"),
        "one is away already"
    );
    assert_eq!(state(&plan, &prime(1)).state, NodeState::Running);
}

#[test]
fn one_that_ended_for_good_is_as_it_should_be() {
    for (exit, due) in [(Exit::Code(0), true), (Exit::Code(1), false)] {
        let mut world = converged(farm(2, "python3"));
        world.exit(&prime(1), exit);
        let mut desired = farm(2, "python3");
        if let Some(Node::Workload(second)) = desired.nodes.get_mut(&prime(2)) {
            second.run.command = vec!["python4".to_owned()];
        }
        world.edit(desired);
        assert_eq!(leaves(&world.plan(), &prime(2)), due, "{exit:?}");
    }
}

/// Instances that are to be ready, and to be well in half a minute.
fn trying(action: FailureAction, command: &str) -> Desired {
    let mut desired = farm(2, command);
    each_container(&mut desired, |node| {
        node.update.failure_action = action;
        node.update.healthy_deadline = 30 * SECOND;
        node.ready = ReadyNode::Check {
            check: check("ready"),
            timeout: 600 * SECOND,
        };
    });
    desired
}

/// One of two is tried by the spec in force and does not get well.
fn tried(action: FailureAction) -> World {
    let mut world = converged(farm(2, "python3"));
    world.edit(trying(action, "python3"));
    let second = id_of(&mut world, &prime(2));
    world.memory.ready = [second].into();
    world.memory.changed = [prime(1), prime(2)].into();
    world
}

#[test]
fn an_instance_is_tried_for_so_long_and_no_longer() {
    let mut world = tried(FailureAction::Rollback);
    let began = world.now;
    let plan = world.plan();
    assert_eq!(plan.notes.trying.iter().collect::<Vec<_>>(), [&prime(1)]);
    assert_eq!(plan.wake, Some(began + 30 * SECOND));
    world.now = began + 30 * SECOND - MILLI;
    let plan = world.plan();
    assert_eq!(plan.wake, Some(began + 30 * SECOND));
    assert_eq!(plan.notes.rollback, None);
    world.now = began + 30 * SECOND;
    let expected =
        "containers/prime1 is not well after 30s: waiting on its readiness check".to_owned();
    assert_eq!(world.plan().notes.rollback, Some(expected));
    // A stack that goes down judges nobody.
    world.memory.down = Some(Down { kill: false });
    assert_eq!(world.plan().notes.rollback, None);
}

#[test]
fn with_continue_one_that_failed_counts_as_well_from_its_deadline_on() {
    let mut world = tried(FailureAction::Continue);
    let began = world.now;
    world.plan();
    // The other is to be replaced.
    let other = trying(FailureAction::Continue, "python4");
    let node = other.nodes[&prime(2)].clone();
    world.desired.nodes.insert(prime(2), node);
    world.now = began + 30 * SECOND - MILLI;
    let plan = world.plan();
    assert_eq!(
        item(&plan, &prime(2)).gate,
        waits("containers/prime1 to be well")
    );
    world.now = began + 30 * SECOND;
    assert!(leaves(&world.plan(), &prime(2)));
}

#[test]
fn what_is_down_is_tried_only_once_it_has_all_that_it_needs() {
    for (dies, needed, trying) in [
        (false, true, false),
        (true, true, true),
        (true, false, false),
    ] {
        let mut world = tried(FailureAction::Rollback);
        each_container(&mut world.desired, |node| node.ready = ReadyNode::Started);
        if !needed {
            world.observed.network.bridges.clear();
        }
        if dies {
            world.exit(&prime(1), Exit::Code(1));
            if !needed {
                world.memory.workloads.clear();
                world.observed.lives.retain(|life| life.id.node != prime(1));
            }
        }
        let plan = world.plan();
        assert_eq!(
            plan.notes.trying.contains(&prime(1)),
            trying,
            "{dies} {needed}"
        );
    }
    // One that may start now, and one that was never there, are tried as well.
    let mut world = tried(FailureAction::Rollback);
    world.observed.lives.retain(|life| life.id.node != prime(1));
    assert!(world.plan().notes.trying.contains(&prime(1)));
    // What the spec is about to replace is judged by what comes.
    let mut world = tried(FailureAction::Rollback);
    world.edit(trying(FailureAction::Rollback, "python4"));
    assert!(world.plan().notes.trying.is_empty());
}

#[test]
fn what_goes_by_its_own_doing_is_tried_all_the_while() {
    // Its main process ended, and something of it is left for a moment.
    let mut world = tried(FailureAction::Rollback);
    let first = id_of(&mut world, &prime(1));
    life(&mut world, &prime(1)).state = LifeState::Ending;
    assert!(world.plan().notes.trying.contains(&prime(1)));
    // Somebody asked for its end.
    let began = world.now;
    world.memory.asked.insert(first.clone(), began);
    assert!(world.plan().notes.trying.is_empty());
    // It is not ready in time: for one that is to be followed by the next, time goes on.
    let mut world = tried(FailureAction::Rollback);
    each_container(&mut world.desired, |node| {
        node.ready = ReadyNode::Check {
            check: check("ready"),
            timeout: SECOND,
        };
    });
    let began = world.now;
    world.memory.seen.insert(first.clone(), began);
    world.now = began + SECOND;
    let plan = world.plan();
    assert!(plan.notes.late.contains(&first));
    assert!(plan.notes.trying.contains(&prime(1)));
    world.memory.late.insert(first.clone());
    world.memory.asked.insert(first, world.now);
    assert!(world.plan().notes.trying.contains(&prime(1)));
    // An operator's stop is no failure.
    world.memory.stopped.insert(prime(1));
    assert!(world.plan().notes.trying.is_empty());
}

#[test]
fn a_life_without_its_namespace_is_replaced() {
    let mut world = converged(farm(1, "python3"));
    world.observed.network.attachments.clear();
    let plan = world.plan();
    let item = item(&plan, &prime(1));
    assert_eq!(item.reason, "its network namespace is gone");
    assert_eq!(item.change, Change::Replace);
}

#[test]
fn a_life_counts_once_its_program_runs() {
    type Break = fn(&mut World, LifeId);
    let ways: [(Break, bool); 3] = [
        (|_, _| {}, true),
        (|world, id| world.memory.starting.extend([id]), false),
        (|world, id| life(world, &id.node).main_pid = 0, false),
    ];
    for (way, started) in ways {
        let mut world = converged(farm(1, "python3"));
        let id = id_of(&mut world, &prime(1));
        way(&mut world, id);
        world.exit(&nginx(), Exit::Code(1));
        let plan = world.plan();
        let status = state(&plan, &prime(1));
        assert_eq!(status.state == NodeState::Running, started);
        let pid = world
            .observed
            .lives
            .iter()
            .any(|life| life.id.node == prime(1) && life.main_pid > 0);
        assert_eq!(status.pid, pid.then_some(1));
        assert_eq!(status.leader_pid, Some(1));
    }
    let mut world = converged(farm(1, "python3"));
    life(&mut world, &prime(1)).leader_pid = 0;
    assert_eq!(state(&world.plan(), &prime(1)).leader_pid, None);
}

#[test]
fn healthy_is_started_and_nothing_of_it_critical() {
    let needing = |condition| {
        let mut desired = farm(1, "python3");
        let need = Need {
            on: prime(1),
            condition,
        };
        desired.needs.insert(nginx(), vec![need]);
        desired
    };
    let starts = |world: &mut World| item(&world.plan(), &nginx()).gate == Gate::Ready;
    for (sick, ready, condition, expected) in [
        (false, true, Condition::Healthy, true),
        (true, true, Condition::Healthy, false),
        (false, false, Condition::Healthy, false),
        (true, true, Condition::Started, true),
        (false, false, Condition::Started, false),
    ] {
        let mut world = converged(needing(condition));
        world.observed.lives.retain(|life| life.id.node != nginx());
        world.memory.workloads.clear();
        if sick {
            world.sick.insert("prime1".to_owned());
        }
        if !ready {
            let id = id_of(&mut world, &prime(1));
            world.memory.starting.insert(id);
        }
        assert_eq!(starts(&mut world), expected, "{sick} {ready} {condition:?}");
    }
}

#[test]
fn one_that_gets_ready_is_looked_at_again_at_its_timeout() {
    let mut world = tried(FailureAction::Pause);
    world.memory.changed.clear();
    let id = id_of(&mut world, &prime(1));
    let since = world.now;
    world.memory.seen.insert(id.clone(), since);
    world.now = since + SECOND;
    let plan = world.plan();
    assert_eq!(plan.wake, Some(since + 600 * SECOND));
    world.memory.ready.insert(id);
    assert_eq!(world.plan().wake, None);
}

#[test]
fn a_restart_delay_ends_at_its_moment() {
    let mut world = converged(farm(1, "python3"));
    world.exit(&prime(1), Exit::Code(1));
    let died = world.now;
    world.now = died + SECOND - MILLI;
    let plan = world.plan();
    assert_eq!(item(&plan, &prime(1)).gate, waits("its restart delay, 1ms"));
    let status = state(&plan, &prime(1));
    assert_eq!(status.state, NodeState::Backoff);
    assert_eq!(
        status.detail,
        "exited 1 999ms ago; waiting on its restart delay, 1ms"
    );
    world.now = died + SECOND;
    assert_eq!(item(&world.plan(), &prime(1)).gate, Gate::Ready);
    // What merely waits for others says no more than that.
    world.observed.network.bridges.clear();
    let plan = world.plan();
    assert_eq!(state(&plan, &prime(1)).detail, "waiting on networks/prime0");
}

#[test]
fn an_incarnation_is_higher_than_any_that_is_remembered() {
    let mut world = converged(farm(1, "python3"));
    world.observed.lives.retain(|life| life.id.node != prime(1));
    let last = LastExit {
        exit: Exit::Code(0),
        at: world.now,
        incarnation: 1 << 60,
        asked: true,
        late: false,
    };
    let memory = world.memory.workloads.entry(prime(1)).or_default();
    memory.incarnation = 1 << 60;
    memory.last_exit = Some(last);
    let plan = world.plan();
    let start = item(&plan, &prime(1))
        .steps
        .iter()
        .find_map(|step| match step {
            Step::Start(start) => Some(start.id.incarnation),
            _ => None,
        });
    assert_eq!(start, Some((1 << 60) + 1));
}

#[test]
fn a_process_that_listens_needs_its_port_to_be_free() {
    for (address, asked) in [
        ("127.0.0.1:80", true),
        ("0.0.0.0:80", true),
        ("192.0.2.1:80", false),
        ("localhost:80", false),
    ] {
        let mut world = converged(farm(1, "python3"));
        world.exit(&nginx(), Exit::Code(1));
        world.now = world.now + 2 * SECOND;
        if let Some(Node::Workload(node)) = world.desired.nodes.get_mut(&nginx()) {
            let check = CheckNode {
                probe: ProbeNode::Tcp(address.to_owned()),
                ..check("ready")
            };
            let timeout = SECOND;
            node.ready = ReadyNode::Check { check, timeout };
        }
        let plan = world.plan();
        let steps = &item(&plan, &nginx()).steps;
        let asks = steps.iter().any(|step| matches!(step, Step::PortFree(_)));
        assert_eq!(asks, asked, "{address}");
    }
}
