//! The mounts of a validator's sandbox.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use crate::driver::because::because;

/// The tmpfs of all upper layers lies here while the sandbox is built. The old `/proc` shows
/// the wrong processes in a new process namespace anyway, so that nothing is hidden by it.
const STAGE: &str = "/proc";

/// The most memory that a validator's writes may take.
const STAGE_OPTIONS: &str = "mode=0755,size=256m";

/// How many folders of `/var/log` are made anew, at most.
const LOG_FOLDERS: usize = 1000;

/// Mounts that are no part of the files that a validator reads: the kernel's own, and those
/// that wait for somebody to step on them.
const SKIPPED: [&str; 16] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "efivarfs",
    "fusectl",
    "mqueue",
    "nsfs",
    "proc",
    "rpc_pipefs",
    "sysfs",
    "tracefs",
];

/// File systems that may wait for another machine or process: they are bound read-only.
const REMOTE: [&str; 7] = ["9p", "afs", "ceph", "cifs", "nfs", "nfs4", "smb3"];

/// One line of `/proc/self/mountinfo` (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    at: PathBuf,
    kind: String,
}

/// Makes the sandbox in this process's own mount namespace, and enters it.
///
/// # Errors
/// Names the mount that the kernel refused.
pub(super) fn enter() -> io::Result<()> {
    let table = fs::read("/proc/self/mountinfo")?;
    let mounted = parse(&table);
    let none = None::<&str>;
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(none, "/", none, private, none).map_err(|errno| refused("make private", "/", errno))?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("tmpfs"),
        STAGE,
        Some("tmpfs"),
        plain,
        Some(STAGE_OPTIONS),
    )
    .map_err(|errno| refused("mount a tmpfs at", STAGE, errno))?;
    let stage = Path::new(STAGE);
    let root = stage.join("root");
    fs::create_dir(&root)?;
    overlay(Path::new("/"), &root, stage, 0)
        .map_err(|error| told("lay an overlay over", "/", &error))?;
    for (at, mounted) in mounted.iter().enumerate() {
        submount(mounted, &root, stage, at + 1)?;
    }
    kernel_folders(&root)?;
    empty_logs(&root.join("var/log"))?;
    become_root(&root)
}

fn submount(mounted: &Mounted, root: &Path, stage: &Path, number: usize) -> io::Result<()> {
    let target = below(root, &mounted.at);
    let remote = REMOTE.contains(&mounted.kind.as_str()) || mounted.kind.starts_with("fuse");
    if !remote && overlay(&mounted.at, &target, stage, number).is_ok() {
        return Ok(());
    }
    // What takes no overlay (a single file, a file system that cannot be a lower layer)
    // is there to be read.
    match bind_read_only(&mounted.at, &target) {
        Ok(()) => Ok(()),
        // Another mount hides it, so the validator would not see it on the host either.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(told("bind", &mounted.at.to_string_lossy(), &error)),
    }
}

/// `/proc` for the new process namespace, `/sys` to be read, `/dev` as it is.
fn kernel_folders(root: &Path) -> io::Result<()> {
    let none = None::<&str>;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), &root.join("proc"), Some("proc"), quiet, none)
        .map_err(|errno| refused("mount", "/proc", errno))?;
    if Path::new("/sys").is_dir() {
        bind_read_only(Path::new("/sys"), &root.join("sys"))
            .map_err(|error| told("bind", "/sys", &error))?;
    }
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some("/dev"), &root.join("dev"), none, bind, none)
        .map_err(|errno| refused("bind", "/dev", errno))?;
    let shared = root.join("dev/shm");
    if shared.is_dir() {
        let options = Some("mode=1777,size=64m");
        mount(Some("tmpfs"), &shared, Some("tmpfs"), quiet, options)
            .map_err(|errno| refused("mount a tmpfs at", "/dev/shm", errno))?;
    }
    Ok(())
}

/// An overlay of `lower` at `target`, with an upper layer of its own on the stage.
fn overlay(lower: &Path, target: &Path, stage: &Path, number: usize) -> io::Result<()> {
    let metadata = fs::metadata(lower)?;
    if !metadata.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let layer = stage.join(number.to_string());
    let (upper, work) = (layer.join("upper"), layer.join("work"));
    fs::create_dir_all(&upper)?;
    fs::create_dir(&work)?;
    chown(&upper, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(&upper, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    let mut options = OsString::from("lowerdir=");
    options.push(escaped(lower));
    options.push(",upperdir=");
    options.push(&upper);
    options.push(",workdir=");
    options.push(&work);
    let none = MsFlags::empty();
    mount(
        Some("overlay"),
        target,
        Some("overlay"),
        none,
        Some(options.as_os_str()),
    )?;
    Ok(())
}

/// A path as overlayfs wants it in its options.
fn escaped(path: &Path) -> OsString {
    let mut bytes = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b':' | b',') {
            bytes.push(b'\\');
        }
        bytes.push(*byte);
    }
    OsString::from_vec(bytes)
}

