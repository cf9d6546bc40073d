//! Commands of ours have a session each, so that all of one can be ended, also when the
//! controller was killed.
//!
//! What the controller runs for a while (checks, `pre_start`, reload commands) carries no mark and
//! has no cgroup of its own, so the next controller could not know it. A process beside the
//! controller, the attendant, does: every command tells it of its session before its program is
//! executed, and what is left of them ends when the controller's end of a socket closes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::SendFlags;
use rustix::process::{Pid, Signal, kill_process};

use super::because::because;
use super::{DriverError, ErrorKind, inner};

/// The process beside the controller.
struct Attendant {
    process: Mutex<Child>,
    /// The controller's end.
    socket: UnixStream,
}

static ATTENDANT: OnceLock<Attendant> = OnceLock::new();

/// Told in place of a session: those whose leader is gone are to be forgotten, or their numbers
/// would be others' some day.
const GONE: i32 = 0;

/// How long its end is waited for.
const PARTING: Duration = Duration::from_secs(1);

/// How many times a session is searched for processes that are still there.
const KILL_ROUNDS: u32 = 32;

/// The command will run in a session of its own. With `attended` the attendant hears of it, where
/// there is one.
pub(super) fn of_its_own(command: &mut Command, attended: bool) {
    let attendant = ATTENDANT.get().filter(|_| attended);
    let attendant = attendant.map(|attendant| attendant.socket.as_raw_fd());
    // SAFETY: between fork and exec only system calls are made; nothing allocates. The socket is
    // open as long as this program runs.
    unsafe {
        command.pre_exec(move || {
            let session = rustix::process::setsid()?;
            if let Some(attendant) = attendant {
                let attendant = BorrowedFd::borrow_raw(attendant);
                tell(attendant, session.as_raw_nonzero().get());
            }
            Ok(())
        });
    }
}

/// The command that began this session has ended by itself: what it left behind lives on.
pub(super) fn ended(session: i32) {
    if let Some(attendant) = ATTENDANT.get() {
        tell(attendant.socket.as_fd(), session.saturating_neg());
    }
}

/// A command with [`of_its_own`] could not be started: what it may have told before its program
/// was not found counts no more.
pub(super) fn not_begun() {
    if let Some(attendant) = ATTENDANT.get() {
        tell(attendant.socket.as_fd(), GONE);
    }
}

/// So few bytes go whole or not at all. Where the attendant is gone nobody is told, and the
/// signal for that would end a command that has not begun.
fn tell(attendant: BorrowedFd<'_>, number: i32) {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = rustix::net::send(attendant, &number.to_ne_bytes(), flags);
}

/// Starts the attendant of this program, unless it has one. It ends with the program, also where
/// nobody dismisses it.
///
/// # Errors
/// When it cannot be started, as the kernel says it.
pub fn have_attendant() -> super::Result<()> {
    if ATTENDANT.get().is_none() {
        let attendant = start().map_err(|error| DriverError {
            message: format!(
                "cannot start the process that ends checks and commands should the controller be \
                 killed: {}",
                because(&error)
            ),
            kind: ErrorKind::Failed,
        })?;
        let _ = ATTENDANT.set(attendant);
    }
    Ok(())
}

/// Ends the attendant of this program, and what runs of all that it attends to: for who is about
/// to end and begins nothing any more.
pub fn dismiss() {
    let Some(attendant) = ATTENDANT.get() else {
        return;
    };
    let _ = attendant.socket.shutdown(Shutdown::Both);
    let mut process = attendant
        .process
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let deadline = Instant::now() + PARTING;
    while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn start() -> io::Result<Attendant> {
    let (socket, its) = UnixStream::pair()?;
    let mut command = Command::new(inner::own_program());
    command
        .arg0("hatchery")
        .args([inner::WORD, "attend"])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(its)))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // What a terminal sends to the controller's group is not meant for it.
    // SAFETY: between fork and exec only one system call is made; nothing allocates.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(())
        });
    }
    let process = Mutex::new(command.spawn()?);
    Ok(Attendant { process, socket })
}

/// The inner job: hears of sessions until the controller is gone, then ends them.
pub(super) fn attend(_arguments: &[OsString]) -> ExitCode {
    for (session, start) in heard(io::stdin().lock()) {
        // Its number is another's only if the leader's is: as long as anybody is left in the
        // session, the kernel gives it to nobody.
        let now = started(session);
        if let Some(leader) = Pid::from_raw(session).filter(|_| now.is_none() || now == start) {
            kill(leader);
        }
    }
    ExitCode::SUCCESS
}

/// The sessions that are left once nothing more is said, and when their leaders were started.
fn heard(mut input: impl Read) -> BTreeMap<i32, Option<u64>> {
    let mut sessions: BTreeMap<i32, Option<u64>> = BTreeMap::new();
    let mut number = [0; 4];
    while input.read_exact(&mut number).is_ok() {
        match i32::from_ne_bytes(number) {
            GONE => sessions.retain(|session, _| started(*session).is_some()),
            begun @ 1.. => {
                sessions.insert(begun, started(begun));
            }
            ended => {
                sessions.remove(&ended.saturating_neg());
            }
        }
    }
    sessions
}

/// When a process was started, in clock ticks since boot.
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    fields(&stat)?.nth(19)?.parse().ok()
}

/// Kills every process of the session that `leader` opened. Its number must not mean another
/// session meanwhile: it is not reaped yet, or others are left.
pub(super) fn kill(leader: Pid) {
    for _ in 0..KILL_ROUNDS {
        let members = members(leader);
        for member in &members {
            // It may be gone by now, which is what is wanted.
            let _ = kill_process(*member, Signal::KILL);
        }
        if members.is_empty() {
            return;
        }
    }
}

fn members(leader: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return vec![leader];
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|pid| alive_in_session(*pid, leader))
        .collect()
}

/// Whether the process is of this session and not a zombie.
fn alive_in_session(pid: Pid, leader: Pid) -> bool {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let Ok(stat) = std::fs::read_to_string(path) else {
        return false;
    };
    let Some(mut fields) = fields(&stat) else {
        return false;
    };
    let state = fields.next();
    let session = fields.nth(2).and_then(|field| field.parse::<i32>().ok());
    session == Some(leader.as_raw_nonzero().get()) && !matches!(state, Some("Z" | "X"))
}

/// The fields of a `stat` file (proc(5)) from the third on. The name in brackets before them may
/// hold anything, also brackets.
fn fields(stat: &str) -> Option<std::str::SplitWhitespace<'_>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn after(numbers: &[i32]) -> Vec<i32> {
        let told: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
        heard(&*told).into_keys().collect()
    }

    #[test]
    fn sessions_count_from_their_begin_to_their_end() {
        let own = i32::try_from(std::process::id()).unwrap();
        // Above any number that the kernel gives.
        let nobody = i32::MAX;
        assert_eq!(after(&[own, nobody]), [own, nobody]);
        assert_eq!(after(&[own, nobody, -own]), [nobody]);
        assert_eq!(after(&[own, nobody, GONE]), [own]);
        assert_eq!(after(&[-own, i32::MIN]), [0; 0]);
    }

    #[test]
    fn the_time_of_a_start_is_read() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(started(own) >= started(1) && started(own).is_some());
        assert_eq!(started(i32::MAX), None);
    }
}
