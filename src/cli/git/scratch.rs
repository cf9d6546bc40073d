//! Folders for those who only look at a repository.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::cli::error::CommandError;
use crate::cli::wiring;

/// How the names of such folders begin.
const PREFIX: &str = ".git-";
/// Whoever makes one locks it well within this time.
const TO_LOCK: Duration = Duration::from_secs(60);

/// A folder that goes when it is dropped. Its maker holds a lock on it, so that one whose maker
/// was killed is known to be nobody's.
#[derive(Debug)]
pub struct Scratch {
    folder: tempfile::TempDir,
    _lock: File,
}

impl Scratch {
    /// One that only we may enter: where our state is, or wherever who only looks may write.
    ///
    /// # Errors
    /// When it can be made in neither place.
    pub fn new() -> Result<Scratch, CommandError> {
        let root = wiring::roots().state;
        sweep(&root, TO_LOCK);
        let temporary = std::env::temp_dir();
        let made = fs::create_dir_all(&root)
            .and_then(|()| made_in(&root))
            .or_else(|_| made_in(&temporary));
        made.map_err(|error| {
            CommandError::new(format!(
                "cannot make a folder in `{}` or `{}`",
                root.display(),
                temporary.display()
            ))
            .because(&error)
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn made_in(root: &Path) -> io::Result<Scratch> {
    let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(root)?;
    let lock = File::open(folder.path())?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    Ok(Scratch {
        folder,
        _lock: lock,
    })
}

/// Removes what those left behind who were killed. What cannot be removed is tried again by the
/// next one.
fn sweep(root: &Path, to_lock: Duration) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let named = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_folder && named && is_left(&entry.path(), to_lock).unwrap_or(false) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_left(folder: &Path, to_lock: Duration) -> io::Result<bool> {
    let lock = File::open(folder)?;
    let found = lock.metadata()?;
    let age = found.modified()?.elapsed().unwrap_or_default();
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    Ok(ours && age >= to_lock && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_somebody_who_was_killed_left_is_swept_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let at_work = made_in(root.path()).unwrap();
        let left = root.path().join(".git-left");
        fs::create_dir_all(left.join("mirror.git/objects")).unwrap();
        let others = root.path().join("prime/git");
        fs::create_dir_all(&others).unwrap();
        sweep(root.path(), TO_LOCK);
        assert!(left.exists(), "it may be locked yet");
        sweep(root.path(), Duration::ZERO);
        assert!(!left.exists());
        assert!(at_work.path().exists() && others.exists());
        let path = at_work.path().to_owned();
        drop(at_work);
        assert!(!path.exists());
    }
}
