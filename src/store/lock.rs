//! One controller per stack: `lock` in the run folder, locked through its open file description
//! (`F_OFD_SETLK`, fcntl(2)): the kernel lets it go when its holder dies, however it dies, and
//! others can ask about it without taking it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::{Result, StoreError, own_folder, trouble};

/// How often a lock file that was removed under our hands is made again.
const TRIES: u32 = 100;

/// A child of a holder that just died has a copy of the lock until its exec: the lock counts as
/// held only when it is so for [`GRACE`] tries.
const GRACE: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// The mode of the run folder: everybody may pass to what he knows by name, which is the socket
/// that workloads say they are ready on; all else in it is closed to others itself.
const PASSABLE: u32 = 0o711;

/// The lock of a stack, held.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes it, making the folder first.
    pub(super) fn take(run: &Path, stack: &str) -> Result<Self> {
        let path = run.join("lock");
        for attempt in 0..TRIES {
            own_folder(run, PASSABLE)?;
            let mut file = match open(&path) {
                Ok(file) => file,
                // The one before us removes the folder just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(trouble("open", &path)(error)),
            };
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole())) {
                Ok(_) => {}
                Err(Errno::EAGAIN | Errno::EACCES) if attempt < GRACE => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(Errno::EAGAIN | Errno::EACCES) => {
                    return Err(StoreError::Held {
                        stack: stack.to_owned(),
                        pid: read_pid(&mut file),
                    });
                }
                Err(errno) => return Err(trouble("lock", &path)(errno.into())),
            }
            // A holder that ends removes the file; then what we locked is no longer the one
            // that others find under this name.
            if is_still(&file, &path) {
                write_pid(&mut file).map_err(trouble("write", &path))?;
                return Ok(Lock { file, path });
            }
        }
        let error = io::Error::other("others keep removing it");
        Err(trouble("lock", &path)(error))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, then lets go.
    pub(super) fn remove(&self) -> Result<()> {
        if !is_still(&self.file, &self.path) {
            return Ok(());
        }
        fs::remove_file(&self.path).map_err(trouble("remove", &self.path))
    }
}

/// Who holds the lock of this run folder: `None` when nobody does, 0 when it has not written
/// its number.
pub(super) fn holder(run: &Path) -> Option<u32> {
    let mut file = File::open(run.join("lock")).ok()?;
    let mut lock = whole();
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).ok()?;
    let free = i32::from(lock.l_type) == libc::F_UNLCK;
    (!free).then(|| read_pid(&mut file).unwrap_or(0))
}

/// A lock for writing, over the whole file.
fn whole() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

fn is_still(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (file.metadata(), path.symlink_metadata()) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
