//! Templates that share a validator or a reload command.

use std::path::Path;

use super::texts::*;
use super::*;
use crate::spec::model::{Confirm, Signal};

const SECOND: Duration = Duration::from_secs(1);

/// The farm with a second template, listed after the first, that renders the same.
fn two(replicas: u32, change: impl Fn(&mut TemplateNode)) -> Desired {
    let mut desired = farm(replicas, "python3");
    let mut other = super::farm::upstream();
    other.name = "zone".to_owned();
    other.destination = "/etc/zone.conf".into();
    desired
        .nodes
        .insert(template("zone"), Node::Template(Box::new(other)));
    let needs = desired.needs[&template("upstream")].clone();
    desired.needs.insert(template("zone"), needs);
    for name in ["upstream", "zone"] {
        edit_template(&mut desired, name, &change);
    }
    let last = desired.nodes.len() - 1;
    let at = desired.nodes.get_index_of(&nginx()).unwrap();
    desired.nodes.move_index(at, last);
    desired
}

#[test]
fn those_that_share_a_validator_are_shown_together() {
    let both = vec![FILE.to_owned(), "/etc/zone.conf".to_owned()];
    let mut world = converged(two(2, |_| {}));
    sick(&mut world, &[1]);
    quieten(&mut world);
    let plan = world.plan();
    assert_eq!(shown(&plan), [("upstream".to_owned(), both.clone())]);
    let expected = waits("the validation of all that share it");
    assert_eq!(item(&plan, &template("zone")).gate, expected);
    // What is accepted together is written together.
    world.pass();
    let plan = world.plan();
    for name in ["upstream", "zone"] {
        let steps = &item(&plan, &template(name)).steps;
        assert!(
            matches!(steps.last(), Some(Step::Write(_))),
            "{name}: {steps:?}"
        );
    }
    world.converge();

    // One whose text may still change is no part of it.
    edit_template(&mut world.desired, "zone", |node| node.wait.min = SECOND);
    edit_template(&mut world.desired, "zone", |node| node.wait.max = SECOND);
    sick(&mut world, &[2]);
    quieten(&mut world);
    assert_eq!(
        shown(&world.plan()),
        [("upstream".to_owned(), vec![FILE.to_owned()])]
    );
    // Nor is one that is somebody else's, unless it is to hold just what it does.
    edit_template(&mut world.desired, "zone", |node| {
        node.wait = super::farm::upstream().wait
    });
    let zone = Path::new("/etc/zone.conf");
    for (text, expected) in [
        ("mine", vec![FILE.to_owned()]),
        ("server addr-prime1:8080;\n", both),
    ] {
        put(&mut world.observed, zone, text, None);
        quieten(&mut world);
        assert_eq!(shown(&world.plan()), [("upstream".to_owned(), expected)]);
    }
}

#[test]
fn what_need_not_be_quiet_is_shown_only_if_it_is_to_be_written() {
    let at_once = |node: &mut TemplateNode| node.wait.min = Duration::ZERO;
    let zone = Path::new("/etc/zone.conf");
    let right = "server addr-prime2:8080;\n";
    for (text, ours, expected) in [
        ("old", true, &[FILE, "/etc/zone.conf"][..]),
        (right, true, &[FILE]),
        ("mine", false, &[FILE]),
    ] {
        let mut world = converged(two(2, at_once));
        let mark = match &world.observed.files[zone] {
            FileView::File { mark, .. } => mark.clone(),
            other => panic!("{other:?}"),
        };
        put(&mut world.observed, zone, text, mark.filter(|_| ours));
        sick(&mut world, &[1]);
        let expected = expected.iter().map(|path| (*path).to_owned()).collect();
        let plan = world.plan();
        assert_eq!(shown(&plan), [("upstream".to_owned(), expected)], "{text}");
    }
}

#[test]
fn of_those_that_are_refused_together_each_is_shown_alone() {
    let mut world = converged(two(2, |_| {}));
    sick(&mut world, &[1]);
    quieten(&mut world);
    world.accepts = false;
    world.pass();
    let alone = |name: &str, file: &str| (name.to_owned(), vec![file.to_owned()]);
    let plan = world.plan();
    assert_eq!(
        shown(&plan),
        [alone("upstream", FILE), alone("zone", "/etc/zone.conf")]
    );
}

