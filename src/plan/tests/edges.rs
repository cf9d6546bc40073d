//! Each decision at its very edge: the moment before and the moment at which it turns.

use super::farm::each_container;
use super::*;
use crate::plan::context::words;
use crate::plan::endpoint::registration_hash;
use crate::plan::model::{NodeState, Plan};
use crate::plan::world::{Life, LifeId};
use crate::spec::model::{Condition, Drain, Firewall, Signal};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn prime(number: u32) -> NodeId {
    NodeId::new(Kind::Containers, format!("prime{number}"))
}

fn nginx() -> NodeId {
    NodeId::new(Kind::Processes, "nginx")
}

fn gate<'a>(plan: &'a Plan, node: &NodeId) -> &'a Gate {
    let item = plan.items.iter().find(|item| item.node == *node);
    &item.unwrap_or_else(|| panic!("{node} has no item")).gate
}

fn steps<'a>(plan: &'a Plan, node: &NodeId) -> &'a [Step] {
    let item = plan.items.iter().find(|item| item.node == *node);
    item.map_or(&[], |item| &item.steps)
}

fn kills(plan: &Plan, node: &NodeId) -> bool {
    matches!(steps(plan, node), [Step::Kill(life)] if life.node == *node)
}

fn life<'w>(world: &'w mut World, node: &NodeId) -> &'w mut Life {
    let lives = world.observed.lives.iter_mut();
    lives
        .rev()
        .find(|life| life.id.node == *node)
        .expect("a life")
}

fn id_of(world: &mut World, node: &NodeId) -> LifeId {
    life(world, node).id.clone()
}

/// The only workload that there is, converged, on which others do not wait.
fn alone() -> World {
    let mut world = World::new(farm(1, "python3"));
    world.converge();
    world
}

#[test]
fn durations_turn_at_each_unit() {
    let of = |ms: u64| words(Duration::from_millis(ms));
    let turns = [
        (0, "0ms"),
        (999, "999ms"),
        (1000, "1s"),
        (1049, "1s"),
        (1050, "1.1s"),
        (9_949, "9.9s"),
        (10_000, "10s"),
        (59_999, "59s"),
        (60_000, "1m00s"),
        (3_599_000, "59m59s"),
        (3_600_000, "1h00m"),
        (86_399_000, "23h59m"),
        (86_400_000, "1d00h"),
        (180_000_000, "2d02h"),
    ];
    for (ms, words) in turns {
        assert_eq!(of(ms), words, "{ms}ms");
    }
}

#[test]
fn a_plan_shows_the_waves_of_its_spec() {
    let waves = vec![vec![NodeId::registry()], vec![nginx()]];
    let desired = Desired {
        waves: std::sync::Arc::new(waves.clone()),
        ..farm(1, "python3")
    };
    assert_eq!(*World::new(desired).plan().waves, waves);
}

#[test]
fn a_stop_is_waited_for_its_grace_and_not_longer() {
    let mut world = alone();
    world.desired = farm(1, "python3.13");
    let node = prime(1);
    let asked = world.now;
    let id = id_of(&mut world, &node);
    world.memory.asked.insert(id, asked);
    world.now = asked + 10 * SECOND - MILLI;
    let plan = world.plan();
    assert_eq!(
        *gate(&plan, &node),
        Gate::Waiting(vec!["it to end, at most 1ms".to_owned()])
    );
    assert_eq!(plan.wake, Some(asked + 10 * SECOND));
    world.now = asked + 10 * SECOND;
    assert!(kills(&world.plan(), &node));
}

#[test]
fn what_was_killed_is_killed_again_after_a_second() {
    let mut world = alone();
    world.desired = farm(1, "python3.13");
    let node = prime(1);
    let id = id_of(&mut world, &node);
    let killed = world.now + 60 * SECOND;
    world.memory.asked.insert(id.clone(), world.now);
    world.memory.killed.insert(id, killed);
    world.now = killed + SECOND - MILLI;
    let plan = world.plan();
    let waits = Gate::Waiting(vec!["the kernel to end it".to_owned()]);
    assert_eq!(*gate(&plan, &node), waits);
    assert_eq!(plan.wake, Some(killed + SECOND));
    world.now = killed + SECOND;
    assert!(kills(&world.plan(), &node));
}

#[test]
fn leftovers_have_half_a_second() {
    let mut world = alone();
    let node = prime(1);
    life(&mut world, &node).state = LifeState::Ending;
    let id = id_of(&mut world, &node);
    let since = world.now;
    world.memory.ending.insert(id, since);
    world.now = since + 499 * MILLI;
    let plan = world.plan();
    let waits = Gate::Waiting(vec!["its other processes, at most 1ms".to_owned()]);
    assert_eq!(*gate(&plan, &node), waits);
    world.now = since + 500 * MILLI;
    assert!(kills(&world.plan(), &node));
}

