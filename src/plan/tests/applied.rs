//! A plan that was kept in a file: when it still holds, and what applying it lets happen.

use std::path::Path;
use std::time::Duration;

use super::farm::farm;
use super::world::{World, put};
use crate::graph::desired::{Desired, Node};
use crate::plan::memory::Down;
use crate::plan::model::{Change, Gate, NodeState, Step};
use crate::plan::saved::{SavedPlan, Sight};
use crate::plan::world::{Exit, Registered};
use crate::spec::node::NodeId;
use crate::spec::texts::SpecText;

const TEXT: &str = "name: t\n";
const WATCHED: &str = "/spec/work.py";

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// The farm, whose containers watch a file.
fn watching(replicas: u32, command: &str) -> Desired {
    let mut desired = farm(replicas, command);
    for node in desired.nodes.values_mut() {
        if let Node::Workload(workload) = node
            && workload.group == "prime"
        {
            workload.watch.push(WATCHED.into());
        }
    }
    desired
}

fn world(replicas: u32) -> World {
    let mut world = World::new(watching(replicas, "python3"));
    put(&mut world.observed, Path::new(WATCHED), "one", None);
    world
}

fn saved_of(world: &mut World, text: &str, by_controller: bool) -> SavedPlan {
    let plan = world.plan();
    SavedPlan::new(
        &sight(world, &plan),
        &SpecText::of("/s.yaml", text),
        by_controller,
    )
}

fn sight<'a>(world: &'a World, plan: &'a crate::plan::model::Plan) -> Sight<'a> {
    Sight {
        desired: &world.desired,
        observed: &world.observed,
        memory: &world.memory,
        plan,
        now: world.now,
    }
}

/// What changed between two plans of this world, with `change` between them.
fn differences(world: &mut World, change: impl FnOnce(&mut World)) -> Vec<String> {
    let before = saved_of(world, TEXT, true);
    change(world);
    before.differences(&saved_of(world, TEXT, true))
}

/// Applies a plan of `desired` that holds only what `of` lets through.
fn apply(world: &mut World, desired: Desired, of: impl Fn(&NodeId) -> bool) {
    world.edit(desired);
    let mut saved = saved_of(world, TEXT, true);
    saved.items.retain(|item| of(&item.node));
    let plan = world.plan();
    let permit = saved.permit(&sight(world, &plan));
    world.memory.permitted = Some(permit);
}

/// Passes until nothing but withheld actions is outstanding.
fn settle(world: &mut World) -> Vec<(String, Change)> {
    for _ in 0..400 {
        let plan = world.pass();
        let withheld =
            |gate: &Gate| matches!(gate, Gate::Waiting(on) if on[0].contains("applied plan"));
        if plan.items.iter().all(|item| withheld(&item.gate)) {
            return plan
                .items
                .iter()
                .map(|item| (item.node.to_string(), item.change))
                .collect();
        }
    }
    panic!("it does not settle: {:#?}", world.plan().items);
}

#[test]
fn the_same_world_gives_the_same_plan() {
    let mut world = world(2);
    let before = saved_of(&mut world, TEXT, false);
    world.now = world.now + Duration::from_secs(3600);
    let after = saved_of(&mut world, TEXT, false);
    assert_eq!(before.differences(&after), Vec::<String>::new());
    world.converge();
    assert_eq!(differences(&mut world, |_| {}), Vec::<String>::new());
}

#[test]
fn a_plan_file_holds_neither_the_spec_nor_what_is_rendered() {
    let mut world = world(2);
    if let Some(Node::Workload(nginx)) = world.desired.nodes.get_mut(&id("processes/nginx")) {
        nginx
            .run
            .environment
            .insert("TOKEN".to_owned(), "hunter2".to_owned());
    }
    let saved = saved_of(&mut world, "name: t # hunter2\n", true);
    let json = serde_json::to_string_pretty(&saved).unwrap();
    assert!(!json.contains("hunter2"), "{json}");
    assert!(!json.contains("server "), "{json}");
    assert_eq!(serde_json::from_str::<SavedPlan>(&json).unwrap(), saved);
    assert!(
        saved
            .items
            .iter()
            .any(|item| item.node == id("processes/nginx"))
    );
}

