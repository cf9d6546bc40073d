//! The spec's language as Rust types: what a user may write, with its defaults filled in.
//!
//! Strings that depend on the instance are kept as [`Expr`], unevaluated: the template
//! engine alone reads them.

mod objects;
mod rolling;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::node::NodeId;

pub use objects::{Object, Objects};
pub use rolling::{Drain, FailureAction, Update, UpdateOrder};
pub use source::{Commit, GitSource, OnFailure, Provenance, Verify, Webhook};

/// A string that may hold minijinja expressions over `name`, `replica`, `address`, `port`,
/// `spec_dir`, `vars` and `env`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Expr(pub String);

/// One stack.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// The stack's name; everything of it on the host carries it.
    pub name: String,
    /// Free values for expressions and templates.
    pub vars: IndexMap<String, serde_json::Value>,
    /// What must be on this machine before anything starts.
    pub requires: Vec<Requirement>,
    /// The registry; embedded and in process unless said otherwise.
    pub registry: Registry,
    /// Bridge networks by name.
    pub networks: IndexMap<String, Network>,
    /// Containers by name.
    pub containers: IndexMap<String, Container>,
    /// Host processes by name.
    pub processes: IndexMap<String, Process>,
    /// Services by name.
    pub services: IndexMap<String, Service>,
    /// Shared checks by name.
    pub checks: IndexMap<String, Check>,
    /// Rendered files by name.
    pub templates: IndexMap<String, Template>,
}

/// Something the machine must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// How its presence is seen.
    pub what: Needed,
    /// The Debian package that brings it.
    pub debian: Option<String>,
}

/// How the presence of a requirement is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needed {
    /// A command on the PATH.
    Command(String),
    /// A module that Debian's `/usr/bin/python3` can import.
    Python(String),
    /// A file or folder.
    Path(PathBuf),
}

/// `registry:`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registry {
    /// Where the embedded registry listens; `None` keeps it in process.
    pub http: Option<SocketAddr>,
    /// A file whose content is the token that lifts the limits on callers from outside loopback.
    pub token_file: Option<PathBuf>,
    /// The datacenter that the registry names; `dc1` unless given.
    pub datacenter: Option<String>,
}

/// A bridge network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its addresses; the host takes the first one.
    pub subnet: Ipv4Net,
    /// Turns on `net.ipv4.ip_forward`, as the article does.
    pub forward: bool,
    /// What must be ready first.
    pub depends_on: Vec<Dependency>,
}

/// What a container and a process have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The main process, first its program.
    pub command: Vec<Expr>,
    /// Its environment; nothing else is passed on but PATH, HOME, LANG and TERM-less basics.
    pub environment: IndexMap<String, Expr>,
    /// `user`, `user:group` or numbers; root unless given.
    pub user: Option<String>,
    /// The folder that it starts in.
    pub working_dir: Option<Expr>,
    /// Files whose content is part of what runs.
    pub watch: Vec<Expr>,
    /// How many copies; names are numbered from 1 when it was given, even for 1.
    pub replicas: Option<u32>,
    /// What happens after its exit.
    pub restart: Restart,
    /// The signal that asks it to end.
    pub stop_signal: Signal,
    /// How long after it the rest is killed.
    pub stop_grace_period: Duration,
    /// What must be ready first.
    pub depends_on: Vec<Dependency>,
    /// When it counts as ready.
    pub ready: Ready,
    /// How its instances are replaced.
    pub update: Update,
    /// How long its connections are waited for before it is asked to end.
    pub drain: Drain,
    /// The file-size bound of its log.
    pub log: LogLimit,
}

/// A systemd-nspawn container.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// Command, environment and the rest.
    pub workload: Workload,
    /// What its `/` is.
    pub root: Root,
    /// Which network it is in.
    pub network: NetworkMode,
    /// Fixed address; only without replicas or with one.
    pub address: Option<Expr>,
    /// Bind mounts.
    pub mounts: Vec<Mount>,
    /// Folders that are a fresh tmpfs.
    pub tmpfs: Vec<Expr>,
    /// What may come in; `None` leaves the network open.
    pub firewall: Option<Firewall>,
}

/// A host process.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Command, environment and the rest.
    pub workload: Workload,
    /// Commands that must succeed, in order, before each start.
    pub pre_start: Vec<Vec<Expr>>,
}

/// Which network a container is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkMode {
    /// The host's own; the default.
    Host,
    /// A namespace with nothing but loopback.
    None,
    /// A network of the spec.
    Bridge(String),
}

/// What a container's `/` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// This machine's `/usr` under a fresh, volatile `/`.
    Host,
    /// A directory.
    Path {
        /// The directory.
        path: Expr,
        /// How it is used.
        mode: RootMode,
    },
}

/// How a directory root is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootMode {
    /// Shared by any number of containers, never written; `read_only: true`.
    ReadOnly,
    /// Writes go to a copy that is dropped with the container; `ephemeral: true`.
    Ephemeral,
    /// Writes stay; one container at a time.
    Persistent,
}

/// A bind mount, `SOURCE:DESTINATION[:ro|rw]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// On the host; relative to the spec's folder.
    pub source: Expr,
    /// In the container; absolute.
    pub destination: Expr,
    /// Whether the container may write.
    pub read_only: bool,
}

/// What may come into a container; all else inbound is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Firewall {
    /// TCP ports open to everybody.
    pub allow_tcp: Vec<u16>,
    /// UDP ports open to everybody.
    pub allow_udp: Vec<u16>,
    /// Echo requests; true unless said otherwise.
    pub allow_ping: bool,
    /// Networks (or single addresses) whose every packet may come in.
    pub allow_from: Vec<Ipv4Net>,
}

