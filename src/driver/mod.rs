//! The host behind small traits. Drivers see and do; they decide nothing.
//!
//! All but [`Probes`] block: the loop calls them from threads that may block.

mod because;
pub mod cgroup;
pub mod clock;
pub mod commands;
pub mod files;
pub mod inner;
pub mod journal;
pub mod log;
pub mod network;
pub mod notifier;
pub mod probe;
pub mod requirements;
pub mod session;
pub mod unwritable;
pub mod workloads;

pub(crate) use because::because;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::graph::desired::{Attachment, CheckNode, Desired, NetworkNode};
use crate::health::Answer;
use crate::plan::model::Note;
pub use crate::plan::model::{ErrorKind, NewFile, Start};
use crate::plan::world::{FileView, Life, LifeId, NetworkView};
use crate::spec::model::{Confirm, Firewall, Signal};
use crate::spec::time::Time;

/// Why a driver could not do something.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq, Serialize, Deserialize)]
#[error("{message}")]
pub struct DriverError {
    /// What went wrong: "cannot … `name`: why", and the remedy where there is one.
    pub message: String,
    /// Whether it may go away by itself.
    pub kind: ErrorKind,
}

/// What drivers answer.
pub type Result<T> = std::result::Result<T, DriverError>;

/// Something happened; each only wakes the loop to look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A main process ended, or a cgroup became empty.
    Ended(LifeId),
    /// A workload said READY=1.
    Notified(LifeId),
    /// Links or addresses changed.
    Network,
    /// One of these paths may have changed.
    Files(Vec<PathBuf>),
}

/// Containers and processes.
pub trait Workloads: Send + Sync {
    /// Every life of this stack, from the cgroups.
    fn observe(&self) -> Result<Vec<Life>>;
    /// Starts one, and returns when its program was executed (nspawn said READY for containers).
    fn start(&self, start: &Start) -> Result<()>;
    /// Asks a life to end: signals the main process only, by pidfd. That it was asked, and whether
    /// because it was `late` to become ready, is noted on it before.
    fn signal(&self, life: &LifeId, signal: Signal, late: bool) -> Result<()>;
    /// Signals the main process and waits for the confirmation, at most `timeout`.
    fn reload(
        &self,
        life: &LifeId,
        signal: Signal,
        confirm: Confirm,
        timeout: Duration,
    ) -> Result<()>;
    /// How many TCP connections to these local ports a client still has, in the network
    /// namespace of its main process (sock_diag(7)): from the handshake until the other side
    /// acknowledged our last word. 0 when it is gone.
    fn connections(&self, life: &LifeId, ports: &std::collections::BTreeSet<u16>) -> Result<u32>;
    /// Kills all that is left of it.
    fn kill(&self, life: &LifeId) -> Result<()>;
    /// Removes what an ended one left: cgroups of both hierarchies, its root's scratch.
    fn remove(&self, life: &LifeId) -> Result<()>;
    /// Removes what the stack itself left once nothing of it runs: its own cgroups.
    fn clear_stack(&self) -> Result<()>;
    /// Rotates the logs that are over their bound. Answers how soon one of them will be over it
    /// again, if that can be told.
    fn rotate_logs(&self) -> Result<Option<Duration>>;
    /// Notes something on the cgroup of a life that runs.
    fn note(&self, life: &LifeId, note: &Note) -> Result<()>;
}

/// Bridges, namespaces, links, firewalls.
pub trait Networks: Send + Sync {
    /// What is there: all that carries the stack's mark, and the links called `names`.
    fn observe(&self, names: &[String]) -> Result<NetworkView>;
    /// Makes or mends a bridge; `forward` turns on ip_forward and never off.
    fn create(&self, network: &NetworkNode) -> Result<()>;
    /// Removes a bridge of ours.
    fn remove(&self, bridge: &str) -> Result<()>;
    /// Makes or mends a namespace with its link, address and route.
    fn attach(&self, attachment: &Attachment) -> Result<()>;
    /// Puts exactly this firewall into a namespace, in one transaction; `None` takes it out.
    fn firewall(&self, namespace: &str, firewall: Option<&Firewall>) -> Result<()>;
    /// Removes a namespace with its link.
    fn detach(&self, namespace: &str) -> Result<()>;
}

/// Files that we read, render and generate.
pub trait Files: Send + Sync {
    /// How a file is; never an error.
    fn look(&self, path: &Path) -> FileView;
    /// Its text; at most `limit` bytes.
    fn read(&self, path: &Path, limit: u64) -> Result<String>;
    /// The names in a folder, in no order; those that are not UTF-8 are left out.
    fn names(&self, folder: &Path) -> Result<Vec<String>>;
    /// Atomically, through a temporary file beside it; a symlink at `path` is not followed.
    fn write(&self, file: &NewFile) -> Result<()>;
    /// In place, keeping the inode: for files that are bind-mounted.
    fn rewrite(&self, path: &Path, content: &str) -> Result<()>;
    /// Only if it carries the mark of `stack` (or lies in one of our own folders); with what a
    /// write that was killed left beside it.
    fn remove(&self, path: &Path, stack: &str) -> Result<()>;
}

/// What a command said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// 0 is success; `None` when a signal or the time-out ended it.
    pub code: Option<i32>,
    /// The end of both its streams, at most 4 KiB, lossy UTF-8.
    pub text: String,
}

/// Host commands: validators, `pre_start`, reload commands.
pub trait Commands: Send + Sync {
    /// Runs a command on the host.
    fn run(&self, command: &[String], dir: &Path, timeout: Duration) -> Result<Output>;
    /// Runs a validator in a mount namespace of its own, in which the candidates lie at
    /// their destinations and nothing that it writes beside them stays.
    fn validate(
        &self,
        command: &[String],
        candidates: &[NewFile],
        timeout: Duration,
    ) -> Result<Output>;
    /// Who listens on this TCP address: "nginx (pid 12)", if anybody.
    fn port_holder(&self, address: SocketAddr) -> Option<String>;
    /// What this machine does not have of all that a spec requires, each in words.
    fn lacks(&self, desired: &Desired) -> Vec<String>;
}

/// Health probes. The only asynchronous ones: many wait at once.
pub trait Probes: Send + Sync {
    /// Asks once. `pid` is the main process whose namespaces an `exec` probe enters.
    fn probe(&self, check: &CheckNode, pid: Option<i32>) -> BoxFuture<'static, Answer>;
}

/// The machine's clocks.
pub trait Clock: Send + Sync {
    /// Now, on the kernel's boot clock.
    fn now(&self) -> Time;
    /// Now, for people: milliseconds since the Unix epoch. It may jump, so nothing is measured
    /// with it.
    fn wall_ms(&self) -> u64;
}