#[test]
fn what_changed_since_is_named() {
    let mut world = world(2);
    world.converge();
    let before = saved_of(&mut world, TEXT, true);
    let prime2 = id("containers/prime2");
    world.exit(&prime2, Exit::Code(137));
    world.memory.stopped.insert(id("containers/prime1"));
    put(&mut world.observed, Path::new(WATCHED), "two", None);
    world.observed.network.bridges.clear();
    world.observed.registered.remove("t-prime-prime1");
    let after = saved_of(&mut world, TEXT, true);
    insta::assert_snapshot!(before.differences(&after).join("\n"), @r"
    /spec/work.py changed
    networks/prime0: its bridge is gone
    containers/prime1: was stopped by an operator
    containers/prime2: exited 137
    services/prime/prime1: its registration is gone
    templates/upstream: its rendered text is gone
    ");
    let other = saved_of(&mut world, "name: other\n", true);
    insta::assert_snapshot!(after.differences(&other).join("\n"), @"/s.yaml changed");
    let alone = saved_of(&mut world, TEXT, false);
    insta::assert_snapshot!(after.differences(&alone)[0], @"the controller that it was made by has ended");
}

#[test]
fn one_that_died_and_runs_again_is_told_from_one_that_lived_on() {
    let mut world = world(2);
    world.converge();
    let prime2 = id("containers/prime2");
    let said = differences(&mut world, |world| {
        world.exit(&prime2, Exit::Code(137));
        world.converge();
    });
    assert_eq!(said, ["containers/prime2: exited 137, was started"]);
    let said = differences(&mut world, |world| {
        let registered = Registered {
            hash: "another".to_owned(),
            service: "prime".to_owned(),
            target: Some(prime2.clone()),
        };
        let all = &mut world.observed.registered;
        all.insert("t-prime-prime2".to_owned(), registered);
    });
    assert_eq!(said, ["services/prime/prime2: its registration changed"]);
}

#[test]
fn a_whole_plan_is_carried_out_to_the_end() {
    let mut world = world(2);
    apply(&mut world, watching(2, "python3"), |_| true);
    assert_eq!(settle(&mut world), []);
    // More instances: the file that lists them, and nginx, follow though no item was theirs.
    apply(&mut world, watching(4, "python3"), |_| true);
    assert_eq!(settle(&mut world), []);
    assert_eq!(world.lives().len(), 5);
    let told = |step: &Step| matches!(step, Step::ReloadProcess { .. });
    assert!(world.done.iter().any(told), "nginx was not told");
    apply(&mut world, watching(4, "python4"), |_| true);
    assert_eq!(settle(&mut world), []);
    apply(&mut world, watching(1, "python4"), |_| true);
    assert_eq!(settle(&mut world), []);
    assert_eq!(world.lives().len(), 2);
}

#[test]
fn what_is_not_in_the_plan_waits_and_serves_on() {
    let mut world = world(2);
    world.converge();
    let before = world.lives();
    let prime1 = id("containers/prime1");
    apply(&mut world, watching(2, "python4"), |node| *node == prime1);
    assert_eq!(
        settle(&mut world),
        [("containers/prime2".to_owned(), Change::Replace)]
    );
    let after = world.lives();
    assert_ne!(after["containers/prime1"], before["containers/prime1"]);
    assert_eq!(after["containers/prime2"], before["containers/prime2"]);
    assert!(world.observed.registered.contains_key("t-prime-prime2"));
    let plan = world.plan();
    let find = |node: &str| plan.nodes.iter().find(|s| s.node == id(node)).unwrap();
    let status = find("containers/prime2");
    assert_eq!(status.state, NodeState::Running);
    assert_eq!(status.detail, "not in the applied plan");
    // The next generation lifts it.
    world.memory.begin_generation();
    world.converge();
    assert_ne!(
        world.lives()["containers/prime2"],
        before["containers/prime2"]
    );
}

#[test]
fn a_removal_and_an_addition_that_are_not_in_the_plan_wait() {
    let mut world = world(2);
    world.converge();
    apply(&mut world, watching(1, "python3"), |_| false);
    let left = settle(&mut world);
    assert!(left.contains(&("containers/prime2".to_owned(), Change::Remove)));
    assert!(world.lives().contains_key("containers/prime2"));
    apply(&mut world, watching(3, "python3"), |_| false);
    let left = settle(&mut world);
    assert!(left.contains(&("containers/prime3".to_owned(), Change::Add)));
    assert_eq!(world.lives().len(), 3);
}

#[test]
fn what_ran_is_restarted_but_only_as_what_was_approved() {
    let mut world = world(2);
    world.converge();
    apply(&mut world, watching(2, "python3"), |_| true);
    let prime2 = id("containers/prime2");
    world.exit(&prime2, Exit::Code(1));
    assert_eq!(settle(&mut world), []);
    let before = world.lives();

    put(&mut world.observed, Path::new(WATCHED), "two", None);
    let both = ["containers/prime1", "containers/prime2"].map(|n| (n.to_owned(), Change::Replace));
    assert_eq!(settle(&mut world), both);
    assert_eq!(world.lives(), before);
    world.exit(&prime2, Exit::Code(1));
    settle(&mut world);
    assert!(!world.lives().contains_key("containers/prime2"));

    // A person who asks for it by name approves of it.
    world.memory.permitted.as_mut().unwrap().allow(&prime2);
    assert_eq!(settle(&mut world), both[..1]);
    assert!(world.lives().contains_key("containers/prime2"));
}

#[test]
fn going_down_asks_for_no_permit() {
    let mut world = world(2);
    world.converge();
    apply(&mut world, watching(1, "python3"), |_| false);
    world.memory.down = Some(Down { kill: false });
    world.converge();
    assert!(world.observed.lives.is_empty());
}