/// `restart:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// When.
    pub policy: RestartPolicy,
    /// The first delay; doubled after each failure in a row.
    pub delay: Duration,
    /// The longest delay.
    pub max_delay: Duration,
    /// Give up after so many failures in a row; `None` never does.
    pub max_attempts: Option<u32>,
    /// With `max_attempts`: failures within this time count, in a row or not.
    pub window: Option<Duration>,
    /// How long it must run before the delay starts anew.
    pub reset_after: Duration,
}

/// When an ended workload runs again; compose's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    No,
    /// After an exit that was not 0, or that nobody saw.
    OnFailure,
    /// Always, after `stop` too once the controller starts anew.
    Always,
    /// Always, unless an operator stopped it.
    UnlessStopped,
}

/// A signal by number, with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signal(pub i32);

/// When a workload counts as ready.
#[derive(Debug, Clone, PartialEq)]
pub enum Ready {
    /// As soon as its program runs.
    Started,
    /// When it says READY=1 (sd_notify).
    Notify {
        /// Its longest start.
        timeout: Duration,
    },
    /// When something listens there (`tcp: ADDRESS:PORT`).
    Listening {
        /// The address, an expression.
        tcp: Expr,
        /// Its longest start.
        timeout: Duration,
    },
    /// When this check passes.
    Check {
        /// The check.
        check: CheckRef,
        /// Its longest start.
        timeout: Duration,
    },
}

/// The size of a log file and how many old ones are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimit {
    /// Bytes.
    pub max_size: u64,
    /// How many rotated files stay.
    pub max_files: u32,
}

/// `depends_on:` one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// On what; a group's name stands for all its instances.
    pub on: NodeId,
    /// How far it must be.
    pub condition: Condition,
}

/// How far a dependency must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Ready by its own definition; the default.
    Started,
    /// Ready, and every check of the services it serves passes.
    Healthy,
    /// Ended with 0.
    Completed,
}

/// A service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// `containers/NAME` or `processes/NAME`; `None` for an address outside the stack.
    pub target: Option<NodeId>,
    /// The address; the target's own unless given.
    pub address: Option<Expr>,
    /// The port.
    pub port: u16,
    /// Consul's tags.
    pub tags: Vec<String>,
    /// Consul's meta.
    pub meta: IndexMap<String, Expr>,
    /// Its checks.
    pub checks: Vec<CheckRef>,
    /// What must be ready first.
    pub depends_on: Vec<Dependency>,
}

/// A check by its name in `checks`, or written in place.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckRef {
    /// From `checks`.
    Named(String),
    /// In place.
    Inline(Box<Check>),
}

/// A health check.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// Between the starts of two probes.
    pub interval: Duration,
    /// For one probe.
    pub timeout: Duration,
    /// So many failures in a row make it critical; at least 1.
    pub retries: u32,
    /// Failures in this time after the start do not count.
    pub start_period: Duration,
    /// The interval until it first passes; `interval` unless given.
    pub start_interval: Option<Duration>,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// An HTTP request.
    Http(HttpProbe),
    /// A TCP connection to `ADDRESS:PORT`.
    Tcp(Expr),
    /// A command in the target's namespaces: 0 passing, 1 warning, other critical.
    Exec(Vec<Expr>),
    /// Somebody must say so at least this often.
    Ttl(Duration),
}

/// An HTTP request and what its answer must be.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpProbe {
    /// Where.
    pub url: Expr,
    /// GET unless given.
    pub method: String,
    /// Request headers.
    pub headers: IndexMap<String, Expr>,
    /// Accepted status codes; empty means 200 to 299.
    pub status: Vec<u16>,
    /// Text that the body must hold.
    pub body: Option<String>,
}

/// A rendered file.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// The template's file; relative to the spec's folder.
    pub source: PathBuf,
    /// Where its text goes; absolute.
    pub destination: Expr,
    /// Mode of the file, 0644 unless given.
    pub mode: u32,
    /// `user`, `user:group` or numbers; root unless given.
    pub owner: Option<String>,
    /// Looks at the candidate before it goes live.
    pub validate: Option<Vec<Expr>>,
    /// What is told afterwards.
    pub reload: Option<Reload>,
    /// How long changes are gathered.
    pub wait: Wait,
    /// What an empty instance list means.
    pub when_empty: WhenEmpty,
    /// What must be ready first.
    pub depends_on: Vec<Dependency>,
}

/// What is told after a file changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// A signal to a process of the spec.
    Signal {
        /// Its name in `processes`.
        process: String,
        /// Which signal; SIGHUP unless given.
        signal: Signal,
        /// When the reload counts as done.
        confirm: Confirm,
    },
    /// A command.
    Command(Vec<Expr>),
}

/// When a signalled reload counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirm {
    /// At once.
    None,
    /// When the process has a child that is younger than the signal.
    NewChild,
}

/// How long a template gathers changes before it is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Quiet for so long.
    pub min: Duration,
    /// But at most so long after the first change.
    pub max: Duration,
}

/// What a template does when a service that it reads has no instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenEmpty {
    /// Keeps the last good file.
    Keep,
    /// Renders it empty.
    Render,
}

/// Environment variables as expressions see them.
pub type Env = BTreeMap<String, String>;

/// How a check stands; the order is from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It serves.
    Passing,
    /// It serves, and says that something is amiss.
    Warning,
    /// It does not serve.
    Critical,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Passing => "passing",
            Status::Warning => "warning",
            Status::Critical => "critical",
        })
    }
}
