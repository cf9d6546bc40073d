//! Starts a controller in the background: this program again, in a session of its own.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::error::CommandError;
use super::stack;
use super::wiring;
use crate::api::control::Client;
use crate::driver::{inner, log};
use crate::graph::desired::Dirs;
use crate::spec::model::LogLimit;

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether it does.
const LOOK: Duration = Duration::from_millis(20);
/// What is shown of the words of one that ended at once, in bytes.
const WORDS: u64 = 64 << 10;
/// The bound of the controller's own log.
const LIMIT: LogLimit = LogLimit {
    max_size: 10 << 20,
    max_files: 2,
};

/// A controller in the background that has taken its spec.
pub struct Started {
    /// Its process.
    pub pid: u32,
    /// Asks it.
    pub client: Client,
}

/// How a controller in the background begins.
#[derive(Debug, Clone, Default)]
pub struct Begin<'a> {
    /// What says where its spec comes from, for another process in another folder.
    pub arguments: Vec<OsString>,
    /// It follows edits of the spec's file.
    pub follows: bool,
    /// It may remove everything that runs.
    pub allow_empty: bool,
    /// Only as far as the plan in this file goes; absolute.
    pub saved: Option<&'a Path>,
}

/// Where a controller in the background writes.
pub fn log_file(dirs: &Dirs) -> PathBuf {
    dirs.log.join("controller.log")
}

/// Rotates that file if it outgrew its bound.
pub fn bound(path: &Path) {
    if let Err(error) = log::rotate(path, LIMIT) {
        tracing::warn!("cannot rotate `{}`: {error}", path.display());
    }
}

/// Starts it, and returns once it has taken the spec.
///
/// # Errors
/// What it said when it ended at once, or that one runs already.
pub async fn start(name: &str, begin: Begin<'_>) -> Result<Started, CommandError> {
    if let Some(running) = stack::client_if_any(name).await? {
        let pid = running.version().await?.pid;
        return Err(CommandError::new(format!(
            "stack `{name}` has a controller already (pid {pid})"
        ))
        .hint("hand the spec to it with `hatchery apply SPEC`"));
    }
    let path = log_file(&wiring::dirs(name));
    let (log, written) = open(&path).map_err(|error| {
        CommandError::new(format!("cannot write the log `{}`", path.display())).because(&error)
    })?;
    let mut child = spawn(name, begin, &log)
        .map_err(|error| CommandError::new("cannot start a controller").because(&error))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(client) = answers(name, child.id()).await? {
            return Ok(Started {
                pid: child.id(),
                client,
            });
        }
        let gone = child
            .try_wait()
            .map_err(|error| CommandError::new("cannot wait for the controller").because(&error))?;
        if gone.is_some() {
            return Err(last_words(&path, written));
        }
        if Instant::now() >= deadline {
            return Err(CommandError::new(format!(
                "the controller (pid {}) did not take the spec within {}s",
                child.id(),
                PATIENCE.as_secs()
            ))
            .hint(format!("`{}` may say why", path.display())));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The file, and where what is written from now on begins.
fn open(path: &Path) -> std::io::Result<(File, u64)> {
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    bound(path);
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    let begin = log.metadata()?.len();
    Ok((log, begin))
}

fn spawn(name: &str, begin: Begin<'_>, log: &File) -> std::io::Result<Child> {
    let mut command = Command::new(inner::own_program());
    command
        .args(["--stack", name, "--color", "never", "up", "--detached"])
        .args((!begin.follows).then_some("--no-follow"))
        .args(begin.allow_empty.then_some("--allow-empty"))
        .args(
            begin
                .saved
                .iter()
                .flat_map(|path| [OsStr::new("--saved"), path.as_os_str()]),
        )
        .args(begin.arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?);
    // SAFETY: between fork and exec only `setsid` is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            Ok(())
        });
    }
    command.spawn()
}

/// The controller of this process id, once it answers: it has taken its spec then.
async fn answers(name: &str, pid: u32) -> Result<Option<Client>, CommandError> {
    let Some(client) = stack::client_if_any(name).await? else {
        return Ok(None);
    };
    // While it is still reading the spec it may end, and with it the connection.
    match client.status().await {
        Ok(status) if status.controller_pid == pid => Ok(Some(client)),
        _ => Ok(None),
    }
}

/// What it wrote before it ended is the error, as it stands.
fn last_words(path: &Path, begin: u64) -> CommandError {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(begin))?;
        let mut bytes = Vec::new();
        file.take(WORDS).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(words) if !words.trim().is_empty() => {
            CommandError::report(crate::plan::text::visible(words.trim_end()))
        }
        _ => CommandError::new("the controller ended at once and said nothing")
            .hint(format!("its log is `{}`", path.display())),
    }
}
