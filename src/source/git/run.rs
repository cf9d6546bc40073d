//! Programs with bounds: time, output, and what they may write.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::GitError;
use super::error::quoted;
use super::url::PROTOCOLS;

/// Of what a program says about its troubles, so much is read, in bytes.
const WORDS: u64 = 64 << 10;

/// Variables that point git at other repositories or objects than those that are meant.
const NOT_INHERITED: [&str; 12] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_EXTERNAL_DIFF",
    "GIT_TRACE",
    "GIT_EXEC_PATH",
];

/// Settings that hold whatever the machine's own are: nothing that comes along is run.
const SETTINGS: [&str; 10] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "transfer.fsckObjects=true",
    "fetch.fsckObjects=true",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "protocol.ext.allow=never",
    // Whose the mirror is was looked at when it was opened.
    "safe.directory=*",
];

/// How far a program may go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// It is killed after that.
    pub time: Duration,
    /// So much of its output is read, in bytes; more is an error.
    pub output: u64,
    /// It may write no larger file, in bytes.
    pub file: u64,
}

/// For one setting.
const QUESTION: Bounds = Bounds {
    time: Duration::from_secs(10),
    output: 64 << 10,
    file: 0,
};

/// `git` for one repository.
pub(super) fn git(folder: &Path) -> Command {
    let mut command = plain();
    command.arg("--git-dir").arg(folder).current_dir("/");
    command
}

/// `git` for the repository that somebody has around a folder.
pub(super) fn anywhere(folder: &Path) -> Command {
    let mut command = plain();
    command.current_dir(folder);
    command
}

fn plain() -> Command {
    let mut command = Command::new("git");
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    command
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", "none")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("LC_ALL", "C")
        .args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
    if let Some(home) = home(std::env::var_os("HOME")) {
        command.env("HOME", home);
    }
    command
}

/// Where git looks for its user's settings and credentials. A service of systemd is told no home,
/// and must find there what its user's shell finds.
fn home(told: Option<OsString>) -> Option<OsString> {
    told.or_else(|| {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
        Some(user.ok()??.dir.into_os_string())
    })
}

/// The same, where it is to speak with others.
pub(super) fn git_outside(folder: &Path) -> Command {
    let mut command = git(folder);
    command
        .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
        // Whatever is called to speak SSH, it opens no window to ask somebody; there is no
        // terminal either.
        .env("SSH_ASKPASS_REQUIRE", "never");
    if !names_ssh(folder) {
        command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes");
    }
    command
}

/// Whether the user says how SSH is spoken; what a variable says would outrank a setting.
fn names_ssh(folder: &Path) -> bool {
    let variables = ["GIT_SSH_COMMAND", "GIT_SSH"];
    if variables
        .iter()
        .any(|name| std::env::var_os(name).is_some())
    {
        return true;
    }
    let mut config = git(folder);
    config.args(["config", "--get", "core.sshCommand"]);
    run(config, b"", QUESTION).is_ok_and(|ran| ran.success)
}

/// What a program that ended said.
#[derive(Debug)]
pub(super) struct Ran {
    /// It ended with 0.
    pub success: bool,
    /// It was killed because its time was over.
    pub late: bool,
    /// Its output.
    pub output: Vec<u8>,
    /// Its words about troubles, quoted.
    pub said: String,
}

