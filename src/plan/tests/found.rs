//! What only long histories brought to light, each alone.

use super::world::container;
use super::*;
use crate::graph::desired::Farewell;
use crate::plan::model::{Note, Plan};
use crate::plan::world::AttachmentView;
use crate::spec::model::{Condition, RestartPolicy};
use farm::{each_container, seated};

const SECOND: Duration = Duration::from_secs(1);

fn prime(number: u32) -> NodeId {
    NodeId::new(Kind::Containers, format!("prime{number}"))
}

fn nginx() -> NodeId {
    NodeId::new(Kind::Processes, "nginx")
}

fn gate<'a>(plan: &'a Plan, node: &NodeId) -> Option<&'a Gate> {
    let item = plan.items.iter().find(|item| item.node == *node)?;
    Some(&item.gate)
}

fn waits_on(plan: &Plan, node: &NodeId) -> String {
    match gate(plan, node) {
        Some(Gate::Waiting(on)) => on.join(", "),
        other => panic!("{node}: {other:?}"),
    }
}

fn view(address: &str) -> AttachmentView {
    AttachmentView {
        namespace: true,
        link: Some(("link".to_owned(), Some("prime0".to_owned()))),
        address: Some(address.parse().unwrap()),
        gateway: None,
        firewall: None,
        foreign: None,
    }
}

fn attempt(namespace: &str, running: bool) -> Attempt {
    let mut attaches = container(1, "python3").attachment.unwrap();
    attaches.namespace = namespace.to_owned();
    Attempt {
        running,
        attaches: Some(Box::new(attaches)),
        life: None,
        failures: 0,
        error: None,
        retry_at: Default::default(),
    }
}

#[test]
fn what_is_being_attached_holds_its_address() {
    let mut world = World::new(farm(1, "python3"));
    world.pass();
    let leaving = NodeId::new(Kind::Containers, "old");
    let under_way = attempt("hatchery-t-old", true);
    world.memory.attempts.insert(leaving.clone(), under_way);
    let words = waits_on(&world.plan(), &prime(1));
    assert_eq!(words, "containers/old to give up 10.50.0.2");
    // One that is over holds nothing: what it made is seen by now.
    let over = attempt("hatchery-t-old", false);
    world.memory.attempts.insert(leaving, over);
    assert_eq!(gate(&world.plan(), &prime(1)), Some(&Gate::Ready));
}

#[test]
fn a_bridge_stays_while_something_is_being_attached_to_it() {
    let mut world = World::new(farm(1, "python3"));
    world.pass();
    world.memory.down = Some(Down { kill: false });
    let bridge = NodeId::new(Kind::Networks, "prime0");
    assert_eq!(gate(&world.plan(), &bridge), Some(&Gate::Ready));
    let under_way = attempt("hatchery-t-prime1", true);
    world.memory.attempts.insert(prime(1), under_way);
    assert_eq!(waits_on(&world.plan(), &bridge), "the links of `prime0`");
}

#[test]
fn a_registration_under_way_is_one_to_be_taken_back() {
    let mut world = World::new(farm(1, "python3"));
    world.converge();
    world.desired = farm(1, "python3.13");
    world.observed.registered.clear();
    let mut under_way = attempt("nothing", true);
    under_way.attaches = None;
    let endpoint = NodeId::endpoint("prime", "prime1");
    world.memory.attempts.insert(endpoint.clone(), under_way);
    let plan = world.plan();
    let words = waits_on(&plan, &prime(1));
    assert_eq!(words, "`t-prime-prime1` to leave the registry");
    world.memory.attempts.remove(&endpoint);
    world.converge();
}

#[test]
fn an_address_that_nobody_uses_is_given_up_for_one_who_is_to_have_it() {
    let mut world = World::new(farm(2, "python3"));
    world.pass();
    // The second one's namespace is still where the first is to be.
    let attachments = &mut world.observed.network.attachments;
    attachments.insert("hatchery-t-prime2".to_owned(), view("10.50.0.2/24"));
    let plan = world.plan();
    let old = NodeId::new(Kind::Networks, "links/prime2");
    assert_eq!(gate(&plan, &old), Some(&Gate::Ready));
    assert_eq!(waits_on(&plan, &prime(2)), "its old link to go");
    assert_eq!(
        waits_on(&plan, &prime(1)),
        "containers/prime2 to give up 10.50.0.2"
    );
    world.converge();
    assert_eq!(world.lives().len(), 3);

    // Where nobody is to have it, it is changed in place.
    let mut world = World::new(farm(2, "python3"));
    world.pass();
    let attachments = &mut world.observed.network.attachments;
    attachments.insert("hatchery-t-prime2".to_owned(), view("10.50.0.9/24"));
    let plan = world.plan();
    assert_eq!(gate(&plan, &old), None);
    assert_eq!(gate(&plan, &prime(2)), Some(&Gate::Ready));
}

