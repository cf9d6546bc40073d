//! The spec with every expression evaluated and every group expanded: what the world is to be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::first_seat;
use super::hosts::Hosts;
use super::identity::{Identity, Origin};
use super::memo::Memo;
use crate::spec::model::{
    Condition, Confirm, Drain, Firewall, LogLimit, Objects, Registry, Requirement, Restart,
    RootMode, Signal, Update, Wait, WhenEmpty,
};
use crate::spec::node::NodeId;
use crate::template::{Ground, Text};

/// Nodes by their ids, in an order. They are looked up by the ten thousand in every plan, so
/// their ids are hashed with what is fast.
pub type Nodes = IndexMap<NodeId, Node, foldhash::fast::RandomState>;

/// What the world is to be: nodes in start order, and what each needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// The stack's name.
    pub stack: String,
    /// The folder of the spec, absolute.
    pub spec_dir: PathBuf,
    /// The tree of the commit that the spec was read from.
    pub tree: Option<Arc<Tree>>,
    /// Where this stack keeps things on the host.
    pub dirs: Dirs,
    /// What the machine must have.
    pub requires: Vec<Requirement>,
    /// All nodes, in a topological order that keeps the spec's order where edges are silent.
    pub nodes: Nodes,
    /// What each node needs before it starts. Every node has an entry.
    pub needs: BTreeMap<NodeId, Vec<Need>>,
    /// Start waves: each node's needs are all in earlier waves.
    pub waves: Arc<Vec<Vec<NodeId>>>,
    /// The spec's `vars`, for templates.
    pub vars: IndexMap<String, serde_json::Value>,
    /// The two seats of each instance that is replaced start-first, and of each endpoint that
    /// such an instance serves: from either to the other. One of the two runs, the other is
    /// spare; while it is replaced both may run.
    pub pairs: BTreeMap<NodeId, NodeId>,
    /// The hosts files for those seats that are spare, once somebody asked.
    pub hosts: Memo<Vec<NodeId>, Hosts>,
}

impl Desired {
    /// Whether what runs as this node is, by this spec, to run on: as that node, or in the first
    /// seat of the instance whose second one it is.
    pub fn stays(&self, node: &NodeId) -> bool {
        let first = || first_seat(node).is_some_and(|first| self.nodes.contains_key(&first));
        self.nodes.contains_key(node) || first()
    }

    /// Whether anything is to run by this spec.
    pub fn has_workloads(&self) -> bool {
        let mut nodes = self.nodes.values();
        nodes.any(|node| matches!(node, Node::Workload(_)))
    }
}

impl Desired {
    /// What the spec's paths are relative to.
    pub fn origin(&self) -> Origin<'_> {
        Origin {
            spec_dir: &self.spec_dir,
            tree: self.tree.as_deref(),
        }
    }
}

/// Everything that a commit holds, as it lies on this machine. It is never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The commit's hash.
    pub commit: String,
    /// The folder, absolute.
    pub root: PathBuf,
    /// The hashes of what is in it.
    pub objects: Objects,
    /// A spec whose workloads write into it is no error.
    pub may_be_written: bool,
}

/// The folders of one stack on the host. All are absolute and end in the stack's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dirs {
    /// Sockets, the lock, generated hosts files; gone after a reboot. `/run/hatchery/STACK`.
    pub run: PathBuf,
    /// What is kept. `/var/lib/hatchery/STACK`.
    pub state: PathBuf,
    /// Log files. `/var/log/hatchery/STACK`.
    pub log: PathBuf,
}

/// One edge of the graph.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// What must come first.
    pub on: NodeId,
    /// How far it must be.
    pub condition: Condition,
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// The registry.
    Registry(Registry),
    /// A bridge.
    Network(NetworkNode),
    /// One instance of a container or process.
    Workload(Box<WorkloadNode>),
    /// One endpoint of a service.
    Endpoint(EndpointNode),
    /// A shared check's definition; it acts through the endpoints and workloads that name it.
    Check,
    /// A rendered file.
    Template(Box<TemplateNode>),
}

