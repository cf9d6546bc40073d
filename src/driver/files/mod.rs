//! Files of the host: those that we watch, and those that we write.
//!
//! Whose a file is stands on the file itself, in the extended attribute [`MARK`]. What does
//! not carry it is somebody else's, and is neither replaced nor removed.

mod owner;
mod place;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};

use self::place::Place;
use super::because::because;
use super::{DriverError, ErrorKind, Files, NewFile, Result};
use crate::graph::desired::Dirs;
use crate::plan::world::{FileMark, FileView};

pub(crate) use self::owner::resolve as resolve_owner;

/// The extended attribute that says whose a file is; its value is a [`FileMark`] as JSON.
pub const MARK: &str = "trusted.hatchery";

/// The largest file that is looked at, in bytes.
pub const LARGEST: u64 = 64 * 1024 * 1024;

/// So many entries of a folder are looked at.
const NAMES: usize = 10_000;

/// How many files are remembered between two looks.
const REMEMBERED: usize = 4096;

/// A file that changed so recently may change again without its times showing it: the
/// kernel's file times move in steps of up to 10 ms.
const SETTLED: Duration = Duration::from_millis(50);

/// The host's files.
#[derive(Debug, Default)]
pub struct HostFiles {
    own: Vec<PathBuf>,
    seen: Mutex<HashMap<PathBuf, (Stamp, FileView)>>,
}

/// What differs whenever a file's content or mark does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    linked: bool,
}

impl Stamp {
    fn of(metadata: &Metadata, linked: bool) -> Self {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            linked,
        }
    }

    /// Whether a later change is sure to give another stamp.
    fn is_settled(&self, now: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanos)) =
            (u64::try_from(self.changed.0), u32::try_from(self.changed.1))
        else {
            return false;
        };
        let changed = UNIX_EPOCH + Duration::new(seconds, nanos);
        now.duration_since(changed).is_ok_and(|age| age > SETTLED)
    }
}

impl HostFiles {
    /// The host's files, as the stack with these folders sees them: in them it may write and
    /// remove without a mark.
    pub fn new(dirs: &Dirs) -> Self {
        HostFiles {
            own: vec![dirs.run.clone(), dirs.state.clone(), dirs.log.clone()],
            seen: Mutex::default(),
        }
    }

    /// Removes what a write to `path` left beside it that was killed, unless it carries the mark
    /// of another stack. Only for who holds the stack and does not write: a write that is under
    /// way would fail.
    ///
    /// # Errors
    /// What the disk said.
    pub fn remove_unfinished(&self, path: &Path, stack: &str) -> Result<()> {
        match Place::find(path)? {
            Some(place) => place.remove_unfinished((!self.is_own(path)).then_some(stack)),
            None => Ok(()),
        }
    }

    fn is_own(&self, path: &Path) -> bool {
        let plain = path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        plain && self.own.iter().any(|folder| path.starts_with(folder))
    }

    fn remembered(&self, path: &Path, stamp: Stamp) -> Option<FileView> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, view) = seen.get(path)?;
        (*old == stamp).then(|| view.clone())
    }

    fn remember(&self, path: &Path, stamp: Stamp, view: &FileView) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        seen.insert(path.to_owned(), (stamp, view.clone()));
    }

    fn examine(&self, path: &Path) -> io::Result<FileView> {
        let linked = path.symlink_metadata()?.is_symlink();
        let metadata = path.metadata()?;
        if let Some(refusal) = refusal(path, &metadata) {
            return Ok(FileView::Unreadable(refusal));
        }
        if let Some(view) = self.remembered(path, Stamp::of(&metadata, linked)) {
            return Ok(view);
        }
        let now = SystemTime::now();
        let file = open_quietly(path)?;
        let before = file.metadata()?;
        if let Some(refusal) = refusal(path, &before) {
            return Ok(FileView::Unreadable(refusal));
        }
        let Some(hash) = hash(&file)? else {
            return Ok(FileView::Unreadable(too_large(path)));
        };
        let view = FileView::File {
            hash,
            // The mark of a link's target says nothing about the link.
            mark: if linked { None } else { read_mark(&file) },
            mode: before.mode() & 0o7777,
        };
        let stamp = Stamp::of(&before, linked);
        let unchanged = Stamp::of(&file.metadata()?, linked) == stamp;
        if unchanged && stamp.is_settled(now) {
            self.remember(path, stamp, &view);
        }
        Ok(view)
    }
}

