#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::*;
use crate::graph::desired::{CheckNode, ProbeNode};
use crate::health::First;
use crate::reconcile::schedule::PROBES_AT_ONCE;
use crate::spec::time::Time;

/// The kernel's clock, on the paused time of the test.
struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> Time {
        Time(0) + self.0.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        0
    }
}

/// Answers as told, after as long as told; `None` panics.
#[derive(Default)]
struct FakeProbes {
    answers: Mutex<BTreeMap<String, (Duration, Option<Status>)>>,
    asked: Mutex<Vec<(String, Option<i32>, Instant)>>,
    under_way: Arc<AtomicUsize>,
    most: AtomicUsize,
}

impl FakeProbes {
    fn say(&self, id: &str, after: Duration, status: Option<Status>) {
        self.answers
            .lock()
            .unwrap()
            .insert(id.to_owned(), (after, status));
    }

    fn times(&self, id: &str) -> Vec<Instant> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|a| a.0 == id).map(|a| a.2).collect()
    }
}

struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Probes for FakeProbes {
    fn probe(&self, check: &CheckNode, pid: Option<i32>) -> BoxFuture<'static, Answer> {
        let now = (self.under_way.fetch_add(1, Ordering::SeqCst)) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let guard = UnderWay(self.under_way.clone());
        self.asked
            .lock()
            .unwrap()
            .push((check.id.clone(), pid, Instant::now()));
        let said = self.answers.lock().unwrap().get(&check.id).copied();
        let (after, status) = said.unwrap_or((Duration::ZERO, Some(Status::Passing)));
        async move {
            let _guard = guard;
            tokio::time::sleep(after).await;
            Answer {
                status: status.expect("this probe is told to panic"),
                output: String::new(),
            }
        }
        .boxed()
    }
}

struct Bench {
    probes: Arc<FakeProbes>,
    monitors: Monitors,
    verdicts: mpsc::Receiver<Verdict>,
}

fn bench() -> Bench {
    let probes = Arc::new(FakeProbes::default());
    let clock = Arc::new(TestClock(Instant::now()));
    let (sender, verdicts) = mpsc::channel(256);
    let monitors = Monitors::start(probes.clone(), clock, 7, sender);
    Bench {
        probes,
        monitors,
        verdicts,
    }
}

fn watched(id: &str) -> Watched {
    Watched {
        check: CheckNode {
            id: id.to_owned(),
            name: "answers".to_owned(),
            probe: ProbeNode::Tcp("10.50.0.2:8080".to_owned()),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(3),
            retries: 1,
            start_period: Duration::ZERO,
            start_interval: Duration::from_secs(1),
        },
        pid: Some(12),
        since: Time(0),
        round: 1,
        first: First::Started,
    }
}

fn wanted(all: impl IntoIterator<Item = Watched>) -> Wanted {
    all.into_iter().map(|w| (w.check.id.clone(), w)).collect()
}

