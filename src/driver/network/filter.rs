//! The packet filter of a namespace: which tables of ours it has, and how they are set
//! (`linux/netfilter/nf_tables.h`).

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::namespace::Namespace;
use super::socket::Socket;
use super::wire::{Message, attributes, text};
use crate::plan::firewall;
use crate::spec::model::Firewall;

/// How long `nft` may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// So much of what `nft` says is repeated.
const WORDS: u64 = 2048;

const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8;
const GET_TABLE: u16 = SUBSYSTEM | libc::NFT_MSG_GETTABLE as u16;
const NEW_TABLE: u16 = SUBSYSTEM | libc::NFT_MSG_NEWTABLE as u16;
/// `NFPROTO_INET`.
const INET: u8 = 1;
/// `NFTA_TABLE_NAME`.
const TABLE_NAME: u16 = 1;

/// The hashes of the firewalls in force, from the names of their tables.
pub(super) fn in_force(socket: &mut Socket) -> io::Result<Vec<String>> {
    let ask = Message::new(
        GET_TABLE,
        libc::NLM_F_REQUEST | libc::NLM_F_DUMP,
        &[INET, 0, 0, 0],
    );
    let bodies = match socket.dump(&ask, NEW_TABLE) {
        // A kernel without nf_tables has no tables.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
            return Ok(Vec::new());
        }
        bodies => bodies?,
    };
    let names = bodies.iter().filter_map(|body| {
        let mut attributes = attributes(body.get(4..)?);
        let (_, value) = attributes.find(|(kind, _)| *kind == TABLE_NAME)?;
        text(value)
            .strip_prefix(firewall::TABLE_PREFIX)
            .map(str::to_owned)
    });
    Ok(names.collect())
}

/// Replaces whatever firewall of ours is in `namespace` by this one, in one transaction.
pub(super) fn set(namespace: &Namespace, wanted: Option<&Firewall>) -> io::Result<()> {
    let held = match namespace.filter().as_mut() {
        Some(socket) => in_force(socket)?,
        None => Vec::new(),
    };
    let mut script = String::new();
    let wanted_hash = wanted.map(firewall::hash);
    for hash in held.iter().chain(&wanted_hash) {
        let table = format!("inet {}{hash}", firewall::TABLE_PREFIX);
        // Adding it first makes it no error when it is not there.
        script.push_str(&format!("table {table}\ndelete table {table}\n"));
    }
    if let (Some(wanted), Some(hash)) = (wanted, &wanted_hash) {
        let table = format!("{}{hash}", firewall::TABLE_PREFIX);
        script.push_str(&firewall::ruleset(wanted, &table));
    }
    if script.is_empty() {
        return Ok(());
    }
    // A child is born into the namespace of the thread that makes it.
    namespace.enter(|| nft(&script))
}

/// Feeds `script` to `nft`.
fn nft(script: &str) -> io::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .env("PATH", search_path())
        .stdin(Stdio::from(in_memory(script.as_bytes())?))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(absent)?;
    let ended = wait(&mut child);
    if !matches!(ended, Ok(true)) {
        child.kill()?;
    }
    let status = child.wait()?;
    if !ended? {
        let message = format!("`nft` did not end within {} s", PATIENCE.as_secs());
        return Err(io::Error::new(io::ErrorKind::TimedOut, message));
    }
    if status.success() {
        return Ok(());
    }
    let mut words = Vec::new();
    if let Some(stream) = child.stderr.take() {
        stream.take(WORDS).read_to_end(&mut words)?;
    }
    let words = String::from_utf8_lossy(&words);
    Err(io::Error::other(format!(
        "`nft` refused it: {}",
        words.trim()
    )))
}

/// Whether it ended in time. Its words stay in the pipe meanwhile; an `nft` that says more
/// than fits there runs into the limit.
fn wait(child: &mut Child) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("`nft` has no process id"))?;
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    loop {
        let mut fds = [PollFd::new(&ended, PollFlags::IN)];
        match poll(&mut fds, Some(&patience)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

/// A file without a name, read from its beginning: unlike a pipe it takes any length at once.
fn in_memory(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("ruleset", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// `nft` lies in a folder that not every root shell searches.
fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/sbin:/sbin")
}

fn absent(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::NotFound {
        return error;
    }
    let message = "there is no `nft` on this machine: install the Debian package `nftables`";
    io::Error::new(io::ErrorKind::NotFound, message)
}
