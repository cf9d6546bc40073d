//! When each check is asked, and what its answers come to: no task, no clock, no socket.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::graph::desired::CheckNode;
use crate::health::{Answer, First, Monitor};
use crate::spec::model::Status;
use crate::spec::time::Time;

/// How many probes are under way at once; more wait their turn.
pub(super) const PROBES_AT_ONCE: usize = 64;

/// A check that is to be monitored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// What is asked, and when.
    pub check: CheckNode,
    /// The main process whose namespaces an `exec` probe enters.
    pub pid: Option<i32>,
    /// When the instance began: another moment means another life, whose monitor starts anew.
    pub since: Time,
    /// Which time it is monitored: one that was left out for a moment starts anew too.
    pub round: u64,
    /// What was known of it then; read only when its monitor begins.
    pub first: First,
}

/// What the probes of one check say, told when it is worth it.
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

/// One question that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The check's id.
    pub id: String,
    /// Which question it is, among all; the answer carries it back.
    pub turn: u64,
    /// What is asked.
    pub check: CheckNode,
    /// The main process whose namespaces an `exec` probe enters.
    pub pid: Option<i32>,
}

struct Entry {
    monitor: Monitor,
    pid: Option<i32>,
    round: u64,
    /// Of the probe under way, or of the place in the queue: what carries another number is
    /// stale.
    turn: u64,
}

/// A place in the queue; the earliest is served first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Time,
    turn: u64,
    id: String,
}

/// All checks of one controller. Who drives it makes the probes that [`launch`] gives and
/// brings their answers.
///
/// [`launch`]: Schedule::launch
pub struct Schedule {
    seed: u64,
    entries: BTreeMap<String, Entry>,
    due: BinaryHeap<Reverse<Due>>,
    under_way: BTreeSet<u64>,
    turns: u64,
}

impl Schedule {
    /// An empty one; `seed` spreads the probes of equal checks.
    pub fn new(seed: u64) -> Self {
        Schedule {
            seed,
            entries: BTreeMap::new(),
            due: BinaryHeap::new(),
            under_way: BTreeSet::new(),
            turns: 0,
        }
    }

    /// From now on these checks are asked and no others; what did not change goes on
    /// undisturbed. Gives the turns of the probes under way whose answers nobody needs now.
    pub fn set(&mut self, wanted: &Wanted, now: Time) -> Vec<u64> {
        let mut called_off = Vec::new();
        let under_way = &mut self.under_way;
        self.entries.retain(|id, entry| {
            let stays = wanted.get(id).is_some_and(|watched| {
                watched.since == entry.monitor.since() && watched.round == entry.round
            });
            if !stays && under_way.remove(&entry.turn) {
                called_off.push(entry.turn);
            }
            stays
        });
        for (id, watched) in wanted {
            self.adjust(id, watched, now, &mut called_off);
        }
        called_off
    }

    fn adjust(&mut self, id: &str, watched: &Watched, now: Time, called_off: &mut Vec<u64>) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.pid = watched.pid;
            if *entry.monitor.check() == watched.check {
                return;
            }
            if self.under_way.remove(&entry.turn) {
                called_off.push(entry.turn);
            }
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
                round: watched.round,
                turn: 0,
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
        if let Some(at) = entry.monitor.next_due() {
            self.due.push(Reverse(Due {
                at,
                turn: self.turns,
                id: id.to_owned(),
            }));
        }
    }

    /// Begins what is due, as far as there is room.
    pub fn launch(&mut self, now: Time) -> Vec<Probe> {
        let mut probes = Vec::new();
        while self.under_way.len() < PROBES_AT_ONCE {
            let Some(Reverse(next)) = self.due.peek() else {
                break;
            };
            let live = self.entries.get(&next.id).map(|entry| entry.turn) == Some(next.turn);
            if live && next.at > now {
                break;
            }
            let Some(Reverse(next)) = self.due.pop() else {
                break;
            };
            let entry = self.entries.get_mut(&next.id).filter(|_| live);
            if let Some(entry) = entry
                && entry.monitor.begin(now)
            {
                self.under_way.insert(next.turn);
                probes.push(Probe {
                    check: entry.monitor.check().clone(),
                    pid: entry.pid,
                    id: next.id,
                    turn: next.turn,
                });
            }
        }
        probes
    }

    /// When something is due next; `None` when nothing is, or when there is no room.
    pub fn next_due(&self) -> Option<Time> {
        if self.under_way.len() >= PROBES_AT_ONCE {
            return None;
        }
        self.due.peek().map(|Reverse(next)| next.at)
    }

    /// Weighs the answer to a probe, and gives what is news. An answer to a question that
    /// nobody asks any more says nothing.
    pub fn answer(&mut self, id: &str, turn: u64, answer: Answer, now: Time) -> Option<Verdict> {
        if !self.under_way.remove(&turn) {
            return None;
        }
        let entry = self
            .entries
            .get_mut(id)
            .filter(|entry| entry.turn == turn)?;
        let outcome = entry.monitor.finish(answer, now);
        let verdict = outcome.tell.then(|| Verdict {
            check_id: id.to_owned(),
            since: entry.monitor.since(),
            status: entry.monitor.status(),
            output: entry.monitor.output().to_owned(),
            first: outcome.first,
            flip: outcome.flip.is_some(),
            failing: entry.monitor.failing(),
        });
        self.enqueue(id);
        verdict
    }
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}
