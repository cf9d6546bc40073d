//! What the drivers see on the host, as plain facts: the planner's second argument.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use foldhash::HashMap;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::graph::desired::Farewell;
pub use crate::graph::identity::Identity;
use crate::spec::model::Registry;
use crate::spec::node::NodeId;
use crate::spec::time::Time;
use crate::template::{Inputs, Snapshot};

/// Everything observed, one field a domain, so that a trigger refreshes only its own. What is
/// looked into once or more for every node is hashed: whoever walks through it sorts.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Every life of a workload of this stack, also ended ones that are not removed yet.
    pub lives: Vec<Life>,
    /// Links, namespaces, addresses.
    pub network: NetworkView,
    /// Every file that the spec watches, renders, or generates.
    pub files: HashMap<PathBuf, FileView>,
    /// Template sources and what templates may read beside the catalog.
    pub inputs: Inputs,
    /// What the registry holds.
    pub catalog: Arc<Snapshot>,
    /// Service ids that are registered by this stack.
    pub registered: HashMap<String, Registered>,
    /// Where the embedded registry listens now.
    pub registry: RegistryView,
    /// Established TCP connections to each life that drains.
    pub connections: BTreeMap<LifeId, u32>,
}

/// The embedded registry's listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryView {
    /// Whether the catalog serves.
    pub up: bool,
    /// The address it listens on, if any.
    pub http: Option<std::net::SocketAddr>,
    /// The file that its token was read from, if it takes one.
    pub token_file: Option<PathBuf>,
    /// That file holds another token by now, or none that can be read.
    pub token_changed: bool,
}

impl RegistryView {
    /// How it looks once it was opened so.
    pub fn opened(registry: &Registry) -> Self {
        RegistryView {
            up: true,
            http: registry.http,
            token_file: registry.http.and(registry.token_file.clone()),
            token_changed: false,
        }
    }
}

/// What is registered for one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Hash of the endpoint as it was registered.
    pub hash: String,
    /// Its name in the catalog.
    pub service: String,
    /// The workload behind it.
    pub target: Option<NodeId>,
}

/// Which life of a workload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LifeId {
    /// Which node.
    pub node: NodeId,
    /// Which life of it; larger is later.
    pub incarnation: u64,
}

/// One life of a workload, as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Which.
    pub id: LifeId,
    /// What was started; read back from the cgroup.
    pub identity: Identity,
    /// When.
    pub started: Time,
    /// How it is.
    pub state: LifeState,
    /// The main process: a container's payload, or the host process itself. 0 when unknown.
    pub main_pid: i32,
    /// For containers, the init of its namespaces; for processes the main process. 0 when unknown.
    pub leader_pid: i32,
    /// It said READY=1.
    pub notified: bool,
    /// Hash of what each template's file held when this life last read it (at its start, or at
    /// a confirmed reload), by the template's name.
    pub applied: BTreeMap<String, String>,
    /// The cgroup (v2), for limits and for messages.
    pub cgroup: PathBuf,
    /// How it was meant to end when it began; `None` when that was not noted.
    pub farewell: Option<Farewell>,
    /// The commit whose tree it was started from.
    pub commit: Option<String>,
    /// Some controller asked it to end.
    pub asked: bool,
    /// That was because it did not become ready in time.
    #[serde(default)]
    pub late: bool,
}

/// How a life is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LifeState {
    /// Its main process runs.
    Up,
    /// The main process is gone; something of it is still there.
    Ending,
    /// Nothing runs any more; its cgroup waits for removal.
    Ended {
        /// How it ended.
        exit: Exit,
        /// When this was seen.
        at: Time,
    },
}

/// How a workload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody saw it.
    Unknown,
    /// It never began: whoever started it was gone before it had a process.
    NotBegun,
}

/// Links and namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkView {
    /// Every bridge that carries this stack's mark, and every link whose name the spec wants.
    pub bridges: BTreeMap<String, BridgeView>,
    /// Every attachment of this stack, whole or in parts, by namespace name.
    pub attachments: HashMap<String, AttachmentView>,
    /// Addresses of the host's other links: who holds which network.
    pub foreign: Vec<(String, Ipv4Net)>,
    /// `net.ipv4.ip_forward`.
    pub forward: bool,
}

/// A link that is, or should be, one of our bridges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeView {
    /// Its mark (ifalias) names this stack.
    pub ours: bool,
    /// It is a bridge and it is up.
    pub up: bool,
    /// Its IPv4 addresses.
    pub addresses: Vec<Ipv4Net>,
    /// Whose it is, for messages: the ifalias, or the kind of link.
    pub holder: String,
}

/// A namespace and its link. Parts that are missing are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachmentView {
    /// The namespace exists and is a live one (a stale file of an earlier life is not).
    pub namespace: bool,
    /// The host end of the pair, and the bridge it is in.
    pub link: Option<(String, Option<String>)>,
    /// `eth0`'s address.
    pub address: Option<Ipv4Net>,
    /// The default route.
    pub gateway: Option<Ipv4Addr>,
    /// Hash of the firewall in force, from the table's name; `None` when there is no table.
    pub firewall: Option<String>,
    /// Somebody else's: the name is taken, and by whom.
    pub foreign: Option<String>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileView {
    /// Not there.
    Missing,
    /// A regular file.
    File {
        /// blake3 of its content, hex.
        hash: String,
        /// The mark that we left on it (an xattr).
        mark: Option<FileMark>,
        /// Permission bits.
        mode: u32,
    },
    /// Not a regular file, too large, or not readable: why.
    Unreadable(String),
}

/// The xattr on files that we render.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMark {
    /// Whose.
    pub stack: String,
    /// Which template.
    pub template: String,
    /// Hash of what we wrote; another content means somebody edited it.
    pub hash: String,
}