impl Ran {
    /// The output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

/// A program that runs, in a session of its own: it is killed with its children when its time is
/// over or nobody waits for its end any more, and finds no terminal on which to ask.
pub(super) struct Running {
    program: Program,
    pub input: Option<ChildStdin>,
    pub output: ChildStdout,
    words: JoinHandle<String>,
    late: Arc<AtomicBool>,
}

/// A child that does not outlive this.
struct Program {
    child: Child,
    /// Kills it when its time is over; `None` once it was waited for.
    watch: Option<Watch>,
}

struct Watch {
    ended: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Watch {
    fn stop(self) {
        drop(self.ended);
        let _ = self.thread.join();
    }
}

impl Program {
    fn wait(&mut self) -> io::Result<ExitStatus> {
        wait_without_reaping(&self.child)?;
        if let Some(watch) = self.watch.take() {
            watch.stop();
        }
        self.child.wait()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            kill(self.child.id());
            watch.stop();
            let _ = self.child.wait();
        }
    }
}

impl Running {
    /// Starts it.
    ///
    /// # Errors
    /// Names the program that is missing.
    pub fn start(mut command: Command, bounds: Bounds) -> Result<Running, GitError> {
        let program = command.get_program().to_owned();
        let file = bounds.file;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: between fork and exec only system calls are made, all async-signal-safe.
        unsafe {
            command.pre_exec(move || limit(file));
        }
        let mut child = command.spawn().map_err(|error| missing(&program, &error))?;
        let group = child.id();
        let lost = || GitError::Local("cannot read what a program says".to_owned());
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or_else(lost)?;
        let errors = child.stderr.take().ok_or_else(lost)?;
        let words = std::thread::spawn(move || {
            let mut said = Vec::new();
            // What cannot be read is not quoted. The rest is read all the same: a full pipe
            // would hold the program up.
            let mut errors = errors;
            let _ = (&mut errors).take(WORDS).read_to_end(&mut said);
            let _ = io::copy(&mut errors, &mut io::sink());
            quoted(&String::from_utf8_lossy(&said))
        });
        let (ended, end) = mpsc::channel();
        let late = Arc::new(AtomicBool::new(false));
        let is_late = Arc::clone(&late);
        let thread = std::thread::spawn(move || {
            if end.recv_timeout(bounds.time) == Err(RecvTimeoutError::Timeout) {
                is_late.store(true, Ordering::Release);
                kill(group);
            }
        });
        let watch = Some(Watch { ended, thread });
        Ok(Running {
            program: Program { child, watch },
            input,
            output,
            words,
            late,
        })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn end(self, output: Vec<u8>) -> Result<Ran, GitError> {
        let Running {
            mut program,
            input,
            output: pipe,
            words,
            late,
        } = self;
        drop((input, pipe));
        let said = words.join().unwrap_or_default();
        let status = program.wait();
        let status = status.map_err(|error| GitError::Local(format!("cannot wait: {error}")))?;
        Ok(Ran {
            success: status.success(),
            late: late.load(Ordering::Acquire),
            output,
            said,
        })
    }
}

/// Until a child is reaped its number is no other's, and the watch may still use it.
fn wait_without_reaping(child: &Child) -> io::Result<()> {
    let child = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let end = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::Pid(child), end) {
            Err(Errno::EINTR) => {}
            waited => return Ok(waited.map(|_| ())?),
        }
    }
}

/// Runs a program to its end, with this as its input.
///
/// # Errors
/// When it cannot be started, or says more than it may.
pub(super) fn run(command: Command, input: &[u8], bounds: Bounds) -> Result<Ran, GitError> {
    let program = command.get_program().to_owned();
    let mut running = Running::start(command, bounds)?;
    let group = running.program.child.id();
    let pipe = running.input.take();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // One that does not read its input to the end says why itself.
        pipe.map(|mut pipe| pipe.write_all(&input))
    });
    let mut output = Vec::new();
    let read = (&mut running.output)
        .take(bounds.output.saturating_add(1))
        .read_to_end(&mut output);
    let too_much = output.len() as u64 > bounds.output;
    if too_much || read.is_err() {
        kill(group);
    }
    let ran = running.end(output)?;
    let _ = writer.join();
    if too_much {
        return Err(GitError::Refused(format!(
            "`{}` said more than {} MiB",
            program.display(),
            bounds.output >> 20
        )));
    }
    Ok(ran)
}

/// Begins a session and sets two limits: a file's size, and an end with our own thread.
fn limit(file: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: file,
        rlim_max: file,
    };
    // SAFETY: the calls take plain values, and the pointer lives through its call.
    let set = unsafe {
        libc::setsid() != -1
            && libc::setrlimit(libc::RLIMIT_FSIZE, &limit) == 0
            && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0
    };
    match set {
        true => Ok(()),
        false => Err(io::Error::last_os_error()),
    }
}

