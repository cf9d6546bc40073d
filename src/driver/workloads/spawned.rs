//! The inner job `spawn`: becomes a workload, step by step, or says which step failed.
//!
//! It reads its [`Job`] from its standard input and reports on its standard output, a pipe
//! that closes by itself when the workload's program is executed. Nothing of the controller
//! stays open in the workload: it has a session, a log file and a cgroup of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Group, Uid, User};
use serde::{Deserialize, Serialize};

use super::mark::{self, Mark};
use super::{proc, relay};
use crate::driver::cgroup::{self, Cgroups};
use crate::driver::unwritable::Unwritable;

/// The first line of a report: the job was understood, an empty rest means success.
pub(super) const BEGUN: &str = "begun\n";

/// The largest job that is read.
const MOST: u64 = 4 << 20;

/// All that the inner job needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// Where it belongs.
    pub place: Place,
    /// The network namespace to join, a file.
    pub namespace: Option<PathBuf>,
    /// Where its output goes.
    pub log: PathBuf,
    /// What is executed, program first.
    pub command: Vec<String>,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// `user`, `user:group` or numbers.
    pub user: Option<String>,
    /// Where it starts.
    pub directory: PathBuf,
    /// The command is nspawn: what it is given of the host, a container can lay its hands on.
    pub contains: bool,
}

/// The cgroup of a workload.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Place {
    /// Made and marked already; v2 first.
    Made(Vec<PathBuf>),
    /// We are in it: systemd made it for us, and it is still to be marked.
    Here {
        /// What it says.
        mark: Box<Mark>,
        /// Another cgroup of this life, which says so already and stays when systemd removes ours.
        record: PathBuf,
    },
}

/// Runs the job; returns only when it failed.
pub(crate) fn run(_arguments: &[OsString]) -> ExitCode {
    let mut report = match report() {
        Ok(report) => report,
        Err(error) => {
            eprintln!("cannot report: {error}");
            return ExitCode::FAILURE;
        }
    };
    let Err(problem) = job().and_then(|job| become_workload(&job, &mut report));
    let _ = report.write_all(problem.as_bytes());
    ExitCode::FAILURE
}

/// Never returns well: success is another program in this process.
enum Never {}

/// The pipe to the controller, away from the numbers that the workload will use.
fn report() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

fn job() -> Result<Job, String> {
    let mut text = Vec::new();
    io::stdin()
        .lock()
        .take(MOST)
        .read_to_end(&mut text)
        .map_err(step("read its job"))?;
    serde_json::from_slice(&text).map_err(|error| format!("cannot read its job: {error}"))
}

fn become_workload(job: &Job, report: &mut File) -> Result<Never, String> {
    report
        .write_all(BEGUN.as_bytes())
        .map_err(step("report to the controller"))?;
    take_place(&job.place)?;
    nix::unistd::setsid().map_err(step("begin a session"))?;
    if let Some(path) = &job.namespace {
        let file = File::open(path).map_err(step(&format!(
            "open the network namespace `{}`",
            path.display()
        )))?;
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(step(&format!(
            "join the network namespace `{}`",
            path.display()
        )))?;
    }
    streams(job)?;
    forget_signals();
    close_the_rest()?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    forget_favours(&job.place);
    if let Some(user) = &job.user {
        switch_user(user)?;
    }
    std::env::set_current_dir(&job.directory).map_err(step(&format!(
        "enter the folder `{}`",
        job.directory.display()
    )))?;
    let Some((program, arguments)) = job.command.split_first() else {
        return Err("cannot run an empty command".to_owned());
    };
    let unwritable;
    let mut command = match job.contains {
        false => Command::new(program),
        true => {
            unwritable = look_up(program, job)?;
            Command::new(unwritable.path())
        }
    };
    let error = command
        .arg0(program)
        .args(arguments)
        .env_clear()
        .envs(&job.environment)
        .exec();
    Err(step(&format!("run `{program}`"))(error))
}

/// Finds a program as a shell does, and opens it so that nobody who runs from it can change it:
/// a container's processes do until their command is executed, and its first one for ever.
fn look_up(program: &str, job: &Job) -> Result<Unwritable, String> {
    let folders = job.environment.get("PATH").map_or("", String::as_str);
    let candidates = std::env::split_paths(folders).map(|folder| folder.join(program));
    let found = candidates.into_iter().find(|path| {
        let found = fs::metadata(path);
        found.is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
    });
    let path = found.ok_or_else(|| {
        format!("cannot run `{program}`: no such file or directory in `{folders}`")
    })?;
    Unwritable::open(&path).map_err(step(&format!("open `{}` read-only", path.display())))
}

/// The process is noted first, so that whoever finds something in the cgroup knows what.
fn take_place(place: &Place) -> Result<(), String> {
    let pid = i32::try_from(std::process::id()).unwrap_or_default();
    let start = proc::stat(pid).ok_or("cannot read its own start time from `/proc`")?;
    match place {
        Place::Made(folders) => {
            if let Some(first) = folders.first() {
                mark::write_process(first, pid, start.start)
                    .and_then(|()| cgroup::bound(first))
                    .map_err(step(&format!(
                        "mark and bound the cgroup `{}`",
                        first.display()
                    )))?;
            }
            for folder in folders {
                cgroup::enter(folder)
                    .map_err(step(&format!("enter the cgroup `{}`", folder.display())))?;
            }
        }
        Place::Here { mark, record } => {
            // Who removed it meanwhile took this life for one that never began.
            mark::write_process(record, pid, start.start)
                .map_err(step(&format!("mark the cgroup `{}`", record.display())))?;
            let cgroups = Cgroups::find().map_err(|error| error.message)?;
            let folder = cgroups
                .of_process(pid)
                .map_err(step("find the cgroup that systemd made"))?;
            mark.write(&folder)
                .and_then(|()| mark::write_process(&folder, pid, start.start))
                .and_then(|()| cgroup::bound(&folder))
                .map_err(step(&format!(
                    "mark and bound the cgroup `{}`",
                    folder.display()
                )))?;
        }
    }
    Ok(())
}

