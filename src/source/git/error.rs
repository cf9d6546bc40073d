//! What can go wrong with a repository.

use std::io;
use std::path::Path;

use super::url::without_passwords;
use crate::driver::because;

/// What git said is quoted up to so many characters.
const QUOTED: usize = 600;

/// Lines that begin so are no troubles: advice, and that a server does not leave large files out.
const NOT_QUOTED: [&str; 2] = ["hint:", "warning: filtering not recognized"];

/// Why a repository did not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitError {
    /// It could not be reached, or took too long; it may be tried again.
    #[error("{0}")]
    Unreachable(String),
    /// What it holds is not taken.
    #[error("{0}")]
    Refused(String),
    /// This machine is in the way: its disk, or a program that is missing.
    #[error("{0}")]
    Local(String),
}

impl GitError {
    /// Something on this machine's disk failed.
    pub(super) fn disk(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GitError {
        let path = path.display().to_string();
        move |error| GitError::Local(format!("cannot {verb} `{path}`: {}", because(&error)))
    }
}

/// The words of a program, for a message: without passwords, bounded, its last lines.
pub(super) fn quoted(said: &str) -> String {
    let said = without_passwords(said);
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !NOT_QUOTED.iter().any(|no| line.starts_with(no)))
        .collect();
    let joined = lines.join("; ");
    let count = joined.chars().count();
    match count > QUOTED {
        false => joined,
        true => joined.chars().skip(count - QUOTED).collect(),
    }
}
