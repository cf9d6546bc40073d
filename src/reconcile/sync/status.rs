//! How a stack stands towards the repository that it follows.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::plan::KEPT;
use crate::plan::model::NodeState;
use crate::reconcile::handle::StackStatus;
use crate::spec::model::{Commit, GitSource, Status};

/// Whether the head of the repository is what is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// It is.
    Synced,
    /// It is not, and it will be tried.
    OutOfSync,
    /// It is not, or it is not known, and somebody has to do something about it.
    Stalled,
}

impl fmt::Display for Sync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sync::Synced => "synced",
            Sync::OutOfSync => "out of sync",
            Sync::Stalled => "stalled",
        })
    }
}

/// Whether what is in force is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Everything is as it should be.
    Healthy,
    /// It is on its way.
    Progressing,
    /// Something failed, or what was well is not any more.
    Degraded,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Health::Healthy => "healthy",
            Health::Progressing => "progressing",
            Health::Degraded => "degraded",
        })
    }
}

impl Health {
    /// How a stack is.
    pub fn of(status: &StackStatus) -> Health {
        if status.converged {
            return Health::Healthy;
        }
        let failed = |state| matches!(state, NodeState::Failed | NodeState::Backoff);
        let unwell = status.nodes.iter().any(|node| {
            // What has just come was not seen to pass yet.
            let was_well = status.converged_once && node.state == NodeState::Running;
            failed(node.state) || was_well && node.health == Some(Status::Critical)
        });
        match unwell {
            true => Health::Degraded,
            false => Health::Progressing,
        }
    }
}

/// What is known of the repository, and what is done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Where it is, without passwords.
    pub url: String,
    /// What of it is followed.
    pub reference: String,
    /// The spec in its tree.
    pub path: PathBuf,
    /// What of the tree is laid over it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overlays: Vec<PathBuf>,
    /// Its files of variables in the tree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vars: Vec<PathBuf>,
    /// Whether its head is in force.
    pub sync: Sync,
    /// Whether what is in force is well; filled in by whoever asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// The commit that is in force; `None` when the spec in force came from elsewhere.
    pub commit: Option<Commit>,
    /// The newest commit that was seen.
    pub head: Option<Commit>,
    /// Why the head is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// An operator suspended it: the repository is not asked, and nothing is applied.
    pub suspended: bool,
    /// Left the spec and are kept, because nothing is pruned; filled in by whoever asks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
    /// The file that names the repository, if it does not say any more what is followed: a new
    /// start of the controller takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited: Option<PathBuf>,
    /// When the repository was asked last: milliseconds since the Unix epoch.
    pub asked_at_ms: Option<u64>,
}

impl SourceStatus {
    /// Fills in what the stack itself shows.
    pub fn judge(&mut self, status: &StackStatus) {
        self.health = Some(Health::of(status));
        let kept = status.nodes.iter().filter(|node| node.detail == KEPT);
        self.kept = kept.map(|node| node.node.to_string()).collect();
    }

    /// How it stands before the repository was asked.
    pub fn new(shown_url: String, source: &GitSource) -> SourceStatus {
        SourceStatus {
            url: shown_url,
            reference: source.reference.clone(),
            path: source.path.clone(),
            overlays: source.overlays.clone(),
            vars: source.vars.clone(),
            sync: Sync::OutOfSync,
            health: None,
            commit: None,
            head: None,
            reason: None,
            suspended: false,
            kept: Vec::new(),
            edited: None,
            asked_at_ms: None,
        }
    }

    /// Why not all that is there now is in force, after it was asked for.
    pub fn lacks(&self) -> Option<String> {
        if let Some(file) = &self.edited {
            return Some(format!(
                "`{}` was edited, and says another repository or other settings now: the \
                 controller takes them when it is started anew (a service: `systemctl restart`); \
                 what runs goes on meanwhile",
                file.display()
            ));
        }
        match self.sync {
            Sync::Synced => None,
            Sync::OutOfSync | Sync::Stalled => Some(match &self.reason {
                Some(reason) => format!("the newest commit is not in force: {reason}"),
                None => "the newest commit is not in force".to_owned(),
            }),
        }
    }
}
