//! What the controller remembers between passes and the kernel does not show.
//!
//! Losing all of it costs a probe and a restart delay, never a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::context::words;
use super::model::{ErrorKind, Notes};
use super::permit::Permit;
use super::world::{Exit, Life, LifeId};
use crate::graph::desired::{Attachment, Farewell, ReadyNode};
use crate::planted::{self, Bug};
use crate::spec::model::Restart;
use crate::spec::node::NodeId;
use crate::spec::time::Time;

/// What the planner is told beside the spec and the world.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The stack is being taken down: nothing is wanted any more.
    pub down: Option<Down>,
    /// What left the spec runs on as long as it does by itself, and rendered files stay.
    pub keeps: bool,
    /// Per workload.
    pub workloads: BTreeMap<NodeId, WorkloadMemory>,
    /// Lives that are ready.
    pub ready: BTreeSet<LifeId>,
    /// Lives whose start is under way: their program may still turn out not to run.
    pub starting: BTreeSet<LifeId>,
    /// Lives that were asked to end, and when.
    pub asked: BTreeMap<LifeId, Time>,
    /// Lives that ran when this controller began. Whether they said that they are ready while none
    /// listened is known to nobody.
    pub adopted: BTreeSet<LifeId>,
    /// Since when this controller waits for a life's readiness under this spec.
    pub seen: BTreeMap<LifeId, Time>,
    /// Lives that were asked to end because they did not become ready in time.
    pub late: BTreeSet<LifeId>,
    /// Lives that were killed, and when.
    pub killed: BTreeMap<LifeId, Time>,
    /// Lives whose main process is gone, and since when.
    pub ending: BTreeMap<LifeId, Time>,
    /// Since when a life is to leave, so that waiting for the proxy has an end.
    pub leaving: BTreeMap<LifeId, Time>,
    /// Lives whose connections are waited for, and since when.
    pub draining: BTreeMap<LifeId, Draining>,
    /// Since when a life is well without a break.
    pub well: BTreeMap<LifeId, Time>,
    /// Workloads that the spec in force brought or changed, until it converged: what they do
    /// judges it.
    pub changed: BTreeSet<NodeId>,
    /// Of these, since when each is tried without being well.
    pub trying: BTreeMap<NodeId, Time>,
    /// Lives that an operator wants to end and to be followed by another.
    pub restart: BTreeSet<LifeId>,
    /// Workloads that an operator stopped.
    pub stopped: BTreeSet<NodeId>,
    /// Actions under way, and how the last one of each node failed.
    pub attempts: BTreeMap<NodeId, Attempt>,
    /// Per template.
    pub templates: BTreeMap<String, TemplateMemory>,
    /// What validators said, by the hash of all that they were shown.
    pub verdicts: BTreeMap<String, Verdict>,
    /// Check ids of adopted instances that did not answer yet.
    pub unchecked: BTreeSet<String>,
    /// What needed what in specs that are gone, so that what left is removed in order.
    pub past_needs: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// Files that earlier specs of this stack rendered, by path: the template's name.
    pub rendered: BTreeMap<std::path::PathBuf, String>,
    /// A plan file was applied: what it lets happen. `None` lets everything happen.
    pub permitted: Option<Permit>,
    /// Since when each node's action waits for something.
    pub waiting: BTreeMap<NodeId, Time>,
}

/// A life whose connections are waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draining {
    /// Since when.
    pub since: Time,
    /// To which of its ports.
    pub ports: BTreeSet<u16>,
    /// Since when there is none, without a break.
    pub quiet: Option<Time>,
}

/// How a stack is taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Down {
    /// Kill instead of asking.
    pub kill: bool,
}

/// One workload's past.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadMemory {
    /// Failures in a row.
    pub failures: u32,
    /// When it failed, in a row or not, the newest last; kept only where `restart.window`
    /// counts them, and no more than it counts.
    pub failed_at: Vec<Time>,
    /// Restarts since the controller knows it.
    pub restarts: u32,
    /// Its newest end.
    pub last_exit: Option<LastExit>,
    /// The highest incarnation that it had.
    pub incarnation: u64,
    /// How it is to end, kept for when it leaves the spec.
    pub farewell: Option<Farewell>,
    /// It gave up under an earlier controller, and nothing of it began since.
    #[serde(default)]
    pub kept: bool,
}

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// How.
    pub exit: Exit,
    /// When.
    pub at: Time,
    /// Which life.
    pub incarnation: u64,
    /// We asked for it.
    pub asked: bool,
    /// It had to end because it did not become ready in time: a failure, whatever it says.
    #[serde(default)]
    pub late: bool,
}

