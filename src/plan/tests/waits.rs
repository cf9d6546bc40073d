//! What waits, what for, and when it does so no more.

use super::farm::each_container;
use super::*;
use crate::graph::desired::ReadyNode;
use crate::plan::memory::{Carried, LastExit, Memory, WorkloadMemory};
use crate::plan::model::{NodeState, Plan};
use crate::plan::permit::Permit;
use crate::plan::world::Life;
use crate::spec::model::{Condition, Restart};

const SECOND: Duration = Duration::from_secs(1);

fn prime(number: u32) -> NodeId {
    NodeId::new(Kind::Containers, format!("prime{number}"))
}

fn gate(plan: &Plan, node: &NodeId) -> Gate {
    let item = plan.items.iter().find(|item| item.node == *node);
    item.unwrap_or_else(|| panic!("{node} has no item"))
        .gate
        .clone()
}

fn life<'w>(world: &'w World, node: &NodeId) -> &'w Life {
    let mut lives = world.observed.lives.iter().rev();
    lives.find(|life| life.id.node == *node).expect("a life")
}

fn attempt(world: &World, running: bool) -> Attempt {
    Attempt {
        running,
        attaches: None,
        life: None,
        failures: 1,
        error: (!running).then(|| (ErrorKind::Failed, "cannot start it".to_owned())),
        retry_at: world.now,
    }
}

#[test]
fn a_file_that_is_being_written_is_waited_for_beyond_the_bound() {
    let mut world = World::new(farm(2, "python3"));
    world.converge();
    world.edit(farm(1, "python3"));
    let node = prime(2);
    let id = life(&world, &node).id.clone();
    world.memory.leaving.insert(id, world.now);
    world.observed.registered.remove("t-prime-prime2");
    world.now = world.now + 11 * SECOND;
    let template = NodeId::new(Kind::Templates, "upstream");
    let under_way = attempt(&world, true);
    world.memory.attempts.insert(template.clone(), under_way);
    let Gate::Waiting(on) = gate(&world.plan(), &node) else {
        panic!("it ends while its file is being written");
    };
    assert!(on[0].starts_with("the files that list"), "{on:?}");
    world.memory.attempts.remove(&template);
    let still = match gate(&world.plan(), &node) {
        Gate::Waiting(on) => on[0].starts_with("the files that list"),
        _ => false,
    };
    assert!(!still, "nobody writes it, and its time is over");
}

#[test]
fn an_old_failure_hides_no_present_wait() {
    let mut desired = farm(1, "python3");
    let nginx = NodeId::new(Kind::Processes, "nginx");
    desired.needs.entry(prime(1)).or_default().push(Need {
        on: nginx.clone(),
        condition: Condition::Healthy,
    });
    desired.needs.remove(&nginx);
    let mut world = World::new(desired);
    let failed = attempt(&world, false);
    world.memory.attempts.insert(prime(1), failed);
    let plan = world.plan();
    let waits = gate(&plan, &prime(1));
    assert!(
        matches!(&waits, Gate::Waiting(on) if on.iter().any(|on| on.contains("processes/nginx"))),
        "{waits:?}"
    );
    let status = plan.nodes.iter().find(|status| status.node == prime(1));
    assert_eq!(status.unwrap().state, NodeState::Waiting);
}

#[test]
fn an_adopted_life_is_not_ended_for_a_word_that_nobody_heard() {
    let mut desired = farm(1, "python3");
    each_container(&mut desired, |node| {
        node.ready = ReadyNode::Notify {
            timeout: 60 * SECOND,
        };
    });
    let mut world = World::new(desired.clone());
    world.converge();
    let id = life(&world, &prime(1)).id.clone();
    for life in &mut world.observed.lives {
        life.notified = false;
    }
    world.memory.seen.insert(id.clone(), world.now);
    world.now = world.now + 61 * SECOND;
    let late = |world: &mut World| !world.plan().notes.late.is_empty();
    assert!(late(&mut world), "one that this controller started is late");
    world.memory.late.clear();
    world.memory.adopted.insert(id.clone());
    assert!(!late(&mut world));
    assert!(!world.memory.is_ready(
        &ReadyNode::Notify {
            timeout: 60 * SECOND
        },
        life(&world, &prime(1))
    ));
    world.memory.ready.insert(id);
    assert!(world.plan().is_empty());
}

#[test]
fn what_served_before_is_registered_again_however_others_are() {
    let mut world = World::new(farm(1, "python3"));
    world.converge();
    let endpoint = NodeId::endpoint("prime", "prime1");
    world
        .desired
        .needs
        .entry(endpoint.clone())
        .or_default()
        .push(Need {
            on: NodeId::new(Kind::Processes, "nginx"),
            condition: Condition::Completed,
        });
    world.observed.registered.clear();
    assert!(matches!(gate(&world.plan(), &endpoint), Gate::Waiting(_)));
    let id = life(&world, &prime(1)).id.clone();
    world.memory.adopted.insert(id);
    assert_eq!(gate(&world.plan(), &endpoint), Gate::Ready);
}

