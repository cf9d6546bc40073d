//! The socket that workloads and nspawn speak sd_notify(3) to. Anybody may write anything.

use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt,
};

/// Longer messages are dropped.
const MOST: usize = 4096;

/// What of a message counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    /// Who sent it; the kernel vouches for this.
    pub pid: i32,
    /// It says READY=1.
    pub ready: bool,
    /// nspawn names the init of its container.
    pub leader: Option<i32>,
}

/// The folder of the socket, which is bound into containers: a socket that a later controller
/// makes there is seen inside too.
pub(super) fn folder(run: &Path) -> PathBuf {
    run.join("notify")
}

/// Opens the socket below `run`, in the place of an earlier controller's.
///
/// # Errors
/// What the kernel said; the path may have 107 bytes at most.
pub(super) fn open(run: &Path) -> io::Result<UnixDatagram> {
    let folder = folder(run);
    fs::create_dir_all(&folder)?;
    // Workloads run as any user, whatever our umask.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    let path = folder.join("socket");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixDatagram::bind(&path)?;
    // Who they are is told by the kernel, not by the path.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    setsockopt(&socket, sockopt::PassCred, &true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The next message; one that cannot be read, or has no sender, says nothing. `None` when
/// there is none.
pub(super) fn receive(socket: &UnixDatagram) -> Option<Message> {
    let mut bytes = [0u8; MOST];
    // There is room for credentials only: descriptors that somebody sends are closed.
    let mut control = nix::cmsg_space!(UnixCredentials);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC,
    )
    .ok()?;
    let pid = received.cmsgs().ok().and_then(|mut messages| {
        messages.find_map(|message| match message {
            ControlMessageOwned::ScmCredentials(sender) => Some(sender.pid()),
            _ => None,
        })
    });
    let whole = !received.flags.contains(MsgFlags::MSG_TRUNC);
    let length = if whole { received.bytes } else { 0 };
    Some(parse(
        bytes.get(..length).unwrap_or_default(),
        pid.unwrap_or(0),
    ))
}

fn parse(bytes: &[u8], pid: i32) -> Message {
    let mut message = Message {
        pid,
        ready: false,
        leader: None,
    };
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else {
            continue;
        };
        match line.split_once('=') {
            Some(("READY", "1")) => message.ready = true,
            Some(("X_NSPAWN_LEADER_PID", pid)) => {
                message.leader = pid.parse().ok().filter(|pid| *pid > 0);
            }
            _ => {}
        }
    }
    message
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_are_read_and_the_rest_is_ignored() {
        let message = parse(b"STATUS=a\nX_NSPAWN_LEADER_PID=71\nREADY=1", 5);
        assert_eq!(
            message,
            Message {
                pid: 5,
                ready: true,
                leader: Some(71)
            }
        );
        for odd in [
            &b"READY=10\n\xff\xfe=\nX_NSPAWN_LEADER_PID=-4"[..],
            b"",
            b"READY",
        ] {
            let message = parse(odd, 5);
            assert!(!message.ready && message.leader.is_none());
        }
    }

    #[test]
    fn the_kernel_names_the_sender_and_long_messages_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let socket = open(dir.path()).unwrap();
        let path = folder(dir.path()).join("socket");
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"READY=1\n", &path).unwrap();
        let mut long = b"READY=1\n".to_vec();
        long.resize(MOST + 1, b'x');
        sender.send_to(&long, &path).unwrap();
        let first = receive(&socket).unwrap();
        assert_eq!(first.pid, i32::try_from(std::process::id()).unwrap());
        assert!(first.ready);
        assert!(!receive(&socket).unwrap().ready);
        assert_eq!(receive(&socket), None);
        drop(open(dir.path()).unwrap());
    }
}
