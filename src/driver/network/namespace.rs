//! Named network namespaces: files under `/run/netns` that a namespace is mounted on, as
//! iproute2 has them.
//!
//! Only threads made for it enter a namespace, and they end there: no thread of the program
//! ever changes its own. A namespace gets its mark (the alias of its loopback) before it gets
//! its name, so whatever can be found is complete.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::SockProtocol;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs, statfs};

use super::links::{self, LinkChange};
use super::socket::Socket;

/// Where named namespaces are, for every tool on the host.
pub(super) const FOLDER: &str = "/run/netns";
/// Stacked mounts on one name that are removed at most.
const MOUNTS: usize = 16;
/// The calling thread's namespace.
const OWN: &str = "/proc/thread-self/ns/net";
/// Loopback is the first link of every namespace.
const LOOPBACK: u32 = 1;

/// An open namespace with sockets inside it.
#[derive(Debug)]
pub(super) struct Namespace {
    file: File,
    route: Mutex<Socket>,
    filter: Mutex<Option<Socket>>,
}

/// What is at a name.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing.
    Absent,
    /// An empty file that nothing is mounted on: left from before a reboot, or half-made.
    Stale,
    /// Something that no tool for namespaces made.
    Other,
    /// A namespace, with what tells it from every other while it is open.
    Live(File, (u64, u64)),
}

/// The file of the namespace `name`.
pub(super) fn path(name: &str) -> io::Result<PathBuf> {
    let plain = !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
    if !plain {
        let message = format!("`{name}` cannot be the name of a namespace");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(Path::new(FOLDER).join(name))
}

/// Looks what is at `name`.
pub(super) fn look(name: &str) -> io::Result<Found> {
    let path = path(name)?;
    // A FIFO of that name must not block, and a symlink is nobody's namespace.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(Found::Other),
        Err(error) => return Err(error),
    };
    let status = file.metadata()?;
    if fstatfs(&file)?.filesystem_type() == NSFS_MAGIC {
        return Ok(Found::Live(file, (status.dev(), status.ino())));
    }
    let empty = status.is_file() && status.len() == 0;
    Ok(if empty { Found::Stale } else { Found::Other })
}

/// The names in the folder.
pub(super) fn names() -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(FOLDER) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// Makes a namespace with the mark `alias`, and names it. The name must be free.
pub(super) fn make(name: &str, alias: &str) -> io::Result<()> {
    let path = path(name)?;
    fs::create_dir_all(FOLDER)?;
    in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let mut socket = Socket::open(SockProtocol::NetlinkRoute)?;
        let change = LinkChange {
            alias: Some(alias),
            up: true,
            ..LinkChange::default()
        };
        links::change(&mut socket, LOOPBACK, &change)?;
        open_to_users()?;
        put_name(&path)
    })
}

/// Mounts the calling thread's namespace on `path`.
fn put_name(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(path)?;
    let mounted = mount(
        Some(OWN),
        path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    );
    mounted.map_err(|error| {
        // The first error is the one that tells; a file that stays is stale, and seen as such.
        let _ = fs::remove_file(path);
        error.into()
    })
}

/// Gives every user of the calling thread's namespace what would take privileges otherwise: to
/// listen below port 1024, which in a user namespace not even root could, and to send a ping,
/// for which containers have no raw sockets.
fn open_to_users() -> io::Result<()> {
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")
}

/// Takes the name away, also a stale one. The namespace itself ends when nothing runs in it
/// any more. The name being gone is no error.
pub(super) fn remove(name: &str) -> io::Result<()> {
    let path = path(name)?;
    for _ in 0..MOUNTS {
        match statfs(&path) {
            Ok(status) if status.filesystem_type() == NSFS_MAGIC => {
                umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
            }
            _ => break,
        }
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

impl Namespace {
    /// Opens sockets inside the namespace behind `named`.
    pub fn open(named: &File) -> io::Result<Self> {
        let (file, route, filter) = enter(named, || {
            // Kept in place of `named`, which would keep the mount busy for others' umount.
            let file = File::open(OWN)?;
            let route = Socket::open(SockProtocol::NetlinkRoute)?;
            // A kernel without nfnetlink has no tables to look for.
            let filter = Socket::open(SockProtocol::NetlinkNetFilter).ok();
            Ok((file, route, filter))
        })?;
        Ok(Namespace {
            file,
            route: Mutex::new(route),
            filter: Mutex::new(filter),
        })
    }

    /// The routing socket.
    pub fn route(&self) -> MutexGuard<'_, Socket> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The packet filter's socket, where the kernel has one.
    pub fn filter(&self) -> MutexGuard<'_, Option<Socket>> {
        self.filter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the open file, for messages to the kernel.
    pub fn descriptor(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Takes loopback up and opens low ports and pings, in case somebody changed them.
    pub fn mend(&self) -> io::Result<()> {
        let change = LinkChange {
            up: true,
            ..LinkChange::default()
        };
        links::change(&mut self.route(), LOOPBACK, &change)?;
        self.enter(open_to_users)
    }

    /// Does `work` inside.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        enter(&self.file, work)
    }
}

/// Does `work` inside the namespace behind `file`.
pub(super) fn enter<T: Send>(
    file: &File,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    in_thread(|| {
        setns(file, CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

/// Does `work` in a thread that ends with it.
fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)?;
        let gone = |_| {
            Err(io::Error::other(
                "the thread inside the namespace broke off",
            ))
        };
        thread.join().unwrap_or_else(gone)
    })
}
