//! The inner job `enter`: runs a command inside a workload, as `exec` and `exec` checks do.
//!
//! The command gets the main process's cgroup, namespaces, root, user, environment and bounds
//! of privilege. It belongs to the workload from then on: what kills the workload kills it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, Gid, Uid, fork};

use super::pidfd::Process;
use super::relay;
use super::spawned::{self, close_the_rest, plain};
use super::{mark, proc};
use crate::driver::cgroup::{self, Cgroups};
use crate::driver::unwritable::Unwritable;

/// What a shell answers when a command cannot be run.
pub(super) const CANNOT_RUN: u8 = 126;

/// No more of an environment is taken over.
const MOST: u64 = 1 << 20;

/// Whom a command is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A check: the command and all that it starts share the session and the process group that
    /// the line gets when it begins to run, and killing the group takes them all.
    Check,
    /// Somebody's shell. The command has a session of its own, without a terminal.
    Shell,
    /// Somebody at a terminal: the command has one too, of its own.
    Terminal,
}

impl Asker {
    const ALL: [Asker; 3] = [Asker::Check, Asker::Shell, Asker::Terminal];

    fn word(self) -> &'static str {
        match self {
            Asker::Check => "check",
            Asker::Shell => "shell",
            Asker::Terminal => "terminal",
        }
    }
}

/// A command line that runs `command` inside the workload whose main process is `main_pid`.
///
/// `program` is this program's own file
/// ([`own_unwritable`](crate::driver::inner::own_unwritable)), which those inside can lay their
/// hands on. For somebody at a terminal the caller's TERM is passed on. The streams are the
/// caller's to set, and stay outside. The exit code is the command's, or 128 and the number of
/// the signal that ended it, or 126 when it could not be run. Killing this process kills the
/// command.
pub fn exec_command(
    program: &Unwritable,
    main_pid: i32,
    command: &[String],
    asker: Asker,
) -> Command {
    let mut line = Command::new(program.path());
    line.arg0("hatchery")
        .arg(crate::driver::inner::WORD)
        .arg("enter")
        .arg(main_pid.to_string())
        .arg(asker.word())
        .args(command);
    line
}

/// Runs the job.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let [pid, asker, command @ ..] = arguments else {
        eprintln!("cannot enter: no process is named");
        return ExitCode::from(CANNOT_RUN);
    };
    let pid = pid.to_str().and_then(|pid| pid.parse().ok()).unwrap_or(0);
    let Some(asker) = Asker::ALL.into_iter().find(|known| asker == known.word()) else {
        eprintln!("cannot enter process {pid}: it is not said for whom");
        return ExitCode::from(CANNOT_RUN);
    };
    match enter(pid, asker, command) {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(CANNOT_RUN)
        }
    }
}

/// Everything of the main process that the command gets, read while we still see the host.
struct Target {
    process: Process,
    namespaces: CloneFlags,
    root: File,
    directory: PathBuf,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    bounds: u64,
    no_new_privileges: bool,
    environment: Vec<(OsString, OsString)>,
}

fn enter(pid: i32, asker: Asker, command: &[OsString]) -> Result<u8, String> {
    let Some((program, arguments)) = command.split_first() else {
        return Err("cannot run an empty command".to_owned());
    };
    let mut target = Target::read(pid)?;
    let tty = asker == Asker::Terminal;
    if let Some(term) = std::env::var_os("TERM").filter(|_| tty) {
        target.environment.push(("TERM".into(), term));
    }
    if asker == Asker::Check {
        nix::unistd::setsid().map_err(|e| said("begin a session", e))?;
    }
    join_cgroups(pid)?;
    if !target.namespaces.is_empty() {
        setns(&target.process, target.namespaces).map_err(|e| said("join its namespaces", e))?;
    }
    // Blocked before the fork, so that none is lost between it and the wait; and none is ignored,
    // as the caller may have had it: that of a job in a shell's background is.
    let blocked = SigSet::all();
    blocked
        .thread_block()
        .map_err(|e| said("block signals", e))?;
    spawned::forget_signals();
    let (inside, relay) = relay::prepare(tty, &target.root, target.uid.as_raw())?;
    // SAFETY: this process has one thread, so the child may do all that the parent may.
    match unsafe { fork() }.map_err(|e| said("fork", e))? {
        ForkResult::Parent { child } => {
            // Its streams end when it ends them, not when we do.
            drop(inside);
            relay.run(child, &blocked)
        }
        ForkResult::Child => {
            let taken = inside.take_on(asker == Asker::Check);
            let problem = match taken.and_then(|()| target.take_on()) {
                Ok(()) => {
                    let error = Command::new(program)
                        .args(arguments)
                        .env_clear()
                        .envs(target.environment)
                        .exec();
                    said(&format!("run `{}`", program.to_string_lossy()), error)
                }
                Err(problem) => problem,
            };
            eprintln!("{problem}");
            std::process::exit(i32::from(CANNOT_RUN));
        }
    }
}

