//! Puts the real drivers together for one controller.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use crate::api::listener::RegistryListener;
use crate::driver::clock::BootClock;
use crate::driver::commands::HostCommands;
use crate::driver::files::HostFiles;
use crate::driver::network::HostNetworks;
use crate::driver::probe::HostProbes;
use crate::driver::workloads::{Asker, HostWorkloads, exec_command};
use crate::driver::{DriverError, ErrorKind, Event, Result, inner, session};
use crate::graph::desired::Dirs;
use crate::plan::memory::{Carried, Memory};
use crate::plan::world::LifeId;
use crate::reconcile::handle::{EventKind, Happening, SpecText};
use crate::reconcile::host::{Follow, Host, Keep};
use crate::reconcile::shared::SharedCatalog;
use crate::reconcile::sync;
use crate::registry::{Catalog, Config};
use crate::source::Watcher;
use crate::spec::generation::{Generation, Past};
use crate::spec::node::NodeId;
use crate::store::history::boot_id;
use crate::store::{Store, StoreError, events, history, saved_memory};

/// The drivers of `stack`, and what they tell. Holds the stack's lock through `store`.
///
/// # Errors
/// The driver that cannot work here, and why.
pub fn assemble(
    stack: &str,
    dirs: &Dirs,
    keep: Arc<StoreKeep>,
    datacenter: &str,
) -> Result<(Host, UnboundedReceiver<Event>)> {
    let (events, received) = unbounded_channel();
    let runtime = tokio::runtime::Handle::current();
    let clock = Arc::new(BootClock);
    let commands = Arc::new(HostCommands::new(inner::own_program()));
    let catalog = SharedCatalog::new(Catalog::new(
        Config {
            node: hostname(),
            address: "127.0.0.1".to_owned(),
            datacenter: datacenter.to_owned(),
        },
        keep.first_index(wall_clock()),
    ));
    runtime.spawn(stay_ahead(catalog.changed(), keep.clone()));
    let enter = |pid: i32, command: &[String]| {
        let own = inner::own_unwritable()?;
        Ok(exec_command(own, pid, command, Asker::Check))
    };
    let files = Arc::new(HostFiles::new(dirs));
    let watched = files.clone();
    session::have_attendant()?;
    let host = Host {
        workloads: Arc::new(HostWorkloads::new(stack, dirs.clone(), events.clone())?),
        networks: Arc::new(HostNetworks::new(stack, runtime.clone(), events.clone())?),
        files,
        probes: Arc::new(HostProbes::new(Arc::new(enter))),
        follow: Arc::new(Watcher::new(events, watched)?),
        listener: Arc::new(RegistryListener::new(
            runtime,
            catalog.clone(),
            clock.clone(),
            commands.clone(),
        )),
        keep,
        commands,
        clock,
        catalog,
    };
    Ok((host, received))
}

/// The registry's only node is this machine.
fn hostname() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name: String = name
        .to_string_lossy()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(c))
        .collect();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name
    }
}

/// How far above the registry's index the bound is that is kept on disk, so that few changes of
/// the catalog write a file.
const AHEAD: u64 = 1_000_000;

/// Microseconds since the Unix epoch: usually ahead of any index of an earlier controller.
fn wall_clock() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |since| u64::try_from(since.as_micros()).unwrap_or(1))
}

/// Keeps the bound on disk above the registry's index.
async fn stay_ahead(mut changed: watch::Receiver<u64>, keep: Arc<StoreKeep>) {
    while changed.changed().await.is_ok() {
        let index = *changed.borrow_and_update();
        if !keep.is_ahead_of(index) {
            let keep = keep.clone();
            // It is tried again with the next change; until then the clock must do.
            let _ = tokio::task::spawn_blocking(move || keep.go_ahead_of(index)).await;
        }
    }
}

impl Follow for Watcher {
    fn set(&self, paths: BTreeSet<PathBuf>) -> Result<()> {
        Watcher::set(self, paths)
    }

    fn unsettled(&self) -> BTreeSet<PathBuf> {
        Watcher::unsettled(self)
    }
}

/// What the loop keeps on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    stopped: BTreeSet<NodeId>,
    rendered: BTreeSet<PathBuf>,
    told: BTreeMap<String, String>,
    suspended: bool,
    carried: Carried,
    /// The kernel's id of the boot in which it was: times count from there.
    carried_in: String,
    /// No index of the registry that anybody was told is above this.
    index: u64,
}

