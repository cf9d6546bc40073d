//! Specs from a git repository: mirrored, verified, and laid out by commit.
//!
//! The machine's own `git` does the talking: its users have set up credentials, proxies, host
//! keys and `insteadOf` for it already, and a library would bring another set of each. What
//! comes from the repository is hostile until it was verified, so nothing in it is executed: no
//! hooks, filters or attributes, because no work tree is ever checked out. Files are written by
//! us, from the objects.
//!
//! Everything here blocks.

mod batch;
mod checkout;
mod commit;
mod error;
mod kept;
mod mirror;
mod run;
mod submodules;
#[cfg(test)]
mod tests;
mod tree;
mod url;
mod verify;

pub use checkout::Checkout;
pub use error::GitError;
pub use mirror::{Limits, Mirror, Remote};
pub use url::{holds_secret, shown};
pub use verify::Signer;

/// The hash of a commit: 40 or 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(String);

impl CommitId {
    /// Reads one; `None` when the text is none.
    pub fn new(text: &str) -> Option<CommitId> {
        let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        (hex && [40, 64].contains(&text.len())).then(|| CommitId(text.to_ascii_lowercase()))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for CommitId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
