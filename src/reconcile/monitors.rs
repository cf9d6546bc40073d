//! One task that asks every check when it is due, and tells what changed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::driver::{Clock, Probes};
use crate::graph::desired::CheckNode;
use crate::health::{Answer, First, Monitor};
use crate::spec::model::Status;
use crate::spec::time::Time;

/// How many probes are under way at once; more wait their turn.
const PROBES_AT_ONCE: usize = 64;

/// A check that is to be monitored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// What is asked, and when.
    pub check: CheckNode,
    /// The main process whose namespaces an `exec` probe enters.
    pub pid: Option<i32>,
    /// When the instance began: another moment means another life, whose monitor starts anew.
    pub since: Time,
    /// What was known of it then; read only when its monitor begins.
    pub first: First,
}

/// What the probes of one check say, sent when it is worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The check's id.
    pub check_id: String,
    /// Which life of the instance it is about: [`Watched::since`].
    pub since: Time,
    /// How the check stands, thresholds applied.
    pub status: Status,
    /// What the last probe said.
    pub output: String,
    /// The status is known from now on; an adopted instance has answered.
    pub first: bool,
    /// The status is another one than before.
    pub flip: bool,
    /// Enough failures in a row were counted; without them a critical check is starting.
    pub failing: bool,
}

/// The wanted checks by their ids.
pub type Wanted = BTreeMap<String, Watched>;

/// The near end of the task. Dropping it ends the task and every probe under way.
#[derive(Debug)]
pub struct Monitors {
    wanted: watch::Sender<Arc<Wanted>>,
}

impl Monitors {
    /// Starts the task on the current runtime; it tells `verdicts`, and waits when that is full.
    /// `seed` spreads the probes of equal checks.
    pub fn start(
        probes: Arc<dyn Probes>,
        clock: Arc<dyn Clock>,
        seed: u64,
        verdicts: mpsc::Sender<Verdict>,
    ) -> Self {
        let (wanted, receiver) = watch::channel(Arc::new(Wanted::new()));
        let task = Task {
            probes,
            clock,
            seed,
            verdicts,
            entries: BTreeMap::new(),
            due: BinaryHeap::new(),
            running: JoinSet::new(),
            turns: 0,
        };
        tokio::spawn(task.run(receiver));
        Monitors { wanted }
    }

    /// From now on these checks are monitored and no others. What did not change goes on
    /// undisturbed; setting the same again wakes nobody. Checks with a TTL may be among them
    /// and are never probed.
    pub fn set(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|current| {
            let changed = **current != wanted;
            if changed {
                *current = Arc::new(wanted);
            }
            changed
        });
    }
}

struct Entry {
    monitor: Monitor,
    pid: Option<i32>,
    /// Of the probe under way, or of the place in the queue: what carries another number is
    /// stale.
    turn: u64,
    running: Option<AbortHandle>,
}

/// A place in the queue; the earliest is served first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Time,
    turn: u64,
    id: String,
}

struct Done {
    id: String,
    turn: u64,
    answer: Answer,
}

struct Task {
    probes: Arc<dyn Probes>,
    clock: Arc<dyn Clock>,
    seed: u64,
    verdicts: mpsc::Sender<Verdict>,
    entries: BTreeMap<String, Entry>,
    due: BinaryHeap<Reverse<Due>>,
    running: JoinSet<Done>,
    turns: u64,
}

