//! What is done about a head: one function of what is known.

use super::status::Sync;
use crate::spec::model::Commit;

/// What is known when a round begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The hash of the commit in force.
    pub in_force: Option<String>,
    /// The hash of the commit that was taken last, in force or not.
    pub taken: Option<String>,
    /// The commit that was taken last, where something else took its place, and why.
    pub left: Option<Refusal>,
    /// A commit that was not taken, and why.
    pub refused: Option<Refusal>,
}

impl Known {
    /// Why a commit is not to be tried by itself.
    fn refusal(&self, id: &str) -> Option<&Refusal> {
        let mut refusals = self.left.iter().chain(&self.refused);
        refusals.find(|refusal| refusal.commit == id)
    }
}

/// A commit that is not to be tried again by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its hash.
    pub commit: String,
    /// Why.
    pub why: String,
}

impl Refusal {
    /// Of a commit that an operator put generation `number` in the place of.
    pub fn displaced(commit: String, number: u64) -> Self {
        let short = commit.get(..10).unwrap_or(&commit);
        let why = format!(
            "commit {short} was taken before, and generation {number} is in force in its place; \
             `hatchery sync --now` takes it again, and a newer commit is taken by itself"
        );
        Refusal { commit, why }
    }
}

/// The head, and how it is related to what was taken last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The newest commit.
    pub commit: Commit,
    /// It descends from the commit that was taken last.
    pub descends: bool,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It is in force.
    Nothing,
    /// It is not to be taken.
    Leave(String),
    /// It is to be taken.
    Take,
}

impl Next {
    /// How the stack stands with this to be done.
    pub fn sync(&self) -> Sync {
        match self {
            Next::Nothing => Sync::Synced,
            Next::Leave(_) => Sync::Stalled,
            Next::Take => Sync::OutOfSync,
        }
    }
}

/// Decides about a head. With `again` a commit that was refused is tried once more: somebody
/// asked for it, and what was wrong may have been mended outside of it.
pub fn judge(known: &Known, head: &Head, allow_rewrite: bool, again: bool) -> Next {
    let id = &head.commit.id;
    if known.in_force.as_ref() == Some(id) {
        return Next::Nothing;
    }
    if let Some(refusal) = known.refusal(id).filter(|_| !again) {
        return Next::Leave(refusal.why.clone());
    }
    match &known.taken {
        Some(taken) if !head.descends && !allow_rewrite => Next::Leave(format!(
            "history was rewritten: commit {} does not descend from {}, which was applied \
             before; if that is meant, set `allow_rewrite: true` or use `--allow-rewrite`",
            head.commit.short(),
            taken.get(..10).unwrap_or(taken),
        )),
        _ => Next::Take,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    fn head(id: &str, descends: bool) -> Head {
        let commit = Commit {
            id: id.to_owned(),
            author: "a".to_owned(),
            subject: "s".to_owned(),
            at_s: 0,
        };
        Head { commit, descends }
    }

    fn known() -> Known {
        Known {
            in_force: Some("a1".to_owned()),
            taken: Some("b2".to_owned()),
            left: Some(Refusal {
                commit: "b2".to_owned(),
                why: "it failed".to_owned(),
            }),
            refused: Some(Refusal {
                commit: "b3".to_owned(),
                why: "it is wrong".to_owned(),
            }),
        }
    }

    #[test]
    fn what_is_in_force_is_left_alone() {
        let next = judge(&known(), &head("a1", false), false, true);
        assert_eq!((next.sync(), next), (Sync::Synced, Next::Nothing));
    }

    #[test]
    fn a_bad_commit_is_tried_again_only_on_demand() {
        let next = judge(&known(), &head("b2", true), false, false);
        assert_eq!(next, Next::Leave("it failed".to_owned()));
        assert_eq!(next.sync(), Sync::Stalled);
        let next = judge(&known(), &head("b3", true), false, false);
        assert_eq!(next, Next::Leave("it is wrong".to_owned()));
        for id in ["b2", "b3"] {
            assert_eq!(judge(&known(), &head(id, true), false, true), Next::Take);
        }
    }

    #[test]
    fn only_what_descends_is_taken_unless_that_is_allowed() {
        let Next::Leave(why) = judge(&known(), &head("c3", false), false, true) else {
            panic!("a rewritten branch was taken");
        };
        assert!(why.contains("c3 does not descend from b2"), "{why}");
        assert_eq!(judge(&known(), &head("c3", false), true, false), Next::Take);
        assert_eq!(judge(&known(), &head("c3", true), false, false), Next::Take);
        let nothing = Known::default();
        assert_eq!(
            judge(&nothing, &head("c3", false), false, false),
            Next::Take
        );
        assert_eq!(Next::Take.sync(), Sync::OutOfSync);
    }
}
