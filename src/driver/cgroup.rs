//! Control groups as plain files: where they are mounted, and what the kernel says in them.
//!
//! Only v2 counts. On hybrid systems v1's `name=systemd` hierarchy is mirrored, because
//! systemd-nspawn expects the same path in both.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{DriverError, ErrorKind as Kind};

/// How many processes of one cgroup are looked at; a fork bomb is not listed in full.
const MOST_PROCESSES: usize = 4096;

/// How deep a workload's cgroups may go: a system that starts systems of its own needs some tens
/// of levels.
const MOST_DEPTH: usize = 64;

/// How many cgroups a workload may make: a system with thousands of services has as many.
const MOST_DESCENDANTS: usize = 8192;

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    /// Where it is mounted.
    mount: PathBuf,
    /// Which cgroup of the hierarchy the mount shows as its root.
    root: String,
}

impl Hierarchy {
    /// The folder of a cgroup as `/proc/PID/cgroup` names it, if this mount shows it.
    fn folder(&self, named: &str) -> Option<PathBuf> {
        let below = match self.root.as_str() {
            "/" => named,
            root => named.strip_prefix(root)?,
        };
        if !below.is_empty() && !below.starts_with('/') || below.split('/').any(|p| p == "..") {
            return None;
        }
        Some(self.mount.join(below.trim_start_matches('/')))
    }
}

/// The hierarchies of this machine, or of the part of it that we see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    v2: Hierarchy,
    named: Option<Hierarchy>,
}

impl Cgroups {
    /// Finds them in `/proc/self/mountinfo`.
    ///
    /// # Errors
    /// When no cgroup v2 is mounted.
    pub fn find() -> super::Result<Self> {
        let table = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| failed(format!("cannot read `/proc/self/mountinfo`: {error}")))?;
        Cgroups::parse(&table).ok_or_else(|| {
            failed(
                "cannot find cgroup v2 among the mounts: mount it, for instance with \
                 `mount -t cgroup2 cgroup2 /sys/fs/cgroup`"
                    .to_owned(),
            )
        })
    }

    /// Reads the text of a `mountinfo` file (proc(5)).
    fn parse(table: &str) -> Option<Self> {
        let mut unified: Vec<Hierarchy> = Vec::new();
        let mut named = None;
        for line in table.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(mount)) = (left.next(), left.next()) else {
                continue;
            };
            let mut right = right.split(' ');
            let kind = right.next().unwrap_or_default();
            let options = right.nth(1).unwrap_or_default();
            let hierarchy = Hierarchy {
                mount: PathBuf::from(unescape(mount)),
                root: unescape(root),
            };
            if kind == "cgroup2" {
                unified.push(hierarchy);
            } else if kind == "cgroup" && options.split(',').any(|o| o == "name=systemd") {
                named.get_or_insert(hierarchy);
            }
        }
        let usual = unified
            .iter()
            .position(|h| h.mount.starts_with("/sys/fs/cgroup"))
            .unwrap_or(0);
        let v2 = (usual < unified.len()).then(|| unified.swap_remove(usual))?;
        Some(Cgroups { v2, named })
    }

    /// Where v2 is mounted.
    pub fn mount(&self) -> &Path {
        &self.v2.mount
    }

    /// The folder of `relative` in v2.
    pub fn folder(&self, relative: &Path) -> PathBuf {
        self.v2.mount.join(relative)
    }

    /// The folders of `relative`: v2 first, then v1's `name=systemd` where there is one.
    pub fn folders(&self, relative: &Path) -> Vec<PathBuf> {
        let mut folders = vec![self.folder(relative)];
        if let Some(named) = &self.named {
            folders.push(named.mount.join(relative));
        }
        folders
    }

    /// Makes the cgroup `relative` in each hierarchy.
    ///
    /// # Errors
    /// What the kernel said, with the folder.
    pub fn create(&self, relative: &Path) -> super::Result<()> {
        for folder in self.folders(relative) {
            create_all(&folder).map_err(|error| {
                failed(format!(
                    "cannot make the cgroup `{}`: {error}",
                    folder.display()
                ))
            })?;
        }
        Ok(())
    }

    /// Removes the cgroup `relative` and all below it in each hierarchy; none being there is fine.
    ///
    /// # Errors
    /// When something still runs in it.
    pub fn remove(&self, relative: &Path) -> super::Result<()> {
        // v2's goes last: it is what the next controller sees, should this one be killed here.
        for folder in self.folders(relative).into_iter().rev() {
            remove_tree(&folder).map_err(|error| {
                failed(format!(
                    "cannot remove the cgroup `{}`: {error}",
                    folder.display()
                ))
            })?;
        }
        Ok(())
    }

    /// The v2 cgroup that a process is in.
    ///
    /// # Errors
    /// When the process is gone, or its cgroup is outside of what we see.
    pub fn of_process(&self, pid: i32) -> io::Result<PathBuf> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        text.lines()
            .find_map(|line| line.strip_prefix("0::"))
            .and_then(|named| self.v2.folder(named))
            .ok_or_else(|| io::Error::new(ErrorKind::NotFound, "its cgroup is not in sight"))
    }

    /// The folders of all hierarchies that a process is in, of those that we mirror.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn all_of_process(&self, pid: i32) -> io::Result<Vec<PathBuf>> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let mut folders = Vec::new();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(named)) = (fields.next(), fields.next()) else {
                continue;
            };
            let hierarchy = match controllers {
                "" => Some(&self.v2),
                "name=systemd" => self.named.as_ref(),
                _ => None,
            };
            folders.extend(hierarchy.and_then(|hierarchy| hierarchy.folder(named)));
        }
        Ok(folders)
    }
}

