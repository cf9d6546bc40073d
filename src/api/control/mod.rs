//! The control socket: how the command line speaks with a running controller.
//!
//! HTTP/1.1 over a Unix socket, JSON bodies, everything under `/v1`. An error is answered as
//! `{"error": …, "hint": …}`. Only root (and who runs the controller) may connect.

mod client;
mod listen;
mod server;

#[cfg(test)]
mod tests;

pub use client::{Client, ClientError, Story};
pub use listen::{bind, user};
pub use server::{ServeError, serve};

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::plan::saved::SavedPlan;
use crate::reconcile::handle::{SpecText, Verb};
use crate::reconcile::sync::Word;

/// The largest body of a request, in bytes: a spec, and a saved plan of a large stack.
pub const BODY_LIMIT: usize = 8 << 20;

/// The control socket in a stack's run folder.
pub fn socket(run: &Path) -> PathBuf {
    run.join("control.sock")
}

/// The body of `POST /v1/apply`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Apply {
    #[serde(flatten)]
    spec: SpecText,
    #[serde(default)]
    allow_empty: bool,
    /// It is the text of this generation, which is to come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rollback_to: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    saved: Option<Box<SavedPlan>>,
}

/// The body of `POST /v1/explain`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Explain {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spec: Option<SpecText>,
    name: String,
}

/// The answer to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Taken {
    generation: u64,
}

/// The body of `POST /v1/down`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
struct Down {
    purge: bool,
    kill: bool,
}

/// The body of `POST /v1/operate`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Operate {
    verb: Verb,
    names: Vec<String>,
}

/// The body of `POST /v1/sync`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct SyncOrder {
    word: Word,
}

/// The answer to `GET /v1/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The controller's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
}

/// What went wrong, as the socket says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Refusal {
    error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}
