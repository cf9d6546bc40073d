//! Debian packages, installed without starting the services in them.
//!
//! Debian's maintainer scripts ask `/usr/sbin/policy-rc.d` before they start a service. Ours,
//! which forbids it, exists in a mount namespace of apt's own only: whatever happens to us or
//! to apt, the machine is not left with a policy that keeps its services from starting.

use std::ffi::CStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::driver::because::because;
use crate::driver::commands::{Captured, Tie, capture, prepare};

const APT_GET: &str = "/usr/bin/apt-get";
const LISTS: &str = "/var/lib/apt/lists";

/// invoke-rc.d(8) and deb-systemd-invoke(1p) start nothing when it exits with 101.
const POLICY: &str = "/usr/sbin/policy-rc.d";
const FORBIDS: &[u8] = b"#!/bin/sh\nexit 101\n";

/// Where the script is made, on a tmpfs that only apt's namespace has and that is gone again
/// before apt starts.
const STAGE: &CStr = c"/tmp";
const STAGED: &CStr = c"/tmp/policy-rc.d";

/// How long fetching the lists, and installing, may each take.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Why packages could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Only root may.
    #[error("cannot install {0}: this needs root; run `apt-get install {0}` as root")]
    NotRoot(String),
    /// This is no Debian.
    #[error("cannot install {0}: this machine has no `apt-get`; install it in your system's way")]
    NoApt(String),
    /// The name is none that Debian's policy allows (section 5.6.1).
    #[error("`{0}` is not a Debian package's name")]
    Name(String),
    /// apt-get could not be started, or the policy not be put in place.
    #[error("cannot run `apt-get`: {0}")]
    Start(String),
    /// apt-get said no.
    #[error("cannot install {packages}: `apt-get` failed:\n{output}")]
    Failed {
        /// What was to be installed.
        packages: String,
        /// The end of what it printed.
        output: String,
    },
}

/// Installs packages and does not let apt start their services. The lists are fetched first
/// where there are none, or where a package cannot be found in them.
///
/// # Errors
/// Says what is lacking, or how apt's output ended.
pub fn install(packages: &[String]) -> Result<(), InstallError> {
    if packages.is_empty() {
        return Ok(());
    }
    if let Some(wrong) = packages.iter().find(|name| !is_package(name)) {
        return Err(InstallError::Name(wrong.clone()));
    }
    let names = packages.join(" ");
    if !rustix::process::geteuid().is_root() {
        return Err(InstallError::NotRoot(names));
    }
    if !Path::new(APT_GET).exists() {
        return Err(InstallError::NoApt(names));
    }
    let target = PolicyTarget::find_or_make()?;
    let fresh = !has_lists();
    if fresh {
        apt(&["update"], &[])?.succeeded(&names)?;
    }
    let first = apt(&["install", "--no-install-recommends"], packages)?;
    let outcome = if first.is_success() || fresh {
        first
    } else {
        apt(&["update"], &[])?.succeeded(&names)?;
        apt(&["install", "--no-install-recommends"], packages)?
    };
    drop(target);
    outcome.succeeded(&names)
}

/// What a mount needs to lie on: an empty file that cannot be executed. As long as it is that,
/// Debian's scripts take it for no policy at all, should it ever be left behind.
struct PolicyTarget {
    made: bool,
}

impl PolicyTarget {
    fn find_or_make() -> Result<Self, InstallError> {
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(POLICY);
        match made {
            Ok(_) => Ok(PolicyTarget { made: true }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(PolicyTarget {
                made: is_leftover(),
            }),
            Err(error) => Err(InstallError::Start(format!(
                "cannot make `{POLICY}`: {}",
                because(&error)
            ))),
        }
    }
}

/// Whether it is such a file of an earlier, interrupted installation.
fn is_leftover() -> bool {
    fs::symlink_metadata(POLICY).is_ok_and(|found| {
        found.is_file() && found.size() == 0 && found.permissions().mode() & 0o777 == 0o600
    })
}

impl Drop for PolicyTarget {
    fn drop(&mut self) {
        if self.made && is_leftover() {
            // Left behind it does no harm, and the next installation finds it.
            let _ = fs::remove_file(POLICY);
        }
    }
}

struct Outcome(Captured);

impl Outcome {
    fn is_success(&self) -> bool {
        self.0.status.is_some_and(|status| status.success())
    }

    fn succeeded(self, packages: &str) -> Result<(), InstallError> {
        if self.is_success() {
            return Ok(());
        }
        Err(InstallError::Failed {
            packages: packages.to_owned(),
            output: self.0.into_output(PATIENCE).text,
        })
    }
}

fn apt(verb: &[&str], packages: &[String]) -> Result<Outcome, InstallError> {
    let options = [
        "-y",
        "-q",
        "-o",
        "DPkg::Lock::Timeout=120",
        "-o",
        "Dpkg::Options::=--force-confdef",
        "-o",
        "Dpkg::Options::=--force-confold",
        "-o",
        "Dpkg::Use-Pty=0",
    ];
    let mut command = vec![APT_GET.to_owned()];
    command.extend(options.iter().chain(verb).map(|part| (*part).to_owned()));
    command.push("--".to_owned());
    command.extend_from_slice(packages);
    let mut prepared = prepare(&command).map_err(|error| InstallError::Start(error.message))?;
    prepared
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("NEEDRESTART_SUSPEND", "1");
    // How packages are reached from here is set in the caller's environment.
    let proxies = ["http_proxy", "https_proxy", "no_proxy"];
    prepared.envs(proxies.iter().filter_map(|name| {
        let value = std::env::var_os(name)?;
        Some((*name, value))
    }));
    // SAFETY: between fork and exec only system calls are made, on constant strings; nothing
    // allocates.
    unsafe {
        prepared.pre_exec(forbid_starts);
    }
    let captured = capture(prepared, PATIENCE, Tie::Nothing)
        .map_err(|error| InstallError::Start(because(&error)))?;
    Ok(Outcome(captured))
}

/// Enters a mount namespace in which the policy forbids every start.
fn forbid_starts() -> io::Result<()> {
    const NONE: Option<&CStr> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Mounts of the host still arrive here, and none of ours leaves.
    mount(NONE, c"/", NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE)?;
    mount(
        Some(c"tmpfs"),
        STAGE,
        Some(c"tmpfs"),
        MsFlags::empty(),
        NONE,
    )?;
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE;
    let mode = rustix::fs::Mode::from_raw_mode(0o755);
    let script = rustix::fs::open(STAGED, flags | rustix::fs::OFlags::CLOEXEC, mode)?;
    rustix::fs::fchmod(&script, mode)?;
    rustix::io::write(&script, FORBIDS)?;
    drop(script);
    mount(Some(STAGED), POLICY, NONE, MsFlags::MS_BIND, NONE)?;
    umount2(STAGE, MntFlags::MNT_DETACH)?;
    Ok(())
}

fn has_lists() -> bool {
    fs::read_dir(LISTS)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

fn is_package(name: &str) -> bool {
    let mut bytes = name.bytes();
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 128
        && bytes.next().is_some_and(allowed)
        && bytes.all(|byte| allowed(byte) || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn options_are_no_packages() {
        for name in ["nginx-light", "g++", "libc6", "systemd-container", "0ad"] {
            assert!(is_package(name), "{name}");
        }
        for name in ["", "-y", "a b", "A", "a=1", "a/b", "a;b"] {
            assert!(!is_package(name), "{name}");
            let error = install(&[name.to_owned()]).unwrap_err();
            assert!(matches!(error, InstallError::Name(_)));
        }
        install(&[]).unwrap();
    }
}
