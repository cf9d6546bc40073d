//! What is kept on disk: a stack's folders, its lock, its history, memory worth keeping.
//!
//! Nothing here decides whether something runs: it may be lost at any time.

pub mod events;
pub mod history;
mod lock;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::lock::Lock;
use crate::driver::because;
use crate::graph::desired::Dirs;

/// The version of the files that are written here; others are not read.
const VERSION: u32 = 1;

/// The largest file that is read back, in bytes.
const LARGEST: u64 = 64 * 1024 * 1024;

const MEMORY: &str = "memory.json";

/// Where one goes that cannot be read.
const UNREADABLE: &str = "memory.json.unreadable";

/// Why a store cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another controller has the stack.
    #[error("stack `{stack}` is held by hatchery ({})", holder(*.pid))]
    Held {
        /// The stack.
        stack: String,
        /// The other controller's process, if it said so.
        pid: Option<u32>,
    },
    /// The name is none that a stack may have.
    #[error(
        "`{0}` cannot be a stack's name: letters, digits, `.`, `_` and `-` may stand in it, \
         a letter or digit first, at most 64 of them"
    )]
    Name(String),
    /// Somebody else's file or folder is in the way.
    #[error("cannot use `{}`: {reason}", .path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// The disk or the kernel refused.
    #[error("cannot {verb} `{}`: {}", .path.display(), because(.error))]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "pid unknown".to_owned(), |pid| format!("pid {pid}"))
}

type Result<T> = std::result::Result<T, StoreError>;

/// The folders that hold one folder for each stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// `$HATCHERY_RUN_DIR`, otherwise `/run/hatchery`.
    pub run: PathBuf,
    /// `$HATCHERY_STATE_DIR`, otherwise `/var/lib/hatchery`.
    pub state: PathBuf,
    /// `$HATCHERY_LOG_DIR`, otherwise `/var/log/hatchery`.
    pub log: PathBuf,
}

impl Roots {
    /// The folders that the environment names; `variable` reads it.
    pub fn new(variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let folder = |name: &str, default: &str| {
            variable(name)
                .filter(|path| path.is_absolute())
                .unwrap_or_else(|| default.into())
        };
        Roots {
            run: folder("HATCHERY_RUN_DIR", "/run/hatchery"),
            state: folder("HATCHERY_STATE_DIR", "/var/lib/hatchery"),
            log: folder("HATCHERY_LOG_DIR", "/var/log/hatchery"),
        }
    }

    /// The folders of one stack.
    pub fn dirs_for(&self, stack: &str) -> Dirs {
        Dirs {
            run: self.run.join(stack),
            state: self.state.join(stack),
            log: self.log.join(stack),
        }
    }

    /// Every stack that has left something here, by name.
    pub fn list_stacks(&self) -> Vec<Stack> {
        let mut names: Vec<String> = [&self.run, &self.state, &self.log]
            .into_iter()
            .flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten())
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_name(name))
            .collect();
        names.sort();
        names.dedup();
        names
            .into_iter()
            .map(|name| {
                let dirs = self.dirs_for(&name);
                Stack {
                    held_by: lock::holder(&dirs.run),
                    has_run_dir: dirs.run.is_dir(),
                    name,
                    dirs,
                }
            })
            .collect()
    }
}

/// A stack that has left something on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Its name.
    pub name: String,
    /// Its folders; each may be missing.
    pub dirs: Dirs,
    /// The process of its controller, if one runs; 0 when that has not told its number.
    pub held_by: Option<u32>,
    /// It was up since the machine started.
    pub has_run_dir: bool,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    content: T,
}

/// A stack's folders, held by this process until it ends or drops this.
#[derive(Debug)]
pub struct Store {
    dirs: Dirs,
    lock: Lock,
}

impl Store {
    /// Makes the folders and takes the lock. Only root may look into them; through the run folder
    /// workloads of any user reach the socket that they say they are ready on. What one that was
    /// killed had half written goes.
    ///
    /// # Errors
    /// [`StoreError::Held`] when another controller has the stack; otherwise what the disk
    /// or the kernel said.
    pub fn open(dirs: Dirs) -> Result<Self> {
        let stack = dirs.run.file_name().and_then(|name| name.to_str());
        let stack = stack.unwrap_or_default();
        if !is_name(stack) {
            return Err(StoreError::Name(stack.to_owned()));
        }
        let lock = Lock::take(&dirs.run, stack)?;
        for folder in [&dirs.state, &dirs.log] {
            private_folder(folder)?;
        }
        for folder in [
            dirs.state.clone(),
            history::folder(&dirs),
            git_folder(&dirs),
        ] {
            sweep(&folder);
        }
        Ok(Store { dirs, lock })
    }

    /// The folders.
    pub fn dirs(&self) -> &Dirs {
        &self.dirs
    }

    /// Keeps what the loop wants to know after a restart.
    ///
    /// # Errors
    /// What the disk said; what was kept before stays.
    pub fn save_memory<T: Serialize>(&self, memory: &T) -> Result<()> {
        // Made again, because somebody may have cleared the state while we run.
        private_folder(&self.dirs.state)?;
        save(&self.dirs.state.join(MEMORY), memory)
    }