impl Task {
    async fn run(mut self, mut wanted: watch::Receiver<Arc<Wanted>>) {
        loop {
            self.launch();
            let pause = self.pause();
            tokio::select! {
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let new = wanted.borrow_and_update().clone();
                    self.apply(&new);
                }
                Some(done) = self.running.join_next() => {
                    let heard = match done {
                        Ok(done) => self.finish(done).await,
                        Err(lost) => match self.stand_in(lost.id()) {
                            Some(done) => self.finish(done).await,
                            None => true,
                        },
                    };
                    if !heard {
                        return;
                    }
                }
                () = sleep(pause), if pause.is_some() => {}
            }
        }
    }

    /// Brings the entries to what is wanted.
    fn apply(&mut self, wanted: &Wanted) {
        self.entries.retain(|id, entry| {
            let stays = wanted
                .get(id)
                .is_some_and(|watched| watched.since == entry.monitor.since());
            if !stays {
                entry.call_off();
            }
            stays
        });
        let now = self.clock.now();
        for (id, watched) in wanted {
            self.adjust(id, watched, now);
        }
    }

    fn adjust(&mut self, id: &str, watched: &Watched, now: Time) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.pid = watched.pid;
            if *entry.monitor.check() == watched.check {
                return;
            }
            entry.call_off();
            entry.monitor.revise(watched.check.clone(), now);
        } else {
            let monitor = Monitor::new(
                watched.check.clone(),
                watched.since,
                self.seed ^ hash(id),
                watched.first,
            );
            let entry = Entry {
                monitor,
                pid: watched.pid,
                turn: 0,
                running: None,
            };
            self.entries.insert(id.to_owned(), entry);
        }
        self.enqueue(id);
    }

    /// Gives an entry its place in the queue, if it is ever due.
    fn enqueue(&mut self, id: &str) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        self.turns += 1;
        entry.turn = self.turns;
        entry.running = None;
        if let Some(at) = entry.monitor.next_due() {
            self.due.push(Reverse(Due {
                at,
                turn: self.turns,
                id: id.to_owned(),
            }));
        }
    }

    /// Begins what is due, as far as there is room.
    fn launch(&mut self) {
        let now = self.clock.now();
        while self.running.len() < PROBES_AT_ONCE {
            let Some(Reverse(next)) = self.due.peek() else {
                return;
            };
            let live = self.entries.get(&next.id).map(|entry| entry.turn) == Some(next.turn);
            if live && next.at > now {
                return;
            }
            let Some(Reverse(next)) = self.due.pop() else {
                return;
            };
            if live {
                self.probe(next, now);
            }
        }
    }

    fn probe(&mut self, due: Due, now: Time) {
        let Some(entry) = self.entries.get_mut(&due.id) else {
            return;
        };
        if !entry.monitor.begin(now) {
            return;
        }
        let probe = self.probes.probe(entry.monitor.check(), entry.pid);
        entry.running = Some(self.running.spawn(async move {
            Done {
                answer: probe.await,
                id: due.id,
                turn: due.turn,
            }
        }));
    }

    /// How long until something is due; `None` when nothing is, or when there is no room.
    fn pause(&self) -> Option<Duration> {
        if self.running.len() >= PROBES_AT_ONCE {
            return None;
        }
        let Reverse(next) = self.due.peek()?;
        Some(next.at.since(self.clock.now()))
    }

    /// Weighs an answer and tells what is news. False when nobody listens any more.
    async fn finish(&mut self, done: Done) -> bool {
        let Some(entry) = self.entries.get_mut(&done.id) else {
            return true;
        };
        if entry.turn != done.turn {
            return true;
        }
        let outcome = entry.monitor.finish(done.answer, self.clock.now());
        let verdict = outcome.tell.then(|| Verdict {
            check_id: done.id.clone(),
            since: entry.monitor.since(),
            status: entry.monitor.status(),
            output: entry.monitor.output().to_owned(),
            first: outcome.first,
            flip: outcome.flip.is_some(),
            failing: entry.monitor.failing(),
        });
        self.enqueue(&done.id);
        match verdict {
            Some(verdict) => self.verdicts.send(verdict).await.is_ok(),
            None => true,
        }
    }

    /// The answer for a probe that ended without one. A probe that was called off needs none.
    fn stand_in(&self, lost: tokio::task::Id) -> Option<Done> {
        let is_lost = |entry: &Entry| entry.running.as_ref().is_some_and(|run| run.id() == lost);
        let (id, entry) = self.entries.iter().find(|(_, entry)| is_lost(entry))?;
        Some(Done {
            id: id.clone(),
            turn: entry.turn,
            answer: Answer {
                status: Status::Critical,
                output: "the probe ended without an answer".to_owned(),
            },
        })
    }
}

impl Entry {
    fn call_off(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
