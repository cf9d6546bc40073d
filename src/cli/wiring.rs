//! The seams to the rest of the program: folders, loading, observing, running a controller.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use super::error::CommandError;
use super::git::Following;
use super::host::{self, StoreKeep};
use crate::api::control;
use crate::driver::files::HostFiles;
use crate::driver::network::HostNetworks;
use crate::driver::workloads::{self, exec_command};
use crate::driver::{Clock, Networks, clock::BootClock, inner};
use crate::graph::desired::{Desired, Dirs};
use crate::plan::explain::{Answers, Explanation};
use crate::plan::saved::SavedPlan;
use crate::plan::world::{Life, Observed};
use crate::reconcile::handle::{Handle, Happening, Proposal, SpecText};
use crate::reconcile::load::{Loaded, Surroundings, check, load};
use crate::reconcile::outlook::{Outlook, World};
use crate::reconcile::sync::{Orders, Syncer, SyncerParts};
use crate::reconcile::{self, Beginning, Channels};
use crate::spec::diagnostic::Diagnostic;
use crate::spec::generation::{self, User, last_taken};
use crate::spec::model::Env;
use crate::spec::node::NodeId;
use crate::store::{Roots, Store, history};

/// Threads that run tasks; the loop and its servers need no more.
const WORKERS: usize = 2;
/// The stack of a thread, in bytes.
const THREAD_STACK: usize = 1 << 20;
/// Requests that wait for the loop at most; more wait outside.
const REQUESTS: usize = 64;
/// Lines of the story that a slow listener may lag behind.
const STORY: usize = 1024;
/// How long work that was begun may take to end with the process.
const PARTING: Duration = Duration::from_secs(2);

/// The folders of all stacks.
pub fn roots() -> Roots {
    Roots::new(|name| std::env::var_os(name).map(PathBuf::from))
}

/// The folders of one stack.
pub fn dirs(stack: &str) -> Dirs {
    roots().dirs_for(stack)
}

/// Environment variables that are not UTF-8 do not exist for expressions.
fn surroundings() -> Surroundings {
    let env: Env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let roots = roots();
    Surroundings {
        dirs: Arc::new(move |stack| roots.dirs_for(stack)),
        env,
        compares: false,
    }
}

/// Compiles a spec for a stack of which nothing runs.
///
/// # Errors
/// The whole report, in colour.
pub fn compile(spec: &SpecText) -> Result<Desired, CommandError> {
    loaded(spec, &BTreeMap::new()).map(|loaded| loaded.desired)
}

/// Compiles a spec for a stack whose workloads hold these addresses.
///
/// # Errors
/// The whole report, in colour.
pub fn loaded(spec: &SpecText, held: &BTreeMap<NodeId, Ipv4Addr>) -> Result<Loaded, CommandError> {
    let files = HostFiles::new(&dirs("none"));
    load(spec, &surroundings(), held, &files, true).map_err(CommandError::report)
}

/// The same for a spec that is only compared with another.
///
/// # Errors
/// The whole report, in colour.
pub fn compared(
    spec: &SpecText,
    held: &BTreeMap<NodeId, Ipv4Addr>,
) -> Result<Loaded, CommandError> {
    let files = HostFiles::new(&dirs("none"));
    let around = Surroundings {
        compares: true,
        ..surroundings()
    };
    load(spec, &around, held, &files, true).map_err(CommandError::report)
}

/// Everything that is wrong with a spec, or what it compiles to.
///
/// # Errors
/// Each error with its place.
pub fn diagnose(spec: &SpecText) -> Result<Desired, Vec<Diagnostic>> {
    let files = HostFiles::new(&dirs("none"));
    check(spec, &surroundings(), &BTreeMap::new(), &files).map(|loaded| loaded.desired)
}

/// What a controller would do for this spec, worked out here: nothing is made or run.
///
/// # Errors
/// The spec's report, or what cannot be observed.
pub fn preview(spec: &SpecText, stack: &str) -> Result<Proposal, CommandError> {
    let files = HostFiles::new(&dirs(stack));
    Ok(outlook(spec, stack, &files)?.proposal(&files))
}

/// The whole story of what `name` stands for, as far as it can be told without a controller.
///
/// # Errors
/// As [`preview`]; and when nothing is called so.
pub fn explain(spec: &SpecText, stack: &str, name: &str) -> Result<Explanation, CommandError> {
    let files = HostFiles::new(&dirs(stack));
    let told = outlook(spec, stack, &files)?.explain(&Answers::new(), name);
    told.map_err(CommandError::new)
}

fn outlook(spec: &SpecText, stack: &str, files: &HostFiles) -> Result<Outlook, CommandError> {
    let runtime = runtime()?;
    let _inside = runtime.enter();
    let (events, _unheard) = mpsc::unbounded_channel();
    let networks =
        HostNetworks::new(stack, runtime.handle().clone(), events).map_err(driver_error)?;
    let mut observed = Observed {
        lives: workloads::look(stack).map_err(driver_error)?,
        network: networks.observe(&[]).map_err(driver_error)?,
        ..Observed::default()
    };
    let held = reconcile::held(stack, &observed);
    let loaded: Loaded =
        load(spec, &surroundings(), &held, files, true).map_err(CommandError::report)?;
    let names = reconcile::network_names(&loaded.desired);
    observed.network = networks.observe(&names).map_err(driver_error)?;
    observed.inputs.env = surroundings().env;
    let dirs = dirs(stack);
    let past = history::past(&dirs);
    let last = last_taken(&past.generations).filter(|last| {
        let kept = history::spec(&dirs, last);
        kept.is_ok_and(|kept| kept == *spec)
    });
    let (memory, rendered) = host::remembered(&dirs, last.map(|last| last.number));
    let world = World {
        observed,
        memory,
        rendered,
        now: BootClock.now(),
        by_controller: false,
    };
    Ok(Outlook::new(spec.clone(), loaded, world, files))
}

