//! A netlink socket that is asked and answers, synchronously.
//!
//! It belongs for life to the network namespace of the thread that opened it, whichever
//! thread uses it later.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::wire::{Message, messages, number};

/// The largest datagram that the kernel makes of a dump is half of this.
const BUFFER: usize = 64 * 1024;
/// The most bytes that are accepted in answer to one dump.
const DUMP_LIMIT: usize = 16 * 1024 * 1024;
/// How long an answer may take, in seconds.
const PATIENCE: i64 = 10;
/// How often a dump is tried that changed under way.
const DUMP_TRIES: usize = 8;

const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
const INTERRUPTED: u16 = libc::NLM_F_DUMP_INTR as u16;

/// One side of a conversation with the kernel.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

/// Opens a socket of `protocol` that hears the multicast `groups` (a bit each).
pub(super) fn open(protocol: SockProtocol, groups: u32, flags: SockFlag) -> io::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags | SockFlag::SOCK_CLOEXEC,
        protocol,
    )?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

impl Socket {
    /// Opens one in the calling thread's network namespace.
    pub fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = open(protocol, 0, SockFlag::empty())?;
        setsockopt(&fd, ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
        Ok(Socket { fd, sequence: 0 })
    }

    /// Asks for a change and waits until it is made.
    pub fn change(&mut self, message: Message) -> io::Result<()> {
        let sequence = self.ask(message)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = self.receive(&mut buffer)?;
            for answer in messages(buffer.get(..length).unwrap_or(&[])) {
                if answer.sequence == sequence && answer.kind == ERROR {
                    return outcome(answer.body);
                }
            }
        }
    }

    /// Asks for a list; the bodies of the messages of type `kind` that answer it.
    pub fn dump(&mut self, message: &Message, kind: u16) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..DUMP_TRIES {
            if let Some(bodies) = self.dump_once(message.clone(), kind)? {
                return Ok(bodies);
            }
        }
        Err(io::Error::other("the list changed each time it was read"))
    }

    /// `None` when the list changed while the kernel wrote it.
    fn dump_once(&mut self, message: Message, kind: u16) -> io::Result<Option<Vec<Vec<u8>>>> {
        let (mut bodies, mut size) = (Vec::new(), 0);
        let whole = self.each(message, kind, |body| {
            size += body.len();
            bodies.push(body.to_vec());
            size <= DUMP_LIMIT
        })?;
        if size > DUMP_LIMIT {
            return Err(io::Error::other("the kernel's list is larger than 16 MiB"));
        }
        Ok(whole.then_some(bodies))
    }

    /// Asks for a list and shows `seen` the body of each message of type `kind`, until it says
    /// that it has enough; then nothing more should be asked of this socket. Whether the list
    /// stayed the same while the kernel wrote it.
    pub fn each(
        &mut self,
        message: Message,
        kind: u16,
        mut seen: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<bool> {
        let sequence = self.ask(message)?;
        let mut buffer = vec![0; BUFFER];
        let mut torn = false;
        loop {
            let length = self.receive(&mut buffer)?;
            for answer in messages(buffer.get(..length).unwrap_or(&[])) {
                if answer.sequence != sequence {
                    continue;
                }
                torn |= answer.flags & INTERRUPTED != 0;
                match answer.kind {
                    DONE => {
                        outcome(answer.body)?;
                        return Ok(!torn);
                    }
                    ERROR => outcome(answer.body)?,
                    other if other == kind && !seen(answer.body) => return Ok(!torn),
                    _ => {}
                }
            }
        }
    }

    fn ask(&mut self, message: Message) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = message.finish(self.sequence);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        Ok(self.sequence)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.fd.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
                Ok(length) if length > buffer.len() => {
                    return Err(io::Error::other("the kernel's answer is too long"));
                }
                Ok(length) => return Ok(length),
            }
        }
    }
}

/// What `struct nlmsgerr` says, or the number behind the end of a dump.
fn outcome(body: &[u8]) -> io::Result<()> {
    let code = number(body, 0).map_or(0, u32::cast_signed);
    match code {
        0.. => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}
