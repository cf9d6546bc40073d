//! The way of a text to its file: when it is quiet, what a validator is shown, who is told.

use std::path::Path;

use super::*;
use crate::plan::memory::Verdict;
use crate::plan::model::{Item, Note, Plan};
use crate::plan::world::{FileMark, Life};
use crate::spec::model::Condition;
use crate::spec::time::Time;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
pub(super) const FILE: &str = "/etc/upstream.conf";

pub(super) fn prime(number: u32) -> NodeId {
    NodeId::new(Kind::Containers, format!("prime{number}"))
}

pub(super) fn nginx() -> NodeId {
    NodeId::new(Kind::Processes, "nginx")
}

pub(super) fn template(name: &str) -> NodeId {
    NodeId::new(Kind::Templates, name)
}

pub(super) fn item<'a>(plan: &'a Plan, node: &NodeId) -> &'a Item {
    let item = plan.items.iter().find(|item| item.node == *node);
    item.unwrap_or_else(|| panic!("{node} has no item: {:#?}", plan.items))
}

pub(super) fn waits(on: &str) -> Gate {
    Gate::Waiting(vec![on.to_owned()])
}

pub(super) fn converged(desired: Desired) -> World {
    let mut world = World::new(desired);
    world.converge();
    world
}

pub(super) fn sick(world: &mut World, numbers: &[u32]) {
    world.sick = numbers.iter().map(|n| format!("prime{n}")).collect();
}

pub(super) fn edit_template(
    desired: &mut Desired,
    name: &str,
    change: impl FnOnce(&mut TemplateNode),
) {
    match desired.nodes.get_mut(&template(name)) {
        Some(Node::Template(node)) => change(node),
        other => panic!("{other:?}"),
    }
}

/// What validators are shown in a plan, by who shows it.
pub(super) fn shown(plan: &Plan) -> Vec<(String, Vec<String>)> {
    let items = plan.items.iter();
    items
        .filter_map(|item| match &item.steps[..] {
            [Step::Validate { candidates, .. }] => {
                let paths = candidates.iter().map(|one| one.path.display().to_string());
                Some((item.node.name.clone(), paths.collect()))
            }
            _ => None,
        })
        .collect()
}

/// Passes over the time in which texts are to be quiet.
pub(super) fn quieten(world: &mut World) {
    world.plan();
    world.now = world.now + 5 * MILLI;
}

pub(super) fn life<'w>(world: &'w mut World, node: &NodeId) -> &'w mut Life {
    let mut lives = world.observed.lives.iter_mut();
    lives.find(|life| life.id.node == *node).expect("a life")
}

#[test]
fn a_text_is_to_be_quiet_but_not_for_ever() {
    let mut world = converged(farm(3, "python3"));
    let upstream = template("upstream");
    let began = world.now;
    // Each change begins the least quiet anew; the most counts from the first.
    for (at, sicks, wake) in [
        (0, &[1][..], 5),
        (4, &[1], 5),
        (4, &[2], 9),
        (8, &[3], 13),
        (12, &[1, 2], 17),
        (16, &[1, 3], 20),
        (19, &[1, 3], 20),
        (19, &[2, 3], 20),
    ] {
        world.now = began + at * MILLI;
        sick(&mut world, sicks);
        let plan = world.plan();
        assert_eq!(item(&plan, &upstream).gate, waits("5ms of quiet"));
        assert_eq!(plan.wake, Some(began + wake * MILLI), "{at}");
    }
    world.now = began + 20 * MILLI;
    assert_eq!(shown(&world.plan()).len(), 1);
}

#[test]
fn a_file_is_not_written_under_a_reader_that_is_busy() {
    let mut world = converged(farm(2, "python3"));
    sick(&mut world, &[1]);
    quieten(&mut world);
    let mut attempt = Attempt {
        running: true,
        attaches: None,
        life: None,
        failures: 0,
        error: None,
        retry_at: world.now,
    };
    world.memory.attempts.insert(nginx(), attempt.clone());
    let plan = world.plan();
    let expected = waits("processes/nginx to have read it");
    assert_eq!(item(&plan, &template("upstream")).gate, expected);
    attempt.running = false;
    world.memory.attempts.insert(nginx(), attempt);
    assert_eq!(shown(&world.plan()).len(), 1);
}

