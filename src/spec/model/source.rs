//! Where a stack's specs come from when they are kept in git, and what is made of them.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A git repository that a stack follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSource {
    /// Whatever git takes: a path, `https://…`, `ssh://…`, `user@host:path`.
    pub url: String,
    /// A branch, a tag, or a whole name below `refs/`.
    pub reference: String,
    /// The spec's file or folder in the tree; relative, without `..`.
    pub path: PathBuf,
    /// What is laid over it, in order: files of the tree, as `path`.
    pub overlays: Vec<PathBuf>,
    /// Files of variables in the tree, as `path`; the later wins.
    pub vars: Vec<PathBuf>,
    /// Between two looks at the repository.
    pub interval: Duration,
    /// Whose commits are applied; everybody's if `None`.
    pub verify: Option<Verify>,
    /// Submodules are fetched too.
    pub submodules: bool,
    /// A head that does not descend from what was applied is taken all the same.
    pub allow_rewrite: bool,
    /// A commit has so long to converge.
    pub health_timeout: Duration,
    /// What is done when it does not.
    pub on_failure: OnFailure,
    /// What left the spec is removed.
    pub prune: bool,
    /// A commit may remove everything.
    pub allow_empty: bool,
    /// Where the repository's host may say that something was pushed.
    pub webhook: Option<Webhook>,
}

impl GitSource {
    /// Follows this branch of this repository, with everything else as it usually is.
    pub fn new(url: String, reference: String, path: PathBuf) -> Self {
        GitSource {
            url,
            reference,
            path,
            overlays: Vec::new(),
            vars: Vec::new(),
            interval: Self::INTERVAL,
            verify: None,
            submodules: false,
            allow_rewrite: false,
            health_timeout: Duration::from_secs(5 * 60),
            on_failure: OnFailure::Rollback,
            prune: true,
            allow_empty: false,
            webhook: None,
        }
    }

    /// Between two looks unless something else is said.
    pub const INTERVAL: Duration = Duration::from_secs(60);
    /// The shortest interval: a host of repositories is not to be polled without a pause.
    pub const LEAST_INTERVAL: Duration = Duration::from_secs(1);
    /// The branch that is followed unless another is named.
    pub const REFERENCE: &str = "main";
}

/// How a commit's signature is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// By a key in this file, in the form of `ssh-keygen`'s allowed signers; absolute.
    SshAllowedSigners(PathBuf),
    /// By a key in this OpenPGP keyring; absolute.
    GpgKeyring(PathBuf),
}

/// What is done about a commit that does not converge in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The last healthy one comes back.
    Rollback,
    /// It stays in force, and the status says so.
    Hold,
}

/// Where the repository's host may say that something was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The address.
    pub listen: SocketAddr,
    /// The file that holds the secret; absolute.
    pub secret_file: PathBuf,
}

/// A commit, as far as people are told of it. What stands in it comes from outside: whoever
/// prints it takes care of control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its hash, hexadecimal.
    pub id: String,
    /// The author's name.
    pub author: String,
    /// The first line of its message.
    pub subject: String,
    /// When it was made: seconds since the Unix epoch.
    pub at_s: i64,
}

impl Commit {
    /// The beginning of its hash, as people write it.
    pub fn short(&self) -> &str {
        self.id.get(..10).unwrap_or(&self.id)
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}: {})", self.short(), self.author, self.subject)
    }
}

/// Where a spec came from: a commit, and its tree as it lies on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The commit.
    pub commit: Commit,
    /// The folder with everything that the commit holds; absolute. It is never changed.
    pub tree: PathBuf,
    /// A file with the hash of everything in that folder, as [`Objects`](super::Objects) reads it.
    pub objects: PathBuf,
}
