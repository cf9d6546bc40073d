//! What is asked of systemd, through its own commands.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::cli::error::CommandError;
use crate::plan::text::visible;

/// Lines of the journal that say why a unit did not start.
const LAST_WORDS: &str = "12";

/// Demands that systemd runs here, and that we may change its units.
///
/// # Errors
/// When it does not, or we may not.
pub fn demand() -> Result<(), CommandError> {
    if !is_booted() {
        return Err(
            CommandError::new("cannot keep a service: systemd is not process 1 here")
                .hint("`hatchery up -d SPEC` runs a controller in the background anywhere"),
        );
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(CommandError::new(
            "cannot change services: run this as root",
        ));
    }
    Ok(())
}

/// Whether systemd is process 1 here.
pub fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Runs `systemctl` with these arguments.
///
/// # Errors
/// What it said.
pub fn systemctl(arguments: &[&str]) -> Result<String, CommandError> {
    let output = run("systemctl", arguments)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut error = CommandError::new(format!("cannot {} with systemctl", arguments.join(" ")));
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        error = error.detail(line);
    }
    Err(error)
}

/// As [`systemctl`], for a unit that is to run afterwards: the error holds what it said last.
///
/// # Errors
/// What systemd said, and the unit.
pub fn launch(verb: &str, unit: &str) -> Result<(), CommandError> {
    systemctl(&[verb, unit]).map(|_| ()).map_err(|mut error| {
        let journal = ["--no-pager", "-o", "cat", "-n", LAST_WORDS, "-u", unit];
        if let Ok(output) = run("journalctl", &journal) {
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                error = error.detail(line);
            }
        }
        error.hint(format!("`journalctl -u {unit}` says more"))
    })
}

fn run(program: &str, arguments: &[&str]) -> Result<Output, CommandError> {
    Command::new(program)
        .args(arguments)
        .env("SYSTEMD_COLORS", "0")
        .env("SYSTEMD_PAGER", "")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| CommandError::new(format!("cannot run `{program}`")).because(&error))
}

/// How systemd sees a unit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct View {
    /// `active`, `activating`, `inactive`, `failed` …
    pub active: String,
    /// `running`, `auto-restart`, `dead` …
    pub sub: String,
    /// `enabled`, `disabled` …; empty when there is no such unit.
    pub file_state: String,
    /// Where the unit's file lies; empty when there is none.
    pub fragment: String,
    /// The controller's process; 0 when there is none.
    pub pid: u32,
    /// What the controller said last.
    pub status: String,
    /// Since when it is active, in systemd's words.
    pub since: String,
    /// How often systemd started it again.
    pub restarts: String,
}

/// Asks how systemd sees `unit`.
///
/// # Errors
/// When it does not answer.
pub fn view(unit: &str) -> Result<View, CommandError> {
    let properties = "ActiveState,SubState,UnitFileState,FragmentPath,MainPID,StatusText,\
                      ActiveEnterTimestamp,NRestarts";
    systemctl(&["show", "-p", properties, unit]).map(|text| parse(&text))
}

fn parse(text: &str) -> View {
    let mut view = View::default();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let value = visible(value);
        match name {
            "ActiveState" => view.active = value,
            "SubState" => view.sub = value,
            "UnitFileState" => view.file_state = value,
            "FragmentPath" => view.fragment = value,
            "MainPID" => view.pid = value.parse().unwrap_or(0),
            "StatusText" => view.status = value,
            "ActiveEnterTimestamp" => view.since = value,
            "NRestarts" => view.restarts = value,
            _ => {}
        }
    }
    view
}

/// The unit whose main process is `pid`, if there is one.
pub fn unit_kept_by(pid: u32) -> Option<String> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let unit = groups
        .lines()
        .filter_map(|line| line.rsplit('/').next())
        .find(|name| name.ends_with(".service"))?;
    (view(unit).ok()?.pid == pid).then(|| unit.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_shows_is_read() {
        let view = parse("MainPID=71\nStatusText=a=b\nNRestarts=2\nOdd=1\nno assignment\n");
        let expected = View {
            pid: 71,
            status: "a=b".to_owned(),
            restarts: "2".to_owned(),
            ..View::default()
        };
        assert_eq!(view, expected);
    }
}