impl Files for HostFiles {
    /// Symlinks are followed, because watched files may be links that are swapped; what is
    /// seen through one never carries a mark.
    fn look(&self, path: &Path) -> FileView {
        match self.examine(path) {
            Ok(view) => view,
            Err(error) if is_missing(&error) => FileView::Missing,
            Err(error) => FileView::Unreadable(format!(
                "cannot read `{}`: {}",
                path.display(),
                because(&error)
            )),
        }
    }

    fn read(&self, path: &Path, limit: u64) -> Result<String> {
        let cannot = |error: io::Error| {
            let kind = match is_missing(&error) {
                true => ErrorKind::Gone,
                false => ErrorKind::Failed,
            };
            failed(
                kind,
                format!("cannot read `{}`: {}", path.display(), because(&error)),
            )
        };
        let file = open_quietly(path).map_err(cannot)?;
        if !file.metadata().map_err(cannot)?.is_file() {
            return Err(cannot(io::Error::other("it is not a regular file")));
        }
        let mut bytes = Vec::new();
        (&file)
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(cannot)?;
        if bytes.len() as u64 > limit {
            return Err(cannot(io::Error::other(format!(
                "it is larger than {limit} bytes"
            ))));
        }
        String::from_utf8(bytes).map_err(|error| {
            let place = error.utf8_error().valid_up_to();
            cannot(io::Error::other(format!(
                "it is not UTF-8 text from byte {place} on"
            )))
        })
    }

    fn names(&self, folder: &Path) -> Result<Vec<String>> {
        let cannot = |error: io::Error| {
            let folder = folder.display();
            let message = format!("cannot read the folder `{folder}`: {}", because(&error));
            failed(ErrorKind::Failed, message)
        };
        let entries = std::fs::read_dir(folder).map_err(cannot)?;
        let mut names = Vec::new();
        for entry in entries.take(NAMES) {
            names.extend(entry.map_err(cannot)?.file_name().into_string());
        }
        Ok(names)
    }

    fn write(&self, file: &NewFile) -> Result<()> {
        let place = Place::make(&file.path)?;
        if !self.is_own(&file.path) {
            place.must_be_free_for(file)?;
        } else {
            place.must_be_plain()?;
        }
        place.replace(file)
    }

    fn rewrite(&self, path: &Path, content: &str) -> Result<()> {
        Place::make(path)?.rewrite(content)
    }

    fn remove(&self, path: &Path, stack: &str) -> Result<()> {
        match Place::find(path)? {
            Some(place) => place.remove((!self.is_own(path)).then_some(stack)),
            None => Ok(()),
        }
    }
}

fn failed(kind: ErrorKind, message: String) -> DriverError {
    DriverError { message, kind }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Why a file of this kind or size is not read.
fn refusal(path: &Path, metadata: &Metadata) -> Option<String> {
    if metadata.is_file() {
        return (metadata.size() > LARGEST).then(|| too_large(path));
    }
    let kind = match metadata.is_dir() {
        true => "a folder",
        false => "a device, pipe or socket",
    };
    Some(format!(
        "cannot read `{}`: it is {kind}, not a regular file",
        path.display()
    ))
}

fn too_large(path: &Path) -> String {
    format!(
        "cannot read `{}`: it is larger than 64 MiB; watch a smaller file",
        path.display()
    )
}

/// Opens for reading without waiting on a pipe's other end or taking a terminal.
fn open_quietly(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// blake3 of all of it in hex; `None` when it grew beyond [`LARGEST`].
fn hash(mut file: &File) -> io::Result<Option<String>> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0u64;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(hasher.finalize().to_hex().to_string())),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        total = total.saturating_add(count as u64);
        if total > LARGEST {
            return Ok(None);
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
}

/// The mark on an open file. One that cannot be read or understood is no mark of ours.
fn read_mark(file: impl AsFd) -> Option<FileMark> {
    let mut buffer = [0u8; 4096];
    let count = rustix::fs::fgetxattr(file, MARK, &mut buffer[..]).ok()?;
    serde_json::from_slice(buffer.get(..count)?).ok()
}