#[test]
fn a_namespace_that_no_life_is_in_waits_for_none() {
    let mut world = World::new(farm(1, "python3"));
    let away = |desired: &mut Desired| {
        each_container(desired, |node| {
            node.attachment = None;
            node.run.container.as_mut().unwrap().network = NetworkRun::Host;
        });
    };
    away(&mut world.desired);
    world.converge();
    let attachments = &mut world.observed.network.attachments;
    attachments.insert("hatchery-t-prime1".to_owned(), view("10.50.0.2/24"));
    let link = NodeId::new(Kind::Networks, "links/prime1");
    assert_eq!(gate(&world.plan(), &link), Some(&Gate::Ready));
    // One that is to be replaced may still be in it.
    let mut other = farm(1, "python3.13");
    away(&mut other);
    world.desired = other;
    let words = waits_on(&world.plan(), &link);
    assert_eq!(words, "containers/prime1 to end");
}

#[test]
fn a_start_that_was_cut_off_is_made_again_at_once_and_counts_as_nothing() {
    for policy in [RestartPolicy::No, RestartPolicy::OnFailure] {
        let mut world = World::new(farm(1, "python3"));
        each_container(&mut world.desired, |node| node.restart.policy = policy);
        world.converge();
        let cut = Exit::NotBegun;
        world.exit(&prime(1), cut);
        let memory = &world.memory.workloads[&prime(1)];
        assert_eq!(memory.failures, 0);
        let plan = world.plan();
        let item = plan.items.iter().find(|item| item.node == prime(1));
        let item = item.unwrap();
        assert_eq!(
            (&item.gate, item.reason.as_str()),
            (&Gate::Ready, "its start was cut off")
        );
    }
}

#[test]
fn a_newcomer_that_did_its_work_lets_the_old_one_go() {
    for (exit, goes) in [(Exit::Code(0), true), (Exit::Code(1), false)] {
        let mut world = World::new(seated(1, "python3"));
        world.converge();
        world.desired = seated(1, "python3.13");
        let newcomer = NodeId::new(Kind::Containers, "prime1.b");
        world.sick.insert(newcomer.name.clone());
        while !world.lives().contains_key("containers/prime1.b") {
            world.pass();
        }
        world.exit(&newcomer, exit);
        for _ in 0..20 {
            world.pass();
        }
        assert_eq!(!world.lives().contains_key("containers/prime1"), goes);
    }
}

#[test]
fn whoever_reads_a_file_is_told_again_when_it_held_something_else_for_a_moment() {
    let mut world = World::new(farm(1, "python3"));
    world.converge();
    world.done.clear();
    let text = match world.file() {
        FileView::File { mark, .. } => mark.clone(),
        other => panic!("{other:?}"),
    };
    let path = std::path::Path::new("/etc/upstream.conf");
    put(&mut world.observed, path, "of somebody", text);
    world.converge();
    let at = |what: fn(&Step) -> bool| world.done.iter().position(what).unwrap();
    let untold = at(|step| {
        matches!(step, Step::Note { note: Note::Applied(applied), .. }
            if applied["upstream"].is_empty())
    });
    let written = at(|step| matches!(step, Step::Write(_)));
    let told = at(|step| matches!(step, Step::ReloadProcess { .. }));
    assert!(untold < written && written < told);
    let life = world.observed.lives.iter().find(|l| l.id.node == nginx());
    assert!(!life.unwrap().applied["upstream"].is_empty());
}

#[test]
fn how_a_life_ends_is_noted_as_it_changes_and_its_ports_stay() {
    let mut world = World::new(farm(1, "python3"));
    each_container(&mut world.desired, |node| {
        node.ports.insert(8080);
    });
    world.converge();
    world.desired = farm(1, "python3");
    each_container(&mut world.desired, |node| {
        node.ports.insert(9090);
        node.stop_grace_period = 3 * SECOND;
    });
    let plan = world.plan();
    let item = plan.items.iter().find(|item| item.node == prime(1));
    let reason = &item.unwrap().reason;
    assert_eq!(reason, "stop_grace_period, drained ports changed");
    world.converge();
    let life = world.observed.lives.iter().find(|l| l.id.node == prime(1));
    let farewell: &Farewell = life.unwrap().farewell.as_ref().unwrap();
    assert_eq!(farewell.grace, 3 * SECOND);
    assert_eq!(farewell.ports, BTreeSet::from([8080, 9090]));
    assert_eq!(container(1, "python3").farewell().ports, BTreeSet::new());
}

