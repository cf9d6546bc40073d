//! What stands between a command inside a workload and the streams of whoever asked for it.
//!
//! A stream that is handed on is handed on for good: through `/proc/self/fd` its holder opens
//! the file behind it anew, for writing too, or changes its mode. So nothing of the host's goes
//! inside but pipes without a name. A terminal becomes a pseudo-terminal of the workload's own,
//! all else a pipe, and this process carries the bytes until the command has ended.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::statfs::{FsType, fstatfs};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::enter::{CANNOT_RUN, said};

/// Where pipes without a name live.
const PIPEFS: FsType = FsType(0x5049_5045);
/// The device that makes pseudo-terminals.
const PTMX: (u32, u32) = (5, 2);
/// What is carried at once. A pipe that can be written to takes that much without waiting.
const PIECE: usize = 4096;
/// The signals that are passed on to the command.
const FORWARDED: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// An input that has ended already.
///
/// # Errors
/// What the kernel said.
pub(super) fn empty_input() -> io::Result<OwnedFd> {
    io::pipe().map(|(reader, _)| reader.into())
}

/// The command's side: what it gets as its standard streams.
pub(super) struct Inside {
    /// By number; what stays as it is has none.
    streams: [Option<OwnedFd>; 3],
    /// The terminal that its session is to have.
    terminal: Option<OwnedFd>,
}

impl Inside {
    /// Takes them on, in a session of its own unless `session` is one already.
    pub fn take_on(&self, session: bool) -> Result<(), String> {
        if !session {
            nix::unistd::setsid().map_err(|e| said("begin a session", e))?;
        }
        if let Some(terminal) = &self.terminal {
            // SAFETY: it takes numbers only.
            let answer = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
            Errno::result(answer).map_err(|e| said("take its terminal", e))?;
        }
        let [input, output, errors] = &self.streams;
        let set = |stream: &Option<OwnedFd>, onto: fn(&OwnedFd) -> nix::Result<()>| {
            stream.as_ref().map_or(Ok(()), onto)
        };
        set(input, |fd| nix::unistd::dup2_stdin(fd))
            .and_then(|()| set(output, |fd| nix::unistd::dup2_stdout(fd)))
            .and_then(|()| set(errors, |fd| nix::unistd::dup2_stderr(fd)))
            .map_err(|e| said("set its streams", e))
    }
}

/// Our side: who carries the bytes.
pub(super) struct Relay {
    pumps: Vec<Pump>,
    /// The master of the terminal that it was given, with the state of ours.
    terminal: Option<(OwnedFd, Raw)>,
    /// A reader of the command's input, where what it leaves unread belongs back in a file.
    unread: Option<OwnedFd>,
}

/// Prepares the streams of a command below `root`, for its user. With `tty` it is to have a
/// terminal, if the caller's is ours to change now.
///
/// # Errors
/// In words.
pub(super) fn prepare(tty: bool, root: &File, user: u32) -> Result<(Inside, Relay), String> {
    let pipes = |e: io::Error| said("make a pipe", e);
    let mut inside = Inside {
        streams: [None, None, None],
        terminal: None,
    };
    let mut relay = Relay {
        pumps: Vec::new(),
        terminal: None,
        unread: None,
    };
    let shown = if tty && in_foreground() {
        Some(make_terminal(root, user)?)
    } else {
        None
    };
    let own = own_streams().map_err(pipes)?;
    for (at, (slot, stream)) in inside.streams.iter_mut().zip(own).enumerate() {
        if let Some((master, slave)) = shown.as_ref().filter(|_| stream.is_terminal()) {
            *slot = Some(slave.try_clone().map_err(pipes)?);
            let master = master.try_clone().map_err(pipes)?;
            match at {
                0 => relay.pumps.push(Pump::new(stream, master, true)),
                // One reader shows what was written to either.
                _ if relay.pumps.iter().any(|pump| pump.shows) => {}
                _ => {
                    let mut pump = Pump::new(master, stream, false);
                    pump.shows = true;
                    relay.pumps.push(pump);
                }
            }
        } else if at == 0 && is_null(&stream) {
            *slot = Some(empty_input().map_err(pipes)?);
        } else if !passes(&stream) {
            let (reader, writer) = io::pipe().map_err(pipes)?;
            if at == 0 {
                let reader = OwnedFd::from(reader);
                relay.unread = Some(reader.try_clone().map_err(pipes)?);
                *slot = Some(reader);
                relay.pumps.push(Pump::new(stream, writer.into(), true));
            } else {
                *slot = Some(writer.into());
                relay.pumps.push(Pump::new(reader.into(), stream, false));
            }
        }
    }
    if let Some((master, slave)) = shown {
        let raw = Raw::begin().map_err(|e| said("set the terminal", e))?;
        resize(&master);
        inside.terminal = Some(slave);
        relay.terminal = Some((master, raw));
    }
    Ok((inside, relay))
}

