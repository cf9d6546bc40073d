//! The names of things: `kind/name`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What kind of thing a node of the graph is. The order is the order of display.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The one registry of the stack.
    Registry,
    /// A bridge network.
    Networks,
    /// An nspawn container.
    Containers,
    /// A host process.
    Processes,
    /// A service, or one endpoint of it.
    Services,
    /// A health check.
    Checks,
    /// A rendered file.
    Templates,
}

impl Kind {
    /// The word that stands before the slash of a reference, and the spec's section.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Registry => "registry",
            Kind::Networks => "networks",
            Kind::Containers => "containers",
            Kind::Processes => "processes",
            Kind::Services => "services",
            Kind::Checks => "checks",
            Kind::Templates => "templates",
        }
    }

    /// All kinds, in display order.
    pub const ALL: [Kind; 7] = [
        Kind::Registry,
        Kind::Networks,
        Kind::Containers,
        Kind::Processes,
        Kind::Services,
        Kind::Checks,
        Kind::Templates,
    ];
}

/// The name of one node: `containers/prime1`, `services/prime/prime1` (the endpoint of
/// `prime` that `prime1` serves), or `registry`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// The section of the spec it comes from.
    pub kind: Kind,
    /// The name inside its section; an endpoint's is `service/instance`; empty for the registry.
    pub name: String,
}

impl NodeId {
    /// A node of `kind` called `name`.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        NodeId {
            kind,
            name: name.into(),
        }
    }

    /// The registry.
    pub fn registry() -> Self {
        NodeId::new(Kind::Registry, "")
    }

    /// The endpoint of `service` that `instance` serves.
    pub fn endpoint(service: &str, instance: &str) -> Self {
        NodeId::new(Kind::Services, format!("{service}/{instance}"))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Registry => f.write_str("registry"),
            kind => write!(f, "{}/{}", kind.word(), self.name),
        }
    }
}

impl FromStr for NodeId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "registry" {
            return Ok(NodeId::registry());
        }
        let (word, name) = text
            .split_once('/')
            .ok_or_else(|| format!("`{text}` is not a reference of the form `kind/name`"))?;
        let kind = Kind::ALL
            .into_iter()
            .find(|k| *k != Kind::Registry && k.word() == word)
            .ok_or_else(|| format!("`{word}` is not a kind of node"))?;
        if name.is_empty() {
            return Err(format!("`{text}` names no {word}"));
        }
        Ok(NodeId::new(kind, name))
    }
}

impl Serialize for NodeId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
