//! What leaves: in which order, for which reason, and what is left alone.

use std::path::Path;

use super::farm::each_container;
use super::*;
use crate::plan::model::{Item, Plan};
use crate::plan::world::{FileMark, LifeId};
use crate::spec::model::Drain;

const SECOND: Duration = Duration::from_secs(1);

fn prime(number: u32) -> NodeId {
    NodeId::new(Kind::Containers, format!("prime{number}"))
}

fn nginx() -> NodeId {
    NodeId::new(Kind::Processes, "nginx")
}

fn upstream() -> NodeId {
    NodeId::new(Kind::Templates, "upstream")
}

fn item<'a>(plan: &'a Plan, node: &NodeId) -> &'a Item {
    let item = plan.items.iter().find(|item| item.node == *node);
    item.unwrap_or_else(|| panic!("{node} has no item: {:#?}", plan.items))
}

fn converged(desired: Desired) -> World {
    let mut world = World::new(desired);
    world.converge();
    world
}

fn at(world: &World, what: fn(&Step) -> bool) -> usize {
    let place = world.done.iter().position(what);
    place.unwrap_or_else(|| panic!("not among {:#?}", world.done))
}

/// nginx needs nothing, so that only what is common to all processes holds files back.
fn loose(replicas: u32) -> Desired {
    let mut desired = farm(replicas, "python3");
    desired.needs.remove(&nginx());
    desired
}

#[test]
fn the_reason_is_the_spec_or_the_stacks_end() {
    let mut world = converged(farm(2, "python3"));
    world.edit(farm(1, "python3"));
    assert_eq!(item(&world.plan(), &prime(2)).reason, "not in the spec");
    world.memory.down = Some(Down { kill: false });
    let plan = world.plan();
    for node in [prime(1), prime(2), nginx(), upstream()] {
        assert_eq!(item(&plan, &node).reason, "the stack goes down");
    }
}

#[test]
fn of_two_lives_that_left_the_older_ends_at_once() {
    let mut world = converged(farm(2, "python3"));
    let mut lives = world.observed.lives.iter();
    let first = lives.find(|life| life.id.node == prime(2)).unwrap().clone();
    let mut second = first.clone();
    second.id.incarnation += 1;
    world.observed.lives.push(second);
    world.edit(farm(1, "python3"));
    let plan = world.plan();
    let item = item(&plan, &prime(2));
    assert_eq!(item.reason, "a second life of it runs");
    assert!(matches!(&item.steps[..], [Step::Kill(id)] if *id == first.id));
}

#[test]
fn a_stack_that_goes_down_waits_for_nobodys_connections() {
    let mut desired = farm(1, "python3");
    each_container(&mut desired, |node| {
        node.ports.insert(8080);
        node.drain = Drain {
            quiet: SECOND,
            timeout: 60 * SECOND,
        };
    });
    let mut world = converged(desired);
    world.connections.insert("prime1".to_owned(), 3);
    world.memory.down = Some(Down { kill: false });
    let began = world.now;
    while world.lives().contains_key("containers/prime1") {
        let notes = world.pass().notes;
        assert!(notes.leaving.is_empty() && notes.draining.is_empty());
    }
    assert!(world.now.since(began) < SECOND);
}

#[test]
fn one_that_left_and_was_asked_is_not_drained_any_more() {
    let mut world = converged(farm(2, "python3"));
    world.edit(farm(1, "python3"));
    let mut lives = world.observed.lives.iter();
    let id: LifeId = lives
        .find(|life| life.id.node == prime(2))
        .unwrap()
        .id
        .clone();
    world.memory.asked.insert(id, world.now);
    let plan = world.plan();
    let expected = Gate::Waiting(vec!["it to end, at most 10s".to_owned()]);
    assert_eq!(item(&plan, &prime(2)).gate, expected);
}

#[test]
fn a_file_of_another_stack_is_left_alone() {
    let mut world = converged(farm(1, "python3"));
    for (stack, ours) in [("t", true), ("other", false)] {
        let mark = FileMark {
            stack: stack.to_owned(),
            template: "former".to_owned(),
            hash: String::new(),
        };
        let path = format!("/etc/{stack}.conf");
        put(&mut world.observed, Path::new(&path), "text", Some(mark));
        let plan = world.plan();
        let removed = plan.items.iter().flat_map(|item| &item.steps).any(
            |step| matches!(step, Step::RemoveFile { path: gone, .. } if *gone == Path::new(&path)),
        );
        assert_eq!(removed, ours, "{stack}");
    }
    world.memory.down = Some(Down { kill: false });
    world.converge();
    let left = &world.observed.files[Path::new("/etc/other.conf")];
    assert!(matches!(left, FileView::File { .. }));
}

