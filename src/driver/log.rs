//! Log files of workloads: bounded by copy and truncate, because a workload keeps its file open.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::spec::model::LogLimit;
use crate::spec::node::NodeId;

/// The name of a log that only one kind of workloads writes: `web.processes`.
pub fn by_kind(node: &NodeId) -> String {
    format!("{}.{}", node.name, node.kind.word())
}

/// A log of this name in a folder.
pub fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

/// Where a workload's log is: under its name alone, unless it had to be told from another kind's
/// at any time.
pub fn of(folder: &Path, node: &NodeId) -> PathBuf {
    let own = file(folder, &by_kind(node));
    match own.exists() {
        true => own,
        false => file(folder, &node.name),
    }
}

/// Rotates `path` if it is larger than its limit: its end goes to `.1`, older ones move up,
/// the oldest goes. Returns whether it was rotated.
///
/// The writer has the file open for appending, so the file itself stays and is emptied. At
/// most `max_size` bytes are kept of it; what is written in between is lost at worst.
///
/// # Errors
/// What the disk said. If the end could not be kept, the file is emptied all the same.
pub fn rotate(path: &Path, limit: LogLimit) -> io::Result<bool> {
    let mut live = match OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let size = live.metadata()?.len();
    if size <= limit.max_size {
        return Ok(false);
    }
    let kept = match limit.max_files {
        0 => Ok(()),
        _ => keep(&mut live, size, path, limit),
    };
    // On a disk that is full the writer must not go on filling it.
    live.set_len(0)?;
    kept.map(|()| true)
}

/// Keeps the end of a log as `.1`. Where there is no room for it, an older one makes some.
fn keep(live: &mut File, size: u64, path: &Path, limit: LogLimit) -> io::Result<()> {
    let fresh = numbered(path, 0);
    let mut kept = keep_end(live, size, limit.max_size, &fresh);
    let full = |kept: &io::Result<()>| {
        let kind = kept.as_ref().err().map(io::Error::kind);
        kind.is_some_and(|kind| {
            matches!(
                kind,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        })
    };
    for old in (1..=limit.max_files).rev() {
        if !full(&kept) {
            break;
        }
        if fs::remove_file(numbered(path, old)).is_ok() {
            kept = keep_end(live, size, limit.max_size, &fresh);
        }
    }
    if kept.is_err() {
        let _ = fs::remove_file(&fresh);
        return kept;
    }
    for old in (1..limit.max_files).rev() {
        rename_if_there(&numbered(path, old), &numbered(path, old + 1))?;
    }
    fs::rename(&fresh, numbered(path, 1))
}

fn keep_end(live: &mut File, size: u64, keep: u64, into: &Path) -> io::Result<()> {
    let mut copy = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW)
        .open(into)?;
    live.seek(SeekFrom::Start(size.saturating_sub(keep)))?;
    io::copy(&mut live.take(keep.saturating_mul(2)), &mut copy)?;
    Ok(())
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// How a log grew between two looks.
#[derive(Debug, Clone, Copy)]
pub struct Growth {
    /// By how many bytes.
    pub grew: u64,
    /// In what time.
    pub within: Duration,
    /// What it has now.
    pub size: u64,
}

impl Growth {
    /// When it will have reached its limit if it goes on so; `None` when that is far away.
    pub fn next_look(self, limit: LogLimit) -> Option<Duration> {
        const FAR: u128 = 3600 * 1000;
        let left = u128::from(limit.max_size.saturating_sub(self.size));
        let millis = (left * self.within.as_millis()).checked_div(u128::from(self.grew))?;
        let near = u64::try_from(millis).ok().filter(|_| millis <= FAR)?;
        Some(Duration::from_millis(near))
    }
}

/// `prime1.log.2`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// The last `lines` lines that were written after byte `from`, at most 4 KiB, lossy UTF-8.
pub fn tail(path: &Path, from: u64, lines: usize) -> String {
    const MOST: u64 = 4096;
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        // A log that was rotated meanwhile is shorter than it was.
        let from = if from > size { 0 } else { from };
        file.seek(SeekFrom::Start(from.max(size.saturating_sub(MOST))))?;
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    #[test]
    fn a_small_log_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let limit = LogLimit {
            max_size: 10,
            max_files: 2,
        };
        assert!(!rotate(&path, limit).unwrap());
        fs::write(&path, "0123456789").unwrap();
        assert!(!rotate(&path, limit).unwrap());
    }

    #[test]
    fn an_open_log_is_cut_and_old_ones_move_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let limit = LogLimit {
            max_size: 4,
            max_files: 2,
        };
        let mut writer = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        for text in ["first", "second", "third."] {
            writer.write_all(text.as_bytes()).unwrap();
            assert!(rotate(&path, limit).unwrap());
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        assert_eq!(fs::read_to_string(numbered(&path, 1)).unwrap(), "ird.");
        assert_eq!(fs::read_to_string(numbered(&path, 2)).unwrap(), "cond");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        writer.write_all(b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn a_log_whose_end_cannot_be_kept_is_cut_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let limit = LogLimit {
            max_size: 4,
            max_files: 2,
        };
        for (number, text) in [(1, "one"), (2, "two")] {
            fs::write(numbered(&path, number), text).unwrap();
        }
        fs::write(&path, "too long").unwrap();
        // Nothing can be written there, whoever tries.
        fs::create_dir(numbered(&path, 0)).unwrap();
        assert!(rotate(&path, limit).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"");
        assert_eq!(fs::read_to_string(numbered(&path, 1)).unwrap(), "one");
    }

    #[test]
    fn the_next_look_comes_before_the_limit() {
        let limit = LogLimit {
            max_size: 1000,
            max_files: 1,
        };
        let second = Duration::from_secs(1);
        let growth = |grew, size| Growth {
            grew,
            within: second * 10,
            size,
        };
        assert_eq!(growth(0, 0).next_look(limit), None);
        assert_eq!(growth(100, 100).next_look(limit), Some(second * 90));
        assert_eq!(growth(100, 900).next_look(limit), Some(second * 10));
        assert_eq!(growth(1 << 40, 0).next_look(limit), Some(Duration::ZERO));
        let never = LogLimit {
            max_size: u64::MAX,
            max_files: 1,
        };
        assert_eq!(growth(1, 1).next_look(never), None);
    }

    #[test]
    fn the_tail_begins_where_this_life_began() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        fs::write(&path, "old\none\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&path, 4, 2), "two\nthree");
        assert_eq!(tail(&path, 4, 9), "one\ntwo\nthree");
        assert_eq!(tail(&path, 99, 1), "three");
        assert_eq!(tail(&dir.path().join("none"), 0, 3), "");
    }
}
