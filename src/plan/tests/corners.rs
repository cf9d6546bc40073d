//! What is true of one thing alone: each memory, index and word by itself.

use std::path::Path;

use super::farm::each_container;
use super::*;
use crate::plan::context::{Context, Level};
use crate::plan::endpoint::registration_hash;
use crate::plan::explain::{Answers, Explanation, explain};
use crate::plan::memory::Pending;
use crate::plan::model::{ErrorKind, Notes, Plan};
use crate::plan::world::{BridgeView, Life, LifeId};
use crate::spec::model::Condition;
use crate::spec::time::Time;

const SECOND: Duration = Duration::from_secs(1);

fn prime(number: u32) -> NodeId {
    NodeId::new(Kind::Containers, format!("prime{number}"))
}

fn network() -> NodeId {
    NodeId::new(Kind::Networks, "prime0")
}

fn item<'a>(plan: &'a Plan, node: &NodeId) -> &'a crate::plan::model::Item {
    let item = plan.items.iter().find(|item| item.node == *node);
    item.unwrap_or_else(|| panic!("{node} has no item: {:#?}", plan.items))
}

fn life<'w>(world: &'w mut World, node: &NodeId) -> &'w mut Life {
    let mut lives = world.observed.lives.iter_mut();
    lives.find(|life| life.id.node == *node).expect("a life")
}

fn alone() -> World {
    let mut world = World::new(farm(1, "python3"));
    world.converge();
    world
}

fn asked_check(id: &str) -> CheckNode {
    CheckNode {
        id: id.to_owned(),
        name: "answers".to_owned(),
        probe: ProbeNode::Tcp("10.50.0.2:8080".to_owned()),
        interval: SECOND,
        timeout: SECOND,
        retries: 1,
        start_period: Duration::ZERO,
        start_interval: SECOND,
    }
}

#[test]
fn the_further_of_two_levels_has_what_either_has() {
    let none = Level::default();
    for number in 0..3 {
        let one = Level {
            started: number == 0,
            healthy: number == 1,
            completed: number == 2,
        };
        assert_eq!(one.or(none), one);
        assert_eq!(none.or(one), one);
    }
}

#[test]
fn templates_are_looked_at_again_once_what_they_wait_for_is_further() {
    let mut desired = farm(1, "python3");
    let job = NodeId::new(Kind::Processes, "job");
    let template = NodeId::new(Kind::Templates, "upstream");
    desired.needs.entry(template).or_default().push(Need {
        on: job.clone(),
        condition: Condition::Started,
    });
    let run = super::farm::run("job", None);
    let own = Node::Workload(Box::new(super::farm::workload(job.clone(), "job", 0, run)));
    desired.nodes.shift_insert(0, job.clone(), own);
    let mut world = World::new(desired);
    world.converge();
    let place = world.desired.nodes.get_index_of(&job).unwrap();
    let listed = world.desired.nodes.get_index_of(&prime(1)).unwrap();
    // The file is another one now, and may not be written before the job runs.
    let file = Path::new("/etc/upstream.conf");
    world.observed.files.insert(file.into(), FileView::Missing);
    let mut context = Context::new(&world.desired, &world.observed, &world.memory, world.now);
    let before = context.unsettled();
    context.set_level(listed, Level::FULL);
    let same = context.unsettled();
    assert!(std::rc::Rc::ptr_eq(&before, &same), "nothing waits for it");
    context.set_level(place, Level::FULL);
    let anew = context.unsettled();
    assert!(!std::rc::Rc::ptr_eq(&before, &anew), "worked out again");
}

#[test]
fn what_is_about_to_leave_need_not_answer_before_the_registry_opens() {
    for (leaves, ready) in [(false, false), (true, true)] {
        let mut world = alone();
        let endpoint = NodeId::endpoint("prime", "prime1");
        if let Some(Node::Endpoint(endpoint)) = world.desired.nodes.get_mut(&endpoint) {
            endpoint.checks.push(asked_check("t-prime-prime1:answers"));
        }
        let registry = NodeId::registry();
        if let Some(Node::Registry(registry)) = world.desired.nodes.get_mut(&registry) {
            registry.http = Some("127.0.0.1:8500".parse().unwrap());
        }
        world.memory.unchecked = ["t-prime-prime1:answers".to_owned()].into();
        let id = life(&mut world, &prime(1)).id.clone();
        if leaves {
            world.memory.restart.insert(id);
        }
        let plan = world.plan();
        let item = item(&plan, &registry);
        assert_eq!(item.gate == Gate::Ready, ready);
        assert_eq!(item.reason, "it does not listen");
    }
}