fn bind_read_only(source: &Path, target: &Path) -> io::Result<()> {
    let none = None::<&str>;
    mount(Some(source), target, none, MsFlags::MS_BIND, none)?;
    let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(none, target, none, again, none)?;
    Ok(())
}

/// The folders of `/var/log` with nothing in them: to open a log for appending would copy all
/// of it into memory.
fn empty_logs(logs: &Path) -> io::Result<()> {
    if !logs.is_dir() {
        return Ok(());
    }
    let folders = folders_of(logs);
    let none = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("tmpfs"),
        logs,
        Some("tmpfs"),
        none,
        Some("mode=0755,size=64m"),
    )
    .map_err(|errno| refused("mount a tmpfs at", "/var/log", errno))?;
    for (folder, metadata) in folders {
        let made = logs.join(folder);
        fs::create_dir_all(&made)?;
        chown(&made, Some(metadata.uid()), Some(metadata.gid()))?;
        fs::set_permissions(&made, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    }
    Ok(())
}

/// Every folder below `top`, parents first, relative to it.
fn folders_of(top: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let mut found = Vec::new();
    let mut next = vec![PathBuf::new()];
    while let Some(folder) = next.pop() {
        let path = top.join(&folder);
        let Ok(metadata) = path.symlink_metadata() else {
            continue;
        };
        found.push((folder.clone(), metadata));
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        for entry in entries {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && found.len() + next.len() < LOG_FOLDERS {
                next.push(folder.join(entry.file_name()));
            }
        }
    }
    found
}

fn become_root(root: &Path) -> io::Result<()> {
    let none = None::<&str>;
    std::env::set_current_dir(root)?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none)
        .map_err(|errno| refused("move the sandbox to", "/", errno))?;
    std::os::unix::fs::chroot(".")?;
    std::env::set_current_dir("/")
}

/// The mounts that get a layer of their own, in the order in which they were made, each place
/// once.
fn parse(table: &[u8]) -> Vec<Mounted> {
    let mut found: Vec<Mounted> = Vec::new();
    for line in table.split(|byte| *byte == b'\n') {
        let Some(mounted) = parse_line(line) else {
            continue;
        };
        let kernels = ["/proc", "/sys", "/dev"];
        let kept = mounted.at != Path::new("/")
            && !kernels.iter().any(|folder| mounted.at.starts_with(folder))
            && !SKIPPED.contains(&mounted.kind.as_str());
        found.retain(|other| other.at != mounted.at);
        if kept {
            found.push(mounted);
        }
    }
    found
}

fn parse_line(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let at = fields.nth(4)?;
    // Optional fields end with a dash; the type follows.
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mounted {
        at: PathBuf::from(OsString::from_vec(unescaped(at))),
        kind: String::from_utf8_lossy(kind).into_owned(),
    })
}

/// Undoes the octal escapes of space, tab, line feed and backslash.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, others)) = rest.split_first() {
        let octal = others.get(..3).filter(|_| *first == b'\\');
        let value = octal.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match value {
            Some(byte) => {
                bytes.push(byte);
                rest = others.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    bytes
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn refused(verb: &str, what: &str, errno: nix::errno::Errno) -> io::Error {
    told(verb, what, &errno.into())
}

fn told(verb: &str, what: &str, error: &io::Error) -> io::Error {
    io::Error::other(format!("cannot {verb} `{what}`: {}", because(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_file_systems_get_a_layer() {
        let table = b"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            23 22 0:5 / /dev rw - devtmpfs dev rw\n\
            24 23 0:6 / /dev/shm rw shared:2 - tmpfs tmpfs rw\n\
            25 22 0:7 / /proc rw - proc proc rw\n\
            26 22 0:8 / /run rw shared:1 master:2 - tmpfs tmpfs rw\n\
            27 26 0:4 net:[1] /run/netns/a rw - nsfs nsfs rw\n\
            28 22 8:1 / /mnt/with\\040space rw - xfs /dev/sda rw\n\
            29 22 0:9 / /run rw - tmpfs tmpfs rw\n\
            nonsense";
        let places: Vec<String> = parse(table)
            .into_iter()
            .map(|mounted| format!("{} {}", mounted.at.display(), mounted.kind))
            .collect();
        assert_eq!(places, ["/mnt/with space xfs", "/run tmpfs"]);
    }

    #[test]
    fn options_are_escaped() {
        assert_eq!(escaped(Path::new("/a:b,c\\d")), r"/a\:b\,c\\d");
    }
}