/// What a controller of this stack would begin with: its memory, and the files that it
/// rendered at any time. For those who do not hold the stack; `generation` is what it would go
/// on with, if it is the same spec.
pub fn remembered(dirs: &Dirs, generation: Option<u64>) -> (Memory, BTreeSet<PathBuf>) {
    let kept: Kept = saved_memory(dirs).unwrap_or_default();
    let carried = kept.carried();
    let mut memory = Memory {
        stopped: kept.stopped,
        ..Memory::default()
    };
    for (template, hash) in kept.told {
        memory.templates.entry(template).or_default().told = Some(hash);
    }
    if generation == Some(carried.generation) {
        carried.recall(&mut memory);
        // Whoever looks wants to know what applying the spec would do.
        memory.permitted = None;
    }
    (memory, kept.rendered)
}

/// Whether an operator suspended the following of the repository, for those who do not hold the
/// stack.
pub fn is_suspended(dirs: &Dirs) -> bool {
    saved_memory::<Kept>(dirs).is_some_and(|kept| kept.suspended)
}

/// The store behind [`Keep`].
pub struct StoreKeep {
    dirs: Dirs,
    store: Mutex<Option<Store>>,
    kept: Mutex<Kept>,
    /// Why what was kept before is lost.
    unread: Option<String>,
    /// The disk refused what is in `kept`.
    unsaved: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(error: impl ToString) -> DriverError {
    DriverError {
        message: error.to_string(),
        kind: ErrorKind::Failed,
    }
}

impl StoreKeep {
    /// What is kept in this store.
    pub fn new(store: Store) -> Self {
        let (kept, unread) = match store.load_memory() {
            Ok(kept) => (kept.unwrap_or_default(), None),
            Err(why) => (Kept::default(), Some(why)),
        };
        let keep = StoreKeep {
            unread,
            dirs: store.dirs().clone(),
            store: Mutex::new(Some(store)),
            kept: Mutex::new(kept),
            unsaved: AtomicBool::new(false),
        };
        // What stays is tried again when the stack goes down.
        if let Err(error) = keep.remove_unfinished() {
            tracing::warn!("{error}");
        }
        keep
    }

    /// Removes what writes left beside rendered files that were killed, also where the file
    /// itself was never there. Only while nothing is rendered.
    fn remove_unfinished(&self) -> Result<()> {
        let files = HostFiles::new(&self.dirs);
        let stack = self.dirs.run.file_name().unwrap_or_default();
        let stack = stack.to_string_lossy();
        let paths = lock(&self.kept).rendered.clone();
        let removed = paths
            .iter()
            .map(|path| files.remove_unfinished(path, &stack));
        // One that is refused holds up no other.
        removed.fold(Ok(()), Result::and)
    }

    fn change(&self, change: impl FnOnce(&mut Kept)) -> Result<()> {
        let mut kept = lock(&self.kept);
        let before = kept.clone();
        change(&mut kept);
        if *kept == before && !self.unsaved.load(Ordering::Relaxed) {
            return Ok(());
        }
        let saved = self.with_store(|store| store.save_memory(&*kept));
        // What a full disk refused is tried again with the next change.
        self.unsaved.store(saved.is_err(), Ordering::Relaxed);
        saved
    }

    /// Once the stack is down there is nothing to keep anything in.
    fn with_store(
        &self,
        write: impl FnOnce(&Store) -> std::result::Result<(), StoreError>,
    ) -> Result<()> {
        match &*lock(&self.store) {
            Some(store) => write(store).map_err(failed),
            None => Ok(()),
        }
    }
}

impl StoreKeep {
    /// Where the registry's index begins: above all that readers were told before, also when the
    /// clock went back.
    pub fn first_index(&self, clock: u64) -> u64 {
        let first = lock(&self.kept).index.max(clock);
        // What cannot be kept now is tried again with a change.
        let _ = self.go_ahead_of(first);
        first
    }

    fn is_ahead_of(&self, index: u64) -> bool {
        index.saturating_add(AHEAD / 2) <= lock(&self.kept).index
            && !self.unsaved.load(Ordering::Relaxed)
    }

    fn go_ahead_of(&self, index: u64) -> Result<()> {
        let bound = index.saturating_add(AHEAD);
        self.change(|kept| kept.index = kept.index.max(bound))
    }

    /// Whether an operator suspended the following of the repository.
    pub fn was_suspended(&self) -> bool {
        lock(&self.kept).suspended
    }
}

impl sync::Memory for StoreKeep {
    fn suspend(&self, suspended: bool) -> Result<()> {
        self.change(|kept| kept.suspended = suspended)
    }
}

impl Kept {
    /// What the last controller carried over. What gave up in another boot is tried again.
    fn carried(&self) -> Carried {
        let mut carried = self.carried.clone();
        if self.carried_in != boot_id() {
            carried.given_up.clear();
        }
        carried
    }
}

impl Keep for StoreKeep {
    fn carry(&self, carried: &Carried) -> Result<()> {
        if lock(&self.kept).carried == *carried {
            return Ok(());
        }
        self.change(|kept| {
            kept.carried.clone_from(carried);
            kept.carried_in = boot_id();
        })
    }

