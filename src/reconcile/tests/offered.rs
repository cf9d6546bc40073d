//! What is asked of a spec before it is taken, and of the machine.

use super::*;
use crate::spec::model::Status;
use crate::spec::node::Kind;

/// The same with something that the machine may lack.
fn requiring(id: &str) -> SpecText {
    let mut spec = spec(id, "good");
    spec.text.push_str("requires: [ { command: jq } ]\n");
    spec
}

fn lacking() -> Played {
    let played = Played::default();
    played.scene().lacks = vec!["command `jq`".to_owned()];
    played
}

#[test]
fn a_commit_waits_for_what_the_machine_lacks() {
    let played = lacking();
    let mut controlled = played.begin(spec("a", "good"), |_| {});
    controlled.settle();
    let generations = played.scene().generations.len();
    for _ in 0..3 {
        let answer = controlled.apply(requiring("b"), Cause::Commit);
        let Err(Fault::Later(why)) = answer else {
            panic!("{answer:?}");
        };
        assert!(why.contains("command `jq`"), "{why}");
    }
    // It is offered again and again: no generation is kept of each time.
    assert_eq!(played.scene().generations.len(), generations);
    assert_eq!(controlled.commit(), "a");
    played.scene().lacks.clear();
    assert!(controlled.apply(requiring("b"), Cause::Commit).is_ok());
    assert_eq!(controlled.commit(), "b");
}

#[test]
fn a_controller_begins_though_the_machine_lacks_something() {
    let played = lacking();
    let mut controlled = played.begin(requiring("a"), |_| {});
    controlled.settle();
    controlled.answer(Status::Passing);
    controlled.settle();
    assert!(controlled.status().converged);
    let told = controlled.told(EventKind::Warning).join("\n");
    assert!(
        told.contains("lacks what the spec requires: command `jq`"),
        "{told}"
    );
}

#[test]
fn what_is_not_seen_now_is_no_fault_of_a_commit() {
    let played = Played::default();
    let mut controlled = played.begin(spec("a", "good"), |_| {});
    controlled.settle();
    played.scene().blind = true;
    let job = LifeId {
        node: NodeId::new(Kind::Processes, "job"),
        incarnation: 1,
    };
    let told = crate::driver::Event::Notified(job);
    controlled.engine.take(Input::Event(told));
    let answer = controlled.apply(spec("b", "good"), Cause::Commit);
    assert!(matches!(answer, Err(Fault::Later(_))), "{answer:?}");
    played.scene().blind = false;
    controlled.settle();
    let mut broken = spec("c", "good");
    broken.text = "name: 7: 8".to_owned();
    let answer = controlled.apply(broken, Cause::Commit);
    assert!(matches!(answer, Err(Fault::Refused(_))), "{answer:?}");
    let mut empty = spec("d", "good");
    empty.text = "name: s\n".to_owned();
    let answer = controlled.apply(empty, Cause::Commit);
    let Err(Fault::Refused(why)) = answer else {
        panic!("{answer:?}");
    };
    assert!(why.contains("remove every workload"), "{why}");
    assert!(controlled.apply(spec("b", "good"), Cause::Commit).is_ok());
}

#[test]
fn a_spec_without_one_of_the_containers_is_held() {
    let text = "name: s\ncontainers:\n  web: { root: host, command: [ sleep ] }\nprocesses:\n  \
                job: { command: [ sleep ] }\n";
    let played = Played::default();
    let load = |text: &str| {
        let around = Surroundings {
            dirs: Arc::new(|stack| Dirs {
                run: stack.into(),
                state: stack.into(),
                log: stack.into(),
            }),
            env: BTreeMap::new(),
            compares: false,
        };
        let spec = SpecText::of("/s.yaml", text);
        let loaded = super::super::load::load(&spec, &around, &BTreeMap::new(), &played, false);
        loaded.unwrap().desired
    };
    let life = |kind, name: &str| LifeId {
        node: NodeId::new(kind, name),
        incarnation: 1,
    };
    let running = [life(Kind::Containers, "web"), life(Kind::Processes, "job")];
    let removes =
        |text: &str, running: &[LifeId]| super::super::removes_all(&load(text), running.iter());
    assert_eq!(removes(text, &running), None);
    assert_eq!(removes("name: s\n", &running), Some("workload"));
    let without = "name: s\nprocesses:\n  job: { command: [ sleep ] }\n";
    assert_eq!(removes(without, &running), Some("container"));
    assert_eq!(removes(without, &running[1..]), None);
    assert_eq!(removes("name: s\n", &[]), None);
}