#[test]
fn one_that_is_refused_hides_nothing_that_is_not_told_yet() {
    let mut world = converged(two(2, |_| {}));
    let mut desired = two(2, |_| {});
    // The second template is not acceptable; the first is, and has to forget an instance.
    edit_template(&mut desired, "zone", |node| {
        node.source = "/spec/bad.j2".into()
    });
    let bad = Ok("bad".to_owned());
    world
        .observed
        .inputs
        .files
        .insert("/spec/bad.j2".into(), bad);
    world.edit(desired);
    let leaving = life(&mut world, &prime(2)).id.clone();
    world.memory.restart.insert(leaving);
    let ends = |step: &Step| matches!(step, Step::Signal { life, .. } if life.node == prime(2));
    for _ in 0..100 {
        let plan = world.plan();
        if plan.items.iter().any(|item| item.steps.iter().any(ends)) {
            let FileView::File { hash, .. } = world.file().clone() else {
                panic!("no file");
            };
            assert_eq!(life(&mut world, &nginx()).applied["upstream"], hash);
            return;
        }
        let shown = plan.items.iter().flat_map(|item| &item.steps);
        let bad = shown.filter_map(|step| match step {
            Step::Validate { candidates, .. } => Some(candidates),
            _ => None,
        });
        world.accepts = !bad.flatten().any(|file| file.content == "bad");
        world.pass();
    }
    panic!("it is never asked to end");
}

#[test]
fn one_shared_reload_command_tells_of_all_that_is_written() {
    let command = |node: &mut TemplateNode| {
        node.validate = None;
        node.reload = Some(ReloadNode::Command(vec!["reload".to_owned()]));
    };
    let mut world = converged(two(2, command));
    let told = world
        .done
        .iter()
        .filter(|step| matches!(step, Step::ReloadCommand { .. }));
    assert_eq!(told.count(), 1);
    // The second is written and untold, the first still on its way.
    world
        .memory
        .templates
        .entry("zone".to_owned())
        .or_default()
        .told = None;
    let mark = match world.file() {
        FileView::File { mark, .. } => mark.clone(),
        other => panic!("{other:?}"),
    };
    put(&mut world.observed, Path::new(FILE), "server old;\n", mark);
    let plan = world.plan();
    let expected = waits("the other templates that share the reload");
    assert_eq!(item(&plan, &template("zone")).gate, expected);
    // One that cannot be written holds up nobody.
    let memory = world.memory.templates.entry("upstream".to_owned());
    memory.or_default().told = None;
    put(&mut world.observed, Path::new(FILE), "mine", None);
    let plan = world.plan();
    let steps = &item(&plan, &template("zone")).steps;
    let [Step::ReloadCommand { applied, .. }] = &steps[..] else {
        panic!("{steps:?}");
    };
    assert_eq!(applied.keys().collect::<Vec<_>>(), ["zone"]);
}

#[test]
fn what_was_written_is_read_before_anybody_goes_whatever_comes_of_the_next_text() {
    type Break = fn(&mut World);
    let ways: [Break; 3] = [
        // Nobody passes any more, and the last good file is kept.
        |world| sick(world, &[1, 2, 3]),
        |world| {
            let bad = Ok("{% if %}".to_owned());
            let files = &mut world.observed.inputs.files;
            files.insert("/spec/upstream.j2".into(), bad);
        },
        |world| {
            world.accepts = false;
            sick(world, &[2]);
        },
    ];
    for breaks in ways {
        let mut world = converged(farm(3, "python3"));
        let leaving = life(&mut world, &prime(1)).id.clone();
        world.memory.restart.insert(leaving);
        let written = |step: &Step| matches!(step, Step::Write(_));
        world.done.clear();
        while !world.done.iter().any(written) {
            world.pass();
        }
        breaks(&mut world);
        let plan = world.plan();
        let waits = waits("the files that list `prime`");
        assert_eq!(item(&plan, &prime(1)).gate, waits);
        let began = world.now;
        let ends = |step: &Step| matches!(step, Step::Signal { life, .. } if life.node == prime(1));
        while !world.done.iter().any(ends) {
            world.pass();
            assert!(world.now.since(began) < SECOND, "told and not gone");
        }
        let told = |step: &Step| matches!(step, Step::ReloadProcess { .. });
        let at = |what: &dyn Fn(&Step) -> bool| world.done.iter().position(what);
        assert!(at(&told).unwrap() < at(&ends).unwrap());
    }
}

#[test]
fn a_process_is_told_of_each_file_as_that_one_says() {
    let mut desired = two(2, |_| {});
    edit_template(&mut desired, "zone", |node| {
        node.reload = Some(ReloadNode::Signal {
            process: nginx(),
            signal: Signal(10),
            confirm: Confirm::None,
        });
    });
    let mut world = converged(desired);
    sick(&mut world, &[1]);
    let mut told = Vec::new();
    for _ in 0..100 {
        let plan = world.pass();
        let steps = plan.items.iter().flat_map(|item| &item.steps);
        told.extend(steps.filter_map(|step| match step {
            Step::ReloadProcess {
                signal, confirm, ..
            } => Some((signal.0, *confirm)),
            _ => None,
        }));
        if plan.items.is_empty() && told.len() > 1 {
            break;
        }
    }
    assert_eq!(told, [(1, Confirm::NewChild), (10, Confirm::None)]);
}
