//! What is written on a workload's cgroup, so that any controller recognises it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, setxattr};
use serde::{Deserialize, Serialize};

use crate::graph::desired::Farewell;
use crate::plan::world::{Exit, Identity, LifeId};
use crate::spec::model::LogLimit;
use crate::spec::node::NodeId;
use crate::spec::time::Time;

/// Who this is. Only a process with CAP_SYS_ADMIN of the host can read or write it.
const MARK: &str = "trusted.hatchery";

/// The process that was started, with its start time.
const PROCESS: &str = "trusted.hatchery.pid";

/// The kernel's own limit for one attribute.
const LIMIT: usize = 64 * 1024;

/// One life, in full: nothing else is needed for its adoption.
///
/// Older and newer versions read it and write it back: what one does not know it keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Whose it is.
    pub stack: String,
    /// Which node.
    pub node: NodeId,
    /// Which life of it.
    pub incarnation: u64,
    /// What was started.
    pub identity: Identity,
    /// When.
    pub started: Time,
    /// What each template's file held when it last read it.
    #[serde(default)]
    pub applied: BTreeMap<String, String>,
    /// It is to say READY=1.
    #[serde(default)]
    pub notify: bool,
    /// It said so.
    #[serde(default)]
    pub notified: bool,
    /// How it ended, once that was seen: the next controller cannot ask the kernel again.
    #[serde(default, deserialize_with = "exit")]
    pub exit: Option<Exit>,
    /// Bytes of its log before it is rotated.
    pub log_size: u64,
    /// How many rotated logs stay.
    pub log_files: u32,
    /// The name of its log, if that is not its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_name: Option<String>,
    /// How it is meant to end.
    #[serde(default)]
    pub farewell: Option<Farewell>,
    /// The commit whose tree it was started from.
    #[serde(default)]
    pub commit: Option<String>,
    /// We asked it to end: whatever it says then is no failure, and no completion.
    #[serde(default)]
    pub asked: bool,
    /// That was because it did not become ready in time: a failure all the same.
    #[serde(default)]
    pub late: bool,
    /// And that was done, not only meant to be.
    #[serde(default)]
    pub told: bool,
    /// What another version knows of it.
    #[serde(flatten)]
    pub others: BTreeMap<String, serde_json::Value>,
}

/// An end of a kind that this version does not know.
fn exit<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Exit>, D::Error> {
    let noted = Option::<serde_json::Value>::deserialize(d)?;
    Ok(noted.map(|noted| serde_json::from_value(noted).unwrap_or(Exit::Unknown)))
}

/// What a cgroup says that it is.
#[derive(Debug)]
pub(super) enum Reading {
    /// Nothing: it is nobody's.
    None,
    /// The life of some stack.
    Mark(Box<Mark>),
    /// Of `stack`, if that much can be told, and why the rest cannot.
    Unknown { stack: Option<String>, why: String },
}

impl Mark {
    /// The life that carries this.
    pub fn id(&self) -> LifeId {
        LifeId {
            node: self.node.clone(),
            incarnation: self.incarnation,
        }
    }

    /// The name of its log.
    pub fn log_name(&self) -> &str {
        self.log_name.as_deref().unwrap_or(&self.node.name)
    }

    /// The bound of its log.
    pub fn log(&self) -> LogLimit {
        LogLimit {
            max_size: self.log_size,
            max_files: self.log_files,
        }
    }

    /// Writes it on a cgroup, in one system call.
    ///
    /// # Errors
    /// What the kernel said; `EOPNOTSUPP` where cgroups carry no attributes.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        Ok(setxattr(folder, MARK, &text, XattrFlags::empty())?)
    }

    /// Reads it from a cgroup.
    pub fn read(folder: &Path) -> Reading {
        read(folder, MARK).map_or(Reading::None, |text| understand(&text))
    }
}

fn understand(text: &[u8]) -> Reading {
    match serde_json::from_slice(text) {
        Ok(mark) => Reading::Mark(Box::new(mark)),
        Err(error) => {
            let values = serde_json::from_slice::<serde_json::Value>(text).unwrap_or_default();
            Reading::Unknown {
                stack: values["stack"].as_str().map(str::to_owned),
                why: error.to_string(),
            }
        }
    }
}

/// Whether a cgroup carries a mark, of whichever stack.
pub(super) fn marked(folder: &Path) -> bool {
    read(folder, MARK).is_some()
}

/// Notes on a cgroup which process is about to become the workload.
///
/// # Errors
/// What the kernel said.
pub(super) fn write_process(folder: &Path, pid: i32, start: u64) -> io::Result<()> {
    let text = format!("{pid} {start}");
    Ok(setxattr(
        folder,
        PROCESS,
        text.as_bytes(),
        XattrFlags::empty(),
    )?)
}

/// The process that was started, and its start time in clock ticks.
pub(super) fn read_process(folder: &Path) -> Option<(i32, u64)> {
    let bytes = read(folder, PROCESS)?;
    let (pid, start) = std::str::from_utf8(&bytes).ok()?.split_once(' ')?;
    Some((pid.parse().ok()?, start.parse().ok()?))
}

fn read(folder: &Path, name: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; LIMIT];
    let length = getxattr(folder, name, bytes.as_mut_slice()).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    const OLD: &str = r#"{"stack":"prime","node":"containers/web","incarnation":3,
        "identity":{"command":"abc"},"started":12,"log_size":9,"log_files":1"#;

    #[test]
    fn a_later_version_is_understood_as_far_as_it_goes_and_kept_whole() {
        let text = format!(r#"{OLD},"exit":{{"frozen":7}},"colour":["deep","blue"]}}"#);
        let Reading::Mark(mark) = understand(text.as_bytes()) else {
            panic!("{text}");
        };
        assert_eq!(mark.exit, Some(Exit::Unknown));
        assert!(mark.applied.is_empty() && !mark.notify);
        let written = serde_json::to_value(&*mark).unwrap();
        assert_eq!(written["colour"][1], "blue");
        let again = understand(&serde_json::to_vec(&*mark).unwrap());
        assert!(matches!(again, Reading::Mark(again) if again == mark));
    }

    #[test]
    fn what_is_not_understood_still_says_whose_it_is() {
        let odd = format!("{OLD}}}").replace("\"containers/web\"", "{\"kind\":\"pods\"}");
        for (text, whose) in [(odd.as_str(), Some("prime")), ("[]", None), ("\0", None)] {
            let Reading::Unknown { stack, why } = understand(text.as_bytes()) else {
                panic!("{text}");
            };
            assert_eq!(stack.as_deref(), whose);
            assert!(!why.is_empty());
        }
    }
}