#[test]
fn a_file_that_cannot_be_looked_at_counts_as_untold() {
    let mut world = World::new(farm(2, "python3"));
    world.converge();
    world.edit(farm(1, "python3"));
    let path = std::path::PathBuf::from("/etc/upstream.conf");
    let good = world.observed.files[&path].clone();
    let error = FileView::Unreadable("input/output error".to_owned());
    world.observed.files.insert(path.clone(), error);
    world.pass();
    let plan = world.plan();
    assert_eq!(waits_on(&plan, &prime(2)), "the files that list it");
    let template = NodeId::new(Kind::Templates, "upstream");
    assert_eq!(
        gate(&plan, &template),
        Some(&Gate::Blocked(
            "cannot look at `/etc/upstream.conf`: input/output error".to_owned()
        ))
    );
    world.observed.files.insert(path, good);
    world.converge();
}

#[test]
fn removals_that_nobody_remembers_the_order_of_wait_in_no_circle() {
    let mut world = World::new(farm(2, "python3"));
    world.converge();
    // The next controller knows this spec only, in which nginx needs another thing.
    world.memory = Memory::default();
    let needs = world.desired.needs.clone();
    let mut left = farm(0, "python3");
    left.nodes.shift_remove(&nginx());
    left.needs.remove(&nginx());
    for (node, needs) in needs.iter().filter(|(node, _)| **node != nginx()) {
        let on = needs.iter().map(|need| need.on.clone()).collect();
        world.memory.past_needs.insert(node.clone(), on);
    }
    world.desired = left;
    let plan = world.plan();
    assert_eq!(waits_on(&plan, &prime(1)), "processes/nginx to end");
    assert_eq!(gate(&plan, &nginx()), Some(&Gate::Ready));
    world.converge();
    assert!(world.lives().is_empty());
}

#[test]
fn what_led_to_a_life_under_an_earlier_spec_is_waited_for() {
    let mut world = World::new(farm(1, "python3"));
    world.converge();
    let mut farewell = container(1, "python3").farewell();
    farewell.ports.insert(8080);
    let memory = world.memory.workloads.entry(prime(1)).or_default();
    memory.farewell = Some(farewell);
    world.edit(farm(1, "python3.13"));
    world.connections.insert("prime1".to_owned(), 1);
    let began = world.now;
    let asked = |step: &Step| matches!(step, Step::Signal { .. });
    while !world.done.iter().any(asked) {
        world.pass();
    }
    assert!(world.now.since(began) >= 10 * SECOND);
}

fn healthy(on: NodeId) -> Need {
    Need {
        on,
        condition: Condition::Healthy,
    }
}

#[test]
fn a_check_is_as_far_as_all_who_use_it() {
    let mut desired = farm(2, "python3");
    let check = NodeId::new(Kind::Checks, "answers");
    let own = desired.nodes.shift_remove(&nginx()).unwrap();
    desired.nodes.insert(check.clone(), Node::Check);
    desired.nodes.insert(nginx(), own);
    let users = ["prime1", "prime2"].map(|target| healthy(NodeId::endpoint("prime", target)));
    desired.needs.insert(check.clone(), users.to_vec());
    desired
        .needs
        .get_mut(&nginx())
        .unwrap()
        .push(healthy(check));
    let mut world = World::new(desired);
    world.sick.insert("prime2".to_owned());
    for _ in 0..20 {
        world.pass();
    }
    assert_eq!(
        waits_on(&world.plan(), &nginx()),
        "checks/answers to be healthy"
    );
    world.sick.clear();
    world.converge();
}