/// A container holds its input as it is, and whoever holds the host's `/dev/null` changes its
/// mode for everybody.
fn streams(job: &Job) -> Result<(), String> {
    let log = &job.log;
    let input = match job.contains {
        true => relay::empty_input().map_err(step("make an empty input"))?,
        false => File::open("/dev/null")
            .map_err(step("open `/dev/null`"))?
            .into(),
    };
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW)
        .open(log)
        .map_err(step(&format!("open the log file `{}`", log.display())))?;
    nix::unistd::dup2_stdin(&input)
        .and_then(|()| nix::unistd::dup2_stdout(&file))
        .and_then(|()| nix::unistd::dup2_stderr(&file))
        .map_err(step("point its output to the log file"))
}

/// What the controller or its shell ignored (nohup ignores SIGHUP) is none of the workload's.
pub(super) fn forget_signals() {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: setting a disposition to the default touches no memory; numbers that
        // cannot be set (9, 19, those of the C library) are refused without harm.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// What makes the controller hard to kill and lets it open many files is its alone: a workload
/// begins as any service of the machine does.
fn forget_favours(place: &Place) {
    const SCORE: &str = "/proc/self/oom_score_adj";
    let spared = fs::read_to_string(SCORE)
        .ok()
        .and_then(|score| score.trim().parse::<i32>().ok())
        .is_some_and(|score| score < 0);
    if spared {
        // Everybody may make himself easier to kill.
        let _ = fs::write(SCORE, "0");
    }
    // Programs that use select(2) break above this, so systemd gives no service more unasked.
    const USUAL: u64 = 1024;
    if matches!(place, Place::Here { .. })
        && let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft > USUAL
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, USUAL, hard);
    }
}

/// Everything above the standard streams closes at exec, the report's pipe too.
pub(super) fn close_the_rest() -> Result<(), String> {
    // SAFETY: it only sets a flag on descriptors.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    match answer {
        0 => Ok(()),
        _ => Err(step("close what the controller left open (kernel 5.11)")(
            io::Error::last_os_error(),
        )),
    }
}

fn switch_user(wanted: &str) -> Result<(), String> {
    let (user, group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let (uid, own_gid, login) = find_user(user)?;
    let gid = match group {
        Some(group) => find_group(group)?,
        None => own_gid,
    };
    match login {
        Some(login) => nix::unistd::initgroups(&login, gid),
        None => nix::unistd::setgroups(&[gid]),
    }
    .and_then(|()| nix::unistd::setresgid(gid, gid, gid))
    .and_then(|()| nix::unistd::setresuid(uid, uid, uid))
    .map_err(step(&format!("become the user `{wanted}`")))
}

fn find_user(user: &str) -> Result<(Uid, Gid, Option<std::ffi::CString>), String> {
    let look = step(&format!("look up the user `{user}`"));
    let found = match (User::from_name(user), user.parse::<u32>()) {
        (Ok(None), Ok(number)) => User::from_uid(Uid::from_raw(number)),
        (found, _) => found,
    };
    match (found.map_err(look)?, user.parse::<u32>()) {
        (Some(found), _) => {
            let login = std::ffi::CString::new(found.name).ok();
            Ok((found.uid, found.gid, login))
        }
        (None, Ok(number)) => Ok((Uid::from_raw(number), Gid::from_raw(number), None)),
        (None, Err(_)) => Err(format!(
            "cannot become the user `{user}`: this host has none of that name"
        )),
    }
}

fn find_group(group: &str) -> Result<Gid, String> {
    let found = Group::from_name(group).map_err(step(&format!("look up the group `{group}`")))?;
    match (found, group.parse::<u32>()) {
        (Some(found), _) => Ok(found.gid),
        (None, Ok(number)) => Ok(Gid::from_raw(number)),
        (None, Err(_)) => Err(format!(
            "cannot take the group `{group}`: this host has none of that name"
        )),
    }
}

/// "cannot do this: why".
fn step<E: Into<io::Error>>(what: &str) -> impl FnOnce(E) -> String + use<E> {
    let what = what.to_owned();
    move |error| {
        let error: io::Error = error.into();
        format!("cannot {what}: {}", plain(&error))
    }
}

/// The system's words without the number that Rust appends.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

/// The job in a file without a name: as large as it likes, and read by nobody else.
///
/// # Errors
/// What the kernel said.
pub(super) fn hand_over(job: &Job) -> io::Result<File> {
    let fd = rustix::fs::memfd_create("hatchery-job", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(&serde_json::to_vec(job)?)?;
    io::Seek::rewind(&mut file)?;
    debug_assert!(file.as_raw_fd() > 2);
    Ok(file)
}

/// The folder that a log file lies in, made if it is missing.
///
/// # Errors
/// What the disk said.
pub(super) fn ensure_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent),
        None => Ok(()),
    }
}
