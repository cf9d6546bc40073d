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

/// The newest generation that was in force and came from a repository by itself, unless the stack
/// was kept by something else since; what is in force, if it is of a commit, where none of those
/// is kept any more.
pub fn last_followed(generations: &[Generation]) -> Option<&Generation> {
    let kept = generations
        .iter()
        .filter(|generation| !matches!(generation.outcome, Outcome::Refused { .. }))
        .filter(|generation| matches!(generation.cause, Cause::Commit | Cause::Begin))
        .max_by_key(|generation| generation.number);
    kept.or_else(|| last_taken(generations))
        .filter(|kept| kept.commit.is_some())
}

/// What the stack went back to, if `file` holds what it had before that: what the file brought
/// last, or what was handed over since. `generations` are the oldest first, `spec_of` reads one.
pub fn went_back<S: PartialEq>(
    generations: &[Generation],
    file: &S,
    spec_of: impl Fn(&Generation) -> Option<S>,
) -> Option<S> {
    let taken: Vec<&Generation> = generations
        .iter()
        .filter(|generation| !matches!(generation.outcome, Outcome::Refused { .. }))
        .collect();
    let current = spec_of(taken.last()?).filter(|current| current != file)?;
    let mut is_back = false;
    for (place, generation) in taken.iter().enumerate().rev() {
        let before = place.checked_sub(1).and_then(|before| taken.get(before));
        let spec = spec_of(generation);
        match generation.cause {
            // Another file that it reads was edited, a template's source.
            Cause::FileEdit if before.is_some_and(|before| spec_of(before) == spec) => {}
            Cause::Rollback { .. } => is_back = true,
            _ if !is_back => return None,
            _ if spec.as_ref() == Some(file) => return Some(current),
            Cause::Apply { .. } => {}
            Cause::Begin | Cause::FileEdit | Cause::Commit => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a stack went back to whose file holds `file`: each generation is its cause and its
    /// spec.
    fn back_to(history: &[(&str, u32)], file: u32) -> Option<u32> {
        let by = || User { uid: 0, name: None };
        let all: Vec<Generation> = (1..)
            .zip(history)
            .map(|(number, (cause, _))| Generation {
                cause: match *cause {
                    "begin" => Cause::Begin,
                    "apply" => Cause::Apply { by: by() },
                    "back" => Cause::Rollback { to: 1, by: None },
                    _ => Cause::FileEdit,
                },
                ..generation(number, Outcome::Superseded)
            })
            .collect();
        went_back(&all, &file, |generation| {
            let place = usize::try_from(generation.number).ok()?.checked_sub(1)?;
            history.get(place).map(|(_, spec)| *spec)
        })
    }

    #[test]
    fn a_file_that_was_left_stays_left() {
        let one = [("begin", 1), ("edit", 2), ("back", 1)];
        assert_eq!(back_to(&one, 2), Some(1));
        assert_eq!(back_to(&one, 3), None, "it was edited since");
        assert_eq!(back_to(&one, 1), None, "it is what is in force");
        assert_eq!(back_to(&one[..2], 2), None, "nobody went back");
        assert_eq!(back_to(&one[..2], 1), None, "nobody went back");
        assert_eq!(back_to(&[], 1), None);
        let twice = [
            ("begin", 1),
            ("edit", 2),
            ("edit", 3),
            ("back", 2),
            ("back", 1),
        ];
        assert_eq!(back_to(&twice, 3), Some(1));
        assert_eq!(back_to(&twice, 2), None, "the file was edited back");
        let source = [("begin", 1), ("edit", 2), ("back", 1), ("edit", 1)];
        assert_eq!(back_to(&source, 2), Some(1));
        let applied = [("begin", 1), ("apply", 2), ("back", 1)];
        assert_eq!(back_to(&applied, 2), Some(1));
        let other = [
            ("begin", 1),
            ("edit", 2),
            ("back", 1),
            ("apply", 9),
            ("back", 1),
        ];
        assert_eq!(back_to(&other, 2), Some(1));
        assert_eq!(
            back_to(&other[..4], 2),
            None,
            "what was handed over last is in force"
        );
    }

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
    fn what_was_followed_last_came_from_a_repository() {
        let why = String::new();
        let of_commit = |number, cause, outcome| Generation {
            commit: Some(Commit {
                id: "c".to_owned(),
                author: String::new(),
                subject: String::new(),
                at_s: 0,
            }),
            cause,
            ..generation(number, outcome)
        };
        let back = Cause::Rollback { to: 1, by: None };
        let mut all = vec![
            generation(1, Outcome::Superseded),
            of_commit(6, back, Outcome::Converging),
        ];
        assert_eq!(last_followed(&all), Some(&all[1]));
        all.push(of_commit(2, Cause::Begin, Outcome::Superseded));
        all.push(of_commit(3, Cause::Commit, Outcome::Superseded));
        all.push(of_commit(4, Cause::Commit, Outcome::Refused { why }));
        all.push(of_commit(5, Cause::FileEdit, Outcome::Superseded));
        assert_eq!(last_followed(&all), Some(&all[3]));
        all.push(generation(7, Outcome::Converging));
        assert_eq!(last_followed(&all[..1]), None);
        assert_eq!(last_followed(&all), Some(&all[3]));
        // A controller of a file keeps it now.
        all.push(generation(8, Outcome::Converging));
        if let Some(last) = all.last_mut() {
            last.cause = Cause::Begin;
        }
        assert_eq!(last_followed(&all), None);
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