/// A bridge network, with its names on the host worked out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkNode {
    /// Its name in the spec.
    pub name: String,
    /// The bridge's interface name, at most 15 bytes.
    pub bridge: String,
    /// The subnet.
    pub subnet: Ipv4Net,
    /// The host's address in it.
    pub gateway: Ipv4Addr,
    /// Whether `net.ipv4.ip_forward` is to be on.
    pub forward: bool,
}

/// One instance of a container or process.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadNode {
    /// `containers/prime1`.
    pub id: NodeId,
    /// The name in the spec, `prime`.
    pub group: String,
    /// 1 for the first.
    pub replica: u32,
    /// What is run. Its [`identity`](crate::graph::identity) decides on replacement.
    pub run: Run,
    /// Files whose content is part of what runs: absolute paths.
    pub watch: Vec<PathBuf>,
    /// What happens after its exit.
    pub restart: Restart,
    /// The signal that asks it to end.
    pub stop_signal: Signal,
    /// How long after it the rest is killed.
    pub stop_grace_period: Duration,
    /// When it counts as ready.
    pub ready: ReadyNode,
    /// Its network attachment; containers in a network only.
    pub attachment: Option<Attachment>,
    /// Commands before each start; processes only.
    pub pre_start: Vec<Vec<String>>,
    /// How it is replaced.
    pub update: Update,
    /// How long a new life must be well before it counts: nothing where something tells whether
    /// it is, a moment where all that is known is that it runs.
    pub min_healthy_time: Duration,
    /// How its connections are waited for.
    pub drain: Drain,
    /// The TCP ports at which services lead to it: whose connections are waited for.
    pub ports: BTreeSet<u16>,
    /// Bound of its log.
    pub log: LogLimit,
    /// Its identity for what its watched files hold, once somebody asked.
    pub identity: Memo<Vec<(PathBuf, String)>, Identity>,
}

/// How a life is to end, noted on it, so that one whose node left the spec is ended as it
/// was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {
    /// The signal that asks it to end.
    pub signal: Signal,
    /// How long after it the rest is killed.
    pub grace: Duration,
    /// How its connections are waited for.
    pub drain: Drain,
    /// To which of its TCP ports.
    pub ports: BTreeSet<u16>,
}

impl WorkloadNode {
    /// How a life of it is to end.
    pub fn farewell(&self) -> Farewell {
        Farewell {
            signal: self.stop_signal,
            grace: self.stop_grace_period,
            drain: self.drain,
            ports: self.ports.clone(),
        }
    }
}

/// What is run, in full: all that the spawner needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment, complete but for what the spawner adds for sd_notify.
    pub environment: BTreeMap<String, String>,
    /// `user`, `user:group` or numbers.
    pub user: Option<String>,
    /// The folder it starts in.
    pub working_dir: Option<PathBuf>,
    /// Whether it tells readiness through `$NOTIFY_SOCKET`.
    pub notify: bool,
    /// The container around it; `None` for a host process.
    pub container: Option<ContainerRun>,
}

/// The container's part of [`Run`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRun {
    /// The hostname inside: the instance's name, `prime1`.
    pub hostname: String,
    /// The machine's name on the host: stack and instance.
    pub machine: String,
    /// What `/` is.
    pub root: RootRun,
    /// Bind mounts, absolute on both sides.
    pub mounts: Vec<MountRun>,
    /// Folders that are a fresh tmpfs.
    pub tmpfs: Vec<PathBuf>,
    /// The host's network, none, or the attachment's namespace.
    pub network: NetworkRun,
    /// The generated file that is bound to `/etc/hosts`; rewritten in place, never renamed.
    pub hosts: PathBuf,
}

impl ContainerRun {
    /// What of the host it has within its root, or as its root.
    pub fn sources(&self) -> impl Iterator<Item = &Path> {
        let root = match &self.root {
            RootRun::Host => None,
            RootRun::Path { path, .. } => Some(path.as_path()),
        };
        let mounts = self.mounts.iter().map(|mount| mount.source.as_path());
        mounts.chain(root)
    }
}

/// What a container's `/` is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootRun {
    /// The host's `/usr` under a volatile `/`.
    Host,
    /// A directory.
    Path {
        /// Absolute.
        path: PathBuf,
        /// How it is used.
        mode: RootMode,
    },
}