/// How the farm's reload command stands after `change`.
fn is_told_again(change: impl Fn(&mut TemplateNode)) -> bool {
    let mut desired = farm(1, "python3");
    let template = NodeId::new(Kind::Templates, "upstream");
    let edit = |desired: &mut Desired, change: &dyn Fn(&mut TemplateNode)| {
        if let Some(Node::Template(node)) = desired.nodes.get_mut(&template) {
            change(node);
        }
    };
    edit(&mut desired, &|node| {
        node.reload = Some(ReloadNode::Command(vec!["reload".to_owned()]));
    });
    let mut world = World::new(desired);
    world.converge();
    edit(&mut world.desired, &change);
    world.done.clear();
    world.converge();
    let mut done = world.done.iter();
    done.any(|step| matches!(step, Step::ReloadCommand { .. }))
}

#[test]
fn another_command_or_place_has_been_told_nothing() {
    assert!(!is_told_again(|_| {}));
    assert!(is_told_again(|node| {
        node.reload = Some(ReloadNode::Command(vec!["other".to_owned()]));
    }));
    assert!(is_told_again(|node| {
        node.destination = "/etc/elsewhere.conf".into();
    }));
}

fn limited() -> Restart {
    Restart {
        max_attempts: Some(2),
        reset_after: 10 * SECOND,
        ..super::world::restart()
    }
}

fn exit(incarnation: u64, late: bool) -> LastExit {
    LastExit {
        exit: Exit::Code(1),
        at: crate::spec::time::Time(incarnation * 60_000_000_000),
        incarnation,
        asked: false,
        late,
    }
}

#[test]
fn only_a_life_that_was_ready_begins_the_count_anew() {
    let restart = limited();
    let mut memory = WorkloadMemory::default();
    for incarnation in 1..=3 {
        memory.note_exit(exit(incarnation, true), None, Some(&restart));
    }
    assert_eq!(memory.failures, 3);
    memory.note_exit(exit(4, false), Some(9 * SECOND), Some(&restart));
    assert_eq!(memory.failures, 4);
    memory.note_exit(exit(5, false), Some(10 * SECOND), Some(&restart));
    assert_eq!(memory.failures, 1);
}

#[test]
fn what_gave_up_stays_so_though_nothing_of_it_is_there() {
    let mut desired = farm(1, "python3");
    each_container(&mut desired, |node| node.restart = limited());
    let mut world = World::new(desired);
    let memory = WorkloadMemory {
        failures: 3,
        last_exit: Some(exit(3, false)),
        kept: true,
        ..WorkloadMemory::default()
    };
    world.memory.workloads.insert(prime(1), memory);
    let gave_up = |world: &mut World| matches!(gate(&world.plan(), &prime(1)), Gate::Blocked(_));
    assert!(gave_up(&mut world));
    let kept = world.memory.workloads.get_mut(&prime(1)).unwrap();
    kept.forget_failures();
    assert!(!gave_up(&mut world), "an operator's word begins it anew");
}

#[test]
fn who_said_that_it_is_ready_is_so_and_who_counts_as_ready_too() {
    let mut world = World::new(farm(1, "python3"));
    world.converge();
    let mut life = life(&world, &prime(1)).clone();
    let notify = ReadyNode::Notify { timeout: SECOND };
    for (said, counts) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut memory = Memory::default();
        memory.ready.extend(counts.then(|| life.id.clone()));
        life.notified = said;
        assert_eq!(memory.is_ready(&notify, &life), said || counts);
    }
}

#[test]
fn the_next_controller_goes_on_with_what_gave_up_and_with_what_a_plan_lets_happen() {
    let mut desired = farm(1, "python3");
    each_container(&mut desired, |node| node.restart = limited());
    let mut world = World::new(desired);
    let farewell = match world.desired.nodes.get(&prime(1)) {
        Some(Node::Workload(node)) => Some(node.farewell()),
        other => panic!("{other:?}"),
    };
    let known = WorkloadMemory {
        farewell: farewell.clone(),
        ..WorkloadMemory::default()
    };
    world.memory.workloads.insert(prime(1), known);
    let past = WorkloadMemory {
        failures: 3,
        last_exit: Some(exit(3, false)),
        ..WorkloadMemory::default()
    };
    let permit = Permit {
        nodes: [prime(1)].into(),
        identities: [].into(),
    };
    let carried = Carried {
        generation: 1,
        given_up: vec![(prime(1), past)],
        permitted: Some(permit.clone()),
    };
    carried.recall(&mut world.memory);
    assert_eq!(world.memory.permitted, Some(permit));
    assert_eq!(world.memory.workloads[&prime(1)].farewell, farewell);
    assert!(matches!(gate(&world.plan(), &prime(1)), Gate::Blocked(_)));
}

#[test]
fn what_has_completed_stays_so_when_it_is_stopped() {
    let nginx = NodeId::new(Kind::Processes, "nginx");
    for exit in [Exit::Code(0), Exit::Code(1)] {
        let mut desired = farm(1, "python3");
        let need = Need {
            on: prime(1),
            condition: Condition::Completed,
        };
        desired.needs.insert(nginx.clone(), vec![need]);
        each_container(&mut desired, |node| {
            node.restart.policy = crate::spec::model::RestartPolicy::OnFailure;
        });
        let mut world = World::new(desired);
        while !world.lives().contains_key("containers/prime1") {
            world.pass();
        }
        world.exit(&prime(1), exit);
        world.memory.stopped.insert(prime(1));
        for _ in 0..20 {
            world.pass();
        }
        let runs = world.lives().contains_key("processes/nginx");
        assert_eq!(runs, exit == Exit::Code(0), "{exit:?}");
    }
}
