//! A generation: one revision of a stack's spec, how it came, and what became of it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::model::Commit;

/// One revision of a stack's spec. Its text is kept apart: it may be large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Counts up from 1; no two of a stack have the same.
    pub number: u64,
    /// The spec's file, absolute; relative paths of the text are relative to its folder.
    pub path: PathBuf,
    /// The commit that it was read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Commit>,
    /// How it came.
    pub cause: Cause,
    /// When: milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The kernel's id of the boot in which it came; filled in by whoever keeps it.
    #[serde(default)]
    pub boot: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// Somebody on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The number that the kernel knows.
    pub uid: u32,
    /// The name that goes with it, if there is one.
    pub name: Option<String>,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

/// How a generation came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// A controller began with it.
    Begin,
    /// Its file was edited while a controller followed it.
    FileEdit,
    /// It is a commit of the repository that the stack follows.
    Commit,
    /// It was handed over.
    Apply {
        /// By whom.
        by: User,
    },
    /// The text of an earlier generation came back.
    Rollback {
        /// Which one's.
        to: u64,
        /// Who asked for it; `None` when the controller went back by itself.
        by: Option<User>,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Begin => f.write_str("begin"),
            Cause::FileEdit => f.write_str("file edit"),
            Cause::Commit => f.write_str("commit"),
            Cause::Apply { by } => write!(f, "apply by {by}"),
            Cause::Rollback { to, by: Some(by) } => write!(f, "rollback to {to} by {by}"),
            Cause::Rollback { to, by: None } => write!(f, "rollback to {to}"),
        }
    }
}

/// What became of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// It is on its way.
    Converging,
    /// Everything was as it says.
    Converged {
        /// Milliseconds after it came.
        after_ms: u64,
    },
    /// Another came before it converged.
    Superseded,
    /// Something of it failed; it may converge still.
    Failed {
        /// What.
        why: String,
    },
    /// It was left for an earlier one.
    RolledBack {
        /// Which.
        to: u64,
        /// Why, when the controller went back by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// It was never in force.
    Refused {
        /// Why.
        why: String,
    },
}

impl Outcome {
    /// Whether this may follow `before`.
    pub fn may_follow(&self, before: &Outcome) -> bool {
        use Outcome::{Converged, Converging, Failed, RolledBack, Superseded};
        matches!(
            (before, self),
            (
                Converging,
                Converged { .. } | Failed { .. } | Superseded | RolledBack { .. }
            ) | (Failed { .. }, Converged { .. } | RolledBack { .. })
                | (Converged { .. }, RolledBack { .. })
        )
    }
}

/// What is kept of a stack's generations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// The highest number that one ever had; 0 when there was none.
    pub newest: u64,
    /// Those that can be read, oldest first.
    pub generations: Vec<Generation>,
    /// Why others cannot be read.
    pub unread: Vec<String>,
}

/// The newest generation that was in force.
pub fn last_taken(generations: &[Generation]) -> Option<&Generation> {
    generations
        .iter()
        .filter(|generation| !matches!(generation.outcome, Outcome::Refused { .. }))
        .max_by_key(|generation| generation.number)
}

/// The newest generation below number `before` that converged and was not left for another.
pub fn last_converged(generations: &[Generation], before: u64) -> Option<&Generation> {
    generations
        .iter()
        .filter(|generation| generation.number < before)
        .filter(|generation| matches!(generation.outcome, Outcome::Converged { .. }))
        .max_by_key(|generation| generation.number)
}

/// The generation in force, if the stack went back to what it holds, and the one that was left
/// for it.
pub fn gone_back(generations: &[Generation]) -> Option<(&Generation, &Generation)> {
    let current = last_taken(generations)?;
    if !matches!(current.cause, Cause::Rollback { .. }) {
        return None;
    }
    let left = generations
        .iter()
        .filter(|generation| generation.number < current.number)
        .filter(|generation| !matches!(generation.outcome, Outcome::Refused { .. }))
        .max_by_key(|generation| generation.number)?;
    Some((current, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(number: u64, outcome: Outcome) -> Generation {
        Generation {
            commit: None,
            number,
            path: "/s.yaml".into(),
            cause: Cause::FileEdit,
            at_ms: 0,
            boot: String::new(),
            outcome,
        }
    }

    #[test]
    fn what_was_left_or_refused_is_not_gone_back_to() {
        let converged = Outcome::Converged { after_ms: 7 };
        let why = String::new();
        let all = [
            generation(1, converged.clone()),
            generation(2, converged.clone()),
            generation(3, Outcome::RolledBack { to: 2, why: None }),
            generation(4, converged),
            generation(5, Outcome::Refused { why }),
        ];
        assert_eq!(last_taken(&all), Some(&all[3]));
        assert_eq!(last_converged(&all, 9), Some(&all[3]));
        assert_eq!(last_converged(&all, 4), Some(&all[1]));
        assert_eq!(last_converged(&all, 1), None);
    }

    #[test]
    fn what_a_rollback_left_is_the_one_before_it() {
        let why = String::new();
        let mut all = vec![
            generation(1, Outcome::Superseded),
            generation(2, Outcome::RolledBack { to: 1, why: None }),
            generation(3, Outcome::Refused { why }),
            generation(4, Outcome::Converging),
        ];
        assert_eq!(gone_back(&all), None);
        if let Some(last) = all.last_mut() {
            last.cause = Cause::Rollback { to: 1, by: None };
        }
        assert_eq!(gone_back(&all), Some((&all[3], &all[1])));
        all.push(generation(5, Outcome::Converging));
        assert_eq!(gone_back(&all), None);
    }

    #[test]
    fn an_outcome_does_not_go_back() {
        let why = || "x".to_owned();
        let each = [
            Outcome::Converging,
            Outcome::Converged { after_ms: 1 },
            Outcome::Superseded,
            Outcome::Failed { why: why() },
            Outcome::RolledBack { to: 1, why: None },
            Outcome::Refused { why: why() },
        ];
        let table: Vec<String> = each
            .iter()
            .map(|before| {
                each.iter()
                    .map(|next| if next.may_follow(before) { 'x' } else { '.' })
                    .collect()
            })
            .collect();
        assert_eq!(
            table,
            [".xxxx.", "....x.", "......", ".x..x.", "......", "......"]
        );
    }
}
