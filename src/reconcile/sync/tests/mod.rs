#![allow(clippy::unwrap_used, clippy::panic)]
//! A syncer between a repository and a loop that are played.

mod later;

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};

use super::*;
use crate::driver::{Clock, Result as DriverResult};
use crate::reconcile::handle::{Handle, LeftCommit, Request, StackStatus};
use crate::spec::generation::{Cause, User};
use crate::spec::model::{GitSource, Provenance};
use crate::spec::time::Time;
use std::sync::Arc;

/// What both of them know.
#[derive(Default)]
struct Scene {
    head: Option<Commit>,
    unreachable: bool,
    too_large: bool,
    /// Which commits descend from which.
    rewritten: bool,
    refused: BTreeSet<String>,
    asked: u32,
    kept: BTreeSet<String>,
    in_force: Option<SpecText>,
    left: Option<LeftCommit>,
    applied: Vec<String>,
    told: Vec<String>,
    edited: Option<PathBuf>,
    suspended: bool,
    /// What the loop was told of that.
    left_alone: Vec<bool>,
    /// The machine lacks what every spec requires.
    lacking: bool,
    /// Commits that do not have the signature that is asked for.
    unsigned: BTreeSet<String>,
}

#[derive(Clone, Default)]
struct Played(Arc<Mutex<Scene>>);

impl Played {
    fn scene(&self) -> MutexGuard<'_, Scene> {
        self.0.lock().unwrap()
    }
}

fn commit(id: &str) -> Commit {
    Commit {
        id: id.to_owned(),
        author: "Ada".to_owned(),
        subject: id.to_owned(),
        at_s: 0,
    }
}

fn spec_of(commit: &Commit) -> SpecText {
    let mut spec = SpecText::of("/tree/s.yaml", format!("name: {}", commit.id));
    spec.further.origin = Some(Provenance {
        commit: commit.clone(),
        tree: "/tree".into(),
        objects: "/tree.objects".into(),
    });
    spec
}

impl Repository for Played {
    fn fetch(&self) -> Result<Commit, Fault> {
        let mut scene = self.scene();
        scene.asked += 1;
        if scene.too_large {
            return Err(Fault::Refused("it is too large".to_owned()));
        }
        match (&scene.head, scene.unreachable) {
            (Some(head), false) => Ok(head.clone()),
            _ => Err(Fault::Later("no route to host".to_owned())),
        }
    }

    fn descends(&self, _: &str, _: &str) -> Result<bool, Fault> {
        Ok(!self.scene().rewritten)
    }

    fn prepare(&self, commit: &Commit) -> Result<SpecText, Fault> {
        match self.scene().refused.contains(&commit.id) {
            true => Err(Fault::Refused("it is not signed".to_owned())),
            false => Ok(spec_of(commit)),
        }
    }

    fn vouched(&self, commit: &str) -> Result<(), Fault> {
        match self.scene().unsigned.contains(commit) {
            true => Err(Fault::Refused(format!("commit {commit} is not signed"))),
            false => Ok(()),
        }
    }

    fn lay_out(&self, commit: &Commit) -> Result<(), Fault> {
        match self.scene().refused.contains(&commit.id) {
            true => Err(Fault::Later("the mirror is gone".to_owned())),
            false => Ok(()),
        }
    }

    fn keep(&self, commits: &BTreeSet<String>) -> Result<(), Fault> {
        self.scene().kept.clone_from(commits);
        Ok(())
    }

    fn edited(&self) -> Option<PathBuf> {
        self.scene().edited.clone()
    }
}

impl Memory for Played {
    fn suspend(&self, suspended: bool) -> DriverResult<()> {
        self.scene().suspended = suspended;
        Ok(())
    }
}

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Time {
        Time(0)
    }

    fn wall_ms(&self) -> u64 {
        43_200_000
    }
}

/// A loop that takes every spec but the one of commit `broken`.
async fn play(played: Played, mut requests: mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        let mut scene = played.scene();
        match request {
            Request::Status(answer) => {
                let commit = scene.in_force.as_ref().and_then(SpecText::commit);
                let status = StackStatus {
                    commit: commit.cloned(),
                    left: scene.left.clone(),
                    commits: ["older".to_owned()].into(),
                    ..StackStatus::default()
                };
                answer.send(status).unwrap();
            }
            Request::Apply { spec, answer, .. } => {
                let id = spec.commit().unwrap().id.clone();
                scene.applied.push(id.clone());
                let taken = match id.as_str() {
                    "broken" => Err(Fault::Refused("error: line 3 is wrong".to_owned())),
                    _ if scene.lacking => Err(Fault::Later("this machine lacks jq".to_owned())),
                    _ => {
                        scene.in_force = Some(spec);
                        Ok(7)
                    }
                };
                answer.send(taken).unwrap();
            }
            Request::Tell { text, .. } => scene.told.push(text),
            Request::Suspend(suspended) => scene.left_alone.push(suspended),
            other => panic!("{other:?}"),
        }
    }
}