#[test]
fn once_the_proxies_had_their_time_only_connections_are_waited_for() {
    let mut world = alone();
    world.desired = farm(1, "python3.13");
    each_container(&mut world.desired, |node| {
        node.ports.insert(8080);
        node.drain.quiet = 60 * SECOND;
        node.drain.timeout = 60 * SECOND;
    });
    let id = life(&mut world, &prime(1)).id.clone();
    let farewell = match world.desired.nodes.get(&prime(1)) {
        Some(Node::Workload(node)) => node.farewell(),
        other => panic!("{other:?}"),
    };
    life(&mut world, &prime(1)).farewell = Some(farewell);
    world.observed.registered.clear();
    let since = world.now;
    world.memory.leaving.insert(id.clone(), since);
    world.observed.connections.insert(id, 1);
    world.now = since + 10 * SECOND;
    let plan = world.plan();
    assert!(
        plan.wake.is_some_and(|wake| wake > world.now),
        "{:?}",
        plan.wake
    );
}

/// The file that lists it is to be written anew: it does not go before that.
fn waits_for_the_file(world: &mut World) {
    let file = Path::new("/etc/upstream.conf");
    world.observed.files.insert(file.into(), FileView::Missing);
    let plan = world.plan();
    let gate = &item(&plan, &prime(1)).gate;
    assert!(
        matches!(gate, Gate::Waiting(on) if on[0].contains("files")),
        "{gate:?}"
    );
}

#[test]
fn what_others_have_told_meanwhile_gives_connections_no_more_time() {
    let mut world = World::new(farm(2, "python3"));
    world.converge();
    world.desired = farm(2, "python3.13");
    each_container(&mut world.desired, |node| {
        node.ports.insert(8080);
        node.drain.timeout = 60 * SECOND;
    });
    world.connections.insert("prime1".to_owned(), 1);
    let id = life(&mut world, &prime(1)).id.clone();
    for _ in 0..20 {
        world.pass();
    }
    let since = world.memory.draining[&id].since;
    for turn in 1..9 {
        world.now = since + turn * SECOND;
        waits_for_the_file(&mut world);
        for _ in 0..5 {
            world.pass();
        }
        assert_eq!(world.memory.draining[&id].since, since, "{turn}");
    }
    world.now = since + 60 * SECOND;
    assert_eq!(item(&world.plan(), &prime(1)).gate, Gate::Ready);
}

#[test]
fn a_container_that_serves_nothing_waits_for_files_that_may_list_its_address() {
    let mut world = World::new(farm(2, "python3"));
    world.converge();
    world.desired = farm(2, "python3.13");
    let endpoint = NodeId::endpoint("prime", "prime1");
    world.desired.nodes.shift_remove(&endpoint);
    world.observed.registered.remove("t-prime-prime1");
    waits_for_the_file(&mut world);
}

#[test]
fn the_ports_that_it_served_once_are_drained_though_no_service_leads_there() {
    for (ports, drains) in [(true, true), (false, false)] {
        let mut world = alone();
        let endpoint = NodeId::endpoint("prime", "prime1");
        world.desired = farm(1, "python3.13");
        world.desired.nodes.shift_remove(&endpoint);
        world.observed.registered.clear();
        each_container(&mut world.desired, |node| {
            node.drain.quiet = SECOND;
            node.drain.timeout = 60 * SECOND;
            if ports {
                node.ports.insert(8080);
            }
        });
        let farewell = match world.desired.nodes.get(&prime(1)) {
            Some(Node::Workload(node)) => node.farewell(),
            other => panic!("{other:?}"),
        };
        let life = life(&mut world, &prime(1));
        life.farewell = Some(farewell);
        let id = life.id.clone();
        let plan = world.plan();
        assert_eq!(plan.notes.leaving.contains(&id), drains, "{plan:#?}");
        assert_eq!(plan.notes.draining.contains_key(&id), drains);
    }
}