#[test]
fn a_template_waits_for_what_it_needs() {
    let mut desired = farm(1, "python3");
    let job = NodeId::new(Kind::Processes, "job");
    desired
        .needs
        .get_mut(&template("upstream"))
        .unwrap()
        .push(Need {
            on: job.clone(),
            condition: Condition::Started,
        });
    let run = super::farm::run("job", None);
    let own = super::farm::workload(job.clone(), "job", 0, run);
    desired
        .nodes
        .shift_insert(0, job.clone(), Node::Workload(Box::new(own)));
    let mut world = converged(desired);
    world.exit(&job, Exit::Code(1));
    world.observed.files.insert(FILE.into(), FileView::Missing);
    quieten(&mut world);
    let plan = world.plan();
    assert_eq!(
        item(&plan, &template("upstream")).gate,
        waits("processes/job")
    );
}

#[test]
fn who_read_this_text_before_another_is_told_again() {
    for (reads_new, noted) in [(true, true), (false, false)] {
        let mut world = converged(farm(2, "python3"));
        let old = life(&mut world, &nginx()).applied["upstream"].clone();
        sick(&mut world, &[2]);
        for _ in 0..20 {
            world.pass();
        }
        let new = life(&mut world, &nginx()).applied["upstream"].clone();
        assert_ne!(old, new);
        // Back to the first text: the reader has read that, or the second.
        let read = if reads_new { old } else { new };
        let life = life(&mut world, &nginx());
        life.applied.insert("upstream".to_owned(), read);
        sick(&mut world, &[]);
        quieten(&mut world);
        let plan = world.plan();
        let steps = &item(&plan, &template("upstream")).steps;
        let note = matches!(&steps[0], Step::Note { note: Note::Applied(applied), .. }
            if applied["upstream"].is_empty());
        assert_eq!(note, noted, "{steps:#?}");
        assert!(matches!(steps.last(), Some(Step::Write(_))));
    }
}

#[test]
fn a_refused_text_is_asked_about_again_after_its_delay() {
    let mut world = converged(farm(2, "python3"));
    sick(&mut world, &[1]);
    quieten(&mut world);
    let plan = world.plan();
    let [Step::Validate { key, .. }] = &item(&plan, &template("upstream")).steps[..] else {
        panic!("{plan:#?}");
    };
    let verdict = Verdict {
        accepted: false,
        output: " \n".to_owned(),
        at: world.now,
        times: 1,
    };
    let asked = world.now;
    world.memory.verdicts.insert(key.clone(), verdict);
    world.now = asked + 2 * SECOND - MILLI;
    let plan = world.plan();
    let item = item(&plan, &template("upstream"));
    let says = "`nginx -t` refuses the new text: it says nothing";
    assert_eq!(item.gate, Gate::Blocked(says.to_owned()));
    assert_eq!(plan.wake, Some(asked + 2 * SECOND));
    world.now = asked + 2 * SECOND;
    assert_eq!(shown(&world.plan()).len(), 1);
    world
        .memory
        .verdicts
        .values_mut()
        .for_each(|verdict| verdict.output = "line 3".to_owned());
    world.now = asked + SECOND;
    let plan = world.plan();
    assert!(
        plan.items
            .iter()
            .any(|item| item.reason.ends_with("the new text: line 3"))
    );
}

#[test]
fn a_stale_file_is_read_only_by_those_that_it_was_good_for() {
    let stale = |world: &mut World| {
        let mark = match world.file() {
            FileView::File { mark, .. } => mark.clone(),
            FileView::Missing | FileView::Unreadable(_) => None,
        };
        put(&mut world.observed, Path::new(FILE), "server old;\n", mark);
        world.exit(&nginx(), Exit::Code(1));
        world.now = world.now + 2 * SECOND;
    };
    // A controller that has just begun does not know that it ever was good.
    let mut world = converged(farm(1, "python3"));
    stale(&mut world);
    world.memory.templates.clear();
    let plan = world.plan();
    let Gate::Waiting(on) = &item(&plan, &nginx()).gate else {
        panic!("{plan:#?}");
    };
    assert!(on.contains(&"templates/upstream".to_owned()), "{on:?}");
    // One that wrote it knows; the new text is about to come.
    let mut world = converged(farm(1, "python3"));
    stale(&mut world);
    assert_eq!(
        item(&world.plan(), &nginx()).gate,
        waits("`/etc/upstream.conf`")
    );
    // It is still about to come while it is being written, whatever failed before.
    let attempt = |running| Attempt {
        running,
        attaches: None,
        life: None,
        failures: 1,
        error: Some((ErrorKind::Failed, "no space".to_owned())),
        retry_at: Time(0),
    };
    for (running, gate) in [(true, waits("`/etc/upstream.conf`")), (false, Gate::Ready)] {
        world
            .memory
            .attempts
            .insert(template("upstream"), attempt(running));
        assert_eq!(item(&world.plan(), &nginx()).gate, gate);
    }
    // What is refused does not come: the last good file is read.
    world.memory.attempts.clear();
    world.accepts = false;
    for _ in 0..20 {
        world.pass();
    }
    assert!(world.lives().contains_key("processes/nginx"));
}

