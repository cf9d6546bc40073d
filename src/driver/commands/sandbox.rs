//! A validator's sandbox: the whole host as it is, but every write goes to memory.
//!
//! The controller runs the hatchery binary again, as `__inner validate`. That process has one
//! thread, so it may enter new mount and process namespaces. In them each file system
//! of the host gets an overlay whose upper layer is a tmpfs; the candidates are written
//! to their destinations, and the validator runs. With its end the kernel drops all of it,
//! also what it put into the background.

mod mounts;

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::{Tie, capture, failed, prepare};
use crate::driver::because::because;
use crate::driver::files::resolve_owner;
use crate::driver::{ErrorKind, NewFile, Output, Result};

/// How long the sandbox may take beyond the validator's own time, to be built and to end.
const SLACK: Duration = Duration::from_secs(5);

/// The largest set of candidates, in bytes.
const LARGEST_JOB: u64 = 64 * 1024 * 1024;

/// The largest answer, in bytes: 4 KiB of text, each byte escaped.
const LARGEST_ANSWER: u64 = 64 * 1024;

/// What the inner process is asked.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    command: Vec<String>,
    candidates: Vec<Candidate>,
    timeout: Duration,
}

/// A file as it would be.
#[derive(Debug, Serialize, Deserialize)]
struct Candidate {
    path: PathBuf,
    content: String,
    mode: u32,
    owner: Option<String>,
}

/// What the inner process answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// The validator ended.
    Ended(Output),
    /// The sandbox could not be built, or the validator not be started.
    Failed(String),
}

/// Runs `command` in a sandbox that `program` builds.
pub(super) fn validate(
    program: &Path,
    command: &[String],
    candidates: &[NewFile],
    timeout: Duration,
) -> Result<Output> {
    let cannot = |reason: &str| {
        let name = command.first().map_or("", String::as_str);
        failed(format!("cannot run the validator `{name}`: {reason}"))
    };
    let job = Job {
        command: command.to_vec(),
        candidates: candidates
            .iter()
            .map(|file| Candidate {
                path: file.path.clone(),
                content: file.content.clone(),
                mode: file.mode,
                owner: file.owner.clone(),
            })
            .collect(),
        timeout,
    };
    let mut child = start(program, &job).map_err(|error| cannot(&because(&error)))?;
    let answer = receive(&mut child, timeout.saturating_add(SLACK));
    // It has answered, or it must not go on; its namespaces end with it.
    let _ = child.kill();
    child.wait().map_err(|error| cannot(&because(&error)))?;
    match answer {
        Ok(Some(Answer::Ended(output))) => Ok(output),
        Ok(Some(Answer::Failed(reason))) => Err(cannot(&reason)),
        Ok(None) => Err(super::DriverError {
            kind: ErrorKind::TimedOut,
            ..cannot("its sandbox did not answer in time")
        }),
        Err(error) => Err(cannot(&because(&error))),
    }
}

/// The job goes through a file in memory: however large it is, writing it cannot block.
fn start(program: &Path, job: &Job) -> io::Result<Child> {
    let text = serde_json::to_vec(job)?;
    if text.len() as u64 > LARGEST_JOB {
        return Err(io::Error::other("the rendered files are too large"));
    }
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::memfd_create("job", flags)?);
    file.write_all(&text)?;
    file.rewind()?;
    Command::new(program)
        .args(["__inner", "validate"])
        .env_clear()
        .stdin(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

/// Waits for the answer; `None` when the time is over.
fn receive(child: &mut Child, patience: Duration) -> io::Result<Option<Answer>> {
    let Some(mut stdout) = child.stdout.take() else {
        return Err(io::Error::other("its output was not kept"));
    };
    rustix::io::ioctl_fionbio(stdout.as_fd(), true)?;
    let deadline = Instant::now().checked_add(patience);
    let mut text = Vec::new();
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
        let left = left.map(Timespec::try_from).transpose();
        let left = left.map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&stdout, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let mut buffer = [0u8; 4096];
        match stdout.read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("its sandbox ended without an answer")),
            Ok(count) => text.extend(buffer.iter().take(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if text.ends_with(b"\n") {
            return Ok(Some(serde_json::from_slice(&text)?));
        }
        if text.len() as u64 > LARGEST_ANSWER {
            return Err(io::Error::other("its sandbox answered too much"));
        }
    }
}

/// The inner process: reads a job from stdin and answers on stdout with one line of JSON.
///
/// It must be called before any other thread exists. Its exit code means nothing.
pub fn inner_validate() -> ExitCode {
    if let Err(reason) = isolate_and_run() {
        answer(&Answer::Failed(reason));
    }
    ExitCode::SUCCESS
}

fn isolate_and_run() -> std::result::Result<(), String> {
    let step =
        |what: &'static str| move |error: Errno| format!("{what}: {}", because(&error.into()));
    die_with_parent().map_err(step("cannot be bound to the controller's life"))?;
    let mut text = Vec::new();
    io::stdin()
        .take(LARGEST_JOB)
        .read_to_end(&mut text)
        .map_err(|error| because(&error))?;
    let job: Job = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID).map_err(|errno| {
        let error = io::Error::from(errno);
        format!(
            "cannot enter namespaces of its own: {}; run hatchery as root",
            because(&error)
        )
    })?;
    // SAFETY: this process has one thread, so the child may do all that a process may.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => {
            waitpid(child, None).map_err(|errno| because(&errno.into()))?;
        }
        Ok(ForkResult::Child) => {
            let outcome = die_with_parent()
                .map_err(step("cannot be bound to the controller's life"))
                .and_then(|()| run(&job));
            answer(&outcome.map_or_else(Answer::Failed, Answer::Ended));
        }
        Err(errno) => return Err(format!("cannot fork: {}", because(&errno.into()))),
    }
    Ok(())
}

fn die_with_parent() -> std::result::Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
}

/// As the first process of its namespace: builds the sandbox and runs the validator in it.
fn run(job: &Job) -> std::result::Result<Output, String> {
    mounts::enter().map_err(|error| error.to_string())?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    for candidate in &job.candidates {
        place(candidate)
            .map_err(|reason| format!("cannot place `{}`: {reason}", candidate.path.display()))?;
    }
    let command = prepare(&job.command).map_err(|error| error.message)?;
    let captured = capture(command, job.timeout, Tie::Thread).map_err(|error| because(&error))?;
    Ok(captured.into_output(job.timeout))
}

/// Writes a candidate to its destination, as it would be there.
fn place(candidate: &Candidate) -> std::result::Result<(), String> {
    let write = || -> io::Result<std::fs::File> {
        if let Some(folder) = candidate.path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)?;
        }
        match std::fs::remove_file(&candidate.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&candidate.path)?;
        file.write_all(candidate.content.as_bytes())?;
        Ok(file)
    };
    let file = write().map_err(|error| because(&error))?;
    if let Some(owner) = &candidate.owner {
        let (uid, gid) = resolve_owner(owner)?;
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).map_err(|error| because(&error))?;
    }
    file.set_permissions(Permissions::from_mode(candidate.mode & 0o7777))
        .map_err(|error| because(&error))
}

fn answer(answer: &Answer) {
    let Ok(mut text) = serde_json::to_vec(answer) else {
        return;
    };
    text.push(b'\n');
    // The controller may be gone; then nobody wants to know.
    let _ = io::stdout()
        .write_all(&text)
        .and_then(|()| io::stdout().flush());
}
