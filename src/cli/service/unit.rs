//! The unit: its name, its text, its file.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::cli::foreground::TAKEN_DOWN;
pub use crate::driver::workloads::service as name;

/// Where the units of this machine's operator lie.
pub const FOLDER: &str = "/etc/systemd/system";
/// How a unit of ours begins.
const MARK: &str = "# Written by `hatchery service install`";
/// The target that wants it at boot.
const TARGET: &str = "multi-user.target";
/// The largest unit that is read, in bytes.
const LARGEST: u64 = 1 << 20;
/// Where programs are found: of a controller that a shell starts, the shell says so.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a start may take, in seconds; a reload as well.
const PATIENCE: u32 = 120;
/// The same where a repository may be asked first: a fetch has limits of its own, which end it
/// before this does, so that the reason is told.
const ASKING_PATIENCE: u32 = 300;
/// Before the controller is started again, in seconds.
const PAUSE: u32 = 2;
/// The same where each start may ask a repository, which is not to be hammered while it is away.
const ASKING_PAUSE: u32 = 10;

/// What a unit is made of.
pub struct Definition<'a> {
    /// The stack.
    pub stack: &'a str,
    /// This program, absolute.
    pub program: &'a Path,
    /// What follows `up --service`.
    pub arguments: Vec<OsString>,
    /// It follows a repository: its first start, and every reload, asks that.
    pub asks: bool,
    /// Files and folders that must be mounted before.
    pub needs: Vec<PathBuf>,
    /// Variables that the controller is to have.
    pub environment: Vec<(&'static str, OsString)>,
}

/// Where that unit lies.
pub fn path(stack: &str) -> PathBuf {
    Path::new(FOLDER).join(name(stack))
}

/// Whether systemd starts it at boot: the link that `systemctl enable` makes is there.
pub fn is_enabled(stack: &str) -> bool {
    let wants = Path::new(FOLDER).join(format!("{TARGET}.wants"));
    wants.join(name(stack)).symlink_metadata().is_ok()
}

/// The unit's text.
///
/// # Errors
/// Which word cannot stand in it, and why.
pub fn text(definition: &Definition<'_>) -> Result<String, String> {
    let stack = definition.stack;
    let program = word(definition.program.as_os_str(), Dollar::Kept)?;
    let mut arguments = String::new();
    for argument in &definition.arguments {
        arguments.push(' ');
        arguments.push_str(&word(argument, Dollar::Doubled)?);
    }
    let mut needs = String::new();
    for path in &definition.needs {
        needs.push_str(&format!(
            "RequiresMountsFor={}\n",
            word(path.as_os_str(), Dollar::Kept)?
        ));
    }
    let mut environment = String::new();
    for (name, value) in &definition.environment {
        let mut assignment = OsString::from(format!("{name}="));
        assignment.push(value);
        let assignment = word(&assignment, Dollar::Kept)?;
        environment.push_str(&format!("Environment={assignment}\n"));
    }
    let unit = name(stack);
    let (patience, pause) = match definition.asks {
        true => (ASKING_PATIENCE, ASKING_PAUSE),
        false => (PATIENCE, PAUSE),
    };
    Ok(format!(
        "{MARK}, which replaces it; `hatchery service uninstall {stack}` removes it.
# Settings and variables of your own belong beside it: `systemctl edit {unit}`.

[Unit]
Description=Hatchery stack {stack}
# It waits for no network: what needs one is tried again until it is there.
After=local-fs.target remote-fs.target network.target network-online.target
After=dbus.socket systemd-machined.service
{needs}# Workloads run while it does not, so it is tried for ever.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} --stack {stack} --color never up --service{arguments}
ExecReload={program} --stack {stack} --color never reload
TimeoutStartSec={patience}s
TimeoutStopSec=30s
WatchdogSec=30s
# Only the controller is started and ended: workloads have scopes of their own in hatchery.slice.
KillMode=process
Restart=always
RestartSec={pause}s
# `hatchery down` ends it so: it stays down until it is started, or the machine is.
RestartPreventExitStatus={TAKEN_DOWN}
SuccessExitStatus={TAKEN_DOWN}
# No setting here may give it a mount namespace: those of the containers' networks would end
# with it.
UMask=0022
OOMScoreAdjust=-900
LimitNOFILE=65536:524288
SyslogIdentifier=hatchery
Environment=PATH={PATH}
{environment}
[Install]
WantedBy={TARGET}
"
    ))
}