/// The last action on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// It is under way.
    pub running: bool,
    /// What it attaches while it is under way: nobody else may be given that address, and its
    /// bridge is in use, though nothing of it is seen yet.
    pub attaches: Option<Box<Attachment>>,
    /// The life that it was about; `None` where it was to begin one, or is about none. It holds
    /// up nothing of another.
    pub life: Option<LifeId>,
    /// Failures in a row.
    pub failures: u32,
    /// Why the last one failed.
    pub error: Option<(ErrorKind, String)>,
    /// Not before then.
    pub retry_at: Time,
}

/// One template's past.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateMemory {
    /// The text that waits to be written: its hash, when it was first seen to differ from the
    /// file, and when it last changed.
    pub pending: Option<Pending>,
    /// Rendered with what it needs at least once since this controller began.
    pub good: bool,
    /// What a reload command has told: a hash of the command, the place and the content.
    pub told: Option<String>,
}

/// A text on its way to its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The text's hash.
    pub hash: String,
    /// When the text first differed from the file.
    pub first: Time,
    /// When it changed last.
    pub last: Time,
}

/// What a validator said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// It accepted.
    pub accepted: bool,
    /// What it printed.
    pub output: String,
    /// When it was asked.
    pub at: Time,
    /// How often it was asked this.
    pub times: u32,
}

impl WorkloadMemory {
    /// Remembers an end once. `served` is how long that life ran, if it ever was ready, `restart`
    /// what the spec says of its node, if it still says something.
    pub fn note_exit(
        &mut self,
        last: LastExit,
        served: Option<Duration>,
        restart: Option<&Restart>,
    ) {
        self.incarnation = self.incarnation.max(last.incarnation);
        if self
            .last_exit
            .is_some_and(|known| known.incarnation >= last.incarnation)
        {
            return;
        }
        self.last_exit = Some(last);
        if last.exit == Exit::NotBegun {
            return;
        }
        if last.asked {
            self.forget_failures();
            return;
        }
        let healthy = served.zip(restart).is_some_and(|(served, restart)| {
            served >= restart.reset_after && !planted::has(Bug::BackoffNeverReset)
        });
        self.failures = match healthy {
            true => 1,
            false => self.failures.saturating_add(1),
        };
        let Some((window, most)) = restart.and_then(|r| Some((r.window?, r.max_attempts?))) else {
            self.failed_at.clear();
            return;
        };
        self.failed_at.push(last.at);
        self.failed_at.retain(|at| last.at.since(*at) <= window);
        // One more than the limit already says that it was passed.
        let kept = usize::try_from(most).map_or(usize::MAX, |most| most.saturating_add(1));
        let spare = self.failed_at.len().saturating_sub(kept);
        self.failed_at.drain(..spare);
    }

    /// An end that was asked for, or an operator's word, begins anew.
    pub fn forget_failures(&mut self) {
        self.failures = 0;
        self.failed_at.clear();
        self.kept = false;
    }

    /// Whether it failed more often than its limit allows, in words.
    pub fn gave_up(&self, restart: &Restart) -> Option<String> {
        let most = restart.max_attempts?;
        let last = self.last_exit.filter(|last| !last.asked)?;
        let Some(window) = restart.window else {
            let failures = self.failures.max(1);
            return (failures > most)
                .then(|| format!("gave up after {failures} failures in a row"));
        };
        // Counted back from the last end, so that waiting alone does not begin it anew.
        let failed = self.failed_at.iter();
        let within = failed.filter(|at| last.at.since(**at) <= window).count();
        u32::try_from(within)
            .is_ok_and(|within| within > most)
            .then(|| format!("gave up after {within} failures within {}", words(window)))
    }
}

/// Workloads that gave up, as they are kept for the next controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// The generation under which they did: another one gives them another try.
    pub generation: u64,
    /// Which, and their past.
    pub workloads: Vec<(NodeId, WorkloadMemory)>,
}

impl GivenUp {
    /// Brings them back into a memory that begins with the same generation.
    pub fn recall(self, workloads: &mut BTreeMap<NodeId, WorkloadMemory>) {
        for (node, past) in self.workloads {
            let farewell = workloads.remove(&node).and_then(|known| known.farewell);
            let kept = WorkloadMemory {
                kept: true,
                farewell,
                ..past
            };
            workloads.insert(node, kept);
        }
    }
}

