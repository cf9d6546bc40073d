//! The plan as a value: every outstanding action, with its reason and what it waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::world::{FileMark, Identity, LifeId};
use crate::graph::desired::{Attachment, EndpointNode, Farewell, NetworkNode, Run};
use crate::spec::model::{Confirm, Firewall, LogLimit, Registry, Signal, Status};
use crate::spec::node::NodeId;
use crate::spec::time::Time;

/// Every outstanding action. An empty one says that the world is as the spec wants it.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In start order, removals first in stop order.
    pub items: Vec<Item>,
    /// How every node stands, in start order; nodes that left the spec come last.
    pub nodes: Vec<NodeStatus>,
    /// Start waves by node, for display.
    pub waves: Arc<Vec<Vec<NodeId>>>,
    /// When to look again though nothing happened.
    pub wake: Option<Time>,
    /// What the next plan wants to be told.
    pub notes: Notes,
}

/// What one plan found that the next one must remember; see [`Memory::absorb`].
///
/// [`Memory::absorb`]: super::memory::Memory::absorb
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Files that templates asked for and that were not fetched.
    pub lacks: BTreeSet<PathBuf>,
    /// Hash of each text that differs from its file.
    pub pending: BTreeMap<String, String>,
    /// Templates whose file holds what they render to.
    pub good: BTreeSet<String>,
    /// Lives that are to leave before they end.
    pub leaving: BTreeSet<LifeId>,
    /// Lives that end because they did not become ready in time.
    pub late: BTreeSet<LifeId>,
    /// Nodes whose action waits for something.
    pub waiting: BTreeSet<NodeId>,
    /// Lives whose connections are waited for: to these ports.
    pub draining: BTreeMap<LifeId, BTreeSet<u16>>,
    /// Lives that are ready and pass.
    pub well: BTreeSet<LifeId>,
    /// Workloads that the spec in force brought or changed, and that are not well though
    /// nothing else is waited for.
    pub trying: BTreeSet<NodeId>,
    /// Why the spec in force is to give way to the one that converged last.
    pub rollback: Option<String>,
}

/// One node's outstanding action.
#[derive(Debug, Clone)]
pub struct Item {
    /// Whose.
    pub node: NodeId,
    /// What becomes of it.
    pub change: Change,
    /// Why: "not running", "command changed", "exited 137 3s ago".
    pub reason: String,
    /// Whether it can be done now.
    pub gate: Gate,
    /// What is done, in order, until one fails. Empty when waiting.
    pub steps: Vec<Step>,
    /// Attributes for the reader.
    pub details: Vec<Detail>,
    /// The change of a rendered file.
    pub diff: Option<FileDiff>,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Somebody else holds the name, address or port.
    Foreign,
    /// The thing is not there (any more).
    Gone,
    /// The kernel, the disk or a program refused.
    Failed,
    /// It took too long.
    TimedOut,
}

/// What becomes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// `+`
    Add,
    /// `~`, in place.
    Change,
    /// `-/+`
    Replace,
    /// `-`
    Remove,
}

/// Whether an action can be done now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Now.
    Ready,
    /// It is being done.
    Running,
    /// Not before these: "containers/prime1 to pass", "its restart delay, 2s".
    Waiting(Vec<String>),
    /// Never by itself: the error to be mended.
    Blocked(String),
}

/// One attribute: old and new value, for the reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// Which.
    pub name: String,
    /// What it is; `None` for a new thing.
    pub old: Option<String>,
    /// What it becomes; `None` when it goes.
    pub new: Option<String>,
}

/// The change of a rendered file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDiff {
    /// Which file.
    pub path: PathBuf,
    /// What it holds; `None` when it is not there or was not read.
    pub old: Option<String>,
    /// What it will hold; `None` while that cannot be known.
    pub new: Option<String>,
    /// Why it cannot be known: "known after prime1 passes".
    pub unknown: Option<String>,
}

