//! The state of one controller between passes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use tokio::sync::{broadcast, oneshot};

use super::execute::Job;
use super::handle::{Happening, SpecText};
use super::history::History;
use super::host::Host;
use super::load::{Loaded, Surroundings};
use super::schedule::Wanted;
use super::turn::turn_to;
use crate::graph::container_of;
use crate::graph::desired::{Desired, Node, WorkloadNode};
use crate::plan::backoff::retry_delay;
use crate::plan::memory::{Attempt, Memory};
use crate::plan::model::{Gate, NodeStatus, Plan, Step};
use crate::plan::world::{LifeId, LifeState, Observed};
use crate::planted::{self, Bug};
use crate::spec::generation::Cause;
use crate::spec::node::NodeId;
use crate::spec::time::Time;

/// After so long the same steps are no repetition.
const FORGOTTEN: std::time::Duration = std::time::Duration::from_secs(60);

/// Which parts of the world are to be observed again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Dirty {
    pub lives: bool,
    pub network: bool,
    pub files: bool,
    pub catalog: bool,
    /// The spec's own file.
    pub spec: bool,
}

impl Dirty {
    pub const ALL: Dirty = Dirty {
        lives: true,
        network: true,
        files: true,
        catalog: true,
        // A spec that was taken by request need not be the file's.
        spec: false,
    };

    /// What a step may have changed.
    pub fn by(&mut self, step: &Step) {
        match step {
            Step::CreateNetwork(_)
            | Step::RemoveNetwork(_)
            | Step::Attach(_)
            | Step::Firewall { .. }
            | Step::Detach(_) => self.network = true,
            Step::Rewrite { .. } | Step::Write(_) | Step::RemoveFile { .. } => self.files = true,
            Step::Register(_) | Step::Deregister(_) | Step::OpenRegistry(_) => self.catalog = true,
            Step::Start(_)
            | Step::Signal { .. }
            | Step::Kill(_)
            | Step::Clear(_)
            | Step::Note { .. }
            | Step::ReloadProcess { .. } => self.lives = true,
            Step::PortFree(_)
            | Step::PreStart { .. }
            | Step::Validate { .. }
            | Step::ReloadCommand { .. } => {}
        }
    }
}

/// A spec under which everything was well.
#[derive(Debug, Clone)]
pub(super) struct Proven {
    pub generation: u64,
    pub spec: SpecText,
}

/// A spec whose text is not taken by itself as long as the file holds it.
#[derive(Debug, Clone)]
pub(super) struct PassedOver {
    pub spec: SpecText,
    /// Why, for the status.
    pub why: String,
}

/// A `down` under way.
pub(super) struct Leaving {
    pub purge: bool,
    pub answers: Vec<oneshot::Sender<Result<(), String>>>,
}

/// Steps that succeeded.
pub(super) struct DoneBefore {
    pub hash: u64,
    pub at: Time,
    /// How often in a row.
    pub times: u32,
}

pub(super) struct Controller {
    pub host: Host,
    pub around: Surroundings,
    pub spec: SpecText,
    pub desired: Desired,
    pub history: History,
    pub spec_error: Option<String>,
    /// The spec that converged last.
    pub proven: Option<Proven>,
    /// What the file held when the stack went back to an earlier spec.
    pub passed_over: Option<PassedOver>,
    pub follows: bool,
    /// How long a commit may take to converge before it is left for the proven spec.
    pub commit_deadline: Option<std::time::Duration>,
    pub observed: Observed,
    pub memory: Memory,
    /// What is monitored.
    pub watched: Wanted,
    /// How often a check was begun to be monitored: none is taken for another one.
    pub rounds: u64,
    /// The monitors do not know yet what is monitored.
    pub rewatch: bool,
    pub dirty: Dirty,
    /// The spec's file or a template's source was edited, and is to be read again.
    pub reread: bool,
    /// Which workload each registered endpoint belongs to.
    pub targets: BTreeMap<String, NodeId>,
    /// How each node stood after the pass before.
    pub before: BTreeMap<NodeId, NodeStatus>,
    pub plan: Plan,
    pub converged: bool,
    /// When the first pass began: for "converged in".
    pub busy_since: Time,
    pub down: Option<Leaving>,
    pub happenings: broadcast::Sender<Happening>,
    /// What was done last for each node. The same again at once would be of no more use.
    pub done_before: BTreeMap<NodeId, DoneBefore>,
    /// When this controller began.
    pub began: Time,
    /// When the last heartbeat that is waited for after the adoption is overdue.
    pub heartbeats_due: Option<Time>,
    /// When everything was observed last.
    pub synced: Time,
    /// What the watcher was told last.
    pub following: BTreeSet<PathBuf>,
}