fn own_streams() -> io::Result<[OwnedFd; 3]> {
    Ok([
        io::stdin().as_fd().try_clone_to_owned()?,
        io::stdout().as_fd().try_clone_to_owned()?,
        io::stderr().as_fd().try_clone_to_owned()?,
    ])
}

/// Whether a stream may be handed on as it is.
fn passes(stream: &OwnedFd) -> bool {
    fstatfs(stream).is_ok_and(|found| found.filesystem_type() == PIPEFS)
}

fn is_null(stream: &OwnedFd) -> bool {
    device(stream) == Some((1, 3))
}

/// Which character device it is.
fn device(stream: &OwnedFd) -> Option<(u32, u32)> {
    let number = File::from(stream.try_clone().ok()?).metadata().ok()?.rdev();
    (number != 0).then(|| (libc::major(number), libc::minor(number)))
}

/// The terminal of a job in the background is another's to set.
fn in_foreground() -> bool {
    nix::unistd::tcgetpgrp(io::stdin()).is_ok_and(|group| group == nix::unistd::getpgrp())
}

/// A pseudo-terminal of the file system that the workload sees: master and slave.
fn make_terminal(root: &File, user: u32) -> Result<(OwnedFd, OwnedFd), String> {
    let refused = |e: io::Error| {
        let remedy = "or let it have none: append `| cat`";
        format!("{} ({remedy})", said("open `/dev/ptmx` in it", e))
    };
    // What is at that place is the workload's choice: it must not make us wait, or be a terminal
    // that exists already.
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC;
    // SAFETY: the path is a string that lives through the call.
    let answer = unsafe { libc::openat(root.as_raw_fd(), c"dev/ptmx".as_ptr(), flags) };
    let answer = Errno::result(answer).map_err(|e| refused(e.into()))?;
    // SAFETY: the kernel has just opened it for us.
    let master = unsafe { OwnedFd::from_raw_fd(answer) };
    if device(&master) != Some(PTMX) {
        return Err(refused(io::Error::other("it makes no terminals")));
    }
    let number = master.as_raw_fd();
    let locked: libc::c_int = 0;
    // SAFETY: it reads the number that it is given, which lives through the call.
    let unlocked = unsafe { libc::ioctl(number, libc::TIOCSPTLCK, &raw const locked) };
    Errno::result(unlocked).map_err(|e| refused(e.into()))?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: it takes numbers only. By path, the slave could be another's.
    let slave = unsafe { libc::ioctl(number, libc::TIOCGPTPEER, flags) };
    let slave = Errno::result(slave).map_err(|e| refused(e.into()))?;
    // SAFETY: the kernel has just opened it for us.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    std::os::unix::fs::fchown(&slave, Some(user), None).map_err(refused)?;
    Ok((master, slave))
}

/// Gives the terminal behind `master` the size of ours.
fn resize(master: &OwnedFd) {
    // SAFETY: a zeroed size is a valid one, and the pointers live through the calls.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        if libc::ioctl(libc::STDIN_FILENO, libc::TIOCGWINSZ, &raw mut size) == 0 {
            libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size);
        }
    }
}

/// Our terminal, which passes every key on as it is until this is dropped.
struct Raw(Termios);

impl Raw {
    fn begin() -> nix::Result<Raw> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // If it is gone there is nothing to restore.
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}

/// One direction of one stream.
struct Pump {
    from: File,
    to: File,
    held: Vec<u8>,
    /// It goes inside; all others come out.
    inward: bool,
    /// It shows the terminal.
    shows: bool,
}

impl Pump {
    fn new(from: OwnedFd, to: OwnedFd, inward: bool) -> Pump {
        Pump {
            from: from.into(),
            to: to.into(),
            held: Vec::new(),
            inward,
            shows: false,
        }
    }

