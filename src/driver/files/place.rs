//! A name in an open folder: what is there is looked at, replaced and removed without ever
//! following a link at the name itself.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::{MARK, failed, is_missing, owner, read_mark};
use crate::driver::because::because;
use crate::driver::{DriverError, ErrorKind, NewFile, Result};
use crate::plan::world::FileMark;

/// Where a file is, or will be.
pub(super) struct Place {
    folder: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl Place {
    /// The place of `path`; folders on the way to it are made.
    pub(super) fn make(path: &Path) -> Result<Self> {
        let (parent, _) = split(path)?;
        if !parent.is_dir() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(|error| cannot("make the folder of", path, &error))?;
        }
        Place::find(path)?.ok_or_else(|| {
            let error = io::Error::from(io::ErrorKind::NotFound);
            cannot("open the folder of", path, &error)
        })
    }

    /// The place of `path`, unless its folder does not exist.
    pub(super) fn find(path: &Path) -> Result<Option<Self>> {
        let (parent, name) = split(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(parent, flags, Mode::empty()) {
            Ok(folder) => Ok(Some(Place {
                folder,
                name: name.to_owned(),
                path: path.to_owned(),
            })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(cannot("open the folder of", path, &errno.into())),
        }
    }

    /// Opens what is there; only a regular file is anything that we would replace.
    fn open(&self) -> Result<Option<File>> {
        let stat = match rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(cannot("look at", &self.path, &errno.into())),
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.open_regular(),
            FileType::Symlink => "a symbolic link",
            FileType::Directory => "a folder",
            _ => "a device, pipe or socket",
        };
        Err(self.foreign(&format!("is {kind}")))
    }

    fn open_regular(&self) -> Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.folder, &self.name, flags, Mode::empty()) {
            Ok(file) => Ok(Some(File::from(file))),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => Err(self.foreign("is a symbolic link")),
            Err(errno) => Err(cannot("open", &self.path, &errno.into())),
        }
    }

    fn foreign(&self, how: &str) -> DriverError {
        failed(
            ErrorKind::Foreign,
            format!(
                "`{}` {how}; remove it or choose another destination",
                self.path.display()
            ),
        )
    }

    /// Nothing is there, or a regular file.
    pub(super) fn must_be_plain(&self) -> Result<()> {
        self.open().map(drop)
    }

    /// Nothing is there, or a file of the same stack, or the very same text.
    pub(super) fn must_be_free_for(&self, new: &NewFile) -> Result<()> {
        let Some(file) = self.open()? else {
            return Ok(());
        };
        match (read_mark(&file), &new.mark) {
            (Some(old), Some(mark)) if old.stack == mark.stack => Ok(()),
            (Some(old), _) => Err(self.foreign(&format!("belongs to the stack `{}`", old.stack))),
            (None, _) if holds(file, &new.content) => Ok(()),
            (None, _) => Err(self.foreign("exists and was not written by hatchery")),
        }
    }

    /// A fixed name, so that what an interrupted write left is found by the next one, and by
    /// whoever removes the file; the dot keeps it out of patterns such as `conf.d/*`.
    fn temporary(&self) -> OsString {
        let mut name = OsString::from(".hatchery-");
        if self.name.len() <= 200 {
            name.push(&self.name);
        } else {
            name.push(blake3::hash(self.name.as_bytes()).to_hex().as_str());
        }
        name
    }

    /// Puts the file there in one step.
    pub(super) fn replace(&self, new: &NewFile) -> Result<()> {
        let owner = match &new.owner {
            Some(owner) => Some(owner::resolve(owner).map_err(|reason| {
                failed(
                    ErrorKind::Failed,
                    format!("cannot write `{}`: {reason}", self.path.display()),
                )
            })?),
            None if rustix::process::geteuid().is_root() => Some((0, 0)),
            None => None,
        };
        let temporary = self.temporary();
        let made = self.fill(&temporary, new, owner).and_then(|()| {
            rustix::fs::renameat(&self.folder, &temporary, &self.folder, &self.name)
                .map_err(|errno| cannot("write", &self.path, &errno.into()))
        });
        if made.is_err() {
            // The first error is the one to tell; the next write removes what stays.
            let _ = rustix::fs::unlinkat(&self.folder, &temporary, AtFlags::empty());
        }
        made?;
        self.sync()
    }

    fn fill(&self, temporary: &OsStr, new: &NewFile, owner: Option<(u32, u32)>) -> Result<()> {
        let failing = |error: io::Error| cannot("write", &self.path, &error);
        let refused = |errno: Errno| failing(errno.into());
        match rustix::fs::unlinkat(&self.folder, temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(refused(errno)),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(
            &self.folder,
            temporary,
            flags | OFlags::NOFOLLOW,
            Mode::RUSR | Mode::WUSR,
        )
        .map_err(refused)?;
        let mut file = File::from(file);
        file.write_all(new.content.as_bytes()).map_err(failing)?;
        if let Some((uid, gid)) = owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(refused)?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(new.mode & 0o7777)).map_err(refused)?;
        if let Some(mark) = &new.mark {
            self.mark(&file, mark)?;
        }
        file.sync_all().map_err(failing)
    }

    fn mark(&self, file: &File, mark: &FileMark) -> Result<()> {
        let text = serde_json::to_vec(mark)
            .map_err(|error| cannot("mark", &self.path, &io::Error::other(error)))?;
        match rustix::fs::fsetxattr(file, MARK, &text, XattrFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP) => Err(failed(
                ErrorKind::Failed,
                format!(
                    "cannot mark `{}` as ours: its file system keeps no trusted extended \
                     attributes; choose a destination on ext4, xfs, btrfs or tmpfs",
                    self.path.display()
                ),
            )),
            Err(Errno::PERM) => Err(failed(
                ErrorKind::Failed,
                format!(
                    "cannot mark `{}` as ours: trusted extended attributes need \
                     CAP_SYS_ADMIN; run hatchery as root",
                    self.path.display()
                ),
            )),
            Err(errno) => Err(cannot("mark", &self.path, &errno.into())),
        }
    }

    /// Changes the content and keeps the inode.
    pub(super) fn rewrite(&self, content: &str) -> Result<()> {
        self.must_be_plain()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mode = Mode::from_raw_mode(0o644);
        let file = rustix::fs::openat(&self.folder, &self.name, flags | OFlags::CLOEXEC, mode)
            .map_err(|errno| cannot("rewrite", &self.path, &errno.into()))?;
        let mut file = File::from(file);
        if holds(&mut file, content) {
            return Ok(());
        }
        // The old text stays whole under the new one until the cut, so that a reader in
        // between finds no empty file.
        file.write_all_at(content.as_bytes(), 0)
            .and_then(|()| file.set_len(content.len() as u64))
            .map_err(|error| cannot("rewrite", &self.path, &error))
    }

    /// Removes it, and what an interrupted write left beside it; given a stack, only a file that
    /// carries its mark.
    pub(super) fn remove(&self, stack: Option<&str>) -> Result<()> {
        let found = self.open()?;
        if let (Some(file), Some(stack)) = (&found, stack) {
            match read_mark(file) {
                Some(mark) if mark.stack == stack => {}
                Some(mark) => return Err(self.stays(&format!("stack `{}`", mark.stack))),
                None => return Err(self.stays("somebody else")),
            }
        }
        // Before the file, which is seen and removed again when we are killed in between.
        self.remove_unfinished(stack)?;
        if found.is_none() {
            return Ok(());
        }
        match rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => self.sync(),
            Err(errno) => Err(cannot("remove", &self.path, &errno.into())),
        }
    }

    /// Removes what an interrupted write left; given a stack, nothing that carries the mark of
    /// another one. One that was cut off early carries none.
    pub(super) fn remove_unfinished(&self, stack: Option<&str>) -> Result<()> {
        let refused = |errno: Errno| {
            let error = errno.into();
            cannot("remove what was left of a write to", &self.path, &error)
        };
        let temporary = self.temporary();
        match rustix::fs::statat(&self.folder, &temporary, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {}
            // We write regular files only.
            Ok(_) | Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(refused(errno)),
        }
        if let Some(stack) = stack {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&self.folder, &temporary, flags, Mode::empty());
            let mark = file.ok().and_then(read_mark);
            if mark.is_some_and(|mark| mark.stack != stack) {
                return Ok(());
            }
        }
        match rustix::fs::unlinkat(&self.folder, &temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(refused(errno)),
        }
    }

    fn stays(&self, whose: &str) -> DriverError {
        failed(
            ErrorKind::Foreign,
            format!(
                "cannot remove `{}`: it carries no mark of this stack, it belongs to {whose}",
                self.path.display()
            ),
        )
    }

    fn sync(&self) -> Result<()> {
        match rustix::fs::fsync(&self.folder) {
            // Some file systems cannot sync a folder; they have nothing to lose by it.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(cannot("sync the folder of", &self.path, &errno.into())),
        }
    }
}

fn split(path: &Path) -> Result<(&Path, &OsStr)> {
    match (path.is_absolute(), path.parent(), path.file_name()) {
        (true, Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(failed(
            ErrorKind::Failed,
            format!("`{}` is not an absolute path of a file", path.display()),
        )),
    }
}

fn holds(file: impl Read, content: &str) -> bool {
    let mut bytes = Vec::new();
    let limit = (content.len() as u64).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).is_ok() && bytes == content.as_bytes()
}

fn cannot(verb: &str, path: &Path, error: &io::Error) -> DriverError {
    let kind = match is_missing(error) {
        true => ErrorKind::Gone,
        false => ErrorKind::Failed,
    };
    failed(
        kind,
        format!("cannot {verb} `{}`: {}", path.display(), because(error)),
    )
}
