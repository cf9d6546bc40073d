//! Puts the real drivers together for one controller.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::api::listener::RegistryListener;
use crate::driver::clock::BootClock;
use crate::driver::commands::HostCommands;
use crate::driver::files::HostFiles;
use crate::driver::network::HostNetworks;
use crate::driver::probe::HostProbes;
use crate::driver::workloads::{HostWorkloads, enter};
use crate::driver::{DriverError, ErrorKind, Event, Result, inner};
use crate::graph::desired::Dirs;
use crate::plan::memory::{GivenUp, Memory};
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
        first_index(),
    ));
    let enter = |pid: i32, command: &[String]| {
        enter::exec_command(&inner::own_program(), pid, command, false)
    };
    let files = Arc::new(HostFiles::new(dirs));
    let watched = files.clone();
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

/// Microseconds since the Unix epoch: ahead of any index of an earlier controller.
fn first_index() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |since| u64::try_from(since.as_micros()).unwrap_or(1))
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
    given_up: GivenUp,
    /// The kernel's id of the boot in which they did: times count from there.
    given_up_in: String,
}

/// What a controller of this stack would begin with: its memory, and the files that it
/// rendered at any time. For those who do not hold the stack; `generation` is what it would go
/// on with, if it is the same spec.
pub fn remembered(dirs: &Dirs, generation: Option<u64>) -> (Memory, BTreeSet<PathBuf>) {
    let kept: Kept = saved_memory(dirs).unwrap_or_default();
    let given_up = kept.given_up();
    let mut memory = Memory {
        stopped: kept.stopped,
        ..Memory::default()
    };
    for (template, hash) in kept.told {
        memory.templates.entry(template).or_default().told = Some(hash);
    }
    if generation == Some(given_up.generation) {
        given_up.recall(&mut memory.workloads);
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
        let kept = store.load_memory().unwrap_or_default();
        StoreKeep {
            dirs: store.dirs().clone(),
            store: Mutex::new(Some(store)),
            kept: Mutex::new(kept),
            unsaved: AtomicBool::new(false),
        }
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
    /// Workloads that gave up, if the machine was not started anew since.
    fn given_up(&self) -> GivenUp {
        match self.given_up_in == boot_id() {
            true => self.given_up.clone(),
            false => GivenUp::default(),
        }
    }
}

impl Keep for StoreKeep {
    fn given_up(&self, given_up: &GivenUp) -> Result<()> {
        if lock(&self.kept).given_up == *given_up {
            return Ok(());
        }
        self.change(|kept| {
            kept.given_up.clone_from(given_up);
            kept.given_up_in = boot_id();
        })
    }

    fn had_given_up(&self) -> GivenUp {
        lock(&self.kept).given_up()
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
        history::past(&self.dirs)
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
        // The next `up` begins anew: what was stopped was stopped in this life of the stack.
        self.change(|kept| *kept = Kept::default())?;
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
