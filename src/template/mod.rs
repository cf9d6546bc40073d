//! (source, catalog, inputs) -> text, or what it lacks. The only user of minijinja.

mod engine;
pub mod expr;
mod ground;
mod render;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::spec::model::{Env, Status};

pub use engine::excerpt;
pub use ground::{Ground, Text};
pub use render::{LONGEST_FILE, normalise, render, trial};

/// What templates may read of the catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every service's instances, in a fixed order.
    pub services: BTreeMap<String, Vec<Instance>>,
    /// Every node.
    pub nodes: Vec<NodeEntry>,
}

/// One instance of a service, as `service()` gives it to a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id in the registry.
    pub id: String,
    /// The service's name.
    pub name: String,
    /// Address.
    pub address: String,
    /// Port.
    pub port: u16,
    /// Tags.
    pub tags: Vec<String>,
    /// Meta.
    pub meta: BTreeMap<String, String>,
    /// The registry's node.
    pub node: String,
    /// The worst of its checks.
    pub status: Status,
}

/// One node of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Name.
    pub name: String,
    /// Address.
    pub address: String,
}

/// What a render may read beside the catalog. Files that were not fetched yet are asked for.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// Contents of the files that earlier renders asked for; `Err` when they cannot be read.
    pub files: BTreeMap<PathBuf, Result<String, String>>,
    /// Environment variables.
    pub env: Env,
    /// The spec's `vars`.
    pub vars: IndexMap<String, serde_json::Value>,
    /// The spec's folder; `file("./x")` is relative to it.
    pub spec_dir: PathBuf,
}

/// What a render gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rendered {
    /// The text, and what it was made from.
    Text {
        /// The text.
        text: String,
        /// What was read.
        reads: Reads,
    },
    /// These files are needed first.
    Lacks(BTreeSet<PathBuf>),
}

/// What a render read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reads {
    /// Services by name, with the number of instances that each call gave (the least, if called
    /// more than once).
    pub services: BTreeMap<String, usize>,
    /// It listed all services or all nodes.
    pub catalog: bool,
    /// Files.
    pub files: BTreeSet<PathBuf>,
}

/// Why a template or an expression cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// What is wrong.
    pub message: String,
    /// 1-based line in the source.
    pub line: Option<usize>,
    /// Bytes of the source.
    pub range: Option<Range<usize>>,
}
