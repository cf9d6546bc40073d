//! Runs a command to its end, within a time, and keeps the end of what it said.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::driver::{Output, session};

/// How much of the output is kept, in bytes.
const KEPT: usize = 4096;

/// How much is still read from the pipe once the command has ended, in bytes: what it left in
/// the background may go on writing for ever.
const LEFT_OVER: usize = 1024 * 1024;

/// What becomes of a command should we be killed before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tie {
    /// It goes on.
    Nothing,
    /// It is killed with the thread that calls.
    Thread,
    /// All of its session is killed with this program.
    Attendant,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Captured {
    /// Its status; `None` when it was killed because its time was over.
    pub(crate) status: Option<ExitStatus>,
    tail: Vec<u8>,
}

impl Captured {
    /// The end of both streams; bytes that are no UTF-8 are replaced.
    pub(crate) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let from = text.len().saturating_sub(KEPT);
        let from = (from..=text.len()).find(|at| text.is_char_boundary(*at));
        text.get(from.unwrap_or(0)..).unwrap_or_default().to_owned()
    }

    /// In the driver's form, with a last line that says why there is no exit code.
    pub(crate) fn into_output(self, timeout: Duration) -> Output {
        let code = self.status.and_then(|status| status.code());
        let end = match self.status.map(|status| status.signal()) {
            None => Some(format!(
                "(killed after {})",
                humantime::format_duration(timeout)
            )),
            Some(Some(signal)) => Some(format!("(ended by signal {signal})")),
            Some(None) => None,
        };
        let mut text = self.text();
        if let Some(end) = end {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&end);
            let over = text.len().saturating_sub(KEPT);
            let over = (over..=text.len()).find(|at| text.is_char_boundary(*at));
            text.drain(..over.unwrap_or(0));
        }
        Output { code, text }
    }
}

/// Runs `command` in a session of its own, both streams in one pipe, nothing to read. When
/// the time is over all of its session is killed.
///
/// # Errors
/// When it cannot be started, as the kernel says it.
pub(crate) fn capture(mut command: Command, timeout: Duration, tie: Tie) -> io::Result<Captured> {
    let deadline = Instant::now().checked_add(timeout);
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut tail = Tail::new(reader)?;
    session::of_its_own(&mut command, tie == Tie::Attendant);
    if tie == Tie::Thread {
        // SAFETY: between fork and exec only one system call is made; nothing allocates.
        unsafe {
            command.pre_exec(|| {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                Ok(())
            });
        }
    }
    let mut child = command.spawn().inspect_err(|_| session::not_begun())?;
    // Our copies of the pipe's end go with it; otherwise its closing would never be seen.
    drop(command);
    let pid = Pid::from_child(&child);
    let watched = pidfd_open(pid, PidfdFlags::empty())
        .map_err(io::Error::from)
        .and_then(|ended| await_end(&ended, &mut tail, deadline));
    let in_time = watched.as_ref().is_ok_and(|in_time| *in_time);
    if !in_time {
        session::kill(pid);
    }
    if tie == Tie::Attendant {
        // Not reaped yet: its number cannot be that of a newer one.
        session::ended(pid.as_raw_nonzero().get());
    }
    let status = child.wait()?;
    watched?;
    tail.drain(LEFT_OVER);
    Ok(Captured {
        status: in_time.then_some(status),
        tail: tail.kept,
    })
}

/// Reads until the process ends (true) or the time is over (false).
fn await_end(ended: &OwnedFd, tail: &mut Tail, deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        let left = match deadline {
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                Some(left) => Some(Timespec::try_from(left).map_err(io::Error::other)?),
                None => return Ok(false),
            },
            None => None,
        };
        let mut sources = vec![PollFd::new(ended, PollFlags::IN)];
        if tail.open {
            sources.push(PollFd::new(&tail.reader, PollFlags::IN));
        }
        match poll(&mut sources, left.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let ready = |at: usize| sources.get(at).is_some_and(|s| !s.revents().is_empty());
        let (over, spoke) = (ready(0), ready(1));
        if spoke {
            tail.drain(64 * 1024);
        }
        if over {
            return Ok(true);
        }
    }
}

/// The end of what comes out of a pipe.
struct Tail {
    reader: OwnedFd,
    open: bool,
    kept: Vec<u8>,
}

impl Tail {
    fn new(reader: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(reader.as_fd(), true)?;
        Ok(Tail {
            reader,
            open: true,
            kept: Vec::with_capacity(KEPT),
        })
    }

    /// Reads what is there, and not much more than `limit` bytes.
    fn drain(&mut self, limit: usize) {
        let mut buffer = [0u8; 16 * 1024];
        let mut total = 0;
        while self.open && total < limit {
            match rustix::io::read(&self.reader, &mut buffer) {
                Ok(0) => self.open = false,
                Ok(count) => {
                    total += count;
                    self.kept.extend(buffer.iter().take(count));
                    let over = self.kept.len().saturating_sub(KEPT);
                    self.kept.drain(..over);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.open = false,
            }
        }
    }
}