/// Kills a group whose leader is our child and was not waited for yet.
fn kill(group: u32) {
    if let Ok(group) = libc::pid_t::try_from(group)
        && group > 1
    {
        // SAFETY: plain values. The group's leader is not reaped, so the number is still its.
        unsafe {
            libc::kill(-group, libc::SIGKILL);
        }
    }
}

/// Which package brings a program.
fn missing(program: &OsStr, error: &io::Error) -> GitError {
    let name = program.to_string_lossy();
    let package = match &*name {
        "git" => "git",
        "ssh-keygen" => "openssh-client",
        "gpgv" => "gpgv",
        "gpg" => "gpg",
        _ => "",
    };
    match error.kind() {
        io::ErrorKind::NotFound => GitError::Local(format!(
            "cannot find `{name}`; install it with `apt-get install {package}`"
        )),
        _ => GitError::Local(format!("cannot run `{name}`: {error}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BOUNDS: Bounds = Bounds {
        time: Duration::from_secs(20),
        output: 1 << 16,
        file: 1 << 16,
    };

    fn shell(script: &str, bounds: Bounds) -> Result<Ran, GitError> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, b"in", bounds)
    }

    #[test]
    fn what_is_said_comes_back() {
        let ran = shell("cat; echo 'https://me:secret@h/x' >&2; exit 3", BOUNDS).unwrap();
        assert!(!ran.success && !ran.late);
        assert_eq!(ran.text(), "in");
        assert_eq!(ran.said, "https://***@h/x");
    }

    #[test]
    fn one_that_hangs_is_killed_with_all_its_children() {
        let bounds = Bounds {
            time: Duration::from_millis(200),
            ..BOUNDS
        };
        let ran = shell("sleep 600 & sleep 600", bounds).unwrap();
        assert!(ran.late && !ran.success);
    }

    #[test]
    fn one_that_nobody_waits_for_is_killed_and_leaves_nothing() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $!; cat"]);
        let mut running = Running::start(command, BOUNDS).unwrap();
        let mut child = String::new();
        let mut output = io::BufReader::new(&mut running.output);
        io::BufRead::read_line(&mut output, &mut child).unwrap();
        let leader = running.program.child.id();
        drop(running);
        let there = |pid: &str| std::path::Path::new(&format!("/proc/{pid}")).exists();
        // Its child is reaped by whoever adopted it.
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        let ended = || state().is_err() || state().is_ok_and(|stat| stat.contains(" Z "));
        assert!(!there(&leader.to_string()), "not even a zombie");
        let begin = std::time::Instant::now();
        while !ended() {
            assert!(begin.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn one_that_says_too_much_is_killed() {
        let error = shell("yes", BOUNDS).unwrap_err().to_string();
        assert!(error.contains("said more than"), "{error}");
        let ran = shell("yes | head -c 200000 >&2", BOUNDS).unwrap();
        assert!(
            ran.success && ran.said.len() < 2000,
            "words are cut, not refused"
        );
    }

    #[test]
    fn files_have_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("large").display().to_string();
        let ran = shell(&format!("head -c 1000000 /dev/zero > {file}"), BOUNDS).unwrap();
        assert!(!ran.success);
        assert!(std::fs::metadata(file).unwrap().len() <= 1 << 16);
    }

    #[test]
    fn git_has_a_home_where_none_was_told() {
        let told = OsString::from("/elsewhere");
        assert_eq!(home(Some(told.clone())), Some(told));
        let own = nix::unistd::User::from_uid(nix::unistd::geteuid());
        let own = own.unwrap().map(|user| user.dir.into_os_string());
        assert_eq!(home(None), own);
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let said = missing(OsStr::new("gpgv"), &io::ErrorKind::NotFound.into()).to_string();
        assert!(said.contains("apt-get install gpgv"), "{said}");
    }
}
