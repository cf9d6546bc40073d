//! One task that asks every check when it is due, and tells what changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

pub use super::schedule::{Probe, Schedule, Verdict, Wanted, Watched};
use crate::driver::{Clock, Probes};
use crate::health::Answer;
use crate::spec::model::Status;

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
            schedule: Schedule::new(seed),
            verdicts,
            running: JoinSet::new(),
            asked: BTreeMap::new(),
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

struct Done {
    turn: u64,
    answer: Answer,
}

struct Task {
    probes: Arc<dyn Probes>,
    clock: Arc<dyn Clock>,
    schedule: Schedule,
    verdicts: mpsc::Sender<Verdict>,
    running: JoinSet<Done>,
    /// The probes under way by their turns: the check's id, and how each is called off.
    asked: BTreeMap<u64, (String, AbortHandle)>,
}

impl Task {
    async fn run(mut self, mut wanted: watch::Receiver<Arc<Wanted>>) {
        loop {
            self.launch();
            let due = self.schedule.next_due();
            let pause = due.map(|due| due.since(self.clock.now()));
            tokio::select! {
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let new = wanted.borrow_and_update().clone();
                    for turn in self.schedule.set(&new, self.clock.now()) {
                        if let Some((_, running)) = self.asked.remove(&turn) {
                            running.abort();
                        }
                    }
                }
                Some(done) = self.running.join_next() => {
                    let done = match done {
                        Ok(done) => Some(done),
                        Err(lost) => self.stand_in(lost.id()),
                    };
                    if let Some(done) = done && !self.finish(done).await {
                        return;
                    }
                }
                () = sleep(pause), if pause.is_some() => {}
            }
        }
    }

    fn launch(&mut self) {
        for Probe {
            id,
            turn,
            check,
            pid,
        } in self.schedule.launch(self.clock.now())
        {
            let probe = self.probes.probe(&check, pid);
            let running = self.running.spawn(async move {
                Done {
                    turn,
                    answer: probe.await,
                }
            });
            self.asked.insert(turn, (id, running));
        }
    }

    /// Weighs an answer and tells what is news. False when nobody listens any more.
    async fn finish(&mut self, done: Done) -> bool {
        let Some((id, _)) = self.asked.remove(&done.turn) else {
            return true;
        };
        let now = self.clock.now();
        match self.schedule.answer(&id, done.turn, done.answer, now) {
            Some(verdict) => self.verdicts.send(verdict).await.is_ok(),
            None => true,
        }
    }

    /// The answer for a probe that ended without one. A probe that was called off needs none.
    fn stand_in(&self, lost: tokio::task::Id) -> Option<Done> {
        let (turn, _) = self.asked.iter().find(|(_, (_, run))| run.id() == lost)?;
        Some(Done {
            turn: *turn,
            answer: Answer {
                status: Status::Critical,
                output: "the probe ended without an answer".to_owned(),
            },
        })
    }
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
