//! A commit on trial: from when its time counts, and who may stop it.

use super::*;
use crate::spec::model::Status;

const CONVERGED: Outcome = Outcome::Converged { after_ms: 1 };

/// What a day without a controller leaves: a good commit, and one that was on its way.
fn left_behind(program: &str) -> (Played, SpecText) {
    let played = Played::default();
    let newest = spec("b", program);
    played.past(1, &spec("a", "good"), CONVERGED);
    played.past(2, &newest, Outcome::Converging);
    played.later(24 * 3600);
    (played, newest)
}

#[test]
fn a_commit_that_is_not_well_is_left_in_time() {
    let (played, newest) = left_behind("bad");
    let mut controlled = played.begin(newest, |_| {});
    controlled.settle();
    played.later(59);
    controlled.settle();
    assert_eq!(controlled.commit(), "b");
    played.later(2);
    controlled.settle();
    assert_eq!(controlled.commit(), "a");
    let told = controlled.told(EventKind::RolledBack).join("\n");
    assert!(told.contains("did not converge within 1m00s"), "{told}");
}

#[test]
fn time_in_which_nobody_kept_it_is_not_held_against_a_commit() {
    let (played, newest) = left_behind("good");
    let mut controlled = played.begin(newest, |_| {});
    controlled.pass();
    assert_eq!(controlled.commit(), "b", "left on the first pass");
    controlled.settle();
    controlled.answer(Status::Passing);
    controlled.settle();
    assert!(controlled.status().converged);
    played.later(3600);
    controlled.settle();
    assert_eq!(controlled.commit(), "b");
    assert_eq!(controlled.told(EventKind::RolledBack), [""; 0]);
}

#[test]
fn what_was_adopted_answers_before_its_commit_is_judged() {
    let (played, newest) = left_behind("good");
    let mut controlled = played.begin(newest.clone(), |_| {});
    controlled.settle();
    drop(controlled);
    // The next controller adopts what runs, and its check takes longer than a commit may.
    let mut controlled = played.begin(newest, |_| {});
    controlled.settle();
    played.later(61);
    controlled.settle();
    assert_eq!(controlled.commit(), "b");
    controlled.answer(Status::Passing);
    controlled.settle();
    assert_eq!(controlled.commit(), "b");
    assert!(controlled.status().converged);
    assert_eq!(controlled.told(EventKind::RolledBack), [""; 0]);
}

#[test]
fn no_commit_is_left_while_an_operator_wants_it_so() {
    let (played, newest) = left_behind("bad");
    let mut controlled = played.begin(newest.clone(), |_| {});
    controlled.settle();
    controlled.request(Request::Suspend(true));
    played.later(3600);
    controlled.settle();
    assert_eq!(controlled.commit(), "b");
    drop(controlled);
    // Nor does the next controller.
    let mut controlled = played.begin(newest, |beginning| beginning.suspended = true);
    controlled.settle();
    played.later(3600);
    controlled.settle();
    assert_eq!(controlled.commit(), "b");
    // From then on it has its whole time.
    controlled.request(Request::Suspend(false));
    played.later(59);
    controlled.settle();
    assert_eq!(controlled.commit(), "b");
    played.later(2);
    controlled.settle();
    assert_eq!(controlled.commit(), "a");
}

#[test]
fn an_instance_that_fails_takes_nothing_back_while_it_is_suspended() {
    let played = Played::default();
    played.past(1, &spec("a", "good"), CONVERGED);
    let mut newest = spec("b", "bad");
    let update = "bad ], update: { failure_action: rollback, healthy_deadline: 5s";
    newest.text = newest
        .text
        .replace("bad ]", update)
        .replace("5s }", "5s } }");
    let mut controlled = played.begin(spec("a", "good"), |beginning| {
        beginning.commit_deadline = None;
        beginning.suspended = true;
    });
    controlled.settle();
    controlled.answer(Status::Passing);
    controlled.settle();
    assert_eq!(controlled.apply(newest, Cause::Commit), Ok(2));
    for _ in 0..10 {
        played.later(2);
        controlled.settle();
    }
    assert_eq!(controlled.commit(), "b");
    controlled.request(Request::Suspend(false));
    for _ in 0..10 {
        played.later(2);
        controlled.settle();
    }
    assert_eq!(controlled.commit(), "a");
}

#[test]
fn one_that_is_held_stays_however_it_is() {
    let (played, newest) = left_behind("bad");
    let mut controlled = played.begin(newest, |beginning| beginning.commit_deadline = None);
    controlled.settle();
    played.later(24 * 3600);
    controlled.settle();
    assert_eq!(controlled.commit(), "b");
    let status = controlled.status();
    assert!(!status.converged);
    assert_eq!(
        crate::reconcile::sync::Health::of(&status),
        crate::reconcile::sync::Health::Degraded
    );
}

#[test]
fn nobody_goes_back_by_himself_to_a_spec_in_which_nothing_runs() {
    let played = Played::default();
    let mut empty = spec("a", "good");
    empty.text = "name: s\nregistry: {}\n".to_owned();
    played.past(1, &empty, CONVERGED);
    let newest = spec("b", "bad");
    played.past(2, &newest, Outcome::Converging);
    let mut controlled = played.begin(newest, |_| {});
    controlled.settle();
    played.later(61);
    controlled.settle();
    assert_eq!(controlled.commit(), "b");
    assert_eq!(controlled.told(EventKind::RolledBack), [""; 0]);
    let all: Vec<&str> = controlled.told.iter().map(|one| &*one.text).collect();
    let says = |text: &&&str| text.contains("it has no container and no process");
    assert!(all.iter().any(|text| says(&text)), "{all:?}");
}
