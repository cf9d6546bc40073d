//! A plan that was kept in a file: when it still holds, and what applying it lets happen.

use std::path::Path;
use std::time::Duration;

use super::farm::farm;
use super::world::{World, put};
use crate::graph::desired::{Desired, Node};
use crate::plan::memory::{Attempt, Down};
use crate::plan::model::{Change, Gate, NodeState, Step};
use crate::plan::saved::{SavedPlan, Sight};
use crate::plan::world::{Exit, FileMark, FileView, Registered};
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

#[test]
fn a_plan_is_of_one_text() {
    let mut world = world(1);
    let saved = saved_of(&mut world, TEXT, true);
    assert!(saved.is_of(&SpecText::of("/s.yaml", TEXT)));
    assert!(!saved.is_of(&SpecText::of("/s.yaml", "name: t # but\n")));
}

#[test]
fn what_appears_is_named_like_what_goes() {
    let mut world = world(1);
    let empty = saved_of(&mut world, TEXT, false);
    world.converge();
    let kept = saved_of(&mut world, TEXT, true);
    insta::assert_snapshot!(empty.differences(&kept).join("\n"), @r"
    a controller keeps the stack now
    registry: its listener appeared
    networks/prime0: its bridge appeared
    containers/prime1: was started, its hosts file appeared, its network link appeared
    processes/nginx: was started
    services/prime/prime1: its registration appeared
    templates/upstream: its file appeared, its rendered text appeared
    ");
    world.memory.stopped.insert(id("processes/nginx"));
    let stopped = saved_of(&mut world, TEXT, true);
    world.memory.stopped.clear();
    let again = saved_of(&mut world, TEXT, true);
    assert_eq!(
        stopped.differences(&again),
        ["processes/nginx: is no longer stopped by an operator"]
    );
    // It is gone, and what is remembered is the end of another.
    let prime1 = id("containers/prime1");
    world.exit(&prime1, Exit::Code(1));
    let memory = world.memory.workloads.get_mut(&prime1).unwrap();
    memory.last_exit.as_mut().unwrap().incarnation += 1;
    world.observed.lives.retain(|life| life.id.node != prime1);
    let gone = saved_of(&mut world, TEXT, true);
    assert_eq!(
        kept.differences(&gone)[0],
        "containers/prime1: the life that was there is gone"
    );
}

#[test]
fn every_file_and_every_net_in_the_way_is_a_part() {
    let mut world = world(1);
    let before = saved_of(&mut world, TEXT, false);
    let hosts = "/run/hatchery/t/hosts/prime1";
    for path in [
        "/etc/upstream.conf",
        hosts,
        "/etc/former.conf",
        "/etc/others.conf",
    ] {
        let (stack, template) = match path {
            "/etc/others.conf" => ("other", "theirs"),
            _ => ("t", "former"),
        };
        let mark = FileMark {
            stack: stack.to_owned(),
            template: template.to_owned(),
            hash: String::new(),
        };
        put(&mut world.observed, Path::new(path), "text", Some(mark));
    }
    let docker = ("docker0".to_owned(), "10.50.0.0/16".parse().unwrap());
    world.observed.network.foreign.push(docker);
    let after = saved_of(&mut world, TEXT, false);
    insta::assert_snapshot!(before.differences(&after).join("\n"), @r"
    networks/prime0: its subnet's other holder appeared
    containers/prime1: its hosts file appeared
    templates/former: its former file appeared
    templates/upstream: its file appeared
    ");
    let reason = |node: &str| {
        let item = after.items.iter().find(|item| item.node == id(node));
        item.map(|item| item.reason.as_str())
    };
    assert_eq!(reason("containers/prime1"), Some("not running"));
    let reasons = after.items.iter().map(|item| item.reason.as_str());
    assert!(
        reasons
            .clone()
            .all(|reason| !reason.is_empty() && !reason.contains('\n'))
    );
}

#[test]
fn another_program_in_the_same_life_is_another_life() {
    let mut world = world(1);
    world.converge();
    let said = differences(&mut world, |world| {
        let mut other = World::new(watching(1, "python4"));
        put(&mut other.observed, Path::new(WATCHED), "one", None);
        other.converge();
        let theirs = other
            .observed
            .lives
            .iter()
            .find(|life| life.id.node == id("containers/prime1"));
        let identity = theirs.unwrap().identity.clone();
        let mut ours = world.observed.lives.iter_mut();
        ours.find(|life| life.id.node == id("containers/prime1"))
            .unwrap()
            .identity = identity;
    });
    assert_eq!(said, ["containers/prime1: runs"]);
}

#[test]
fn an_action_under_way_goes_on_though_the_plan_has_it_not() {
    let mut world = world(2);
    world.converge();
    apply(&mut world, watching(3, "python3"), |_| false);
    let prime3 = id("containers/prime3");
    let gate = |world: &mut World| {
        let plan = world.plan();
        let item = plan.items.into_iter().find(|item| item.node == prime3);
        item.expect("an item").gate
    };
    let next = "another `apply`: it is not in the applied plan".to_owned();
    assert_eq!(gate(&mut world), Gate::Waiting(vec![next]));
    let attempt = Attempt {
        running: true,
        attaches: None,
        life: None,
        failures: 0,
        error: None,
        retry_at: world.now,
    };
    world.memory.attempts.insert(prime3.clone(), attempt);
    assert_eq!(gate(&mut world), Gate::Running);
}

#[test]
fn what_keeps_an_approved_life_as_it_is_is_done() {
    let mut world = world(1);
    world.converge();
    apply(&mut world, watching(1, "python3"), |_| true);
    // Its program is to be another one, which was not approved; how it ends may change.
    put(&mut world.observed, Path::new(WATCHED), "two", None);
    let prime1 = id("containers/prime1");
    let file = |world: &World| world.lives()["containers/prime1"];
    let before = file(&world);
    settle(&mut world);
    assert_eq!(file(&world), before);
    let hosts = Path::new("/run/hatchery/t/hosts/prime1");
    world.observed.files.insert(hosts.into(), FileView::Missing);
    settle(&mut world);
    assert!(matches!(world.observed.files[hosts], FileView::File { .. }));
    // One that an operator stopped is not said to wait for its new program.
    world.memory.stopped.insert(prime1.clone());
    for _ in 0..50 {
        world.pass();
    }
    let plan = world.plan();
    assert!(
        plan.items.iter().all(|item| item.node != prime1),
        "{plan:#?}"
    );
}

#[test]
fn a_bridge_that_left_the_spec_is_looked_at_too() {
    let mut world = world(1);
    world.converge();
    let mut desired = watching(1, "python3");
    desired.nodes.shift_remove(&id("networks/prime0"));
    world.edit(desired);
    let said = differences(&mut world, |world| world.observed.network.bridges.clear());
    assert_eq!(said, ["networks/prime0: its bridge is gone"]);
}
