//! A program's file in a shape that those who run from it cannot change.
//!
//! Who replaces a container's program by a script `#!/proc/self/exe` has our own file executed
//! inside, with a loader of his choice, and `/proc/self/exe` names the host's inode: he opens it
//! for writing, or takes its mode away. So what enters a container runs from a read-only mount
//! of the file, which costs no memory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// An open file on a read-only mount that nobody can reach, or change, in any other way.
#[derive(Debug)]
pub struct Unwritable(File);

impl Unwritable {
    /// Opens the file at `path`, of which the mount must be one of our mount namespace; the file
    /// itself may be deleted already.
    ///
    /// # Errors
    /// What the kernel said; it is asked for mounts without a place (5.12).
    pub fn open(path: &Path) -> io::Result<Self> {
        let original = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(path)?;
        let mount = cloned(&original)?;
        restrict(&mount)?;
        let file = File::open(by_number(&mount))?;
        // With its descriptor the mount leaves its namespace, and then no namespace's owner may
        // take `read-only` away from it. The open file keeps it.
        drop(mount);
        Ok(Unwritable(file))
    }

    /// Where this process and its children find it.
    pub fn path(&self) -> PathBuf {
        by_number(&self.0)
    }
}

fn by_number(file: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A mount of one file that is nowhere in the tree.
fn cloned(file: &File) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned();
    // SAFETY: the path is an empty string that lives through the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            file.as_raw_fd(),
            c"".as_ptr(),
            flags | libc::AT_EMPTY_PATH.cast_unsigned(),
        )
    };
    let number = i32::try_from(checked(answer)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn restrict(mount: &OwnedFd) -> io::Result<()> {
    let change = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: both pointers live through the call, and the size is that of what is pointed to.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    checked(answer).map(drop)
}

fn checked(answer: libc::c_long) -> io::Result<libc::c_long> {
    match answer {
        0.. => Ok(answer),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    /// Both are what a payload would try, with all of root's rights and more than it has.
    fn assert_unwritable(file: &Unwritable) {
        let refused = |outcome: io::Result<()>| outcome.unwrap_err().raw_os_error();
        let written = OpenOptions::new().write(true).open(file.path()).map(drop);
        assert_eq!(refused(written), Some(libc::EROFS));
        let mode = fs::set_permissions(file.path(), Permissions::from_mode(0o4777));
        assert_eq!(refused(mode), Some(libc::EROFS));
        let mount = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(file.path())
            .unwrap();
        assert_eq!(refused(restrict(&mount.into())), Some(libc::EINVAL));
    }

    #[test]
    fn a_program_runs_and_cannot_be_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("true");
        fs::copy("/bin/true", &path).unwrap();
        let file = Unwritable::open(&path).unwrap();
        assert_unwritable(&file);
        assert!(Command::new(file.path()).status().unwrap().success());
        // An upgrade replaces the file, and one from before it is opened by its process.
        fs::remove_file(&path).unwrap();
        assert_unwritable(&file);
        assert!(Command::new(file.path()).status().unwrap().success());
    }

    #[test]
    fn a_program_that_was_deleted_can_be_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sleep");
        fs::copy("/bin/sleep", &path).unwrap();
        let mut running = Command::new(&path).arg("30").spawn().unwrap();
        fs::remove_file(&path).unwrap();
        let own = PathBuf::from(format!("/proc/{}/exe", running.id()));
        let file = Unwritable::open(&own).unwrap();
        running.kill().unwrap();
        running.wait().unwrap();
        assert_unwritable(&file);
        let status = Command::new(file.path()).arg("0").status().unwrap();
        assert!(status.success());
    }
}
