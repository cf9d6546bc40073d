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
    pub applied: BTreeMap<String, String>,
    /// It is to say READY=1.
    pub notify: bool,
    /// It said so.
    pub notified: bool,
    /// How it ended, once that was seen: the next controller cannot ask the kernel again.
    #[serde(default)]
    pub exit: Option<Exit>,
    /// Bytes of its log before it is rotated.
    pub log_size: u64,
    /// How many rotated logs stay.
    pub log_files: u32,
    /// How it is meant to end.
    #[serde(default)]
    pub farewell: Option<Farewell>,
    /// The commit whose tree it was started from.
    #[serde(default)]
    pub commit: Option<String>,
    /// We asked it to end: whatever it says then is no failure, and no completion.
    #[serde(default)]
    pub asked: bool,
}

impl Mark {
    /// The life that carries this.
    pub fn id(&self) -> LifeId {
        LifeId {
            node: self.node.clone(),
            incarnation: self.incarnation,
        }
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

    /// Reads it from a cgroup; `None` when there is none that we understand.
    pub fn read(folder: &Path) -> Option<Mark> {
        serde_json::from_slice(&read(folder, MARK)?).ok()
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