/// One thing that a driver does.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Opens the registry, and its HTTP address if it has one.
    OpenRegistry(Registry),
    /// Makes or mends a bridge.
    CreateNetwork(NetworkNode),
    /// Removes a bridge.
    RemoveNetwork(String),
    /// Makes or mends a namespace.
    Attach(Box<Attachment>),
    /// Sets its firewall.
    Firewall {
        /// The namespace.
        namespace: String,
        /// What may come in.
        firewall: Option<Firewall>,
    },
    /// Removes a namespace.
    Detach(String),
    /// Writes a generated hosts file in place.
    Rewrite {
        /// Which.
        path: PathBuf,
        /// Its text.
        content: Arc<str>,
    },
    /// Makes sure that nobody holds a TCP address.
    PortFree(SocketAddr),
    /// Runs a command that must succeed.
    PreStart {
        /// The command.
        command: Vec<String>,
        /// Where.
        dir: PathBuf,
    },
    /// Starts a workload.
    Start(Box<Start>),
    /// Asks one to end.
    Signal {
        /// Which.
        life: LifeId,
        /// How.
        signal: Signal,
        /// Because it did not become ready in time.
        late: bool,
    },
    /// Kills what is left of one.
    Kill(LifeId),
    /// Clears what an ended one left.
    Clear(LifeId),
    /// Registers an endpoint, critical until a check says otherwise.
    Register(Box<EndpointNode>),
    /// Removes a registration.
    Deregister(String),
    /// Asks a validator about candidates; its verdict is memory under `key`.
    Validate {
        /// Hash of the command and all candidates.
        key: String,
        /// The validator.
        command: Vec<String>,
        /// The candidates, all at once.
        candidates: Vec<NewFile>,
    },
    /// Writes a rendered file.
    Write(Box<NewFile>),
    /// Removes a rendered file.
    RemoveFile {
        /// Which.
        path: PathBuf,
        /// Whose mark it must carry.
        stack: String,
    },
    /// Notes something on a life, for whoever comes after us.
    Note {
        /// On which.
        life: LifeId,
        /// What.
        note: Note,
    },
    /// Tells a process, and notes on it what it has read now.
    ReloadProcess {
        /// Whom.
        life: LifeId,
        /// How.
        signal: Signal,
        /// When it counts.
        confirm: Confirm,
        /// All that it has read after this, by template.
        applied: BTreeMap<String, String>,
    },
    /// Runs a reload command; `applied` is memory afterwards.
    ReloadCommand {
        /// The command.
        command: Vec<String>,
        /// Where.
        dir: PathBuf,
        /// What it has told, by template.
        applied: BTreeMap<String, String>,
    },
}

/// What is noted on a life's cgroup after its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// What it has read, by template: hashes; empty where nobody knows.
    Applied(BTreeMap<String, String>),
    /// How it is to end.
    Farewell(Farewell),
}

/// How a node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Which.
    pub node: NodeId,
    /// In one word.
    pub state: NodeState,
    /// In a few: "waiting on templates/upstream", "next try in 4s".
    pub detail: String,
    /// The health of what it serves, or of itself.
    pub health: Option<Status>,
    /// Its main process; for a container the payload, as the host numbers it.
    pub pid: Option<i32>,
    /// The init of its namespaces, for `exec`.
    pub leader_pid: Option<i32>,
    /// How long it is in its life.
    pub age: Option<Duration>,
    /// Restarts after an exit since the controller knows it.
    pub restarts: u32,
    /// Where it answers.
    pub address: Option<String>,
    /// How it ended last.
    pub last_exit: Option<String>,
}

/// How a node stands, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Not there yet.
    Waiting,
    /// It runs and is not ready yet.
    Starting,
    /// It is as it should be.
    Running,
    /// It was asked to end.
    Stopping,
    /// An operator stopped it.
    Stopped,
    /// It ended and waits for its next try.
    Backoff,
    /// It ended, and its policy leaves it so.
    Exited,
    /// It ended with 0 as it should.
    Completed,
    /// It needs somebody.
    Failed,
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            NodeState::Waiting => "waiting",
            NodeState::Starting => "starting",
            NodeState::Running => "running",
            NodeState::Stopping => "stopping",
            NodeState::Stopped => "stopped",
            NodeState::Backoff => "backoff",
            NodeState::Exited => "exited",
            NodeState::Completed => "completed",
            NodeState::Failed => "failed",
        })
    }
}

impl Plan {
    /// Whether nothing is outstanding.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many items add, change and destroy; a replacement does both.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |kinds: &[Change]| {
            self.items
                .iter()
                .filter(|item| kinds.contains(&item.change))
                .count()
        };
        (
            count(&[Change::Add, Change::Replace]),
            count(&[Change::Change]),
            count(&[Change::Remove, Change::Replace]),
        )
    }
}

/// The mark that a template's file carries.
pub fn mark(stack: &str, template: &str, hash: &str) -> FileMark {
    FileMark {
        stack: stack.to_owned(),
        template: template.to_owned(),
        hash: hash.to_owned(),
    }
}

/// All that is needed to start a workload.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// Which life this will be.
    pub id: LifeId,
    /// What is written on its cgroup.
    pub identity: Identity,
    /// What each template's file holds now, for `applied`.
    pub applied: BTreeMap<String, String>,
    /// What is run.
    pub run: Run,
    /// The bound of its log file.
    pub log: LogLimit,
    /// How it is meant to end; noted on its cgroup.
    pub farewell: Farewell,
    /// The commit whose tree it is started from.
    pub commit: Option<String>,
}

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Where, absolute.
    pub path: PathBuf,
    /// What.
    pub content: String,
    /// Mode bits.
    pub mode: u32,
    /// `user`, `user:group` or numbers; root unless given.
    pub owner: Option<String>,
    /// Left on it as an xattr.
    pub mark: Option<FileMark>,
}
