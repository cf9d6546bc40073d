//! A stack that follows a repository: what is done about its newest commit.
//!
//! Like the rest it is level-triggered: each round asks for the head and compares it with what
//! is in force. A push that was told, an interval that passed and an operator's word only begin
//! a round.

mod judge;
mod orders;
mod status;
mod syncer;
#[cfg(test)]
mod tests;

pub use judge::{Head, Known, Next, Refusal, judge};
pub use orders::{Order, Orders, Word};
pub use status::{Health, SourceStatus, Sync};
pub use syncer::{Syncer, SyncerParts};

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::handle::SpecText;
use crate::spec::model::Commit;

/// A repository, its signatures checked and its trees at hand. All of it blocks.
pub trait Repository: Send + std::marker::Sync {
    /// Asks for the newest commit.
    ///
    /// # Errors
    /// [`Fault`], like all that follow.
    fn fetch(&self) -> Result<Commit, Fault>;

    /// Whether `later` descends from `earlier`, both by their hashes.
    fn descends(&self, earlier: &str, later: &str) -> Result<bool, Fault>;

    /// The commit of this hash has the signature that is asked for, where one is.
    fn vouched(&self, commit: &str) -> Result<(), Fault>;

    /// The spec of a commit, from its own tree; its signature was found good.
    fn prepare(&self, commit: &Commit) -> Result<SpecText, Fault>;

    /// The tree of a commit that was taken before is at hand again.
    fn lay_out(&self, commit: &Commit) -> Result<(), Fault>;

    /// The trees of all other commits go.
    fn keep(&self, commits: &BTreeSet<String>) -> Result<(), Fault>;

    /// The file that names the repository, if it does not say any more what this one began with.
    fn edited(&self) -> Option<PathBuf>;
}

/// What outlives the controller.
pub trait Memory: Send + std::marker::Sync {
    /// Notes whether an operator suspended the following. It blocks.
    ///
    /// # Errors
    /// What the disk said.
    fn suspend(&self, suspended: bool) -> crate::driver::Result<()>;
}

/// Why a repository did not do what was asked, or the loop does not take a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It may do it later: the network, the disk, what the machine lacks.
    #[error("{0}")]
    Later(String),
    /// What was asked for is not to be had: its signature, or what it holds.
    #[error("{0}")]
    Refused(String),
}

/// On a thread that may block; `None` when it failed in a way that was told already.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
