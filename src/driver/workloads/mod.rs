//! Containers and host processes: started, recognised, signalled and removed, on cgroups.
//!
//! A life is a cgroup with a mark on it ([`mark`]). The controller starts it through the inner
//! job [`spawned`], and a single thread ([`watch`]) waits for what the kernel says about it.
//! Nothing is kept elsewhere, so the next controller adopts what it finds.

mod accounts;
pub mod enter;
mod entry;
mod launch;
mod logs;
mod machines;
mod mark;
mod notify;
mod nspawn;
mod pidfd;
mod proc;
mod relay;
mod reload;
mod root;
mod scan;
pub(crate) mod spawned;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

pub use enter::{Asker, exec_command};
pub use scan::look;

use self::entry::Entry;
use self::logs::Logs;
use self::watch::{Table, Watch};
use super::cgroup::{self, Cgroups};
use super::{DriverError, ErrorKind, Event, Result, Start, Workloads, inner, log, network};
use crate::graph::desired::Dirs;
use crate::plan::model::Note;
use crate::plan::world::{Life, LifeId};
use crate::spec::model::{Confirm, Signal};
use crate::spec::node::{Kind, NodeId};
use crate::spec::time::Time;

/// How long killed processes may take to be gone.
const DYING: Duration = Duration::from_secs(5);

/// The slice of all scopes, where systemd runs.
const SLICE: &str = "hatchery.slice";

/// The unit of systemd that keeps a stack, if one does. The characters of a stack's name mean
/// themselves in a unit's.
pub fn service(stack: &str) -> String {
    format!("hatchery-{stack}.service")
}

/// The host's own containers and processes.
pub struct HostWorkloads {
    stack: String,
    dirs: Dirs,
    /// This program's file, which runs itself for inner jobs.
    program: PathBuf,
    /// Whether systemd is process 1 here.
    booted: bool,
    watch: Watch,
    logs: Logs,
}

impl HostWorkloads {
    /// Drives the workloads of `stack`, and tells `events` when one of them needs a look.
    ///
    /// Makes the notify socket below `dirs.run`; changes nothing else. [`Workloads::observe`]
    /// adopts what an earlier controller left.
    ///
    /// # Errors
    /// When cgroup v2 is missing, or the socket or the thread cannot be made.
    pub fn new(stack: &str, dirs: Dirs, events: UnboundedSender<Event>) -> Result<Self> {
        HostWorkloads::with_program(stack, dirs, events, inner::own_program())
    }

    /// As [`HostWorkloads::new`], with the file of the program that knows the inner jobs.
    ///
    /// # Errors
    /// As [`HostWorkloads::new`].
    pub fn with_program(
        stack: &str,
        dirs: Dirs,
        events: UnboundedSender<Event>,
        program: PathBuf,
    ) -> Result<Self> {
        if !fit_for_a_path(stack) {
            return Err(failed(format!(
                "cannot use `{stack}` as a stack's name: it would be part of paths"
            )));
        }
        let cgroups = Cgroups::find()?;
        let socket = notify::open(&dirs.run).map_err(|error| {
            failed(format!(
                "cannot make the notify socket in `{}`: {error}",
                notify::folder(&dirs.run).display()
            ))
        })?;
        let watch = Watch::start(cgroups, socket, events)
            .map_err(|error| failed(format!("cannot watch the processes of `{stack}`: {error}")))?;
        Ok(HostWorkloads {
            stack: stack.to_owned(),
            dirs,
            program,
            booted: Path::new("/run/systemd/system").is_dir(),
            watch,
            logs: Logs::default(),
        })
    }

    /// Removes what belongs to the stack as a whole, once no life is left: its cgroup and the
    /// roots' scratch. The notify socket lies in `dirs.run` and goes with that.
    ///
    /// # Errors
    /// When something of the stack still runs.
    pub fn remove_stack_root(&self) -> Result<()> {
        let cgroups = &self.watch.shared.cgroups;
        cgroups.remove(&self.stack_group())?;
        for folder in cgroups.folders(Path::new("hatchery")).into_iter().rev() {
            // Refused while another stack has its own in there, as it should be.
            let _ = fs::remove_dir(folder);
        }
        remove_folder(&self.dirs.run.join("roots"))
    }

    fn stack_group(&self) -> PathBuf {
        Path::new("hatchery").join(&self.stack)
    }

    fn scratch(&self, life: &LifeId) -> PathBuf {
        self.dirs.run.join("roots").join(key(life))
    }