impl Target {
    fn read(pid: i32) -> Result<Target, String> {
        let gone = || format!("cannot enter process {pid}: it has ended");
        let process = Process::open(pid, None).map_err(|_| gone())?;
        if !belongs(pid) {
            return Err(format!(
                "cannot enter process {pid}: it belongs to no workload (any more)"
            ));
        }
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let status = fs::read_to_string(folder.join("status"))
            .map_err(|e| said(&format!("read the state of process {pid}"), e))?;
        let hex = |name| proc::field(&status, name).and_then(|v| u64::from_str_radix(v, 16).ok());
        let numbers = |name| -> Vec<u32> {
            let words = proc::field(&status, name).unwrap_or_default();
            words
                .split_whitespace()
                .filter_map(|n| n.parse().ok())
                .collect()
        };
        let first = |name| {
            let ids = numbers(name);
            ids.first()
                .copied()
                .ok_or_else(|| format!("cannot read `{name}` of process {pid}"))
        };
        let target = Target {
            namespaces: differing(&folder),
            root: File::open(folder.join("root"))
                .map_err(|e| said(&format!("open the root of process {pid}"), e))?,
            directory: fs::read_link(folder.join("cwd")).unwrap_or_else(|_| "/".into()),
            uid: Uid::from_raw(first("Uid")?),
            gid: Gid::from_raw(first("Gid")?),
            groups: numbers("Groups").into_iter().map(Gid::from_raw).collect(),
            bounds: hex("CapBnd").ok_or("cannot read its bounds of privilege")?,
            no_new_privileges: proc::field(&status, "NoNewPrivs") == Some("1"),
            environment: environment(&folder.join("environ")),
            process,
        };
        // All of the above was read by number: it holds only if the process is still there.
        match target.process.runs() {
            true => Ok(target),
            false => Err(gone()),
        }
    }

    /// In the child, which is in the pid namespace already.
    fn take_on(&self) -> Result<(), String> {
        SigSet::all()
            .thread_unblock()
            .map_err(|e| said("unblock signals", e))?;
        // What the caller has open beyond the streams stays outside, folders above all.
        close_the_rest()?;
        if self.namespaces.contains(CloneFlags::CLONE_NEWNS) {
            nix::unistd::fchdir(&self.root)
                .and_then(|()| nix::unistd::chroot("."))
                .map_err(|e| said("enter its root", e))?;
        }
        if std::env::set_current_dir(&self.directory).is_err() {
            std::env::set_current_dir("/").map_err(|e| said("enter its root folder", e))?;
        }
        for capability in 0..64 {
            if self.bounds & (1 << capability) == 0 {
                // SAFETY: it takes numbers only. One that the kernel does not know is refused.
                unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
            }
        }
        nix::unistd::setgroups(&self.groups)
            .and_then(|()| nix::unistd::setresgid(self.gid, self.gid, self.gid))
            .and_then(|()| nix::unistd::setresuid(self.uid, self.uid, self.uid))
            .map_err(|e| said("become its user", e))?;
        if self.no_new_privileges {
            nix::sys::prctl::set_no_new_privs().map_err(|e| said("give up new privileges", e))?;
        }
        // Set last, a change of user clears it. Who gives up waiting kills the parent.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| said("tie its life", e))
    }
}

/// Which namespaces of a process are not ours.
fn differing(folder: &Path) -> CloneFlags {
    let kinds = [
        ("user", CloneFlags::CLONE_NEWUSER),
        ("mnt", CloneFlags::CLONE_NEWNS),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("net", CloneFlags::CLONE_NEWNET),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ];
    let identity = |path: PathBuf| fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let mut flags = CloneFlags::empty();
    for (name, flag) in kinds {
        let own = identity(Path::new("/proc/self/ns").join(name));
        let theirs = identity(folder.join("ns").join(name));
        if theirs.is_some() && own != theirs {
            flags |= flag;
        }
    }
    flags
}

/// Whether a process's cgroup, or one above it, is a workload's. A number that was given to
/// another process meanwhile is caught by this.
fn belongs(pid: i32) -> bool {
    let Ok(cgroups) = Cgroups::find() else {
        return false;
    };
    let Ok(folder) = cgroups.of_process(pid) else {
        return false;
    };
    folder
        .ancestors()
        .take_while(|above| above.starts_with(cgroups.mount()))
        .any(mark::marked)
}

fn join_cgroups(pid: i32) -> Result<(), String> {
    let cgroups = Cgroups::find().map_err(|error| error.message)?;
    let folders = cgroups
        .all_of_process(pid)
        .map_err(|e| said("find its cgroup", e))?;
    for folder in folders {
        cgroup::enter(&folder)
            .map_err(|e| said(&format!("enter the cgroup `{}`", folder.display()), e))?;
    }
    Ok(())
}

fn environment(path: &Path) -> Vec<(OsString, OsString)> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = io::Read::read_to_end(&mut io::Read::take(file, MOST), &mut bytes);
    }
    bytes
        .split(|byte| *byte == 0)
        .filter_map(|entry| {
            let equals = entry.iter().position(|byte| *byte == b'=')?;
            let (name, value) = entry.split_at(equals);
            let text = |part: &[u8]| OsStr::from_bytes(part).to_owned();
            (!name.is_empty()).then(|| (text(name), text(value.get(1..).unwrap_or_default())))
        })
        .collect()
}

/// "cannot do this: why".
pub(super) fn said<E: Into<io::Error>>(what: &str, error: E) -> String {
    format!("cannot {what}: {}", plain(&error.into()))
}