#[test]
fn tags_are_no_meta() {
    let mut world = alone();
    let node = NodeId::endpoint("prime", "prime1");
    let Some(Node::Endpoint(endpoint)) = world.desired.nodes.get_mut(&node) else {
        panic!("no endpoint");
    };
    let mut tagged = endpoint.clone();
    tagged.tags = vec!["a".to_owned(), "b".to_owned()];
    let mut described = endpoint.clone();
    described.tags.clear();
    described.meta.insert("a".to_owned(), "b".to_owned());
    assert_ne!(registration_hash(&tagged), registration_hash(&described));
}

#[test]
fn one_that_runs_and_is_not_ready_is_registered_all_the_same() {
    let mut world = alone();
    each_container(&mut world.desired, |node| {
        node.ready = ReadyNode::Check {
            check: asked_check("ready:prime1"),
            timeout: 60 * SECOND,
        };
    });
    world.memory.ready.clear();
    world.observed.registered.clear();
    let node = NodeId::endpoint("prime", "prime1");
    let plan = world.plan();
    assert!(matches!(item(&plan, &node).steps[..], [Step::Register(_)]));
    // What does not run is waited for.
    world.observed.lives.clear();
    let waits = Gate::Waiting(vec!["containers/prime1".to_owned()]);
    assert_eq!(item(&world.plan(), &node).gate, waits);
}

fn story(world: &World, name: &str) -> Explanation {
    let World {
        desired,
        observed,
        memory,
        now,
        ..
    } = world;
    explain(desired, observed, memory, *now, &Answers::new(), name).unwrap()
}

#[test]
fn a_story_names_the_file_that_differs_and_leaves_its_text_to_the_plan() {
    let mut world = alone();
    let file = Path::new("/etc/upstream.conf");
    let mark = match &world.observed.files[file] {
        FileView::File { mark, .. } => mark.clone(),
        other => panic!("{other:?}"),
    };
    put(&mut world.observed, file, "edited", mark);
    let told = story(&world, "templates/upstream");
    let diff = told.nodes[0].action.as_ref().unwrap().diff.as_ref();
    let diff = diff.expect("the file");
    assert_eq!(diff.path, file);
    assert_eq!(diff.new, None);
}

#[test]
fn a_life_is_told_as_it_stands() {
    let mut world = alone();
    let told = |world: &World| story(world, "containers/prime1").nodes[0].lives[0].clone();
    assert_eq!(told(&world).state, "running");
    assert_eq!(told(&world).pid, Some(1));
    each_container(&mut world.desired, |node| {
        node.ready = ReadyNode::Check {
            check: asked_check("ready:prime1"),
            timeout: 60 * SECOND,
        };
    });
    world.memory.ready.clear();
    assert_eq!(told(&world).state, "starting");
    life(&mut world, &prime(1)).main_pid = 0;
    assert_eq!(told(&world).pid, None);
}

#[test]
fn the_next_try_is_told_while_one_is_waited_for() {
    let mut world = alone();
    let retry_at = world.now + 5 * SECOND;
    for (running, next) in [(false, Some(5 * SECOND)), (true, None)] {
        let attempt = Attempt {
            running,
            attaches: None,
            life: None,
            failures: 1,
            error: Some((ErrorKind::Failed, "cannot".to_owned())),
            retry_at,
        };
        world.memory.attempts.insert(network(), attempt);
        let past = story(&world, "networks/prime0").nodes[0].past.clone();
        assert_eq!(past.next_try_in, next);
    }
    let mut world = alone();
    world.exit(&prime(1), Exit::Code(1));
    world.now = world.now + Duration::from_millis(200);
    let past = story(&world, "containers/prime1").nodes[0].past.clone();
    let next = past.next_try_in.unwrap();
    let least = Duration::from_millis(400);
    assert!(
        next > least && next < Duration::from_millis(1200),
        "{next:?}"
    );
}