    /// What was kept last, if anything was. What cannot be read is put aside, for the next save
    /// would replace it.
    ///
    /// # Errors
    /// In words, when it is torn or of another version: which file, why, and where it is now.
    pub fn load_memory<T: DeserializeOwned>(&self) -> std::result::Result<Option<T>, String> {
        let path = self.dirs.state.join(MEMORY);
        let why = match load(&path) {
            Ok(kept) => return Ok(Some(kept)),
            Err(why) => why,
        };
        let aside = self.dirs.state.join(UNREADABLE);
        match fs::rename(&path, &aside) {
            Ok(()) => Err(format!(
                "cannot read `{}`: {why}; what was stopped by hand and told to reload commands is \
                 forgotten; the file is kept as `{}`",
                path.display(),
                aside.display()
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!(
                "cannot read `{}`: {why}; nor can it be put aside: {}",
                path.display(),
                because(&error)
            )),
        }
    }

    /// Removes what a stack that is down needs no more: its run folder, the lock last.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn close(self) -> Result<()> {
        empty_folder(&self.dirs.run, Some(self.lock.path()))?;
        self.lock.remove()?;
        match fs::remove_dir(&self.dirs.run) {
            // Somebody may have opened the stack again already.
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Err(trouble("remove", &self.dirs.run)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes all of it: logs and state too.
    ///
    /// # Errors
    /// What the kernel said; what could not be removed stays for the next try.
    pub fn purge(self) -> Result<()> {
        for folder in [&self.dirs.state, &self.dirs.log] {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(trouble("remove", folder)(error));
                }
                _ => {}
            }
        }
        self.close()
    }
}

/// Writes a value with the version of its form.
fn save<T: Serialize>(path: &Path, content: &T) -> Result<()> {
    let versioned = Versioned {
        version: VERSION,
        content,
    };
    let text = serde_json::to_vec(&versioned).map_err(|error| trouble("write", path)(error.into()));
    replace(path, &text?)
}

/// Where a stack keeps what it knows of the repository that it follows.
pub fn git_folder(dirs: &Dirs) -> PathBuf {
    dirs.state.join("git")
}

/// How the names of files begin that are not written to their end yet.
const UNFINISHED: &str = ".tmp";

/// Removes what one that was killed had not written to its end. Only for who holds the lock of the
/// stack: nobody else writes there who will have it. What cannot be removed is tried again by the
/// next one.
fn sweep(folder: &Path) {
    // Nothing of ours lies where a symlink leads.
    if !folder.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let unfinished = name.to_string_lossy().starts_with(UNFINISHED);
        if unfinished && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Writes a file whole or not at all, readable by nobody else; it is on the disk afterwards.
/// What was there before is replaced, a symlink too. In the state of a stack, what is left of it
/// when this process is killed goes when the stack is opened again.
///
/// # Errors
/// What the disk said; what was there before stays.
pub fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let write = || -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(folder)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(trouble("write", path))
}

/// Opens a regular file of ours for reading: nothing that a symlink leads to, nothing that blocks.
fn open_plain(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// What a stack's loop kept last, for those who do not hold it.
pub fn saved_memory<T: DeserializeOwned>(dirs: &Dirs) -> Option<T> {
    load(&dirs.state.join(MEMORY)).ok()
}

/// Reads a value back; the error says why not.
fn load<T: DeserializeOwned>(path: &Path) -> std::result::Result<T, String> {
    let mut text = Vec::new();
    open_plain(path)
        .and_then(|file| file.take(LARGEST).read_to_end(&mut text))
        .map_err(|error| because(&error))?;
    // The version first: another one's content need not be understood.
    let broken = |error: serde_json::Error| format!("it is broken: {error}");
    let versioned: Versioned<serde_json::Value> = serde_json::from_slice(&text).map_err(broken)?;
    if versioned.version != VERSION {
        return Err("another version of hatchery wrote it".to_owned());
    }
    serde_json::from_value(versioned.content).map_err(broken)
}

/// Whether a stack may be called so; it becomes part of paths.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 64
        && bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Makes a folder that only root may enter.
fn private_folder(path: &Path) -> Result<()> {
    own_folder(path, 0o700)
}

/// Makes a folder of root's with this mode, in folders that everybody may enter.
fn own_folder(path: &Path, mode: u32) -> Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(trouble("make", parent))?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(trouble("make", path)(error));
        }
        _ => {}
    }
    let metadata = path.symlink_metadata().map_err(trouble("look at", path))?;
    let unusable = |reason| StoreError::Unusable {
        path: path.to_owned(),
        reason,
    };
    if !metadata.is_dir() {
        return Err(unusable("it is not a folder; remove it"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(unusable("it belongs to another user; remove it"));
    }
    if metadata.mode() & 0o777 != mode {
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(trouble("close to others", path))?;
    }
    Ok(())
}

fn empty_folder(folder: &Path, but: Option<&Path>) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(trouble("read", folder))?;
    for entry in entries {
        let entry = entry.map_err(trouble("read", folder))?;
        let path = entry.path();
        if but == Some(path.as_path()) {
            continue;
        }
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = match is_folder {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(trouble("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn trouble(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::Io { verb, path, error }
}