/// Moves the calling process into a cgroup.
///
/// # Errors
/// What the kernel said.
pub fn enter(folder: &Path) -> io::Result<()> {
    fs::write(folder.join("cgroup.procs"), "0")
}

/// Bounds what can be made below a v2 cgroup, so that it can be looked through and removed.
///
/// # Errors
/// What the kernel said.
pub fn bound(folder: &Path) -> io::Result<()> {
    let write = |name: &str, most: usize| fs::write(folder.join(name), most.to_string());
    write("cgroup.max.depth", MOST_DEPTH)?;
    write("cgroup.max.descendants", MOST_DESCENDANTS)
}

/// Whether anything runs in a v2 cgroup or below it; one that is not there is empty.
///
/// When the kernel cannot be asked (no file descriptor is left, say) the answer is yes: a
/// workload wrongly believed dead would be started a second time.
pub fn populated(folder: &Path) -> bool {
    match fs::read_to_string(folder.join("cgroup.events")) {
        Ok(text) => !text.lines().any(|line| line == "populated 0"),
        Err(error) => {
            error.kind() != ErrorKind::NotFound && error.raw_os_error() != Some(libc::ENODEV)
        }
    }
}

/// Kills every process of a v2 cgroup and below it (kernel 5.14); one that is gone is fine.
///
/// # Errors
/// When the kernel refuses.
pub fn kill(folder: &Path) -> io::Result<()> {
    match fs::write(folder.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == ErrorKind::NotFound && !folder.exists() => Ok(()),
        other => other,
    }
}

/// The processes of a v2 cgroup and of all below it, at most a few thousand.
pub fn processes(folder: &Path) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    gather(folder, 0, &mut found);
    found
}

fn gather(folder: &Path, depth: usize, found: &mut BTreeSet<i32>) {
    if depth > MOST_DEPTH || found.len() >= MOST_PROCESSES {
        return;
    }
    if let Ok(text) = fs::read_to_string(folder.join("cgroup.procs")) {
        let pids = text.lines().filter_map(|line| line.parse::<i32>().ok());
        found.extend(pids.filter(|pid| *pid > 0).take(MOST_PROCESSES));
    }
    for child in subfolders(folder) {
        gather(&child, depth + 1, found);
    }
}