#[test]
fn of_two_lives_the_older_ends() {
    for swapped in [false, true] {
        let mut world = alone();
        let mut second = life(&mut world, &prime(1)).clone();
        let first = second.id.clone();
        second.id.incarnation += 1;
        world.observed.lives.push(second);
        if swapped {
            world.observed.lives.reverse();
        }
        let plan = world.plan();
        let ends = |step: &Step| match step {
            Step::Kill(id) | Step::Signal { life: id, .. } => Some(id.clone()),
            _ => None,
        };
        let ended: Vec<LifeId> = item(&plan, &prime(1))
            .steps
            .iter()
            .filter_map(ends)
            .collect();
        assert_eq!(ended, [first]);
    }
}

#[test]
fn a_text_that_waits_does_so_since_it_is_that_text() {
    let mut memory = Memory::default();
    let name = "upstream".to_owned();
    let of = |hash: &str| Notes {
        pending: [(name.clone(), hash.to_owned())].into(),
        ..Notes::default()
    };
    let told = |memory: &Memory| memory.templates[&name].pending.clone();
    for (now, hash, first, last) in [
        (1, "a", 1, 1),
        (2, "a", 1, 1),
        (3, "b", 1, 3),
        (4, "b", 1, 3),
    ] {
        memory.absorb(&of(hash), Time(now));
        let pending = Pending {
            hash: hash.to_owned(),
            first: Time(first),
            last: Time(last),
        };
        assert_eq!(told(&memory), Some(pending));
    }
    memory.absorb(&Notes::default(), Time(5));
    assert_eq!(told(&memory), None);
}

#[test]
fn one_that_was_late_and_turned_well_unasked_is_late_no_more() {
    let id = |incarnation| LifeId {
        node: prime(1),
        incarnation,
    };
    let mut memory = Memory::default();
    let late = Notes {
        late: [id(1), id(2), id(3)].into(),
        ..Notes::default()
    };
    memory.absorb(&late, Time(1));
    memory.asked.insert(id(1), Time(1));
    let still = Notes {
        late: [id(2)].into(),
        ..Notes::default()
    };
    memory.absorb(&still, Time(2));
    assert_eq!(memory.late, [id(1), id(2)].into());
}

#[test]
fn so_many_verdicts_are_kept_and_the_oldest_goes() {
    let mut memory = Memory::default();
    let most = u64::try_from(Memory::VERDICTS).unwrap();
    for number in 0..most + 2 {
        memory.judge(number.to_string(), true, String::new(), Time(number));
        let kept = (number + 1).min(most);
        assert_eq!(memory.verdicts.len() as u64, kept);
    }
    assert!(!memory.verdicts.contains_key("0") && !memory.verdicts.contains_key("1"));
    assert!(memory.verdicts.contains_key("2"));
}

#[test]
fn a_bridge_is_whole_with_its_address_while_it_is_up() {
    type Break = fn(&mut BridgeView);
    let ways: [Break; 4] = [
        |bridge| bridge.up = false,
        |bridge| bridge.addresses.clear(),
        |bridge| bridge.addresses = vec!["10.50.0.1/16".parse().unwrap()],
        |bridge| bridge.addresses = vec!["10.50.0.2/24".parse().unwrap()],
    ];
    for breaks in ways {
        let mut world = alone();
        breaks(world.observed.network.bridges.get_mut("prime0").unwrap());
        let plan = world.plan();
        assert_eq!(item(&plan, &network()).change, Change::Change);
        assert_eq!(
            item(&plan, &network()).reason,
            "it is not up with its address"
        );
    }
    for (off, whole, reason) in [
        (true, true, "net.ipv4.ip_forward is off"),
        (true, false, "it is not up with its address"),
    ] {
        let mut world = alone();
        if let Some(Node::Network(network)) = world.desired.nodes.get_mut(&network()) {
            network.forward = true;
        }
        world.observed.network.forward = !off;
        let bridge = world.observed.network.bridges.get_mut("prime0").unwrap();
        bridge.up = whole;
        assert_eq!(item(&world.plan(), &network()).reason, reason);
    }
}