/// One bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRun {
    /// On the host, absolute.
    pub source: PathBuf,
    /// In the container, absolute.
    pub destination: PathBuf,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// Which network a container runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkRun {
    /// The host's own.
    Host,
    /// Loopback only.
    None,
    /// The namespace of this name under `/run/netns`.
    Namespace(String),
}

/// A container's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's name in the spec.
    pub network: String,
    /// The bridge's interface name.
    pub bridge: String,
    /// The namespace's name under `/run/netns`.
    pub namespace: String,
    /// The host end of the veth pair, at most 15 bytes. Inside it is `eth0`.
    pub link: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The subnet's prefix length.
    pub prefix: u8,
    /// The default route.
    pub gateway: Ipv4Addr,
    /// What may come in; `None` leaves it open.
    pub firewall: Option<Firewall>,
}

/// When a workload counts as ready, expressions evaluated.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each workload, and most hold a check"
)]
pub enum ReadyNode {
    /// As soon as it runs.
    Started,
    /// At READY=1.
    Notify {
        /// Its longest start.
        timeout: Duration,
    },
    /// When this probe passes (a listening address is a `tcp` probe).
    Check {
        /// The probe, with its schedule.
        check: CheckNode,
        /// Its longest start.
        timeout: Duration,
    },
}

/// One registered address of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointNode {
    /// The service.
    pub service: String,
    /// The endpoint's id in the registry: stack, service and instance.
    pub service_id: String,
    /// The workload behind it, if it is one of ours.
    pub target: Option<NodeId>,
    /// Where it answers.
    pub address: String,
    /// The port.
    pub port: u16,
    /// Consul's tags.
    pub tags: Vec<String>,
    /// Consul's meta.
    pub meta: BTreeMap<String, String>,
    /// Its checks.
    pub checks: Vec<CheckNode>,
}

/// One check, with its expressions evaluated for one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckNode {
    /// Its id in the registry.
    pub id: String,
    /// Its name: the spec's name, or one made from the service's.
    pub name: String,
    /// What is asked.
    pub probe: ProbeNode,
    /// Between the starts of two probes.
    pub interval: Duration,
    /// For one probe.
    pub timeout: Duration,
    /// So many failures in a row make it critical.
    pub retries: u32,
    /// Failures in this time after the start do not count.
    pub start_period: Duration,
    /// The interval until it first passes.
    pub start_interval: Duration,
}

/// What a check asks, expressions evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeNode {
    /// An HTTP request.
    Http {
        /// Where.
        url: String,
        /// The method.
        method: String,
        /// Request headers.
        headers: BTreeMap<String, String>,
        /// Accepted codes; empty means 200 to 299.
        status: Vec<u16>,
        /// Text that the body must hold.
        body: Option<String>,
    },
    /// A TCP connection to `ADDRESS:PORT`.
    Tcp(String),
    /// A command in the namespaces of this workload (of the host for `None` or a process).
    Exec {
        /// Program and arguments.
        command: Vec<String>,
        /// In whose namespaces.
        target: Option<NodeId>,
    },
    /// Somebody must say so at least this often.
    Ttl(Duration),
}

/// A rendered file, expressions evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateNode {
    /// Its name in the spec.
    pub name: String,
    /// The template's file, absolute.
    pub source: PathBuf,
    /// Where its text goes, absolute.
    pub destination: PathBuf,
    /// Mode of the file.
    pub mode: u32,
    /// Owner of the file.
    pub owner: Option<String>,
    /// Looks at the candidate.
    pub validate: Option<Vec<String>>,
    /// What is told afterwards.
    pub reload: Option<ReloadNode>,
    /// How long changes are gathered.
    pub wait: Wait,
    /// What an empty instance list means.
    pub when_empty: WhenEmpty,
    /// The services that a trial render on an empty catalog read.
    pub reads: Vec<String>,
    /// Its newest text for what it was made from, once somebody asked.
    pub text: Memo<Ground, Text>,
}

/// What is told after a file changed; equal ones are told once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadNode {
    /// A signal to a process of the spec.
    Signal {
        /// `processes/nginx`; every instance of the group is told.
        process: NodeId,
        /// Which signal.
        signal: Signal,
        /// When it counts as done.
        confirm: Confirm,
    },
    /// A command on the host.
    Command(Vec<String>),
}
