//! What is registered, as types.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::spec::model::Status;
use crate::spec::time::Time;

/// What the catalog says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The node's name.
    pub node: String,
    /// The node's address; services without one of their own are there.
    pub address: String,
    /// The datacenter's name.
    pub datacenter: String,
}

/// Who registered a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The stack, from its spec. Nobody else may change or remove it.
    Stack,
    /// Somebody outside, over HTTP: this machine's own, or who has the token.
    Client,
    /// Somebody outside without the token, at its own address.
    Guest,
}

impl Origin {
    /// Whether it is not the stack.
    pub fn is_outside(self) -> bool {
        self != Origin::Stack
    }
}

/// How the state of a check becomes known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckKind {
    /// We ask.
    Probed,
    /// Somebody must say so at least this often; silence is critical.
    Ttl(Duration),
}

/// One check of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckSpec {
    /// Unique in the catalog: letters, digits, `.`, `_`, `-` and `:`.
    pub id: String,
    /// For people.
    pub name: String,
    /// How its state becomes known.
    pub kind: CheckKind,
    /// How it stands until somebody says otherwise.
    pub initial: Status,
    /// For people.
    pub notes: String,
    /// A client's service leaves after its check was critical for so long without a break.
    /// It has no effect on the stack's own services.
    pub deregister_after: Option<Duration>,
}

/// One registered address of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Unique in the catalog.
    pub id: String,
    /// The service's name.
    pub service: String,
    /// An IP address or a host name; empty means the node's.
    pub address: String,
    /// The port; 0 when it has none.
    pub port: u16,
    /// Tags, in the registrant's order.
    pub tags: Vec<String>,
    /// Meta.
    pub meta: BTreeMap<String, String>,
    /// Checks.
    pub checks: Vec<CheckSpec>,
    /// Who registers.
    pub origin: Origin,
    /// The registrant's own mark of what it registered; the catalog only keeps it.
    pub hash: String,
}

/// A registered service with all that the catalog knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// As it was registered; the checks' states are in `checks`.
    pub registration: Registration,
    /// Its checks, in the order of the registration.
    pub checks: Vec<CheckEntry>,
    /// The index at which it came.
    pub create_index: u64,
    /// The index at which it itself (not a check) last changed.
    pub modify_index: u64,
}

/// A check with its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckEntry {
    /// As it was registered.
    pub spec: CheckSpec,
    /// How it stands.
    pub status: Status,
    /// What it last said.
    pub output: String,
    /// The index at which it came.
    pub create_index: u64,
    /// The index at which it last changed.
    pub modify_index: u64,
    /// When silence makes it critical; `None` for probed checks and after that happened.
    pub deadline: Option<Time>,
    /// Since when it is critical without a break.
    pub critical_since: Option<Time>,
}

impl ServiceEntry {
    /// The worst of its checks; passing when it has none.
    pub fn status(&self) -> Status {
        let states = self.checks.iter().map(|check| check.status);
        states.max().unwrap_or(Status::Passing)
    }
}

/// What [`Catalog::expire`](super::Catalog::expire) did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// The check that was silent or critical for too long.
    pub check: String,
    /// The id of its service.
    pub service: String,
    /// The service left the catalog because of it.
    pub removed: bool,
}

/// Why the catalog refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// A field holds what it may not.
    #[error("cannot register `{id}`: {why}")]
    Invalid {
        /// The registration's id, made harmless for messages.
        id: String,
        /// Which field, and what it may hold.
        why: String,
    },
    /// There is no room.
    #[error("cannot register `{id}`: {what} are at their limit of {limit}; deregister some first")]
    Full {
        /// The registration's id.
        id: String,
        /// Of what there are too many.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// The id belongs to the stack.
    #[error("cannot change `{id}`: it belongs to the stack; change the spec instead")]
    Owned {
        /// The id.
        id: String,
    },
    /// Somebody else on this host, or with the token, registered it before the stack could.
    #[error(
        "cannot register `{id}`: the id is held by service `{service}` at {address}, which is not \
         of this stack and was registered as `{holder}`; deregister that first"
    )]
    Held {
        /// The stack's id.
        id: String,
        /// Under which id it stands there.
        holder: String,
        /// The service that has it.
        service: String,
        /// Where that is.
        address: String,
    },
    /// The service's name belongs to the stack, and the registrant is a guest.
    #[error(
        "cannot register `{id}`: the service `{service}` is the stack's; use another name, or \
         the registry's token"
    )]
    Reserved {
        /// The registration's id.
        id: String,
        /// The service's name.
        service: String,
    },
    /// The check's id belongs to another service.
    #[error("cannot register `{id}`: the check `{check}` belongs to service id `{holder}`")]
    CheckTaken {
        /// The registration's id.
        id: String,
        /// The check's.
        check: String,
        /// The service that has it.
        holder: String,
    },
    /// There is no such check.
    #[error("cannot set check `{check}`: no service has a check of this id")]
    UnknownCheck {
        /// The id that was asked for, made harmless for messages.
        check: String,
    },
}