/// A syncer that is asked by orders alone, but for its first round.
fn follow(played: &Played, change: impl FnOnce(&mut SyncerParts)) -> Orders {
    follow_with_handle(played, change).1
}

fn follow_with_handle(played: &Played, change: impl FnOnce(&mut SyncerParts)) -> (Handle, Orders) {
    let (requests_in, requests) = mpsc::channel(4);
    let (happenings, _) = broadcast::channel(4);
    tokio::spawn(play(played.clone(), requests));
    let mut source = GitSource::new("/specs.git".into(), "main".into(), "".into());
    source.interval = Duration::from_secs(3600);
    let mut parts = SyncerParts {
        repository: Arc::new(played.clone()),
        source,
        shown_url: "/specs.git".to_owned(),
        known: Known::default(),
        suspended: false,
        memory: Arc::new(played.clone()),
        clock: Arc::new(Noon),
        seed: 1,
    };
    change(&mut parts);
    let handle = Handle::new(requests_in, happenings);
    let (syncer, orders) = Syncer::new(parts, handle.clone());
    tokio::spawn(syncer.run());
    (handle.following(orders.clone()), orders)
}

async fn ask(orders: &Orders, word: Word) -> SourceStatus {
    orders.give(word).await.unwrap()
}

#[tokio::test]
async fn the_newest_commit_is_taken_once() {
    let played = Played::default();
    played.scene().head = Some(commit("a"));
    let orders = follow(&played, |_| {});
    let status = ask(&orders, Word::Now).await;
    assert_eq!(status.sync, Sync::Synced);
    assert_eq!(status.commit, Some(commit("a")));
    assert_eq!(status.asked_at_ms, Some(43_200_000));
    ask(&orders, Word::Now).await;
    assert_eq!(played.scene().applied, ["a"]);
    let kept: Vec<String> = played.scene().kept.iter().cloned().collect();
    assert_eq!(kept, ["a", "older"]);
    played.scene().head = Some(commit("b"));
    ask(&orders, Word::Now).await;
    assert_eq!(played.scene().applied, ["a", "b"]);
}

#[tokio::test]
async fn what_is_refused_is_told_once_and_tried_again_on_demand_alone() {
    for (id, why) in [
        ("broken", "line 3 is wrong"),
        ("unsigned", "it is not signed"),
    ] {
        let played = Played::default();
        played.scene().head = Some(commit(id));
        played.scene().refused.insert("unsigned".to_owned());
        let orders = follow(&played, |_| {});
        let status = ask(&orders, Word::Now).await;
        assert_eq!(status.sync, Sync::Stalled);
        assert!(status.reason.unwrap().contains(why));
        let tries = played.scene().applied.len();
        orders.pushed();
        let status = ask(&orders, Word::Resume).await;
        assert_eq!(status.sync, Sync::Stalled);
        assert_eq!(played.scene().applied.len(), tries, "{id}");
        ask(&orders, Word::Now).await;
        let told = played.scene().told.len();
        assert_eq!(told, 1, "{:?}", played.scene().told);
    }
}

#[tokio::test]
async fn a_commit_that_was_left_is_not_taken_again() {
    let played = Played::default();
    {
        let mut scene = played.scene();
        scene.head = Some(commit("bad"));
        scene.in_force = Some(spec_of(&commit("good")));
        scene.left = Some(LeftCommit {
            commit: "bad".to_owned(),
            why: "it did not converge within 5m".to_owned(),
        });
    }
    let orders = follow(&played, |_| {});
    let status = ask(&orders, Word::Resume).await;
    assert_eq!(status.sync, Sync::Stalled);
    assert_eq!(
        status.reason.as_deref(),
        Some("it did not converge within 5m")
    );
    assert!(played.scene().applied.is_empty());
    played.scene().head = Some(commit("mended"));
    let status = ask(&orders, Word::Resume).await;
    assert_eq!(status.sync, Sync::Synced);
}

