//! Commands on the host: validators, `pre_start`, reload commands.

mod capture;
mod ports;
pub mod sandbox;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::because::because;
use super::requirements::{describe, lacking};
use super::{Commands, DriverError, ErrorKind, NewFile, Output, Result};
use crate::graph::desired::Desired;

pub(crate) use self::capture::{Captured, Tie, capture};

/// Where commands are looked for, whatever the controller's own PATH says.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The host's commands.
#[derive(Debug, Clone)]
pub struct HostCommands {
    program: PathBuf,
}

impl Default for HostCommands {
    fn default() -> Self {
        HostCommands::new("/proc/self/exe")
    }
}

impl HostCommands {
    /// The host's commands; `program` is the hatchery binary, which is run again with
    /// `__inner validate` to build a validator's sandbox.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        HostCommands {
            program: program.into(),
        }
    }
}

impl Commands for HostCommands {
    /// The command has a session of its own, and all of that session is killed when the time
    /// is over, or this program. What it leaves in the background when it ends by itself lives on.
    fn run(&self, command: &[String], dir: &Path, timeout: Duration) -> Result<Output> {
        let mut prepared = prepare(command)?;
        let name = command.first().map_or("", String::as_str);
        if !dir.is_dir() {
            return Err(failed(format!(
                "cannot run `{name}` in `{}`: it is not a folder",
                dir.display()
            )));
        }
        prepared.current_dir(dir);
        let captured = capture(prepared, timeout, Tie::Attendant)
            .map_err(|error| failed(format!("cannot run `{name}`: {}", because(&error))))?;
        Ok(captured.into_output(timeout))
    }

    fn validate(
        &self,
        command: &[String],
        candidates: &[NewFile],
        timeout: Duration,
    ) -> Result<Output> {
        sandbox::validate(&self.program, command, candidates, timeout)
    }

    fn port_holder(&self, address: SocketAddr) -> Option<String> {
        ports::holder(address)
    }

    fn lacks(&self, desired: &Desired) -> Vec<String> {
        lacking(desired).iter().map(describe).collect()
    }
}

/// A command with the environment that all of ours get, and nothing else of our own.
pub(crate) fn prepare(command: &[String]) -> Result<Command> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(failed("cannot run an empty command".to_owned()));
    };
    let mut prepared = Command::new(program);
    prepared
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8");
    Ok(prepared)
}

fn failed(message: String) -> DriverError {
    DriverError {
        message,
        kind: ErrorKind::Failed,
    }
}