async fn next(bench: &mut Bench) -> Verdict {
    let waited = tokio::time::timeout(Duration::from_secs(600), bench.verdicts.recv()).await;
    waited.expect("no verdict within ten minutes").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_pass_is_told_once_and_a_flip_again() {
    let mut bench = bench();
    bench.monitors.set(wanted([watched("a")]));
    let verdict = next(&mut bench).await;
    assert_eq!(verdict.status, Status::Passing);
    assert!(verdict.first && verdict.flip && !verdict.failing);

    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(bench.verdicts.try_recv().is_err(), "no news is told");
    let probes = bench.probes.times("a").len();
    assert!((12..=14).contains(&probes), "{probes} probes in a minute");

    bench
        .probes
        .say("a", Duration::ZERO, Some(Status::Critical));
    let verdict = next(&mut bench).await;
    assert_eq!(verdict.status, Status::Critical);
    assert!(!verdict.first && verdict.flip && verdict.failing);
}

#[tokio::test(start_paused = true)]
async fn never_two_of_one_check_and_at_most_so_many_of_all() {
    let mut bench = bench();
    let ids: Vec<String> = (0..200).map(|n| format!("c{n}")).collect();
    for id in &ids {
        bench
            .probes
            .say(id, Duration::from_secs(2), Some(Status::Passing));
    }
    bench.monitors.set(wanted(ids.iter().map(|id| watched(id))));
    for _ in &ids {
        assert_eq!(next(&mut bench).await.status, Status::Passing);
    }
    assert_eq!(bench.probes.most.load(Ordering::SeqCst), PROBES_AT_ONCE);
    tokio::time::sleep(Duration::from_secs(60)).await;
    for id in &ids {
        let times = bench.probes.times(id);
        for pair in times.windows(2) {
            assert!(pair[1] - pair[0] >= Duration::from_secs(2), "{id} twice");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_stays_goes_on_and_what_left_is_called_off() {
    let mut bench = bench();
    bench
        .probes
        .say("b", Duration::from_secs(100), Some(Status::Passing));
    bench.monitors.set(wanted([watched("a"), watched("b")]));
    assert_eq!(next(&mut bench).await.check_id, "a");
    assert_eq!(bench.probes.under_way.load(Ordering::SeqCst), 1);
    let before = bench.probes.times("a");

    bench.monitors.set(wanted([watched("a")]));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.probes.under_way.load(Ordering::SeqCst), 0);
    assert_eq!(bench.probes.times("a"), before, "not asked again at once");
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(bench.probes.times("b").len(), 1);
    assert!(bench.verdicts.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn another_life_starts_critical_and_old_answers_are_dropped() {
    let mut bench = bench();
    bench.monitors.set(wanted([watched("a")]));
    next(&mut bench).await;
    bench
        .probes
        .say("a", Duration::from_secs(3), Some(Status::Critical));
    while bench.probes.under_way.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    bench.probes.say("a", Duration::ZERO, Some(Status::Passing));
    let mut life = watched("a");
    life.since = Time(0) + Duration::from_secs(6);
    life.pid = Some(13);
    bench.monitors.set(wanted([life.clone()]));
    let verdict = next(&mut bench).await;
    assert_eq!(
        (verdict.status, verdict.since),
        (Status::Passing, life.since)
    );
    assert!(verdict.first);
    assert_eq!(
        bench.probes.asked.lock().unwrap().last().unwrap().1,
        Some(13)
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(bench.verdicts.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_changed_check_is_asked_at_once_and_keeps_its_status() {
    let mut bench = bench();
    bench.monitors.set(wanted([watched("a"), watched("b")]));
    next(&mut bench).await;
    next(&mut bench).await;
    let others = bench.probes.times("b");
    let mut changed = watched("a");
    changed.check.probe = ProbeNode::Tcp("10.50.0.2:9090".to_owned());
    bench.monitors.set(wanted([changed, watched("b")]));
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(bench.probes.times("a").len(), 2);
    assert_eq!(bench.probes.times("b"), others);
    assert!(bench.verdicts.try_recv().is_err(), "it still passes");
}

#[tokio::test(start_paused = true)]
async fn an_adopted_instance_is_asked_at_once() {
    let mut bench = bench();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let mut found = watched("a");
    found.first = First::Adopted;
    let begin = Instant::now();
    bench.monitors.set(wanted([found]));
    let verdict = next(&mut bench).await;
    assert!(verdict.first && verdict.status == Status::Passing);
    assert!(begin.elapsed() <= Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_counts_as_a_failure_and_is_asked_again() {
    let mut bench = bench();
    bench.probes.say("a", Duration::ZERO, None);
    bench.monitors.set(wanted([watched("a")]));
    let verdict = next(&mut bench).await;
    assert_eq!(verdict.status, Status::Critical);
    assert!(verdict.failing);
    bench.probes.say("a", Duration::ZERO, Some(Status::Passing));
    assert_eq!(next(&mut bench).await.status, Status::Passing);
}

#[tokio::test(start_paused = true)]
async fn a_ttl_check_is_never_probed_and_an_end_ends_all() {
    let mut bench = bench();
    let mut ttl = watched("ttl");
    ttl.check.probe = ProbeNode::Ttl(Duration::from_secs(10));
    bench
        .probes
        .say("b", Duration::from_secs(100), Some(Status::Passing));
    bench.monitors.set(wanted([ttl, watched("b")]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(bench.probes.times("ttl").is_empty());
    assert_eq!(bench.probes.under_way.load(Ordering::SeqCst), 1);

    drop(bench.monitors);
    assert!(bench.verdicts.recv().await.is_none());
    assert_eq!(bench.probes.under_way.load(Ordering::SeqCst), 0);
}