/// The reason of a round that leaves the head alone.
async fn left_alone(played: &Played, orders: &Orders, applied: &[&str]) -> String {
    let status = ask(orders, Word::Resume).await;
    assert_eq!(status.sync, Sync::Stalled);
    assert_eq!(played.scene().applied, applied);
    status.reason.unwrap()
}

#[tokio::test]
async fn what_an_operator_put_in_its_place_stays_until_a_newer_commit() {
    let played = Played::default();
    played.scene().head = Some(commit("c2"));
    let orders = follow(&played, |_| {});
    ask(&orders, Word::Now).await;
    // Back once, and once more; then a file of the operator's own.
    played.scene().in_force = Some(spec_of(&commit("c1")));
    played.scene().left = Some(LeftCommit {
        commit: "c2".to_owned(),
        why: "rolled back to generation 1".to_owned(),
    });
    let why = left_alone(&played, &orders, &["c2"]).await;
    assert_eq!(why, "rolled back to generation 1");
    played.scene().in_force = Some(spec_of(&commit("c0")));
    if let Some(left) = &mut played.scene().left {
        left.commit = "c1".to_owned();
    }
    let why = left_alone(&played, &orders, &["c2"]).await;
    assert!(why.contains("commit c2 was taken before"), "{why}");
    played.scene().left = None;
    played.scene().in_force = Some(SpecText::of("/other.yaml", "name: other"));
    let why = left_alone(&played, &orders, &["c2"]).await;
    assert!(why.contains("`hatchery sync --now`"), "{why}");
    played.scene().head = Some(commit("c3"));
    let status = ask(&orders, Word::Resume).await;
    assert_eq!(status.sync, Sync::Synced);
    played.scene().in_force = None;
    let status = ask(&orders, Word::Now).await;
    assert_eq!(status.sync, Sync::Synced);
    assert_eq!(played.scene().applied, ["c2", "c3", "c3"]);
}

#[tokio::test]
async fn what_is_refused_after_another_was_left_is_tried_once() {
    let played = Played::default();
    played.scene().head = Some(commit("c2"));
    let orders = follow(&played, |_| {});
    ask(&orders, Word::Now).await;
    played.scene().in_force = Some(spec_of(&commit("c1")));
    played.scene().left = Some(LeftCommit {
        commit: "c2".to_owned(),
        why: "it did not converge".to_owned(),
    });
    played.scene().head = Some(commit("broken"));
    for _ in 0..3 {
        let why = left_alone(&played, &orders, &["c2", "broken"]).await;
        assert!(why.contains("line 3 is wrong"), "{why}");
    }
    played.scene().head = Some(commit("c2"));
    let why = left_alone(&played, &orders, &["c2", "broken"]).await;
    assert_eq!(why, "it did not converge");
}

#[tokio::test]
async fn a_rewritten_branch_is_refused_unless_that_is_allowed() {
    for allowed in [false, true] {
        let played = Played::default();
        played.scene().head = Some(commit("new"));
        played.scene().rewritten = true;
        let orders = follow(&played, |parts| {
            parts.known.taken = Some("old".to_owned());
            parts.source.allow_rewrite = allowed;
        });
        let status = ask(&orders, Word::Now).await;
        assert_eq!(status.sync == Sync::Synced, allowed);
        assert_eq!(played.scene().applied.is_empty(), !allowed);
    }
}

#[tokio::test]
async fn an_unreachable_repository_is_asked_again() {
    let played = Played::default();
    played.scene().unreachable = true;
    played.scene().head = Some(commit("a"));
    let orders = follow(&played, |_| {});
    let status = ask(&orders, Word::Now).await;
    assert_eq!(status.sync, Sync::Stalled);
    assert!(status.reason.unwrap().contains("no route to host"));
    played.scene().unreachable = false;
    let status = ask(&orders, Word::Resume).await;
    assert_eq!((status.sync, status.reason), (Sync::Synced, None));
}

#[tokio::test]
async fn that_all_is_well_again_is_told_once() {
    let played = Played::default();
    played.scene().head = Some(commit("a"));
    played.scene().in_force = Some(spec_of(&commit("a")));
    let orders = follow(&played, |_| {});
    ask(&orders, Word::Now).await;
    assert_eq!(played.scene().told.len(), 0);
    played.scene().unreachable = true;
    ask(&orders, Word::Now).await;
    ask(&orders, Word::Now).await;
    played.scene().unreachable = false;
    ask(&orders, Word::Now).await;
    ask(&orders, Word::Now).await;
    let told = played.scene().told.clone();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].contains("is in force"), "{told:?}");
}