/// Whether `$` is special where a word stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dollar {
    Kept,
    Doubled,
}

/// A word as systemd reads it back.
fn word(value: &OsStr, dollar: Dollar) -> Result<String, String> {
    let Some(text) = value.to_str() else {
        return Err(format!(
            "cannot write `{}` into a unit: it is not UTF-8 text",
            value.display()
        ));
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:=@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '\0' => return Err("cannot write a zero byte into a unit".to_owned()),
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' => quoted.push_str("%%"),
            '$' if dollar == Dollar::Doubled => quoted.push_str("$$"),
            c if c.is_ascii_control() => {
                // Writing to a string does not fail.
                let _ = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    Ok(quoted)
}

/// What lies where a unit of ours would.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A unit of ours.
    Ours(String),
    /// What somebody else made, or a link.
    Foreign,
}

/// Looks what lies at `path`; follows no link.
///
/// # Errors
/// What the disk said.
pub fn look(path: &Path) -> io::Result<Found> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(Found::Foreign),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Ok(Found::Foreign);
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) if text.starts_with(MARK) => Found::Ours(text),
        _ => Found::Foreign,
    })
}

/// What is to become the unit. The name is fixed, so that what one that was killed left is found
/// by the next one; systemd reads no file whose name ends so.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes the unit, whole or not at all; it is on the disk afterwards.
///
/// # Errors
/// What the disk said.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let fresh = unfinished(path);
    remove_if_there(&fresh)?;
    let fill = || -> io::Result<()> {
        // A link that somebody puts there is not followed either.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    if let Err(error) = fill() {
        // The first error is the one to tell; the next one removes what stays.
        let _ = remove_if_there(&fresh);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

/// Removes the unit, and what one that was killed left of another.
///
/// # Errors
/// What the disk said.
pub fn remove(path: &Path) -> io::Result<()> {
    remove_if_there(&unfinished(path))?;
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text_for(program: &str, arguments: &[&str]) -> Result<String, String> {
        text(&Definition {
            stack: "prime",
            program: Path::new(program),
            arguments: arguments.iter().map(OsString::from).collect(),
            asks: false,
            needs: vec!["/srv/farm".into(), "/opt".into()],
            environment: vec![("HATCHERY_STATE_DIR", "/data/our stacks".into())],
        })
    }

    #[test]
    fn a_unit_reads_well() {
        let unit = text_for("/usr/local/bin/hatchery", &["/srv/farm/prime.yaml"]).unwrap();
        insta::assert_snapshot!(unit, @r#"
        # Written by `hatchery service install`, which replaces it; `hatchery service uninstall prime` removes it.
        # Settings and variables of your own belong beside it: `systemctl edit hatchery-prime.service`.

        [Unit]
        Description=Hatchery stack prime
        # It waits for no network: what needs one is tried again until it is there.
        After=local-fs.target remote-fs.target network.target network-online.target
        After=dbus.socket systemd-machined.service
        RequiresMountsFor=/srv/farm
        RequiresMountsFor=/opt
        # Workloads run while it does not, so it is tried for ever.
        StartLimitIntervalSec=0

        [Service]
        Type=notify
        NotifyAccess=main
        ExecStart=/usr/local/bin/hatchery --stack prime --color never up --service /srv/farm/prime.yaml
        ExecReload=/usr/local/bin/hatchery --stack prime --color never reload
        TimeoutStartSec=120s
        TimeoutStopSec=30s
        WatchdogSec=30s
        # Only the controller is started and ended: workloads have scopes of their own in hatchery.slice.
        KillMode=process
        Restart=always
        RestartSec=2s
        # `hatchery down` ends it so: it stays down until it is started, or the machine is.
        RestartPreventExitStatus=80
        SuccessExitStatus=80
        # No setting here may give it a mount namespace: those of the containers' networks would end
        # with it.
        UMask=0022
        OOMScoreAdjust=-900
        LimitNOFILE=65536:524288
        SyslogIdentifier=hatchery
        Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        Environment="HATCHERY_STATE_DIR=/data/our stacks"

        [Install]
        WantedBy=multi-user.target
        "#);
    }

    #[test]
    fn one_that_asks_a_repository_has_time_for_it() {
        let definition = Definition {
            stack: "prime",
            program: Path::new("/h"),
            arguments: vec!["--git=https://host/50%/$x.git".into()],
            asks: true,
            needs: Vec::new(),
            environment: Vec::new(),
        };
        let unit = text(&definition).unwrap();
        for line in [
            "ExecStart=/h --stack prime --color never up --service \
             \"--git=https://host/50%%/$$x.git\"",
            "TimeoutStartSec=300s",
            "RestartSec=10s",
            "StartLimitIntervalSec=0",
        ] {
            assert!(unit.lines().any(|found| found == line), "{line}: {unit}");
        }
    }

    #[test]
    fn words_mean_themselves() {
        let unit = text_for("/opt/a b/h", &["/srv/50% \"$HOME\"\\\n;", ";", ""]).unwrap();
        let start = unit.lines().find(|line| line.starts_with("ExecStart="));
        insta::assert_snapshot!(start.unwrap(), @r#"ExecStart="/opt/a b/h" --stack prime --color never up --service "/srv/50%% \"$$HOME\"\\\x0a;" ";" """#);
        assert!(text_for("/h", &["a\0b"]).is_err());
        let odd = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"/\xff");
        assert!(word(odd, Dollar::Kept).is_err());
    }

    #[test]
    fn only_a_file_with_our_mark_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hatchery-a.service");
        assert_eq!(look(&path).unwrap(), Found::Nothing);
        let unit = text_for("/h", &[]).unwrap();
        write(&path, &unit).unwrap();
        assert_eq!(look(&path).unwrap(), Found::Ours(unit.clone()));
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        // A link is replaced, and what it led to is left alone.
        let other = folder.path().join("other");
        std::fs::rename(&path, &other).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert_eq!(look(&path).unwrap(), Found::Foreign);
        write(&path, "x").unwrap();
        assert_eq!(std::fs::read_to_string(&other).unwrap(), unit);
        assert_eq!(look(&path).unwrap(), Found::Foreign);
        assert_eq!(look(folder.path()).unwrap(), Found::Foreign);
    }

    #[test]
    fn what_one_that_was_killed_left_of_a_unit_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hatchery-a.service");
        let fresh = folder.path().join(".hatchery-a.service.new");
        let other = folder.path().join("other");
        std::fs::write(&other, "theirs").unwrap();
        std::os::unix::fs::symlink(&other, &fresh).unwrap();
        write(&path, "first").unwrap();
        assert!(fresh.symlink_metadata().is_err());
        std::fs::write(&fresh, "half").unwrap();
        write(&path, "second").unwrap();
        assert!(!fresh.exists());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second");
        std::fs::write(&fresh, "half").unwrap();
        remove(&path).unwrap();
        assert!(!fresh.exists() && !path.exists());
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "theirs");
        // Where it cannot become the unit it does not stay either.
        std::fs::create_dir_all(path.join("in the way")).unwrap();
        assert!(write(&path, "third").is_err());
        assert!(!fresh.exists());
    }
}