/// The process that holds the stack; 0 where it did not say so yet.
pub fn holder(stack: &str) -> Option<u32> {
    let stacks = roots().list_stacks();
    let found = stacks.into_iter().find(|found| found.name == stack)?;
    found.held_by
}

/// The spec that the stack took last.
pub fn last_spec(stack: &str) -> Option<SpecText> {
    let dirs = dirs(stack);
    let past = history::past(&dirs);
    history::spec(&dirs, last_taken(&past.generations)?).ok()
}

/// What the stack went back to, if `file` holds what it left for that.
pub fn went_back(stack: &str, file: &SpecText) -> Option<SpecText> {
    let dirs = dirs(stack);
    let past = history::past(&dirs);
    generation::went_back(&past.generations, file, |generation| {
        history::spec(&dirs, generation).ok()
    })
}

/// What of the stack runs, from the kernel alone.
///
/// # Errors
/// When the kernel's cgroups cannot be read.
pub fn lives(stack: &str) -> Result<Vec<Life>, CommandError> {
    workloads::look(stack).map_err(driver_error)
}

/// How old a life is.
pub fn age(life: &Life) -> Duration {
    BootClock.now().since(life.started)
}

/// A command inside the workload whose main process is `pid`.
pub fn enter(pid: i32, command: &[String], tty: bool) -> Command {
    exec_command(&inner::own_program(), pid, command, tty)
}

/// A runtime for a controller.
///
/// # Errors
/// When the kernel gives no threads.
pub fn runtime() -> Result<Runtime, CommandError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_stack_size(THREAD_STACK)
        .enable_all()
        .build()
        .map_err(|error| CommandError::new("cannot start threads").because(&error))
}

/// Runs `work` on a runtime of its own thread: enough to ask a controller.
///
/// # Errors
/// Those of `work`.
pub fn block_on<T>(work: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::new("cannot start the runtime").because(&error))?
        .block_on(work)
}

/// Runs `work` on a controller's runtime, and lets go of what it began.
///
/// # Errors
/// Those of `work`.
pub fn block_on_threads<T>(
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    let runtime = runtime()?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(PARTING);
    result
}

/// A controller in this process.
pub struct Running {
    /// Asks it.
    pub handle: Handle,
    /// What it keeps on disk.
    pub keep: Arc<StoreKeep>,
    /// Its story from the beginning.
    pub story: broadcast::Receiver<Happening>,
    /// Its end: the spec's report if it never began.
    pub ended: JoinHandle<Result<(), String>>,
}

/// What a controller begins with.
#[derive(Default)]
pub struct Begin {
    /// The spec; without one, only to take the stack down.
    pub spec: Option<SpecText>,
    /// Only as far as this plan of the spec goes.
    pub saved: Option<SavedPlan>,
    /// What the stack went back from.
    pub left: Option<SpecText>,
    /// Whether edits of the file are followed.
    pub follows: bool,
    /// How long a commit may take to converge before it is left.
    pub commit_deadline: Option<Duration>,
    /// What left the spec is kept.
    pub keeps: bool,
}

/// Takes the stack's lock and begins to reconcile. Must be called on a runtime from [`runtime`].
///
/// # Errors
/// When another controller has the stack, or a driver cannot work here.
pub fn begin(stack: &str, begin: Begin) -> Result<Running, CommandError> {
    let Begin {
        spec,
        saved,
        left,
        follows,
        commit_deadline,
        keeps,
    } = begin;
    let dirs = dirs(stack);
    let datacenter = spec.as_ref().and_then(datacenter);
    let datacenter = datacenter.as_deref().unwrap_or("dc1");
    let store = Store::open(dirs.clone()).map_err(|error| {
        CommandError::new(error.to_string()).hint(format!(
            "`hatchery --stack {stack} ps` asks the one that runs"
        ))
    })?;
    let keep = Arc::new(StoreKeep::new(store));
    let (host, events) =
        host::assemble(stack, &dirs, keep.clone(), datacenter).map_err(driver_error)?;
    let (requests_in, requests) = mpsc::channel(REQUESTS);
    let (happenings, story) = broadcast::channel(STORY);
    let beginning = Beginning {
        host,
        around: surroundings(),
        spec,
        stack: stack.to_owned(),
        saved,
        left,
        follows,
        commit_deadline,
        keeps,
        seed: seed(),
    };
    let channels = Channels {
        events,
        requests,
        happenings: happenings.clone(),
    };
    Ok(Running {
        handle: Handle::new(requests_in, happenings),
        keep,
        story,
        ended: tokio::spawn(reconcile::run(beginning, channels)),
    })
}

/// A syncer for a controller, and who gives it orders.
pub fn syncer(running: &Running, following: Following) -> (Syncer, Orders) {
    let Following {
        source,
        repository,
        known,
    } = following;
    let parts = SyncerParts {
        repository,
        shown_url: crate::source::git::shown(&source.url),
        source,
        known,
        suspended: running.keep.was_suspended(),
        memory: running.keep.clone(),
        clock: Arc::new(BootClock),
        seed: seed(),
    };
    Syncer::new(parts, running.handle.clone())
}

/// Who runs this process.
pub fn own_user() -> User {
    control::user(nix::unistd::geteuid().as_raw())
}

fn datacenter(spec: &SpecText) -> Option<String> {
    let (parsed, _) = crate::spec::parse_texts(spec, &spec.sources()).ok()?;
    parsed.registry.datacenter
}

/// Two controllers' restarts and probes are not to fall together.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

fn driver_error(error: crate::driver::DriverError) -> CommandError {
    CommandError::new(error.message)
}