#[test]
fn one_that_never_gets_a_main_process_is_killed_after_its_grace() {
    let mut world = alone();
    world.desired = farm(0, "python3");
    let node = prime(1);
    life(&mut world, &node).main_pid = 0;
    world.observed.registered.clear();
    let id = id_of(&mut world, &node);
    let since = world.now;
    world.memory.seen.insert(id, since);
    world.now = since + 10 * SECOND - MILLI;
    let plan = world.plan();
    assert_eq!(
        *gate(&plan, &node),
        Gate::Waiting(vec!["its start".to_owned()])
    );
    world.now = since + 10 * SECOND;
    assert!(kills(&world.plan(), &node));
}

#[test]
fn the_proxies_have_ten_seconds_beyond_the_quiet_to_forget_one_that_leaves() {
    let mut world = alone();
    world.desired = farm(1, "python3.13");
    each_container(&mut world.desired, |node| {
        node.drain = Drain {
            quiet: Duration::ZERO,
            timeout: Duration::ZERO,
        };
    });
    let node = prime(1);
    let id = id_of(&mut world, &node);
    let since = world.now;
    world.memory.leaving.insert(id, since);
    // The farm's template waits for quiet for at most 20 ms.
    let end = since + 10 * SECOND + 20 * MILLI;
    world.now = since + 10 * SECOND + 19 * MILLI;
    let plan = world.plan();
    let waits = Gate::Waiting(vec!["`t-prime-prime1` to leave the registry".to_owned()]);
    assert_eq!(*gate(&plan, &node), waits);
    assert_eq!(plan.wake, Some(end));
    world.now = end;
    assert!(matches!(steps(&world.plan(), &node), [Step::Signal { .. }]));
}

#[test]
fn a_change_of_how_it_ends_is_noted_on_what_runs() {
    type Edit = fn(&mut WorkloadNode);
    let edits: [(&str, Edit); 4] = [
        ("stop_signal", |node| node.stop_signal = Signal(2)),
        ("stop_grace_period", |node| node.stop_grace_period = SECOND),
        ("drain", |node| node.drain.timeout = 3 * SECOND),
        ("drained ports", |node| {
            node.ports.insert(9);
        }),
    ];
    for (name, edit) in edits {
        let mut world = alone();
        assert!(world.plan().is_empty());
        each_container(&mut world.desired, edit);
        let plan = world.plan();
        let item = plan.items.iter().find(|item| item.node == prime(1));
        assert_eq!(item.unwrap().reason, format!("{name} changed"));
        assert!(
            matches!(steps(&plan, &prime(1)), [Step::Note { .. }]),
            "{name}"
        );
        let lives = world.lives();
        world.converge();
        assert_eq!(world.lives(), lives, "{name} ends nothing");
    }
}

fn endpoint_of(world: &mut World) -> &mut EndpointNode {
    let id = NodeId::endpoint("prime", "prime1");
    match world.desired.nodes.get_mut(&id) {
        Some(Node::Endpoint(endpoint)) => endpoint,
        other => panic!("{other:?}"),
    }
}

#[test]
fn whatever_a_registration_says_makes_it_another() {
    type Edit = fn(&mut EndpointNode);
    let edits: [Edit; 9] = [
        |endpoint| endpoint.tags.push("a".to_owned()),
        |endpoint| endpoint.tags = vec!["ab".to_owned()],
        |endpoint| endpoint.tags = vec!["a".to_owned(), "b".to_owned()],
        |endpoint| endpoint.tags = vec!["a".to_owned(), "b".to_owned(), String::new()],
        |endpoint| endpoint.port = 8081,
        |endpoint| endpoint.address = "10.50.0.9".to_owned(),
        |endpoint| {
            endpoint.meta.insert("a".to_owned(), "b".to_owned());
        },
        |endpoint| endpoint.checks.push(told(SECOND)),
        |endpoint| endpoint.checks.push(told(2 * SECOND)),
    ];
    let mut hashes = BTreeSet::new();
    for edit in edits {
        let mut world = alone();
        edit(endpoint_of(&mut world));
        hashes.insert(registration_hash(endpoint_of(&mut world)));
        let plan = world.plan();
        let node = NodeId::endpoint("prime", "prime1");
        assert!(matches!(steps(&plan, &node), [Step::Register(_)]));
        let item = plan.items.iter().find(|item| item.node == node).unwrap();
        assert_eq!(item.change, Change::Change);
        assert_eq!(item.reason, "registration changed");
        assert!(item.details.iter().any(|detail| detail.name == "address"));
        world.converge();
    }
    assert_eq!(hashes.len(), edits.len(), "no two of them look alike");
}