#[test]
fn of_two_seats_the_further_one_counts() {
    let spec = |command| {
        let mut desired = seated(1, command);
        let seat = NodeId::new(Kind::Containers, "prime1.b");
        let needs = desired.needs.get_mut(&nginx()).unwrap();
        needs.extend([healthy(prime(1)), healthy(seat)]);
        desired
    };
    let mut world = World::new(spec("python3"));
    world.converge();
    world.edit(spec("python3.13"));
    world.sick.insert("prime1.b".to_owned());
    while !world.lives().contains_key("containers/prime1.b") {
        world.pass();
    }
    world.exit(&nginx(), Exit::Code(1));
    for _ in 0..20 {
        world.pass();
    }
    assert!(world.lives().contains_key("processes/nginx"));
    assert_eq!(world.lives().len(), 3);
}

#[test]
fn a_service_that_left_the_spec_is_waited_for_though_another_leads_here_now() {
    let mut world = World::new(farm(1, "python3"));
    world.converge();
    let mut next = farm(1, "python3.13");
    let old = NodeId::endpoint("prime", "prime1");
    let Some(Node::Endpoint(mut endpoint)) = next.nodes.shift_remove(&old) else {
        panic!("no endpoint");
    };
    endpoint.service = "other".to_owned();
    endpoint.service_id = "t-other-prime1".to_owned();
    let new = NodeId::endpoint("other", "prime1");
    next.nodes.insert(new.clone(), Node::Endpoint(endpoint));
    let needs = next.needs.remove(&old).unwrap();
    next.needs.insert(new, needs);
    world.edit(next);
    let words = waits_on(&world.plan(), &prime(1));
    assert_eq!(words, "`t-prime-prime1` to leave the registry");
    world.converge();
}

#[test]
fn nothing_is_put_on_a_bridge_that_is_being_removed() {
    let mut world = World::new(farm(1, "python3"));
    let bridge = NodeId::new(Kind::Networks, "prime0");
    world.pass();
    let mut under_way = attempt("nothing", true);
    under_way.attaches = None;
    world.memory.attempts.insert(bridge.clone(), under_way);
    let plan = world.plan();
    assert_eq!(gate(&plan, &bridge), None);
    assert_eq!(waits_on(&plan, &prime(1)), "networks/prime0");
    world.memory.attempts.remove(&bridge);
    world.converge();
}

#[test]
fn what_is_still_being_undone_is_not_there_for_those_that_need_it() {
    let mut desired = farm(1, "python3");
    let once = NodeId::new(Kind::Processes, "once");
    let mut own = super::farm::workload(once.clone(), "once", 1, super::farm::run("true", None));
    own.restart.policy = RestartPolicy::No;
    desired
        .nodes
        .shift_insert(0, once.clone(), Node::Workload(Box::new(own)));
    desired.needs.insert(once.clone(), Vec::new());
    let need = Need {
        on: once.clone(),
        condition: Condition::Completed,
    };
    desired.needs.get_mut(&prime(1)).unwrap().push(need);
    let mut world = World::new(desired);
    world.pass();
    world.exit(&once, Exit::Code(0));
    let mut under_way = attempt("nothing", true);
    under_way.attaches = None;
    world.memory.attempts.insert(once.clone(), under_way);
    let words = waits_on(&world.plan(), &prime(1));
    assert_eq!(words, "processes/once to complete");
    world.memory.attempts.remove(&once);
    world.converge();
    assert!(world.lives().contains_key("containers/prime1"));
}

#[test]
fn a_file_stays_while_something_is_started_that_may_read_it() {
    let mut world = World::new(farm(1, "python3"));
    world.converge();
    let nginx = NodeId::new(Kind::Processes, "nginx");
    world.exit(&nginx, Exit::Code(1));
    // Its start was begun when it needed the file; by now it does not, and the file has left.
    let template = NodeId::new(Kind::Templates, "upstream");
    world.desired.nodes.shift_remove(&template);
    world.desired.needs.remove(&template);
    world.desired.needs.remove(&nginx);
    world.observed.lives.retain(|life| life.id.node != nginx);
    let mut attempt = Attempt {
        running: true,
        attaches: None,
        life: None,
        failures: 0,
        error: None,
        retry_at: world.now,
    };
    world.memory.attempts.insert(nginx.clone(), attempt.clone());
    let gate = |world: &mut World| {
        let plan = world.plan();
        let item = plan.items.iter().find(|item| item.node == template);
        item.expect("the file is to go").gate.clone()
    };
    let waits = Gate::Waiting(vec!["the start of processes/nginx".to_owned()]);
    assert_eq!(gate(&mut world), waits);
    attempt.running = false;
    world.memory.attempts.insert(nginx, attempt);
    assert_eq!(gate(&mut world), Gate::Ready);
}