#[test]
fn an_old_destination_serves_until_the_new_one_does() {
    let mut world = converged(farm(1, "python3"));
    let mut desired = farm(2, "python3");
    if let Some(Node::Template(template)) = desired.nodes.get_mut(&upstream()) {
        template.destination = "/etc/elsewhere.conf".into();
    }
    world.edit(desired);
    let plan = world.plan();
    let old = NodeId::new(Kind::Templates, "upstream/old");
    let expected = Gate::Waiting(vec!["`/etc/elsewhere.conf`".to_owned()]);
    assert_eq!(item(&plan, &old).gate, expected);
    world.converge();
    let written = at(&world, |step| matches!(step, Step::Write(_)));
    let told = at(&world, |step| matches!(step, Step::ReloadProcess { .. }));
    let removed = at(&world, |step| matches!(step, Step::RemoveFile { .. }));
    assert!(written < told && told < removed);
    assert_eq!(*world.file(), FileView::Missing);
}

#[test]
fn with_nothing_pruned_files_stay_unless_their_template_writes_elsewhere() {
    let file = Path::new("/etc/upstream.conf");
    let gone = |world: &World| world.observed.files[file] == FileView::Missing;
    let mut moved = farm(1, "python3");
    if let Some(Node::Template(template)) = moved.nodes.get_mut(&upstream()) {
        template.destination = "/etc/elsewhere.conf".into();
    }
    let mut without = farm(1, "python3");
    without.nodes.shift_remove(&upstream());
    without.needs.remove(&nginx());
    for (desired, goes) in [(moved, true), (without, false)] {
        let mut world = converged(farm(1, "python3"));
        world.memory.keeps = true;
        world.edit(desired);
        world.converge();
        assert_eq!(gone(&world), goes);
        world.memory.down = Some(Down { kill: false });
        world.converge();
        assert!(gone(&world), "a stack that goes down keeps nothing");
    }
}

#[test]
fn files_go_after_every_process_and_after_every_start() {
    let mut world = converged(loose(1));
    world.memory.down = Some(Down { kill: false });
    let expected = Gate::Waiting(vec!["processes/nginx to end".to_owned()]);
    assert_eq!(item(&world.plan(), &upstream()).gate, expected);
    world.exit(&nginx(), Exit::Code(0));
    assert_eq!(item(&world.plan(), &upstream()).gate, Gate::Ready);
    let attempt = Attempt {
        running: true,
        attaches: None,
        life: None,
        failures: 0,
        error: None,
        retry_at: world.now,
    };
    world.memory.attempts.insert(nginx(), attempt);
    let expected = Gate::Waiting(vec!["the start of processes/nginx".to_owned()]);
    assert_eq!(item(&world.plan(), &upstream()).gate, expected);
}

#[test]
fn a_namespace_goes_after_what_is_in_it_and_a_bridge_after_its_links() {
    let mut world = converged(farm(2, "python3"));
    world.edit(farm(1, "python3"));
    let link = NodeId::new(Kind::Networks, "links/prime2");
    let waits = |on: &str| Gate::Waiting(vec![on.to_owned()]);
    let plan = world.plan();
    assert_eq!(item(&plan, &link).gate, waits("containers/prime2 to end"));
    world.exit(&prime(2), Exit::Code(0));
    assert_eq!(item(&world.plan(), &link).gate, Gate::Ready);
    let attempt = Attempt {
        running: true,
        attaches: None,
        life: None,
        failures: 0,
        error: None,
        retry_at: world.now,
    };
    world.memory.attempts.insert(prime(2), attempt);
    let plan = world.plan();
    assert_eq!(
        item(&plan, &link).gate,
        waits("the start of containers/prime2")
    );
    world.memory.attempts.clear();

    let mut bare = farm(1, "python3");
    bare.nodes.retain(|id, _| id.kind == Kind::Registry);
    bare.needs.clear();
    world.edit(bare);
    let bridge = NodeId::new(Kind::Networks, "prime0");
    let plan = world.plan();
    assert_eq!(item(&plan, &bridge).gate, waits("the links of `prime0`"));
    world.memory.keeps = true;
    let plan = world.plan();
    assert!(plan.items.iter().all(|item| item.node != bridge));
    // Nobody is on it any more: it need not be kept for anybody.
    world.memory.keeps = true;
    world.observed.network.attachments.clear();
    assert_eq!(item(&world.plan(), &bridge).gate, Gate::Ready);
}

#[test]
fn eight_that_are_to_end_first_are_named_and_the_rest_is_counted() {
    for (replicas, more) in [(8_u32, None), (11, Some("3 more of them"))] {
        let mut world = converged(farm(replicas, "python3"));
        world.memory.down = Some(Down { kill: false });
        world.exit(&nginx(), Exit::Code(0));
        let plan = world.plan();
        let bridge = NodeId::new(Kind::Networks, "prime0");
        let context = crate::plan::context::Context::new(
            &world.desired,
            &world.observed,
            &world.memory,
            world.now,
        );
        let left = context.dependents_left(&bridge);
        assert_eq!(left.len(), 8 + usize::from(more.is_some()));
        let last = left.last().map(String::as_str);
        assert_eq!(last.filter(|words| words.contains("more")), more);
        assert!(item(&plan, &prime(1)).gate == Gate::Ready);
    }
}