impl Controller {
    /// Every workload of the spec.
    pub fn workloads(&self) -> impl Iterator<Item = &WorkloadNode> {
        self.desired.nodes.values().filter_map(|node| match node {
            Node::Workload(workload) => Some(workload.as_ref()),
            _ => None,
        })
    }

    /// Takes a new desired world.
    pub fn adopt_spec(&mut self, spec: SpecText, loaded: Loaded, cause: Cause) {
        turn_to(
            &mut self.memory,
            &self.desired,
            &loaded.desired,
            &self.observed,
        );
        let now = self.host.clock.now();
        self.done_before
            .retain(|_, done| now.since(done.at) < FORGOTTEN);
        self.desired = loaded.desired;
        self.spec = spec;
        self.spec_error = None;
        self.passed_over = None;
        self.enter_generation(cause);
        // Noted before anything is written, so that whoever takes the stack down finds it.
        let mut rendered = self.host.keep.rendered();
        let nodes = self.desired.nodes.values();
        rendered.extend(nodes.filter_map(|node| match node {
            Node::Template(template) => Some(template.destination.clone()),
            _ => None,
        }));
        // A stop that ended with what it was about is not to come back with the next controller.
        let stops = self.host.keep.stopped(&self.memory.stopped);
        for kept in [self.host.keep.set_rendered(&rendered), stops] {
            if let Err(error) = kept {
                self.warn(error.message);
            }
        }
        let env = self.around.env.clone();
        self.observed.inputs.env = env;
        self.observed.inputs.vars = self.desired.vars.clone();
        self.observed.inputs.spec_dir = self.desired.spec_dir.clone();
        self.observed.inputs.files = loaded.sources;
        self.converged = false;
        self.busy_since = now;
        self.dirty = Dirty::ALL;
    }

    /// The addresses that instances hold now, which a new compilation is to keep.
    pub fn held(&self) -> BTreeMap<NodeId, Ipv4Addr> {
        let mut held = held(&self.desired.stack, &self.observed);
        for wanted in self.memory.attaching() {
            let node = container_of(&self.desired.stack, &wanted.namespace);
            held.extend(node.map(|node| (node, wanted.address)));
        }
        held
    }

    /// Begins everything that the plan has ready.
    pub fn dispatch(&mut self) -> Vec<Job> {
        self.forget_attempts();
        let mut jobs = Vec::new();
        let now = self.host.clock.now();
        for (node, mut steps, life) in self.ready() {
            let attempt = self.memory.attempts.entry(node.clone()).or_insert(Attempt {
                running: false,
                attaches: None,
                life: None,
                failures: 0,
                error: None,
                retry_at: now,
            });
            if attempt.running {
                continue;
            }
            attempt.life = life;
            let hash = step_hash(&steps);
            if let Some(done) = self.done_before.get(&node).filter(|done| done.hash == hash) {
                let again = done.at + retry_delay(done.times);
                if now < again {
                    self.wake_at(again);
                    continue;
                }
            }
            attempt.running = !planted::has(Bug::DoubleStart);
            attempt.attaches = steps.iter().find_map(|step| match step {
                Step::Attach(wanted) => Some(wanted.clone()),
                _ => None,
            });
            for step in &steps {
                // Noted before it is done, so that the exit that follows is known as asked for.
                if let Step::Signal { life, .. } | Step::Kill(life) = step
                    && !self.memory.ending.contains_key(life)
                {
                    self.memory.asked.entry(life.clone()).or_insert(now);
                }
                if let Step::Start(start) = step {
                    self.memory.starting.insert(start.id.clone());
                }
                if let Step::Kill(life) = step {
                    self.memory.killed.insert(life.clone(), now);
                }
                if let Step::Write(_) = step {
                    self.forget_told(&node);
                }
                if let Step::Register(endpoint) = step
                    && let Some(target) = &endpoint.target
                {
                    self.targets
                        .insert(endpoint.service_id.clone(), target.clone());
                }
            }
            if planted::has(Bug::PlanDiffers) {
                steps.retain(|step| !matches!(step, Step::Firewall { .. }));
            }
            jobs.push(Job::new(node, steps));
        }
        jobs
    }