fn told(ttl: Duration) -> CheckNode {
    CheckNode {
        id: "t-prime-prime1:told".to_owned(),
        name: "told".to_owned(),
        probe: ProbeNode::Ttl(ttl),
        interval: SECOND,
        timeout: SECOND,
        retries: 1,
        start_period: Duration::ZERO,
        start_interval: SECOND,
    }
}

#[test]
fn what_is_new_is_described_by_what_it_has_alone() {
    let mut world = World::new(farm(1, "python3"));
    let plan = world.plan();
    let node = NodeId::endpoint("prime", "prime1");
    let item = plan.items.iter().find(|item| item.node == node).unwrap();
    let names: Vec<&str> = item.details.iter().map(|one| one.name.as_str()).collect();
    assert!(
        !names.contains(&"tags") && !names.contains(&"check"),
        "{names:?}"
    );
    let endpoint = endpoint_of(&mut world);
    endpoint.tags.push("nginx".to_owned());
    endpoint.checks.push(told(SECOND));
    let plan = world.plan();
    let item = plan.items.iter().find(|item| item.node == node).unwrap();
    let names: Vec<&str> = item.details.iter().map(|one| one.name.as_str()).collect();
    assert!(
        names.contains(&"tags") && names.contains(&"check"),
        "{names:?}"
    );
}

#[test]
fn one_that_ends_or_rests_is_not_announced() {
    let mut world = alone();
    let node = NodeId::endpoint("prime", "prime1");
    world.observed.registered.clear();
    life(&mut world, &prime(1)).state = LifeState::Ending;
    let plan = world.plan();
    assert!(steps(&plan, &node).is_empty());
    let status = plan
        .nodes
        .iter()
        .find(|status| status.node == node)
        .unwrap();
    assert_eq!(status.state, NodeState::Stopping);

    let mut world = alone();
    world.observed.registered.clear();
    world.memory.stopped.insert(prime(1));
    world.exit(&prime(1), Exit::Code(0));
    let plan = world.plan();
    let status = plan
        .nodes
        .iter()
        .find(|status| status.node == node)
        .unwrap();
    assert_eq!(status.state, NodeState::Stopped);
    assert!(steps(&plan, &node).is_empty());
}

#[test]
fn each_member_of_a_group_may_have_another_firewall() {
    let mut world = World::new(farm(2, "python3"));
    each_container(&mut world.desired, |node| {
        let port = u16::try_from(8080 + node.replica).unwrap();
        let firewall = Firewall {
            allow_tcp: vec![port],
            ..Firewall::default()
        };
        node.attachment.as_mut().unwrap().firewall = Some(firewall);
    });
    world.converge();
    let attachments = &world.observed.network.attachments;
    let of = |name: &str| attachments[name].firewall.clone().unwrap();
    assert_ne!(of("hatchery-t-prime1"), of("hatchery-t-prime2"));
    assert!(world.plan().is_empty());
}

#[test]
fn somebody_else_in_the_way_blocks_and_other_troubles_wait() {
    for (kind, blocked) in [(ErrorKind::Foreign, true), (ErrorKind::Failed, false)] {
        let mut world = World::new(farm(1, "python3"));
        let bridge = NodeId::new(Kind::Networks, "prime0");
        let retry_at = world.now + 5 * SECOND;
        world.memory.attempts.insert(
            bridge.clone(),
            Attempt {
                running: false,
                attaches: None,
                life: None,
                failures: 1,
                error: Some((kind, "cannot do it".to_owned())),
                retry_at,
            },
        );
        let plan = world.plan();
        let expected = match blocked {
            true => Gate::Blocked("cannot do it".to_owned()),
            false => Gate::Waiting(vec!["its next try in 5s: cannot do it".to_owned()]),
        };
        assert_eq!(*gate(&plan, &bridge), expected);
        assert_eq!(plan.wake, Some(retry_at));
        world.now = retry_at;
        assert_eq!(*gate(&world.plan(), &bridge), Gate::Ready);
    }
}

