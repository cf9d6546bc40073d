//! Processes by pidfd: the only name of a process that is never given to another one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::proc;
use crate::plan::world::Exit;

/// A process that cannot be confused with another.
#[derive(Debug)]
pub(super) struct Process {
    /// Its number, as long as it is there.
    pub pid: i32,
    fd: OwnedFd,
}

/// What is known of a process's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It runs.
    Runs,
    /// It ended; its parent has not asked how, so we cannot know yet.
    Unreaped,
    /// It ended like this.
    Ended(Exit),
}

/// `struct pidfd_info` of `linux/pidfd.h`, in its first size; the kernel takes any.
#[repr(C)]
#[derive(Default)]
struct PidfdRecord {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`, since kernel 6.15.
const INFO_EXIT: u64 = 1 << 3;

impl Process {
    /// Opens a process that started at `start` (clock ticks since boot, field 22 of proc(5)'s
    /// `stat`); any process of that number when it is `None`.
    ///
    /// # Errors
    /// When it is gone, or another has its number now.
    pub fn open(pid: i32, start: Option<u64>) -> io::Result<Process> {
        let gone = || io::Error::from_raw_os_error(libc::ESRCH);
        let number = Pid::from_raw(pid.max(0)).ok_or_else(gone)?;
        let fd = pidfd_open(number, PidfdFlags::empty())?;
        // Asked after the pidfd was opened, so that the answer is about the process it holds.
        match start {
            Some(start) if proc::stat(pid).map(|stat| stat.start) != Some(start) => Err(gone()),
            _ => Ok(Process { pid, fd }),
        }
    }

    /// Whether it has not ended.
    pub fn runs(&self) -> bool {
        self.polled().is_empty()
    }

    fn polled(&self) -> PollFlags {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(_) => fds[0].revents(),
            Err(_) => PollFlags::empty(),
        }
    }

    /// How it ended. One of our own children is reaped by this.
    pub fn ending(&self) -> Ending {
        let flags = self.polled();
        if flags.is_empty() {
            return Ending::Runs;
        }
        if let Some(exit) = self.reap() {
            return Ending::Ended(exit);
        }
        match self.exit_bit() {
            Ok(Some(exit)) => Ending::Ended(exit),
            Ok(None) if !flags.contains(PollFlags::HUP) => Ending::Unreaped,
            // Reaped without a word, or a kernel that does not tell.
            _ => Ending::Ended(Exit::Unknown),
        }
    }

    /// What waitid(2) says, if it is our child.
    fn reap(&self) -> Option<Exit> {
        match waitid(
            Id::PIDFd(self.fd.as_fd()),
            WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG,
        ) {
            Ok(WaitStatus::Exited(_, code)) => Some(Exit::Code(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(Exit::Signal(signal as i32)),
            _ => None,
        }
    }

    /// Asks the kernel (ioctl `PIDFD_GET_INFO`); `None` until the parent has reaped it.
    fn exit_bit(&self) -> io::Result<Option<Exit>> {
        let mut about = PidfdRecord {
            mask: INFO_EXIT,
            ..PidfdRecord::default()
        };
        let request = libc::_IOWR::<PidfdRecord>(0xff, 11);
        // SAFETY: the kernel writes at most the size that is part of the request's number,
        // which is the struct's.
        let answer = unsafe { libc::ioctl(self.fd.as_raw_fd(), request, &raw mut about) };
        if answer != 0 {
            let error = io::Error::last_os_error();
            // While the process is still there as a zombie, older kernels say this.
            return match error.raw_os_error() {
                Some(libc::ESRCH) => Ok(None),
                _ => Err(error),
            };
        }
        Ok((about.mask & INFO_EXIT != 0).then(|| decode(about.exit_code)))
    }

    /// Sends a signal, real-time ones too.
    ///
    /// # Errors
    /// `ESRCH` when it has ended.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        // SAFETY: the descriptor is ours and open; a null siginfo is allowed.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.fd.as_raw_fd(),
                number,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match answer {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A status in the form of wait(2).
fn decode(status: i32) -> Exit {
    match status & 0x7f {
        0 => Exit::Code((status >> 8) & 0xff),
        signal => Exit::Signal(signal),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The child is reaped through its pidfd, which is what is tried here.
    #[allow(clippy::zombie_processes)]
    fn end_of(script: &str) -> Ending {
        let child = std::process::Command::new("sh")
            .args(["-c", script])
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = Process::open(pid, None).unwrap();
        let mut fds = [PollFd::new(&process, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        process.ending()
    }

    #[test]
    fn our_children_are_reaped_with_their_code() {
        assert_eq!(end_of("exit 3"), Ending::Ended(Exit::Code(3)));
        assert_eq!(end_of("kill -9 $$"), Ending::Ended(Exit::Signal(9)));
    }

    #[test]
    fn the_kernel_layout_is_the_first_one() {
        assert_eq!(std::mem::size_of::<PidfdRecord>(), 64);
        assert_eq!(decode(3 << 8), Exit::Code(3));
        assert_eq!(decode(0x80 | 11), Exit::Signal(11));
    }

    #[test]
    fn another_start_time_is_another_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        let start = proc::stat(own).unwrap().start;
        assert!(Process::open(own, Some(start)).unwrap().runs());
        assert!(Process::open(own, Some(start + 1)).is_err());
        assert!(Process::open(0, None).is_err());
        assert!(Process::open(-1, None).is_err());
    }
}