    /// Removes the scratch of lives of which nothing is left: their controller was killed while it
    /// cleared them, or systemd collected their scope while none was there.
    fn sweep(&self, table: &Table) {
        let roots = self.dirs.run.join("roots");
        let ids = table.entries.iter().map(|entry| entry.mark.id());
        let known: BTreeSet<String> = ids.map(|id| key(&id)).collect();
        let left = names(&roots).unwrap_or_default();
        for name in left.difference(&known) {
            // What cannot be removed harms nobody, and the next look tries again.
            let _ = remove_folder(&roots.join(name));
        }
    }

    /// A life's cgroup among the stack's: its own, or the one that says what its scope is.
    fn group(&self, life: &LifeId) -> PathBuf {
        self.stack_group().join(key(life))
    }

    /// Removes an empty scope and what says that it was.
    fn remove_scope(&self, life: &LifeId, relative: &Path) -> Result<()> {
        self.stop_scope(relative)?;
        self.watch.shared.cgroups.remove(&self.group(life))
    }

    /// Has systemd remove an empty scope with its cgroup. If we removed the cgroup, systemd
    /// would never notice, and keep the unit.
    fn stop_scope(&self, relative: &Path) -> Result<()> {
        let folder = self.watch.shared.cgroups.folder(relative);
        let unit = relative.file_name().unwrap_or_default();
        let stop = Command::new("systemctl")
            .args(["stop", "--no-block", "--quiet", "--"])
            .arg(unit)
            .stdin(Stdio::null())
            // The usual failure is that it was collected already, which is what is wanted.
            .output();
        stop.map_err(|error| failed(format!("cannot run `systemctl stop`: {error}")))?;
        let deadline = Instant::now() + DYING;
        while folder.exists() {
            if Instant::now() >= deadline {
                return Err(failed(format!(
                    "cannot remove the scope `{}`: systemd keeps it; \
                     `systemctl status` of it may say why",
                    unit.to_string_lossy()
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The entry of a life, adopted if this controller did not know it.
    fn with<T>(&self, life: &LifeId, act: impl FnOnce(&mut Entry) -> Result<T>) -> Result<T> {
        let mut table = self.watch.shared.lock();
        if table.find(life).is_none() {
            scan::adopt(&self.watch.shared.cgroups, &self.stack, &mut table)?;
        }
        let entry = table.find(life).ok_or_else(|| DriverError {
            message: format!("cannot find `{}`: nothing of it is left", life.node),
            kind: ErrorKind::Gone,
        })?;
        self.watch.shared.settle(entry, now());
        act(entry)
    }
}

impl Workloads for HostWorkloads {
    fn clear_stack(&self) -> Result<()> {
        self.remove_stack_root()
    }

    fn rotate_logs(&self) -> Result<Option<Duration>> {
        let limits = {
            let table = self.watch.shared.lock();
            let entries = table.entries.iter();
            entries
                .map(|entry| {
                    let path = log::file(&self.dirs.log, entry.mark.log_name());
                    (path, entry.mark.log())
                })
                .collect()
        };
        self.logs.rotate(limits)
    }

    fn observe(&self) -> Result<Vec<Life>> {
        let mut table = self.watch.shared.lock();
        scan::adopt(&self.watch.shared.cgroups, &self.stack, &mut table)?;
        let now = now();
        for entry in &mut table.entries {
            self.watch.shared.settle(entry, now);
        }
        // A cgroup of ours that somebody else removed is no life any more. A scope that systemd
        // collected still is one, until its end was dealt with.
        let lost = |entry: &Entry| {
            !entry.starting && !entry.scope && !entry.folder.exists() && !entry.alive()
        };
        table.entries.retain(|entry| !lost(entry));
        self.sweep(&table);
        self.watch.shared.wake();
        Ok(table.entries.iter().map(|entry| entry.life(now)).collect())
    }

    fn start(&self, start: &Start) -> Result<()> {
        launch::start(self, start)
    }

    fn signal(&self, life: &LifeId, signal: Signal, late: bool) -> Result<()> {
        self.with(life, |entry| {
            let noted = entry.note_asked(late);
            noted.map_err(|error| cannot("mark the cgroup of", life, &error))?;
            let main = entry.main().filter(|main| main.runs());
            let main = main.ok_or_else(|| not_running(life, "signal"))?;
            let sent = main.process.signal(signal.0);
            sent.map_err(|error| cannot("signal", life, &error))?;
            entry.note_told();
            Ok(())
        })
    }

    fn reload(
        &self,
        life: &LifeId,
        signal: Signal,
        confirm: Confirm,
        timeout: Duration,
    ) -> Result<()> {
        reload::reload(self, life, signal, confirm, timeout)
    }

    fn connections(&self, life: &LifeId, ports: &BTreeSet<u16>) -> Result<u32> {
        let network = self.with(life, |entry| {
            entry
                .network()
                .map_err(|error| cannot("find the network of", life, &error))
        });
        match network {
            Ok(Some(network)) => network::connections(&network, ports)
                .map_err(|error| cannot("count the connections of", life, &error)),
            Ok(None) => Ok(0),
            Err(error) if error.kind == ErrorKind::Gone => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn kill(&self, life: &LifeId) -> Result<()> {
        self.with(life, |entry| {
            let noted = entry.note_asked(false);
            noted.map_err(|error| cannot("mark the cgroup of", life, &error))?;
            cgroup::kill(&entry.folder).map_err(|error| cannot("kill", life, &error))?;
            // A main process that left its cgroup by itself is still ours to end.
            if let Some(main) = entry.main().filter(|main| main.runs()) {
                let _ = main.process.signal(libc::SIGKILL);
            }
            entry.note_told();
            Ok(())
        })
    }

    fn remove(&self, life: &LifeId) -> Result<()> {
        let found = self.with(life, |entry| match entry.alive() {
            true => Err(failed(format!(
                "cannot remove `{}`: something of it still runs in `{}`",
                life.node,
                entry.folder.display()
            ))),
            false => Ok((entry.relative.clone(), entry.scope)),
        });
        match found {
            Ok((relative, true)) => self.remove_scope(life, &relative)?,
            Ok((relative, false)) => self.watch.shared.cgroups.remove(&relative)?,
            Err(error) if error.kind == ErrorKind::Gone => {}
            Err(error) => return Err(error),
        }
        remove_folder(&self.scratch(life))?;
        let mut table = self.watch.shared.lock();
        self.watch.shared.forget(&mut table, life);
        Ok(())
    }

    fn note(&self, life: &LifeId, note: &Note) -> Result<()> {
        self.with(life, |entry| {
            let mut mark = entry.mark.clone();
            match note {
                Note::Applied(applied) => mark.applied.clone_from(applied),
                Note::Farewell(farewell) => mark.farewell = Some(farewell.clone()),
            }
            entry
                .write(&mark)
                .map_err(|error| cannot("mark the cgroup of", life, &error))?;
            entry.mark = mark;
            Ok(())
        })
    }
}

/// `c-prime1.3`: kind, instance, incarnation.
fn key(life: &LifeId) -> String {
    let kind = match life.node.kind {
        Kind::Containers => 'c',
        _ => 'p',
    };
    format!("{kind}-{}.{}", life.node.name, life.incarnation)
}

/// The life that [`key`] named so.
fn life_of(name: &str) -> Option<LifeId> {
    let (instance, incarnation) = name.rsplit_once('.')?;
    let (kind, instance) = match instance.split_once('-')? {
        ("c", instance) => (Kind::Containers, instance),
        ("p", instance) => (Kind::Processes, instance),
        _ => return None,
    };
    Some(LifeId {
        node: NodeId::new(kind, instance),
        incarnation: incarnation.parse().ok()?,
    })
}

/// Names come from a validated spec; what would lead out of our folders is refused here too.
fn fit_for_a_path(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// The folders in `folder`, in order; none when it is not there.
fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let list = || -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    };
    match list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        other => {
            other.map_err(|error| failed(format!("cannot list `{}`: {error}", folder.display())))
        }
    }
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(format!(
            "cannot remove `{}`: {error}",
            folder.display()
        ))),
        _ => Ok(()),
    }
}

/// Looks again until nothing runs in a cgroup, or the time is over; says which.
fn wait_empty(folder: &Path, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while cgroup::populated(folder) {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// The boot clock.
fn now() -> Time {
    let clock = nix::time::ClockId::CLOCK_BOOTTIME;
    let since_boot = nix::time::clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    Time(u64::try_from(since_boot.as_nanos()).unwrap_or(u64::MAX))
}

fn failed(message: String) -> DriverError {
    DriverError {
        message,
        kind: ErrorKind::Failed,
    }
}

fn cannot(what: &str, life: &LifeId, error: &io::Error) -> DriverError {
    let kind = match error.raw_os_error() {
        Some(libc::ESRCH) => ErrorKind::Gone,
        _ => ErrorKind::Failed,
    };
    DriverError {
        message: format!("cannot {what} `{}`: {}", life.node, spawned::plain(error)),
        kind,
    }
}

fn not_running(life: &LifeId, what: &str) -> DriverError {
    DriverError {
        message: format!(
            "cannot {what} `{}`: its main process does not run",
            life.node
        ),
        kind: ErrorKind::Gone,
    }
}