    /// What the plan has ready: whose, the steps, and the life that they are about, unless they
    /// begin one.
    fn ready(&self) -> Vec<(NodeId, Vec<Step>, Option<LifeId>)> {
        let items = self.plan.items.iter();
        let mut ready = items
            .filter(|item| item.gate == Gate::Ready && !item.steps.is_empty())
            .peekable();
        if ready.peek().is_none() {
            return Vec::new();
        }
        let lives = self.newest_lives();
        ready
            .map(|item| {
                let begins = item.steps.iter().any(|step| matches!(step, Step::Start(_)));
                let life = lives.get(&item.node).filter(|_| !begins);
                let life = life.filter(|life| !matches!(life.state, LifeState::Ended { .. }));
                let life = life.map(|life| life.id.clone());
                (item.node.clone(), item.steps.clone(), life)
            })
            .collect()
    }

    /// What nothing is to be done about any more did not fail either.
    fn forget_attempts(&mut self) {
        let items: HashSet<&NodeId> = self.plan.items.iter().map(|item| &item.node).collect();
        self.memory
            .attempts
            .retain(|node, attempt| attempt.running || items.contains(node));
    }

    /// Remembers what was done, to notice when it is asked for again and again.
    pub fn succeeded(&mut self, node: NodeId, steps: &[Step], now: Time) {
        let hash = step_hash(steps);
        let same = self
            .done_before
            .get(&node)
            .filter(|before| before.hash == hash);
        let times = match same {
            // Long ago is another story.
            Some(before) if now.since(before.at) < FORGOTTEN => before.times.saturating_add(1),
            _ => 1,
        };
        self.done_before.insert(
            node,
            DoneBefore {
                hash,
                at: now,
                times,
            },
        );
    }

    /// Plans again at this moment at the latest.
    pub fn wake_at(&mut self, at: Time) {
        self.plan.wake = Some(self.plan.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Tells the watcher what to follow.
    pub fn follow_files(&mut self) {
        let paths = self.followed();
        if paths == self.following {
            return;
        }
        match self.host.follow.set(paths.clone()) {
            Ok(()) => {
                // What changed before the watch began was told by nobody.
                self.dirty.files = true;
                self.dirty.spec = true;
                self.wake_at(self.host.clock.now());
            }
            // Told once; the resync observes what cannot be followed.
            Err(error) => self.warn(error.message),
        }
        self.following = paths;
    }

    /// Paths whose changes wake the loop.
    fn followed(&self) -> BTreeSet<PathBuf> {
        let mut paths: BTreeSet<PathBuf> = self.observed.inputs.files.keys().cloned().collect();
        if self.follows {
            paths.extend(self.spec.files());
        }
        for node in self.desired.nodes.values() {
            match node {
                Node::Workload(workload) => paths.extend(workload.watch.iter().cloned()),
                Node::Template(template) => {
                    paths.insert(template.destination.clone());
                }
                _ => {}
            }
        }
        paths
    }
}

/// The addresses that instances of `stack` hold.
pub fn held(stack: &str, observed: &Observed) -> BTreeMap<NodeId, Ipv4Addr> {
    let attachments = observed.network.attachments.iter();
    attachments
        .filter_map(|(name, view)| Some((container_of(stack, name)?, view.address?.addr())))
        .collect()
}

/// Tells equal steps.
pub(super) fn step_hash(steps: &[Step]) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{steps:?}").hash(&mut hasher);
    hasher.finish()
}