    fn carried(&self) -> Carried {
        lock(&self.kept).carried()
    }

    fn stopped(&self, nodes: &BTreeSet<NodeId>) -> Result<()> {
        self.change(|kept| kept.stopped.clone_from(nodes))
    }

    fn was_stopped(&self) -> BTreeSet<NodeId> {
        lock(&self.kept).stopped.clone()
    }

    fn told(&self, told: &BTreeMap<String, String>) -> Result<()> {
        self.change(|kept| kept.told.clone_from(told))
    }

    fn was_told(&self) -> BTreeMap<String, String> {
        lock(&self.kept).told.clone()
    }

    fn record(&self, happenings: &[Happening]) -> Result<()> {
        let newest = happenings.iter().map(|happening| happening.at_ms).max();
        self.with_store(|store| store.append_events(happenings, newest.unwrap_or_default()))
    }

    fn ends(&self, since_ms: u64) -> BTreeSet<LifeId> {
        let events = events::read::<Happening>(&self.dirs).events;
        let ends = events
            .into_iter()
            .filter(|event| event.kind == EventKind::Exited && event.at_ms >= since_ms);
        ends.filter_map(|event| {
            Some(LifeId {
                node: event.node?,
                incarnation: event.incarnation?,
            })
        })
        .collect()
    }

    fn generation(&self, generation: &Generation, spec: Option<&SpecText>) -> Result<()> {
        self.with_store(|store| store.save_generation(generation, spec))
    }

    fn past(&self) -> Past {
        let mut past = history::past(&self.dirs);
        past.unread.extend(self.unread.clone());
        past
    }

    fn spec(&self, generation: &Generation) -> Option<SpecText> {
        history::spec(&self.dirs, generation).ok()
    }

    fn rendered(&self) -> BTreeSet<PathBuf> {
        lock(&self.kept).rendered.clone()
    }

    fn set_rendered(&self, paths: &BTreeSet<PathBuf>) -> Result<()> {
        self.change(|kept| kept.rendered.clone_from(paths))
    }

    fn clear(&self, purge: bool) -> Result<()> {
        // While their places are known yet.
        self.remove_unfinished()?;
        // The next `up` begins anew: what was stopped was stopped in this life of the stack.
        self.change(|kept| {
            let index = kept.index;
            *kept = Kept {
                index,
                ..Kept::default()
            };
        })?;
        let Some(store) = lock(&self.store).take() else {
            return Ok(());
        };
        if purge {
            store.purge().map_err(failed)
        } else {
            store.close().map_err(failed)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::Roots;

    fn keep(root: &std::path::Path) -> StoreKeep {
        let root = root.to_owned();
        let roots = Roots::new(move |name| Some(root.join(name.to_lowercase())));
        StoreKeep::new(Store::open(roots.dirs_for("prime")).unwrap())
    }

    #[test]
    fn what_killed_writes_left_is_removed_by_the_next_one_and_with_the_stack() {
        let root = tempfile::tempdir().unwrap();
        let destinations = ["first.conf", "second.conf"].map(|name| root.path().join(name));
        let left =
            ["first", "second"].map(|name| root.path().join(format!(".hatchery-{name}.conf")));
        let written = || {
            for path in &left {
                std::fs::write(path, "half").unwrap();
            }
        };
        let gone = || left.iter().all(|path| !path.exists());
        let first = keep(root.path());
        first.set_rendered(&destinations.into()).unwrap();
        written();
        drop(first);
        let second = keep(root.path());
        assert!(gone());
        written();
        second.clear(false).unwrap();
        assert!(gone());
    }

    #[test]
    fn the_index_never_goes_back_and_few_changes_write() {
        let root = tempfile::tempdir().unwrap();
        let first = keep(root.path());
        assert_eq!(first.first_index(5_000_000), 5_000_000);
        assert!(first.is_ahead_of(5_000_000) && first.is_ahead_of(5_000_000 + AHEAD / 2));
        let reached = 5_000_001 + AHEAD / 2;
        assert!(!first.is_ahead_of(reached));
        first.go_ahead_of(reached).unwrap();
        drop(first);
        // The clock went back, and the controller was killed.
        let second = keep(root.path());
        let began = second.first_index(17);
        assert!(began >= reached, "{began}");
        second.clear(false).unwrap();
        drop(second);
        assert!(
            keep(root.path()).first_index(17) >= began,
            "nor over `down`"
        );
    }
}
