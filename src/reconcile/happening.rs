//! What happens, as it is told: to the terminal, the event stream and the store.

use serde::{Deserialize, Serialize};

use crate::plan::world::Exit;
use crate::spec::node::NodeId;

/// One line of the story, for the terminal and the event stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Happening {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// About what; `None` for the stack.
    pub node: Option<NodeId>,
    /// How grave.
    pub level: Level,
    /// In words: "starting", "ready after 0.4s", "check answers: critical: connection refused".
    pub text: String,
    /// What happened, for programs.
    #[serde(default)]
    pub kind: EventKind,
    /// Which life of the workload, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// How the life ended, with [`EventKind::Exited`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Which generation, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The hash of the commit that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// The longest text that is kept, in characters.
const KEPT_TEXT: usize = 200;

impl Happening {
    /// A warning about the story itself, at `at_ms` milliseconds since the Unix epoch.
    pub fn warning(at_ms: u64, text: String) -> Happening {
        Happening {
            at_ms,
            node: None,
            level: Level::Warning,
            text,
            kind: EventKind::Warning,
            incarnation: None,
            exit: None,
            generation: None,
            commit: None,
        }
    }

    /// As it is kept: one line of at most 200 characters, control characters made visible.
    pub fn kept(&self) -> Happening {
        Happening {
            text: one_line(&self.text),
            ..self.clone()
        }
    }
}

/// The first line of `text`, at most 200 characters of it, control characters made visible.
pub(super) fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let escaped = line.chars().flat_map(|c| {
        let escape = c.is_control().then(|| c.escape_default());
        let plain = escape.is_none().then_some(c);
        escape.into_iter().flatten().chain(plain)
    });
    let mut kept: Vec<char> = escaped.take(KEPT_TEXT + 1).collect();
    if kept.len() > KEPT_TEXT {
        kept.truncate(KEPT_TEXT - 1);
        kept.push('…');
    }
    kept.into_iter().collect()
}

/// How grave a happening is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Steps on the way.
    Progress,
    /// Worth a line in a quiet log.
    Notice,
    /// Something is not as it should be.
    Warning,
    /// Something failed.
    Error,
}

/// What happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A controller began.
    Begin,
    /// A controller ended, and left what runs.
    Leave,
    /// The stack is down.
    Down,
    /// An operator asked for something.
    Operator,
    /// A generation was taken.
    Generation,
    /// A spec was not taken.
    Refused,
    /// A spec that was refused is good again.
    Accepted,
    /// The stack went back to an earlier generation.
    RolledBack,
    /// Everything is as the generation says.
    Converged,
    /// Something waits.
    Waiting,
    /// A workload is on its way to be ready.
    Starting,
    /// A workload's program was executed.
    Started,
    /// A life that an earlier controller started goes on.
    Adopted,
    /// Something is as it should be.
    Ready,
    /// A life ended.
    Exited,
    /// A workload fails again and again.
    CrashLoop,
    /// A workload is on its way out.
    Stopping,
    /// A workload is stopped, as an operator asked.
    Stopped,
    /// A one-shot did its job.
    Completed,
    /// A life was signalled.
    Signalled,
    /// What was left of a life was killed.
    Killed,
    /// A check changed sides.
    Check,
    /// The health of a service changed.
    Health,
    /// An endpoint was registered.
    Registered,
    /// A validator was asked.
    Validated,
    /// A file was rendered.
    Rendered,
    /// A rendered file was removed.
    Removed,
    /// What reads a file was told of it.
    Reloaded,
    /// Something of a network was made or changed.
    Network,
    /// A step failed.
    StepFailed,
    /// A node failed, or waits for its next try.
    Failed,
    /// Something is not as it should be.
    Warning,
    /// None of the others; what a later version calls something else.
    #[default]
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn lines_of_earlier_and_later_versions_are_read() {
        let earlier = r#"{"at_ms":1,"node":"containers/a","level":"notice","text":"ready"}"#;
        let read: Happening = serde_json::from_str(earlier).unwrap();
        assert_eq!((read.kind, read.exit), (EventKind::Other, None));
        let later = r#"{"at_ms":1,"node":null,"level":"error","text":"x","kind":"danced","y":1}"#;
        let read: Happening = serde_json::from_str(later).unwrap();
        assert_eq!(read.kind, EventKind::Other);
    }

    #[test]
    fn an_exit_says_its_code_or_signal() {
        let exited = Happening {
            at_ms: 1,
            node: Some("processes/job".parse().unwrap()),
            level: Level::Notice,
            text: "killed by SIGKILL".to_owned(),
            kind: EventKind::Exited,
            incarnation: Some(7),
            exit: Some(Exit::Signal(9)),
            generation: None,
            commit: None,
        };
        insta::assert_snapshot!(serde_json::to_string(&exited).unwrap(), @r#"{"at_ms":1,"node":"processes/job","level":"notice","text":"killed by SIGKILL","kind":"exited","incarnation":7,"exit":{"signal":9}}"#);
    }

    #[test]
    fn what_is_kept_is_one_short_line() {
        let kept = one_line("a\u{1b}[2Jb\nc");
        assert_eq!(kept, "a\\u{1b}[2Jb");
        let kept = one_line(&"\u{7}é".repeat(150));
        assert_eq!(kept.chars().count(), 200);
        assert!(kept.ends_with('…'));
        assert_eq!(one_line(&"x".repeat(200)), "x".repeat(200));
    }
}