    /// What it waits for.
    fn wanted(&self) -> PollFd<'_> {
        match self.held.is_empty() {
            true => PollFd::new(self.from.as_fd(), PollFlags::POLLIN),
            false => PollFd::new(self.to.as_fd(), PollFlags::POLLOUT),
        }
    }

    /// Does what it waited for; whether it goes on.
    fn step(&mut self) -> bool {
        let again = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            )
        };
        if !self.held.is_empty() {
            return match self.to.write(&self.held) {
                Ok(written) => {
                    self.held.drain(..written);
                    true
                }
                Err(error) => again(&error),
            };
        }
        let mut piece = [0; PIECE];
        match self.from.read(&mut piece) {
            // A terminal without anybody at its other end answers with an error.
            Ok(0) => false,
            Ok(length) => {
                self.held
                    .extend_from_slice(piece.get(..length).unwrap_or_default());
                true
            }
            Err(error) => again(&error),
        }
    }
}

impl Relay {
    /// Carries until the command has ended, passes signals on, and answers with its exit code.
    /// `blocked` are all signals, blocked since before it was started.
    pub fn run(mut self, child: Pid, blocked: &SigSet) -> Result<u8, String> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals =
            SignalFd::with_flags(blocked, flags).map_err(|e| said("receive signals", e))?;
        loop {
            if let Some(code) = ended(child) {
                self.drain();
                return Ok(code);
            }
            self.carry(Some(signals.as_fd()), PollTimeout::NONE);
            while let Ok(Some(signal)) = signals.read_signal() {
                self.signalled(child, &signal);
            }
        }
    }

    fn signalled(&self, child: Pid, signal: &libc::signalfd_siginfo) {
        let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
        let Ok(signal_kind) = Signal::try_from(number) else {
            return;
        };
        if signal_kind == Signal::SIGWINCH
            && let Some((master, _)) = &self.terminal
        {
            resize(master);
        }
        if !FORWARDED.contains(&signal_kind) {
            return;
        }
        // What a terminal sends is meant for the whole group, which is not there yet in the
        // first moment.
        let group = Pid::from_raw(-child.as_raw());
        if signal.ssi_code != libc::SI_KERNEL || kill(group, signal_kind).is_err() {
            let _ = kill(child, signal_kind);
        }
    }

    /// Waits for a signal or a stream, and takes each stream that is ready one step on.
    /// Answers whether one was.
    fn carry(&mut self, signals: Option<BorrowedFd<'_>>, limit: PollTimeout) -> bool {
        let mut waited: Vec<PollFd<'_>> = Vec::with_capacity(4);
        waited.extend(self.pumps.iter().map(Pump::wanted));
        waited.extend(signals.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        if poll(&mut waited, limit).is_err() {
            return false;
        }
        let ready: Vec<bool> = waited
            .iter()
            .take(self.pumps.len())
            .map(|fd| fd.any().unwrap_or(false))
            .collect();
        let mut ready = ready.into_iter();
        let mut moved = false;
        self.pumps.retain_mut(|pump| {
            let due = ready.next().unwrap_or(false);
            moved |= due;
            !due || pump.step()
        });
        moved
    }

    /// What was said by now is still shown; what the command left behind is not waited for. What
    /// it has not read of a file is left to who reads on.
    fn drain(&mut self) {
        let mut unread = 0;
        self.pumps.retain(|pump| {
            if pump.inward {
                unread += pump.held.len();
            }
            !pump.inward
        });
        while self.carry(None, PollTimeout::ZERO) {}
        let Some(pipe) = &self.unread else {
            return;
        };
        let mut piped: libc::c_int = 0;
        // SAFETY: it writes the number, which lives through the call.
        unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut piped) };
        let unread = i64::from(piped) + i64::try_from(unread).unwrap_or_default();
        // Refused where there is no position, as on a terminal.
        let _ = nix::unistd::lseek(io::stdin(), -unread, nix::unistd::Whence::SeekCur);
    }
}

/// The exit code, once it has one.
fn ended(child: Pid) -> Option<u8> {
    match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Some(u8::try_from(code).unwrap_or(1)),
        Ok(WaitStatus::Signaled(_, signal, _)) => {
            Some(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX))
        }
        Err(Errno::ECHILD) => Some(CANNOT_RUN),
        _ => None,
    }
}
