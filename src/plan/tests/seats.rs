//! An instance that has two seats: who sits, who joins, who goes.

use super::standing::check;
use super::world::{each_container, seated};
use super::*;
use crate::plan::model::{Item, NodeState, NodeStatus, Plan};
use crate::plan::world::{Life, LifeId};
use crate::spec::model::Condition;
use crate::spec::time::Time;

const SECOND: Duration = Duration::from_secs(1);

fn prime(number: u32) -> NodeId {
    NodeId::new(Kind::Containers, format!("prime{number}"))
}

fn second(number: u32) -> NodeId {
    NodeId::new(Kind::Containers, format!("prime{number}.b"))
}

fn nginx() -> NodeId {
    NodeId::new(Kind::Processes, "nginx")
}

fn item<'a>(plan: &'a Plan, node: &NodeId) -> &'a Item {
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

fn converged(desired: Desired) -> World {
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

/// Leaves at once when it may: gone from the registry, with no connection to wait for.
fn leaves(plan: &Plan, node: &NodeId) -> bool {
    plan.notes.leaving.iter().any(|life| life.node == *node)
}

/// A pair of which both seats run and serve.
fn both(command: &str, other: &str) -> World {
    let mut world = converged(seated(1, command));
    world.edit(seated(1, other));
    while !world.lives().contains_key("containers/prime1.b") {
        world.pass();
    }
    world
}

#[test]
fn of_two_seats_that_are_equally_right_the_younger_goes_unless_the_other_does_not_serve() {
    for (sick, goes) in [
        (None, second(1)),
        (Some("prime1"), prime(1)),
        (Some("prime1.b"), second(1)),
    ] {
        let mut world = both("python3", "python4");
        // Both are registered, and are what the spec wants.
        world.sick.insert("prime1.b".to_owned());
        (0..5).for_each(|_| drop(world.pass()));
        let mut right = converged(seated(1, "python4"));
        let identity = life(&mut right, &prime(1)).identity.clone();
        life(&mut world, &prime(1)).identity = identity;
        world.sick.clear();
        world.sick.extend(sick.map(str::to_owned));
        world.look();
        let plan = world.plan();
        for seat in [prime(1), second(1)] {
            assert_eq!(leaves(&plan, &seat), seat == goes, "{sick:?} {seat}");
        }
        assert_eq!(item(&plan, &goes).reason, "a second life of it runs");
    }
}

#[test]
fn the_old_seat_stays_until_the_new_one_is_well() {
    let mut world = both("python3", "python4");
    each_container(&mut world.desired, |node| {
        node.min_healthy_time = 5 * SECOND
    });
    // The newcomer is registered, and has to be well for a while.
    for _ in 0..3 {
        world.pass();
    }
    let well = world
        .memory
        .well
        .iter()
        .find(|(life, _)| life.node == second(1));
    let (_, since) = well.expect("the newcomer is well");
    let until = *since + 5 * SECOND;
    let old = id_of(&mut world, &prime(1));
    world.memory.well.insert(old, Time(0));
    let plan = world.plan();
    assert_eq!(
        item(&plan, &prime(1)).gate,
        waits("containers/prime1.b to be well")
    );
    assert_eq!(plan.wake, Some(until));
    assert_eq!(state(&plan, &prime(1)).state, NodeState::Running);
    world.now = until;
    assert!(leaves(&world.plan(), &prime(1)));
}

#[test]
fn a_newcomer_that_is_not_ready_in_time_fails_while_it_leaves_as_well() {
    let mut world = both("python3", "python4");
    each_container(&mut world.desired, |node| {
        node.ready = ReadyNode::Check {
            check: check("ready"),
            timeout: SECOND,
        };
    });
    let (old, new) = (id_of(&mut world, &prime(1)), id_of(&mut world, &second(1)));
    world.memory.ready = [old].into();
    world.memory.seen.insert(new.clone(), world.now);
    world.now = world.now + SECOND;
    assert!(world.plan().notes.late.contains(&new));
    // It leaves the registry and the proxies first, and is to count as late until it is asked.
    world.memory.leaving.insert(new.clone(), world.now);
    let plan = world.plan();
    assert!(plan.notes.late.contains(&new));
    assert_eq!(item(&plan, &second(1)).reason, "not ready after 1s");
    // One that was asked to end for something else is not late for that.
    world.memory.late.clear();
    world.memory.asked.insert(new.clone(), world.now);
    assert!(!world.plan().notes.late.contains(&new));
}

#[test]
fn a_seat_that_was_asked_or_is_leaving_goes_on_doing_so() {
    type Leave = fn(&mut World, LifeId);
    let ways: [Leave; 2] = [
        |world, id| world.memory.leaving.extend([(id, world.now)]),
        |world, id| world.memory.asked.extend([(id, world.now)]),
    ];
    for way in ways {
        let mut world = both("python3", "python4");
        // Back again: the old one is right, and was begun to be taken away.
        world.edit(seated(1, "python3"));
        let id = id_of(&mut world, &prime(1));
        way(&mut world, id);
        let plan = world.plan();
        assert_eq!(item(&plan, &prime(1)).change, Change::Replace);
        assert_eq!(item(&plan, &prime(1)).reason, "it was replaced");
        assert!(!leaves(&plan, &second(1)), "the other one stays");
    }
}

#[test]
fn a_seat_of_which_only_leftovers_are_there_is_cleared_first() {
    let leftovers = waits("its other processes, at most 500ms");
    // Alone, and to be replaced: nobody joins before it is gone.
    let mut world = converged(seated(1, "python3"));
    world.edit(seated(1, "python4"));
    life(&mut world, &prime(1)).state = LifeState::Ending;
    let plan = world.plan();
    assert_eq!(item(&plan, &prime(1)).gate, leftovers);
    assert!(plan.items.iter().all(|item| item.node != second(1)));
    // Beside another, whichever of them is right.
    for command in ["python3", "python4"] {
        let mut world = both("python3", "python4");
        world.edit(seated(1, command));
        life(&mut world, &prime(1)).state = LifeState::Ending;
        let plan = world.plan();
        assert_eq!(item(&plan, &prime(1)).gate, leftovers, "{command}");
    }
}

#[test]
fn a_seat_that_is_outdated_and_stopped_says_why_it_goes() {
    let mut world = both("python3", "python4");
    world.memory.stopped = [prime(1), second(1)].into();
    let plan = world.plan();
    assert_eq!(item(&plan, &prime(1)).reason, "command changed");
    assert_eq!(item(&plan, &second(1)).reason, "stopped by an operator");
}

#[test]
fn of_two_empty_seats_the_one_that_ran_last_is_taken() {
    let spare = |world: &World| {
        let context = crate::plan::context::Context::new(
            &world.desired,
            &world.observed,
            &world.memory,
            world.now,
        );
        [prime(1), second(1)].map(|seat| context.is_spare(&seat))
    };
    let mut world = World::new(seated(1, "python3"));
    assert_eq!(spare(&world), [false, true]);
    let memory = world.memory.workloads.entry(second(1)).or_default();
    memory.incarnation = 7;
    assert_eq!(spare(&world), [true, false]);
}

#[test]
fn a_stopped_pair_ends_in_both_seats_and_nothing_joins() {
    let mut world = both("python3", "python4");
    world.memory.stopped = [prime(1), second(1)].into();
    for _ in 0..50 {
        world.pass();
    }
    assert!(world.lives().keys().all(|node| !node.contains("prime")));
    assert!(
        world
            .plan()
            .items
            .iter()
            .all(|item| item.node.kind != Kind::Containers)
    );
}

#[test]
fn a_stopped_seat_brings_no_newcomer() {
    let mut world = converged(seated(1, "python3"));
    world.memory.stopped = [prime(1), second(1)].into();
    let id = id_of(&mut world, &prime(1));
    world.memory.asked.insert(id, world.now);
    let plan = world.plan();
    assert!(plan.items.iter().all(|item| item.node != second(1)));
}

#[test]
fn a_newcomer_waits_for_its_turn_and_for_what_it_needs() {
    let mut world = converged(seated(2, "python3"));
    world.edit(seated(2, "python4"));
    let plan = world.plan();
    assert_eq!(item(&plan, &second(1)).gate, Gate::Ready);
    let turn = "containers/prime1 to be well".to_owned();
    assert_eq!(
        item(&plan, &second(2)).gate,
        Gate::Waiting(vec![turn.clone()])
    );
    assert!(item(&plan, &second(2)).steps.is_empty());
    assert_eq!(
        state(&plan, &second(2)).detail,
        format!("waiting on {turn}")
    );
    world.observed.network.bridges.clear();
    let plan = world.plan();
    let both = Gate::Waiting(vec![turn, "networks/prime0".to_owned()]);
    assert_eq!(item(&plan, &second(2)).gate, both);
    assert_eq!(item(&plan, &second(1)).gate, waits("networks/prime0"));
}

#[test]
fn an_endpoint_waits_for_its_own_seat_and_others_for_either() {
    let mut world = converged(seated(1, "python3"));
    world.edit(seated(1, "python4"));
    world.observed.lives.retain(|life| life.id.node != nginx());
    world.memory.workloads.remove(&nginx());
    let need = Need {
        on: prime(1),
        condition: Condition::Started,
    };
    world.desired.needs.insert(nginx(), vec![need.clone()]);
    // Only the second seat runs.
    let mut moved = life(&mut world, &prime(1)).clone();
    moved.id.node = second(1);
    world.observed.lives = vec![moved];
    world.observed.registered.clear();
    let plan = world.plan();
    assert_eq!(item(&plan, &nginx()).gate, Gate::Ready);
    // An endpoint that leads elsewhere is no different.
    let elsewhere = NodeId::endpoint("other", "nginx");
    let mut own = match &world.desired.nodes[&NodeId::endpoint("prime", "prime1")] {
        Node::Endpoint(own) => own.clone(),
        other => panic!("{other:?}"),
    };
    own.service = "other".to_owned();
    own.service_id = "t-other".to_owned();
    own.target = None;
    world
        .desired
        .nodes
        .insert(elsewhere.clone(), Node::Endpoint(own));
    world.desired.needs.insert(elsewhere.clone(), vec![need]);
    let plan = world.plan();
    assert_eq!(item(&plan, &elsewhere).gate, Gate::Ready);
    let first = NodeId::endpoint("prime", "prime1");
    let of_first = plan.items.iter().find(|item| item.node == first);
    assert!(of_first.is_none_or(|item| item.gate != Gate::Ready));
}

/// Three instances, each in its second seat, that are replaced stop-first from now on.
fn moved() -> World {
    let mut world = converged(seated(3, "python3"));
    world.edit(seated(3, "python4"));
    world.converge();
    let seats: Vec<String> = world.lives().into_keys().collect();
    let second = |seat: &&String| seat.ends_with(".b");
    assert_eq!(seats.iter().filter(second).count(), 3, "{seats:?}");
    world.edit(farm(3, "python4"));
    world
}

#[test]
fn what_sits_in_a_second_seat_that_is_no_more_moves_one_after_the_other() {
    for keeps in [false, true] {
        let mut world = moved();
        world.memory.keeps = keeps;
        let plan = world.plan();
        assert!(leaves(&plan, &second(1)));
        let deregistered = |number: u32| {
            let mut registered = world.observed.registered.iter();
            let own = registered.find(|(_, one)| one.target == Some(second(number)));
            let step = Step::Deregister(own.expect("it is registered").0.clone());
            plan.items.iter().any(|item| item.steps.contains(&step))
        };
        assert_eq!([1, 2, 3].map(deregistered), [true, false, false]);
        assert_eq!(
            item(&plan, &second(2)).gate,
            waits("containers/prime1 to be well")
        );
        assert_eq!(
            item(&plan, &prime(1)).gate,
            waits("containers/prime1.b to end")
        );
        let mut passes = 0;
        while !world.pass().items.is_empty() {
            let registered = |number: u32| {
                let seats = [prime(number), second(number)];
                let serves = |life: &&Life| {
                    let target = |one: &crate::plan::world::Registered| {
                        one.target.as_ref() == Some(&life.id.node)
                    };
                    seats.contains(&life.id.node) && world.observed.registered.values().any(target)
                };
                let lives: Vec<&Life> = world.observed.lives.iter().collect();
                let here = lives.iter().filter(|life| seats.contains(&life.id.node));
                assert!(here.count() <= 1, "both seats of {number} at once");
                lives.into_iter().any(|life| serves(&life))
            };
            let serving = (1..=3).filter(|number| registered(*number)).count();
            assert!(serving >= 2, "{serving} serve in pass {passes}");
            passes += 1;
            assert!(passes < 100, "it does not converge");
        }
        let seats: Vec<String> = world.lives().into_keys().collect();
        let firsts = [
            "containers/prime1",
            "containers/prime2",
            "containers/prime3",
        ];
        assert_eq!(seats, [&firsts[..], &["processes/nginx"]].concat());
    }
}

#[test]
fn a_second_seat_that_is_no_more_is_left_at_once_where_the_first_one_serves_or_was_stopped() {
    let mut world = moved();
    world.memory.stopped.insert(prime(2));
    assert!(leaves(&world.plan(), &second(2)));
    assert_eq!(state(&world.plan(), &prime(2)).state, NodeState::Stopped);
    let mut world = both("python3", "python4");
    (0..5).for_each(|_| drop(world.pass()));
    world.edit(farm(1, "python3"));
    assert!(leaves(&world.plan(), &second(1)));
}

#[test]
fn a_second_seat_that_does_not_serve_leaves_first() {
    let mut world = moved();
    life(&mut world, &second(2)).main_pid = 0;
    let plan = world.plan();
    assert!(leaves(&plan, &second(2)));
    let gate = &item(&plan, &second(1)).gate;
    assert_eq!(*gate, waits("containers/prime2 to be well"));
}

#[test]
fn a_second_seat_on_its_way_out_counts_as_away() {
    for is_asked in [false, true] {
        let mut world = moved();
        let last = id_of(&mut world, &second(3));
        let now = world.now;
        match is_asked {
            true => world.memory.asked.insert(last, now),
            false => world.memory.leaving.insert(last, now),
        };
        let plan = world.plan();
        let gate = &item(&plan, &second(1)).gate;
        assert_eq!(*gate, waits("containers/prime3 to be well"), "{is_asked}");
    }
}

#[test]
fn where_the_first_seat_serves_the_second_one_that_is_left_waits_for_nobody() {
    let mut world = converged(seated(2, "python3"));
    world.edit(seated(2, "python4"));
    while !world.lives().contains_key("containers/prime2.b") {
        world.pass();
    }
    // The other one is away.
    let mut desired = farm(2, "python3");
    each_container(&mut desired, |node| node.update.max_unavailable = 1);
    world.edit(desired);
    world.exit(&second(1), Exit::Code(1));
    world.look();
    let plan = world.plan();
    assert!(leaves(&plan, &second(2)), "{:?}", item(&plan, &second(2)));
}

/// Whether nginx, which needs this now and does not run, may start.
fn starts_with(world: &mut World, on: NodeId, condition: Condition) -> bool {
    world
        .desired
        .needs
        .insert(nginx(), vec![Need { on, condition }]);
    let lives = &mut world.observed.lives;
    lives.retain(|life| life.id.node != nginx());
    item(&world.plan(), &nginx()).gate == Gate::Ready
}

#[test]
fn what_sits_in_a_second_seat_that_is_left_has_started_and_is_asked_no_more() {
    let mut world = moved();
    assert!(starts_with(&mut world, prime(2), Condition::Started));
    assert!(!starts_with(&mut world, prime(2), Condition::Healthy));
    assert!(
        !starts_with(&mut world, prime(1), Condition::Started),
        "it leaves"
    );
    life(&mut world, &second(2)).main_pid = 0;
    assert!(!starts_with(&mut world, prime(2), Condition::Started));
}

#[test]
fn a_service_that_left_is_deregistered_at_once_in_either_seat() {
    let mut world = converged(seated(1, "python3"));
    world.edit(seated(1, "python4"));
    world.converge();
    let mut desired = seated(1, "python4");
    let is_service = |id: &NodeId| id.kind == Kind::Services;
    desired.nodes.retain(|id, _| !is_service(id));
    desired.needs.retain(|id, _| !is_service(id));
    desired.pairs.retain(|id, _| !is_service(id));
    for needs in desired.needs.values_mut() {
        needs.retain(|need| !is_service(&need.on));
    }
    world.edit(desired);
    let plan = world.plan();
    let mut steps = plan.items.iter().flat_map(|item| &item.steps);
    assert!(steps.any(|step| matches!(step, Step::Deregister(_))));
}