#[test]
fn a_file_of_another_stack_is_nobodys_to_read_or_to_write() {
    let mut world = World::new(farm(1, "python3"));
    let mark = FileMark {
        stack: "other".to_owned(),
        template: "upstream".to_owned(),
        hash: String::new(),
    };
    put(
        &mut world.observed,
        Path::new(FILE),
        "server old;\n",
        Some(mark),
    );
    for _ in 0..50 {
        world.pass();
    }
    let plan = world.plan();
    let said = "cannot write `/etc/upstream.conf`: it belongs to stack `other`; move it away or \
                choose another `destination`";
    let gate = &item(&plan, &template("upstream")).gate;
    assert_eq!(*gate, Gate::Blocked(said.to_owned()));
    assert_eq!(item(&plan, &nginx()).gate, waits("templates/upstream"));
}

fn check(id: &str) -> CheckNode {
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
fn a_controller_that_begins_believes_no_list_before_it_asked() {
    let endpoint = NodeId::endpoint("prime", "prime1");
    let detail = |world: &mut World| {
        let plan = world.plan();
        let mut nodes = plan.nodes.into_iter();
        let status = nodes.find(|status| status.node == template("upstream"));
        status.unwrap().detail
    };
    let answer = "keeps the last good file; waiting on the first answer of check";
    let mut world = converged(farm(1, "python3"));
    if let Some(Node::Endpoint(node)) = world.desired.nodes.get_mut(&endpoint) {
        node.checks.push(check("own"));
    }
    if let Some(Node::Workload(node)) = world.desired.nodes.get_mut(&prime(1)) {
        node.ready = ReadyNode::Check {
            check: check("ready"),
            timeout: 60 * SECOND,
        };
    }
    let id = life(&mut world, &prime(1)).id.clone();
    world.memory.ready.insert(id);
    for (unchecked, good, expected) in [
        ("own", true, format!("{answer} `own`")),
        ("own", false, format!("{answer} `own`")),
        ("ready", true, format!("{answer} `ready`")),
        ("another", true, String::new()),
        ("another", false, String::new()),
    ] {
        world.memory.unchecked = [unchecked.to_owned()].into();
        world
            .memory
            .templates
            .entry("upstream".to_owned())
            .or_default()
            .good = good;
        assert_eq!(detail(&mut world), expected, "{unchecked} {good}");
    }
    world.memory.unchecked.clear();
    world.observed.registered.clear();
    for (good, expected) in [
        (
            false,
            "keeps the last good file; waiting on the registration of `t-prime-prime1`",
        ),
        (
            true,
            "keeps the last good file; waiting on an instance of `prime` that passes",
        ),
    ] {
        world
            .memory
            .templates
            .entry("upstream".to_owned())
            .or_default()
            .good = good;
        assert_eq!(detail(&mut world), expected);
    }
}

#[test]
fn a_list_waits_for_its_own_services_alone() {
    let mut desired = farm(1, "python3");
    let other = NodeId::endpoint("other", "prime1");
    let Some(Node::Endpoint(mut own)) = desired
        .nodes
        .get(&NodeId::endpoint("prime", "prime1"))
        .cloned()
    else {
        panic!("no endpoint");
    };
    own.service = "other".to_owned();
    own.service_id = "t-other-prime1".to_owned();
    own.checks.push(check("others"));
    let at = desired.nodes.get_index_of(&template("upstream")).unwrap();
    desired.nodes.shift_insert(at, other, Node::Endpoint(own));
    let mut world = converged(desired);
    world.memory.unchecked = ["others".to_owned()].into();
    let plan = world.plan();
    let status = plan
        .nodes
        .iter()
        .find(|status| status.node == template("upstream"));
    assert_eq!(status.unwrap().detail, "");
}