/// The folder above may be taken away by another stack's end just before ours is made in it.
fn create_all(folder: &Path) -> io::Result<()> {
    const TRIES: usize = 20;
    let mut outcome = Ok(());
    for _ in 0..TRIES {
        outcome = fs::create_dir_all(folder);
        match &outcome {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            _ => break,
        }
    }
    outcome
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// A parent's rmdir is EBUSY until its children are gone.
///
/// What a workload made may be deeper than paths are long, where nothing bounded it. So this goes
/// from folder to folder, and holds one of them.
fn remove_tree(folder: &Path) -> io::Result<()> {
    let (open, close) = (OFlags::DIRECTORY | OFlags::NOFOLLOW, AtFlags::REMOVEDIR);
    let enter = |at: BorrowedFd<'_>, name: &CStr| {
        rustix::fs::openat(at, name, open | OFlags::CLOEXEC, Mode::empty())
    };
    let gone = |outcome: rustix::io::Result<()>| match outcome {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    };
    let mut way: Vec<CString> = Vec::new();
    let top = CString::new(folder.as_os_str().as_bytes())?;
    let mut here = match enter(rustix::fs::CWD, &top) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    loop {
        if let Some(child) = first_child(&here)? {
            if gone(rustix::fs::unlinkat(&here, &child, close)).is_err() {
                here = enter(here.as_fd(), &child)?;
                way.push(child);
            }
            continue;
        }
        let Some(name) = way.pop() else {
            return Ok(gone(rustix::fs::unlinkat(rustix::fs::CWD, &top, close))?);
        };
        here = enter(here.as_fd(), c"..")?;
        gone(rustix::fs::unlinkat(&here, &name, close))?;
    }
}

fn first_child(folder: &OwnedFd) -> rustix::io::Result<Option<CString>> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

/// `\040` and its like, as mountinfo writes spaces.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\');
        let code = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn failed(message: String) -> DriverError {
    DriverError {
        message,
        kind: Kind::Failed,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:7 - cgroup2 cgroup2 rw
";

    #[test]
    fn hybrid_mounts_are_found() {
        let cgroups = Cgroups::parse(HYBRID).unwrap();
        assert_eq!(cgroups.mount(), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(
            cgroups.folders(Path::new("hatchery/x")),
            [
                PathBuf::from("/sys/fs/cgroup/unified/hatchery/x"),
                PathBuf::from("/sys/fs/cgroup/systemd/hatchery/x"),
            ]
        );
    }

    #[test]
    fn a_delegated_root_is_cut_off() {
        let table = "9 1 0:3 /lxc/a\\040b /sys/fs/cgroup rw - cgroup2 none rw\n8 1 0:3 / /mnt rw - cgroup2 none rw\n";
        let cgroups = Cgroups::parse(table).unwrap();
        assert_eq!(cgroups.v2.root, "/lxc/a b");
        assert_eq!(
            cgroups.v2.folder("/lxc/a b/hatchery"),
            Some(PathBuf::from("/sys/fs/cgroup/hatchery"))
        );
        assert_eq!(cgroups.v2.folder("/lxc/a bc"), None);
        assert_eq!(cgroups.v2.folder("/other"), None);
        assert_eq!(cgroups.v2.folder("/lxc/a b/../x"), None);
    }

    #[test]
    fn what_is_seen_goes_last() {
        let home = tempfile::tempdir().unwrap();
        let hierarchy = |name: &str| Hierarchy {
            mount: home.path().join(name),
            root: "/".to_owned(),
        };
        let cgroups = Cgroups {
            v2: hierarchy("v2"),
            named: Some(hierarchy("named")),
        };
        let relative = Path::new("hatchery/x");
        cgroups.create(relative).unwrap();
        let held = home.path().join("named/hatchery/x/held");
        fs::write(&held, "").unwrap();
        assert!(cgroups.remove(relative).is_err());
        assert!(cgroups.folder(relative).exists());
        fs::remove_file(held).unwrap();
        cgroups.remove(relative).unwrap();
        let left = cgroups.folders(relative);
        assert!(left.iter().all(|folder| !folder.exists()), "{left:?}");
    }

    #[test]
    fn no_v2_is_no_cgroups() {
        assert_eq!(
            Cgroups::parse("1 2 0:3 / /x rw - cgroup cgroup rw,cpu\n"),
            None
        );
        assert_eq!(Cgroups::parse("garbage - \n\n - "), None);
    }
}
