//! What is not known, or not to be had, only for now; and what is known to be wrong.

use super::*;
use crate::spec::model::Verify;

/// Something else came into force by itself, as after a rollback.
async fn turn(handle: &Handle, orders: &Orders, until: impl Fn(&SourceStatus) -> bool) {
    let text = "generation 2".to_owned();
    let happening = crate::reconcile::handle::Happening {
        kind: crate::reconcile::handle::EventKind::Generation,
        ..crate::reconcile::handle::Happening::warning(0, text)
    };
    handle.pretend(happening);
    tokio::time::timeout(Duration::from_secs(10), async {
        while !until(&orders.status()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_commit_that_has_to_wait_is_tried_again_by_itself() {
    let played = Played::default();
    played.scene().head = Some(commit("a"));
    played.scene().lacking = true;
    let orders = follow(&played, |_| {});
    let status = ask(&orders, Word::Now).await;
    assert_eq!(status.sync, Sync::Stalled);
    let why = status.reason.unwrap();
    assert!(why.contains("commit a waits"), "{why}");
    assert!(why.contains("lacks jq"), "{why}");
    let status = ask(&orders, Word::Resume).await;
    assert_eq!(status.sync, Sync::Stalled);
    let told = played.scene().told.clone();
    assert_eq!(told.len(), 1, "{told:?}");
    // Nobody asked for it, but what it lacked is there now.
    played.scene().lacking = false;
    let status = ask(&orders, Word::Resume).await;
    assert_eq!((status.sync, status.reason), (Sync::Synced, None));
}

#[tokio::test]
async fn what_could_not_be_asked_is_not_forgotten_over_what_happens_here() {
    let played = Played::default();
    played.scene().head = Some(commit("b"));
    let (handle, orders) = follow_with_handle(&played, |_| {});
    let status = ask(&orders, Word::Now).await;
    assert_eq!(status.sync, Sync::Synced);
    played.scene().unreachable = true;
    ask(&orders, Word::Resume).await;
    // The head that was seen last comes into force once more, and is not known to be the newest.
    played.scene().in_force = Some(spec_of(&commit("c")));
    let of = |id: &'static str| {
        move |status: &SourceStatus| status.commit.as_ref().is_some_and(|one| one.id == id)
    };
    turn(&handle, &orders, of("c")).await;
    played.scene().in_force = Some(spec_of(&commit("b")));
    turn(&handle, &orders, of("b")).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let status = orders.status();
    assert_eq!(status.sync, Sync::Stalled);
    assert!(status.reason.unwrap().contains("no route to host"));
    played.scene().unreachable = false;
    let status = ask(&orders, Word::Resume).await;
    assert_eq!((status.sync, status.reason), (Sync::Synced, None));
}

#[tokio::test]
async fn a_commit_in_force_that_would_not_be_taken_today_is_told_of_and_stays() {
    let played = Played::default();
    {
        let mut scene = played.scene();
        scene.head = Some(commit("a"));
        scene.in_force = Some(spec_of(&commit("a")));
        scene.unsigned.insert("a".to_owned());
    }
    // Nobody asked for signatures.
    let orders = follow(&played, |_| {});
    let status = ask(&orders, Word::Now).await;
    assert_eq!((status.sync, status.reason), (Sync::Synced, None));

    let orders = follow(&played, |parts| {
        parts.source.verify = Some(Verify::GpgKeyring("/ring".into()));
    });
    let status = ask(&orders, Word::Now).await;
    assert_eq!(status.sync, Sync::Stalled);
    let why = status.reason.clone().unwrap();
    assert!(why.contains("commit a is not signed"), "{why}");
    assert!(why.contains("would not be taken today"), "{why}");
    let lacks = status.lacks().unwrap();
    assert!(!lacks.contains("not in force"), "{lacks}");
    assert!(played.scene().applied.is_empty());
    // Beside the reason why another one is not taken.
    played.scene().head = Some(commit("broken"));
    let why = ask(&orders, Word::Resume).await.reason.unwrap();
    assert!(why.contains("line 3 is wrong"), "{why}");
    assert!(why.contains("commit a is not signed"), "{why}");
    played.scene().head = Some(commit("b"));
    let status = ask(&orders, Word::Resume).await;
    assert_eq!((status.sync, status.reason), (Sync::Synced, None));
}
