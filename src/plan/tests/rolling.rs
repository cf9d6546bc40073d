//! Instances are replaced a few at a time, start-first or stop-first, after their connections
//! were waited for.

use super::*;
use crate::plan::model::NodeState;
use crate::spec::model::{Drain, FailureAction};
use crate::spec::time::Time;
use world::{each_container, seated};

/// The containers that run and are not asked to end.
fn serving(world: &World) -> usize {
    let up = world.observed.lives.iter().filter(|life| {
        life.id.node.kind == Kind::Containers
            && life.state == LifeState::Up
            && !world.memory.asked.contains_key(&life.id)
            && !world.memory.leaving.contains_key(&life.id)
            && !world.sick.contains(&life.id.node.name)
    });
    up.count()
}

fn running(world: &World) -> Vec<&str> {
    let lives = world.observed.lives.iter();
    lives
        .filter(|life| life.id.node.kind == Kind::Containers && life.state == LifeState::Up)
        .map(|life| life.id.node.name.as_str())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// Converges, and gives the fewest that served and the most that ran on the way.
fn roll(world: &mut World) -> (usize, usize) {
    let (mut fewest, mut most) = (usize::MAX, 0);
    for _ in 0..400 {
        let empty = world.pass().is_empty();
        fewest = fewest.min(serving(world));
        most = most.max(running(world).len());
        if empty {
            return (fewest, most);
        }
    }
    panic!("no empty plan: {:#?}", world.plan().items);
}

fn asks(world: &World) -> usize {
    let asked = |step: &&Step| matches!(step, Step::Signal { life, .. } if life.node.kind == Kind::Containers);
    world.done.iter().filter(asked).count()
}

#[test]
fn as_many_leave_at_once_as_may_be_away() {
    for most in [1, 2, 3, 9] {
        let mut world = World::new(farm(4, "python3"));
        world.converge();
        world.desired = farm(4, "python3.13");
        each_container(&mut world.desired, |node| {
            node.update.max_unavailable = most
        });
        let (fewest, _) = roll(&mut world);
        assert_eq!(fewest, 4 - (most as usize).min(4));
        assert_eq!(asks(&world), 4);
    }
}

#[test]
fn the_next_one_waits_until_the_last_was_well_long_enough() {
    let mut world = World::new(farm(2, "python3"));
    world.converge();
    world.desired = farm(2, "python3.13");
    each_container(&mut world.desired, |node| {
        node.min_healthy_time = Duration::from_secs(5);
    });
    let began = world.now;
    roll(&mut world);
    assert!(
        world.now.since(began) >= Duration::from_secs(10),
        "5s before each of two"
    );
}

#[test]
fn connections_are_waited_for_until_they_are_quiet() {
    let mut world = World::new(farm(1, "python3"));
    world.converge();
    world.desired = farm(1, "python3.13");
    each_container(&mut world.desired, |node| {
        node.ports.insert(8080);
        node.drain = Drain {
            quiet: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
        };
    });
    world.connections.insert("prime1".to_owned(), 2);
    let began = world.now;
    while world.now.since(began) < Duration::from_secs(3) {
        world.pass();
    }
    assert_eq!(asks(&world), 0);
    world.connections.clear();
    let quiet = world.now;
    while asks(&world) == 0 {
        // One that comes back begins the quiet anew.
        if world.now.since(quiet) > Duration::from_millis(500)
            && world.now.since(quiet) < Duration::from_millis(600)
        {
            world.connections.insert("prime1".to_owned(), 1);
        } else {
            world.connections.clear();
        }
        world.pass();
    }
    let waited = world.now.since(quiet);
    assert!(waited >= Duration::from_millis(1500) && waited < Duration::from_millis(1900));
    world.converge();
}

#[test]
fn connections_that_never_end_are_waited_for_at_most_so_long() {
    let mut world = World::new(farm(2, "python3"));
    world.converge();
    each_container(&mut world.desired, |node| {
        node.ports.insert(8080);
        node.drain = Drain {
            quiet: Duration::from_secs(1),
            timeout: Duration::from_secs(7),
        };
    });
    // One that leaves the spec drains as well: how was remembered.
    for node in world.desired.nodes.values() {
        if let Node::Workload(node) = node {
            let memory = world.memory.workloads.entry(node.id.clone()).or_default();
            memory.farewell = Some(node.farewell());
        }
    }
    world.desired = farm(1, "python3");
    world.connections.insert("prime2".to_owned(), 1);
    let began = world.now;
    while asks(&world) == 0 {
        world.pass();
    }
    let waited = world.now.since(began);
    assert!(waited >= Duration::from_secs(7) && waited < Duration::from_secs(8));
}

#[test]
fn a_newcomer_joins_before_the_old_one_leaves() {
    for most in [1, 2] {
        let mut world = World::new(seated(4, "python3"));
        world.converge();
        assert_eq!(running(&world), ["prime1", "prime2", "prime3", "prime4"]);
        world.desired = seated(4, "python3.13");
        each_container(&mut world.desired, |node| {
            node.update.max_unavailable = most
        });
        let (fewest, many) = roll(&mut world);
        assert_eq!((fewest, many), (4, 4 + most as usize));
        assert_eq!(
            running(&world),
            ["prime1.b", "prime2.b", "prime3.b", "prime4.b"]
        );
        assert_eq!(
            world.observed.lives.len(),
            5,
            "nothing is left of the old ones"
        );
        world.desired = seated(4, "python3.14");
        roll(&mut world);
        assert_eq!(running(&world), ["prime1", "prime2", "prime3", "prime4"]);
    }
}

#[test]
fn a_seat_that_is_spare_is_not_spoken_of() {
    let mut world = World::new(seated(2, "python3"));
    let plan = world.plan();
    assert_eq!(
        plan.counts(),
        World::new(farm(2, "python3")).plan().counts()
    );
    world.converge();
    let plan = world.plan();
    assert!(
        plan.nodes
            .iter()
            .all(|status| !status.node.name.ends_with(".b"))
    );
}

#[test]
fn an_edit_taken_back_ends_the_newcomer_and_touches_nothing_else() {
    let mut world = World::new(seated(3, "python3"));
    world.converge();
    let before = world.observed.lives.clone();
    world.desired = seated(3, "python3.13");
    world.sick.insert("prime1.b".to_owned());
    for _ in 0..20 {
        world.pass();
    }
    assert_eq!(running(&world).len(), 4);
    world.desired = seated(3, "python3");
    roll(&mut world);
    assert_eq!(world.observed.lives, before);
}

#[test]
fn a_third_spec_replaces_the_newcomer_first() {
    let mut world = World::new(seated(2, "python3"));
    world.converge();
    world.desired = seated(2, "python3.13");
    world.sick.insert("prime1.b".to_owned());
    for _ in 0..20 {
        world.pass();
    }
    world.desired = seated(2, "python3.14");
    world.sick.clear();
    let (fewest, many) = roll(&mut world);
    assert!(fewest >= 2 && many == 3);
    let wanted = World::new(seated(2, "python3.14")).plan();
    assert_eq!(wanted.items.len(), 8);
}

#[test]
fn what_fails_starts_again_in_its_own_seat() {
    let mut world = World::new(seated(2, "python3"));
    world.converge();
    world.desired = seated(2, "python3.13");
    roll(&mut world);
    world.exit(&NodeId::new(Kind::Containers, "prime1.b"), Exit::Code(1));
    let began = world.now;
    roll(&mut world);
    assert!(world.now.since(began) >= Duration::from_secs(1));
    assert_eq!(running(&world), ["prime1.b", "prime2.b"]);
}

#[test]
fn a_restart_brings_a_newcomer_first() {
    let mut world = World::new(seated(2, "python3"));
    world.converge();
    let mut lives = world.observed.lives.iter();
    let life = lives
        .find(|life| life.id.node.name == "prime1")
        .unwrap()
        .id
        .clone();
    world.memory.restart.insert(life);
    let (fewest, many) = roll(&mut world);
    assert_eq!((fewest, many), (2, 3));
    assert_eq!(running(&world), ["prime1.b", "prime2"]);
}

/// Rolls to a command under which nothing passes, and gives when what was noted.
fn fail(action: FailureAction, desired: fn(u32, &str) -> Desired) -> (World, Option<String>) {
    let mut world = World::new(desired(3, "python3"));
    world.converge();
    world.desired = desired(3, "broken");
    each_container(&mut world.desired, |node| {
        node.update.failure_action = action;
        node.update.healthy_deadline = Duration::from_secs(30);
    });
    world.memory.changed = world.desired.nodes.keys().cloned().collect();
    let began = world.now;
    let mut asked = None;
    while world.now.since(began) < Duration::from_secs(100) && asked.is_none() {
        let sick: Vec<String> = world
            .observed
            .lives
            .iter()
            .filter(|life| life.started >= began)
            .map(|life| life.id.node.name.clone())
            .collect();
        world.sick.extend(sick);
        let plan = world.pass();
        asked = plan.notes.rollback;
        let early = world.now.since(began) < Duration::from_secs(29);
        assert!(asked.is_none() || !early);
        if plan.wake.is_none() {
            world.now = world.now + Duration::from_secs(1);
        }
    }
    (world, asked)
}

#[test]
fn an_update_that_fails_asks_for_what_was_proven() {
    for desired in [farm as fn(u32, &str) -> Desired, seated] {
        let (world, asked) = fail(FailureAction::Rollback, desired);
        let asked = asked.unwrap();
        assert!(asked.starts_with("containers/prime1"), "{asked}");
        assert!(asked.contains("is not well after 30s"), "{asked}");
        assert_eq!(
            serving(&world),
            if desired(1, "x").pairs.is_empty() {
                2
            } else {
                3
            }
        );
    }
}

#[test]
fn an_update_that_fails_pauses_or_goes_on() {
    let (mut world, asked) = fail(FailureAction::Pause, farm);
    assert_eq!(asked, None);
    assert_eq!((serving(&world), asks(&world)), (2, 1));
    let plan = world.plan();
    let status = plan
        .nodes
        .iter()
        .find(|status| status.node.name == "prime1");
    assert!(status.unwrap().detail.contains("the update pauses"));
    let (mut world, asked) = fail(FailureAction::Continue, farm);
    assert_eq!(asked, None);
    assert_eq!((serving(&world), asks(&world)), (0, 3));
    let plan = world.plan();
    let mut nodes = plan.nodes.iter();
    let status = nodes.find(|status| status.node.name == "prime1").unwrap();
    assert!(status.detail.contains("the update goes on"), "{status:?}");
}

#[test]
fn one_that_serves_nothing_does_not_drain() {
    let mut world = World::new(farm(1, "python3"));
    world.converge();
    each_container(&mut world.desired, |node| {
        node.drain = Drain {
            quiet: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
        };
    });
    world.desired = farm(1, "python3.13");
    let began = world.now;
    roll(&mut world);
    assert!(world.now.since(began) < Duration::from_secs(3));
    assert_ne!(world.now, Time(0));
    let states = world.plan().nodes;
    assert!(
        states
            .iter()
            .all(|status| status.state == NodeState::Running)
    );
}
