//! A command whose exit code is the answer.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;

use super::{Said, plain, truncate_to};
use crate::driver::session;
use crate::health::OUTPUT_LIMIT;
use crate::spec::model::Status;

/// How long the output is awaited after the command's end, when something that it left behind
/// holds the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How much of the end of the output is kept, in bytes; the rest of the limit is for our words.
const TAIL_LIMIT: usize = OUTPUT_LIMIT - 256;

/// `exec /srv/check`; arguments stay out of it, they may hold what is not for all eyes.
pub(super) fn title(command: &[String]) -> String {
    let program = command.first().map_or("", String::as_str);
    format!("exec {}", truncate_to(128, program.to_owned()))
}

/// The command for the host's own namespaces, with nothing of the controller's environment but
/// what finds programs and a home.
pub(super) fn on_host(command: &[String]) -> Result<Command, String> {
    let (program, arguments) = command.split_first().ok_or("the command is empty")?;
    let mut made = Command::new(program);
    made.args(arguments).current_dir("/").env_clear();
    for name in ["PATH", "HOME", "LANG"] {
        if let Some(value) = std::env::var_os(name) {
            made.env(name, value);
        }
    }
    Ok(made)
}

/// Runs it. Exit 0 is passing, 1 a warning, all else critical.
pub(super) async fn ask(prepared: Result<Command, String>) -> Said {
    let ran = match prepared {
        Ok(command) => run(command).await,
        Err(why) => Err(why),
    };
    match ran {
        Ok((exit, output)) => judge(exit, &output),
        Err(why) => (Status::Critical, why),
    }
}

fn judge(exit: ExitStatus, output: &str) -> Said {
    let status = match exit.code() {
        Some(0) => Status::Passing,
        Some(1) => Status::Warning,
        _ => Status::Critical,
    };
    let how = match (exit.code(), exit.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    };
    (status, format!("{how} Output: {}", output.trim_end()))
}

async fn run(mut command: Command) -> Result<(ExitStatus, String), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed =
        |what: &str, error: std::io::Error| format!("cannot {what} `{program}`: {}", plain(&error));
    // One pipe for both streams keeps their order.
    let (reader, writer) = std::io::pipe().map_err(|e| failed("open a pipe for", e))?;
    let second = writer
        .try_clone()
        .map_err(|e| failed("open a pipe for", e))?;
    command.stdin(Stdio::null()).stdout(writer).stderr(second);
    // So that the time-out takes what the command started too.
    session::of_its_own(&mut command, true);
    let spawned = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .inspect_err(|_| session::not_begun());
    let mut running = Running::new(spawned.map_err(|e| failed("run", e))?);
    let reader =
        Receiver::from_owned_fd(reader.into()).map_err(|e| failed("read the output of", e))?;

    let mut tail = Tail::default();
    let exit = {
        let gather = tail.gather(reader);
        tokio::pin!(gather);
        tokio::select! {
            () = &mut gather => running.child.wait().await,
            exit = running.child.wait() => {
                // What the command left behind may hold the pipe for long; what was said by
                // now is enough.
                let _ = tokio::time::timeout(LAST_WORDS, &mut gather).await;
                exit
            }
        }
    };
    let exit = exit.map_err(|e| failed("wait for", e))?;
    Ok((exit, tail.text()))
}

/// The child; when it is dropped before its end, its whole process group is killed.
struct Running {
    child: Child,
    session: Option<i32>,
}

impl Running {
    fn new(child: Child) -> Self {
        let session = child.id().and_then(|id| i32::try_from(id).ok());
        Running { child, session }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(session) = self.session else { return };
        // The child's number is there only until it was reaped, so it cannot be another's.
        if self.child.id().is_some() {
            // It may have ended in this moment; then there is nobody left to kill.
            let _ = killpg(Pid::from_raw(session), Signal::SIGKILL);
        }
        session::ended(session);
    }
}

/// The end of a stream.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Reads to the end, or to an error, which ends the output as well.
    async fn gather(&mut self, mut reader: Receiver) {
        let mut piece = [0; 1024];
        while let Ok(length @ 1..) = reader.read(&mut piece).await {
            self.0
                .extend_from_slice(piece.get(..length).unwrap_or_default());
            if self.0.len() > 2 * TAIL_LIMIT {
                self.shorten();
            }
        }
    }

    fn shorten(&mut self) {
        let surplus = self.0.len().saturating_sub(TAIL_LIMIT);
        self.0.drain(..surplus);
    }

    fn text(mut self) -> String {
        self.shorten();
        String::from_utf8_lossy(&self.0).into_owned()
    }
}
