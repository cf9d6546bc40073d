//! Jobs that need a process of their own: the program runs itself again, single-threaded.
//!
//! Namespaces, credentials and cgroups belong to a process, and changing them is only sound
//! where one thread runs. Such a job is started as `hatchery __inner JOB …`; `main` asks
//! [`requested`] before it does anything else.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use super::because;
use super::unwritable::Unwritable;

/// The hidden first argument.
pub const WORD: &str = "__inner";

/// One job: what follows its name in, the process's exit code out.
type Job = fn(&[OsString]) -> ExitCode;

/// Every job by its name. A driver that needs one more adds its line.
const JOBS: [(&str, Job); 4] = [
    ("spawn", super::workloads::spawned::run),
    ("enter", super::workloads::enter::run),
    ("validate", validate),
    ("attend", super::session::attend),
];

fn validate(_: &[OsString]) -> ExitCode {
    super::commands::sandbox::inner_validate()
}

/// Runs the inner job that these arguments (the program's name first) ask for; `None` when
/// they ask for none. Must be called before any thread is started.
pub fn requested(arguments: &[OsString]) -> Option<ExitCode> {
    if arguments.get(1)? != WORD {
        return None;
    }
    let name = arguments.get(2).and_then(|name| name.to_str());
    let job = JOBS.iter().find(|(word, _)| Some(*word) == name);
    Some(match job {
        Some((_, job)) => job(arguments.get(3..).unwrap_or_default()),
        None => {
            eprintln!("cannot run this inner job: the program does not know it");
            ExitCode::from(2)
        }
    })
}

/// The program's own file, also after an upgrade replaced it on disk, and for other programs
/// that are to run it.
pub fn own_program() -> PathBuf {
    PathBuf::from(format!("/proc/{}/exe", std::process::id()))
}

/// The program's own file for what enters a container: nobody inside can change it. Opened when
/// it is first asked for.
///
/// # Errors
/// In words, when the kernel gives no read-only view of it.
pub fn own_unwritable() -> Result<&'static Unwritable, String> {
    static OWN: OnceLock<Unwritable> = OnceLock::new();
    if let Some(own) = OWN.get() {
        return Ok(own);
    }
    let opened = Unwritable::open(&own_program()).map_err(|error| {
        format!(
            "cannot open its own program so that no container can change it: {}; \
             this needs root and kernel 5.12",
            because(&error)
        )
    })?;
    Ok(OWN.get_or_init(|| opened))
}