impl Memory {
    /// What failed under the old spec deserves a try under the new one.
    pub fn begin_generation(&mut self) {
        self.attempts.retain(|_, attempt| attempt.running);
        self.verdicts.retain(|_, verdict| verdict.accepted);
        for workload in self.workloads.values_mut() {
            workload.forget_failures();
        }
        self.permitted = None;
    }

    /// Takes over what a plan noted at `now`.
    pub fn absorb(&mut self, notes: &Notes, now: Time) {
        for (template, hash) in &notes.pending {
            let memory = self.templates.entry(template.clone()).or_default();
            match &mut memory.pending {
                Some(pending) if pending.hash == *hash => {}
                Some(pending) => {
                    pending.hash.clone_from(hash);
                    pending.last = now;
                }
                none => {
                    *none = Some(Pending {
                        hash: hash.clone(),
                        first: now,
                        last: now,
                    })
                }
            }
        }
        for (name, memory) in &mut self.templates {
            if !notes.pending.contains_key(name) {
                memory.pending = None;
            }
        }
        for template in &notes.good {
            self.templates.entry(template.clone()).or_default().good = true;
        }
        for life in &notes.leaving {
            self.leaving.entry(life.clone()).or_insert(now);
        }
        self.leaving.retain(|life, _| notes.leaving.contains(life));
        // One that turned well before it was asked to end is late no more.
        let asked = &self.asked;
        self.late
            .retain(|life| notes.late.contains(life) || asked.contains_key(life));
        self.late.extend(notes.late.iter().cloned());
        for (life, ports) in &notes.draining {
            let draining = self.draining.entry(life.clone()).or_insert(Draining {
                since: now,
                ports: BTreeSet::new(),
                quiet: None,
            });
            draining.ports.clone_from(ports);
        }
        self.draining
            .retain(|life, _| notes.draining.contains_key(life));
        for node in &notes.waiting {
            self.waiting.entry(node.clone()).or_insert(now);
        }
        self.waiting.retain(|node, _| notes.waiting.contains(node));
        since(&mut self.well, &notes.well, now);
        since(&mut self.trying, &notes.trying, now);
    }

    /// Takes over how many connections each draining life has.
    pub fn count_connections(&mut self, connections: &BTreeMap<LifeId, u32>, now: Time) {
        for (life, draining) in &mut self.draining {
            match connections.get(life) {
                Some(0) => draining.quiet = draining.quiet.or(Some(now)),
                // What could not be counted is no quiet.
                _ => draining.quiet = None,
            }
        }
    }

    /// Whether a life that runs has become ready; once it was, it stays so.
    pub fn is_ready(&self, ready: &ReadyNode, life: &Life) -> bool {
        match ready {
            ReadyNode::Started => true,
            // Where nobody can tell whether it said so, it was given its time.
            ReadyNode::Notify { .. } => life.notified || self.ready.contains(&life.id),
            ReadyNode::Check { .. } => self.ready.contains(&life.id),
        }
    }

    /// What is being attached.
    pub fn attaching(&self) -> impl Iterator<Item = &Attachment> {
        let under_way = self.attempts.values().filter(|attempt| attempt.running);
        under_way.filter_map(|attempt| attempt.attaches.as_deref())
    }

    /// The verdicts that are kept at most.
    pub const VERDICTS: usize = 64;

    /// Remembers a verdict, and forgets the oldest one when there are too many.
    pub fn judge(&mut self, key: String, accepted: bool, output: String, at: Time) {
        let times = self
            .verdicts
            .get(&key)
            .map_or(1, |old| old.times.saturating_add(1));
        self.verdicts.insert(
            key,
            Verdict {
                accepted,
                output,
                at,
                times,
            },
        );
        if self.verdicts.len() > Self::VERDICTS {
            let oldest = self
                .verdicts
                .iter()
                .min_by_key(|(_, v)| v.at)
                .map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.verdicts.remove(&oldest);
            }
        }
    }
}

/// Keeps since when each of `still` holds, and forgets the others.
fn since<T: Ord + Clone>(known: &mut BTreeMap<T, Time>, still: &BTreeSet<T>, now: Time) {
    known.retain(|one, _| still.contains(one));
    for one in still {
        if !known.contains_key(one) {
            known.insert(one.clone(), now);
        }
    }
}