#[tokio::test]
async fn a_commit_that_is_gone_back_to_is_laid_out_first() {
    let played = Played::default();
    played.scene().head = Some(commit("b"));
    played.scene().refused.insert("gone".to_owned());
    let (handle, _orders) = follow_with_handle(&played, |parts| parts.suspended = true);
    let back = async |id: &str| {
        let by = Some(User { uid: 0, name: None });
        let cause = Cause::Rollback { to: 1, by };
        handle
            .apply(spec_of(&commit(id)), false, None, cause)
            .await
            .unwrap()
    };
    assert_eq!(back("a").await, Ok(7));
    let why = back("gone").await.unwrap_err().to_string();
    assert!(why.contains("the mirror is gone"), "{why}");
    assert_eq!(played.scene().applied, ["a"]);
}

#[tokio::test]
async fn an_edit_of_the_file_that_names_it_shows_and_fails_a_reload() {
    let played = Played::default();
    played.scene().head = Some(commit("a"));
    let (handle, _orders) = follow_with_handle(&played, |_| {});
    let by = || User { uid: 0, name: None };
    assert_eq!(handle.reload(by()).await, Ok(Ok(0)));
    assert_eq!(played.scene().applied, ["a"]);
    played.scene().edited = Some("/source.yaml".into());
    let why = handle.reload(by()).await.unwrap().unwrap_err();
    assert!(why.contains("/source.yaml"), "{why}");
    played.scene().edited = None;
    played.scene().unreachable = true;
    let why = handle.reload(by()).await.unwrap().unwrap_err();
    assert!(why.contains("no route to host"), "{why}");
}

#[tokio::test]
async fn what_is_suspended_is_left_alone() {
    let played = Played::default();
    played.scene().head = Some(commit("a"));
    let orders = follow(&played, |parts| parts.suspended = true);
    orders.pushed();
    let status = ask(&orders, Word::Suspend).await;
    assert!(status.suspended);
    assert_eq!(played.scene().asked, 0);
    let status = ask(&orders, Word::Resume).await;
    assert!(!status.suspended && !played.scene().suspended);
    assert_eq!(status.sync, Sync::Synced);
    ask(&orders, Word::Suspend).await;
    assert!(played.scene().suspended);
    // The loop hears of each turn, so that no commit is on trial meanwhile.
    assert_eq!(played.scene().left_alone, [false, true]);
}

#[tokio::test]
async fn what_is_in_force_is_known_while_it_is_suspended() {
    let played = Played::default();
    played.scene().in_force = Some(spec_of(&commit("a")));
    let orders = follow(&played, |parts| parts.suspended = true);
    let status = ask(&orders, Word::Suspend).await;
    assert_eq!(status.commit, Some(commit("a")));
    assert_eq!(played.scene().asked, 0);
}

#[tokio::test(start_paused = true)]
async fn the_repository_is_asked_within_every_interval() {
    let played = Played::default();
    played.scene().head = Some(commit("a"));
    let orders = follow(&played, |parts| {
        parts.source.interval = Duration::from_secs(60);
    });
    tokio::time::sleep(Duration::from_secs(601)).await;
    let asked = played.scene().asked;
    assert!((10..=13).contains(&asked), "{asked}");
    drop(orders);
}

#[tokio::test(start_paused = true)]
async fn what_is_fetched_in_vain_is_fetched_ever_more_seldom() {
    let played = Played::default();
    played.scene().too_large = true;
    played.scene().head = Some(commit("a"));
    let orders = follow(&played, |parts| {
        parts.source.interval = Duration::from_secs(60);
    });
    let minutes = |count: u64| Duration::from_secs(60 * count);
    tokio::time::sleep(minutes(60)).await;
    let asked = played.scene().asked;
    assert!((5..=7).contains(&asked), "{asked}");
    tokio::time::sleep(minutes(24 * 60)).await;
    let asked = played.scene().asked;
    assert!((24..=34).contains(&asked), "{asked}");
    played.scene().too_large = false;
    tokio::time::sleep(minutes(75)).await;
    assert_eq!(orders.status().sync, Sync::Synced);
    let before = played.scene().asked;
    tokio::time::sleep(minutes(10)).await;
    assert!(played.scene().asked >= before + 9);
}