/// nginx needs this of a check that both endpoints use.
fn needing(condition: Condition) -> World {
    let mut desired = farm(2, "python3");
    let check = NodeId::new(Kind::Checks, "answers");
    let own = desired.nodes.shift_remove(&nginx()).unwrap();
    desired.nodes.insert(check.clone(), Node::Check);
    desired.nodes.insert(nginx(), own);
    let users = ["prime1", "prime2"].map(|target| Need {
        on: NodeId::endpoint("prime", target),
        condition,
    });
    desired.needs.insert(check.clone(), users.to_vec());
    let need = Need {
        on: check,
        condition,
    };
    desired.needs.insert(nginx(), vec![need]);
    World::new(desired)
}

#[test]
fn a_check_is_started_with_the_last_that_uses_it_and_never_completed() {
    let mut world = needing(Condition::Started);
    let waits = Gate::Waiting(vec!["checks/answers".to_owned()]);
    assert_eq!(*gate(&world.plan(), &nginx()), waits);
    world.converge();

    let mut world = needing(Condition::Completed);
    for _ in 0..20 {
        world.pass();
    }
    let waits = Gate::Waiting(vec!["checks/answers to complete".to_owned()]);
    assert_eq!(*gate(&world.plan(), &nginx()), waits);
}

#[test]
fn a_reload_may_go_to_one_instance_or_to_its_group() {
    for (to, told) in [("nginx", [true, true]), ("nginx2", [false, true])] {
        let mut desired = farm(1, "python3");
        let first = desired.nodes.shift_remove(&nginx()).unwrap();
        let needs = desired.needs.remove(&nginx()).unwrap();
        for number in [1_u32, 2] {
            let Node::Workload(mut own) = first.clone() else {
                panic!("no workload");
            };
            own.id = NodeId::new(Kind::Processes, format!("nginx{number}"));
            own.replica = number;
            desired.needs.insert(own.id.clone(), needs.clone());
            desired.nodes.insert(own.id.clone(), Node::Workload(own));
        }
        for node in desired.nodes.values_mut() {
            if let Node::Template(template) = node
                && let Some(ReloadNode::Signal { process, .. }) = &mut template.reload
            {
                *process = NodeId::new(Kind::Processes, to);
            }
        }
        let mut world = World::new(desired);
        world.converge();
        world.sick.insert("prime1".to_owned());
        world.desired = scaled(&world.desired);
        world.done.clear();
        world.sick.clear();
        world.converge();
        let got = ["nginx1", "nginx2"].map(|name| {
            let reloads = world.done.iter().filter(
                |step| matches!(step, Step::ReloadProcess { life, .. } if life.node.name == name),
            );
            reloads.count()
        });
        assert_eq!(got.map(|count| count > 0), told, "{to}: {got:?}");
        assert!(got.iter().all(|count| *count <= 1), "{to}: {got:?}");
    }
}

/// The same with one endpoint more, so that the file changes.
fn scaled(desired: &Desired) -> Desired {
    let mut more = desired.clone();
    let other = farm(2, "python3");
    for (id, node) in &other.nodes {
        if id.name.contains("prime2") {
            more.nodes.insert(id.clone(), node.clone());
            let needs = other.needs.get(id).cloned().unwrap_or_default();
            more.needs.insert(id.clone(), needs);
        }
    }
    let last = more.nodes.len() - 1;
    for name in ["nginx1", "nginx2"] {
        let id = NodeId::new(Kind::Processes, name);
        let at = more.nodes.get_index_of(&id).unwrap();
        more.nodes.move_index(at, last);
    }
    let template = NodeId::new(Kind::Templates, "upstream");
    let at = more.nodes.get_index_of(&template).unwrap();
    more.nodes.move_index(at, last - 2);
    more
}

#[test]
fn the_registry_stays_shut_for_readiness_that_was_not_asked_and_for_no_heartbeat() {
    for (probe, shut) in [
        (ProbeNode::Tcp("x:1".to_owned()), true),
        (ProbeNode::Ttl(SECOND), false),
    ] {
        let mut world = World::new(farm(1, "python3"));
        for node in world.desired.nodes.values_mut() {
            if let Node::Registry(registry) = node {
                registry.http = Some("127.0.0.1:8500".parse().unwrap());
            }
        }
        world.converge();
        let check = CheckNode {
            id: "ready:nginx".to_owned(),
            probe,
            ..told(SECOND)
        };
        if let Some(Node::Workload(nginx)) = world.desired.nodes.get_mut(&nginx()) {
            let timeout = 60 * SECOND;
            nginx.ready = ReadyNode::Check { check, timeout };
        }
        world.observed.registry.http = None;
        world.memory.unchecked = ["ready:nginx".to_owned()].into();
        let plan = world.plan();
        let ready = *gate(&plan, &NodeId::registry()) == Gate::Ready;
        assert_eq!(ready, !shut);
    }
}
