//! One host in virtual time: what the kernel, the disk and the programs would show and do.
//! Every driver trait of the product is implemented on it.

mod commands;
mod files;
mod keep;
mod life;
pub mod networks;
mod process;
pub mod proxy;
mod recovery;
mod workloads;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hatchery::driver::{Clock, DriverError, ErrorKind, Event};
use hatchery::health::Answer;
use hatchery::plan::model::Step;
use hatchery::plan::world::LifeId;
use hatchery::reconcile::shared::SharedCatalog;
use hatchery::spec::node::NodeId;
use hatchery::spec::time::Time;

use crate::always::Stood;
use crate::faults::{Action, Fault, Faults};
use crate::rng::Rng;
use crate::specs::Model;
use crate::trace::Trace;

pub use files::File;
pub use keep::Kept;
pub use life::{Cgroup, Main};
pub use networks::Net;

pub const SECOND: u64 = 1_000_000_000;
pub const MILLI: u64 = 1_000_000;

/// What is to happen at some moment.
#[derive(Debug)]
pub enum Happening {
    /// The program of this cgroup begins.
    Exec(u64),
    /// It says READY=1, and listens.
    Ready(u64),
    /// Its main process ends by itself or as it was asked, by these faults.
    Exit(u64, hatchery::plan::world::Exit, &'static [Fault]),
    /// What outlived its main process ends.
    Gone(u64),
    /// nspawn is killed, and nothing else.
    NspawnKilled(u64),
    /// A proxy reads its files.
    ProxyReads(u64),
    /// A driver tells this controller, once or again.
    Deliver(u64, Event, Option<Fault>),
    /// This controller looks again, if it did not before.
    Pass(u64),
    /// This controller asks the checks that are due.
    Launch(u64),
    /// A job's next step begins.
    Begin(u64, u64),
    /// A job's next step is done.
    Advance(u64, u64),
    /// A probe answers.
    Answer(u64, String, u64, Answer),
    /// Services with a TTL say that they are well.
    Heartbeats,
    /// A controller is started.
    Up,
    /// Somebody outside does something.
    Outside,
    /// A save that was half done is done.
    Saved(PathBuf, String),
    /// A file rests: whoever follows it is told.
    Settled(PathBuf),
}

/// What the oracle remembers of a node, in truth.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub ends: Vec<End>,
    /// When it was last started.
    pub started: Option<u64>,
    /// Failures in a row, as this controller can know them.
    pub failures: u32,
    /// Something of it was cleared that was not started again: who had seen it end may count that.
    pub doubted: bool,
    /// When an operator's word last had them forgotten.
    pub forgotten: u64,
    /// An operator asked for a start or restart since the last start.
    pub forgiven: bool,
    /// It is to be restarted by an operator's word: the end before that counts as asked for.
    pub restarting: bool,
}

/// How a life ended, in truth.
#[derive(Debug, Clone)]
pub struct End {
    pub exit: hatchery::plan::world::Exit,
    /// Whether the drivers could tell.
    pub known: bool,
    pub at: u64,
    pub lasted: u64,
    /// It was ready at some time.
    pub was_ready: bool,
    /// When nothing of it was left.
    pub gone: Option<u64>,
    /// Somebody had asked for it.
    pub asked: bool,
    /// The signal really came before the end.
    pub signalled: bool,
    /// Because it was not ready in time: a failure, though it was asked for.
    pub late: bool,
    /// That is noted on its cgroup.
    pub noted_late: bool,
    /// How the controller counted at that time: which life of it.
    pub epoch: u64,
    pub identity: hatchery::plan::world::Identity,
    pub pid: i32,
}

impl End {
    /// Nobody asked for it, or only because it was not ready in time.
    pub fn failed(&self) -> bool {
        !self.asked || self.late
    }

    /// It did what it was to do, as far as anybody could tell.
    pub fn completed(&self) -> bool {
        self.exit == hatchery::plan::world::Exit::Code(0) && self.known && !self.late
    }
}

/// All of it.
pub struct World {
    /// Since the run began. The boot clock is this less `boot`.
    pub now: u64,
    pub boot: u64,
    /// What the wall clock showed when the run began, in milliseconds, and how far it was set
    /// since.
    wall: u64,
    off: i64,
    pub rng: Rng,
    pub faults: Faults,
    pub trace: Trace,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    waiting: BTreeMap<u64, Happening>,
    seq: u64,
    /// Which controller lives; 0 for none.
    pub epoch: u64,
    pub epochs: u64,
    /// When the controller that lives began.
    pub began: u64,
    /// The controller is to die as soon as it comes back from its driver.
    pub crashed: bool,
    pub cgroups: BTreeMap<LifeId, Cgroup>,
    pub serials: u64,
    /// Pids in use: by whom. They are given again soon.
    pub pids: BTreeMap<i32, u64>,
    next_pid: i32,
    pub net: Net,
    pub files: BTreeMap<PathBuf, File>,
    pub unsettled: BTreeSet<PathBuf>,
    pub followed: BTreeSet<PathBuf>,
    pub kept: Kept,
    pub listener: Option<SocketAddr>,
    /// Texts that a validator accepted, or that none is asked about, by path and hash.
    pub accepted: BTreeSet<(PathBuf, String)>,
    /// When a validator last refused something.
    pub refused_at: Option<u64>,
    pub held_ports: BTreeSet<u16>,
    pub facts: BTreeMap<NodeId, Facts>,
    /// How often each ended since the run began, whoever still knows of it.
    pub ended: BTreeMap<NodeId, u32>,
    /// Every text that was given out, by its hash.
    pub models: BTreeMap<u64, Arc<Model>>,
    /// What the controller said is in force.
    pub in_force: Option<Arc<Model>>,
    pub down: bool,
    /// What the newest plan wants to leave, and since when.
    pub leaving: BTreeMap<LifeId, u64>,
    /// Whose connections were ever waited for, and since when.
    pub draining: BTreeMap<LifeId, u64>,
    /// What an operator stopped, and when.
    pub operator_stopped: BTreeMap<NodeId, u64>,
    /// What was, before a controller began with half a file that may say it still.
    pub perhaps_stopped: BTreeSet<NodeId>,
    /// When the record of each node that had completed was cleared away.
    pub cleared: BTreeMap<NodeId, u64>,
    /// The spec under which the step that is being done was planned.
    pub acting: Option<Arc<Model>>,
    /// That under which the last step was done.
    pub acted: Option<Arc<Model>>,
    /// How things stood after the event before.
    pub stood: Stood,
    /// The hash that was last seen of each file.
    pub looked: BTreeMap<PathBuf, String>,
    /// How long connections to each instance are waited for by the last spec that has or had
    /// it, in milliseconds.
    pub drains: BTreeMap<NodeId, u64>,
    /// When that was.
    pub planned_at: u64,
    /// The job that is being done starts its node.
    pub starts: bool,
    pub catalog: Option<SharedCatalog>,
    /// When each registration was last seen to pass.
    pub healthy_at: BTreeMap<String, u64>,
    /// When a check last found something wrong with one that had been ready.
    pub ill_at: BTreeMap<NodeId, u64>,
    pub meddled_at: Option<u64>,
    pub strangers_at: Option<u64>,
    /// When a file could not be read.
    pub unread_at: Option<u64>,
    pub took_at: u64,
    /// A controller is just looking around for the first time.
    pub beginning: bool,
    /// The edit under way may remove everything.
    pub allow_empty: bool,
    pub down_kill: bool,
    pub last_view: Option<(u64, Vec<hatchery::plan::world::Life>)>,
    /// Which lives are up, as far as a controller was told.
    pub seen_up: BTreeSet<LifeId>,
    pub last_net: Option<(u64, Net)>,
    /// How often something was changed through a driver.
    pub mutations: u64,
    /// An event was lost, or a view was withheld, at that time.
    pub blind_at: Option<u64>,
    pub old_kernel: bool,
    pub recovery: Option<recovery::Recovery>,
    /// What was noted of which spec.
    pub told: BTreeSet<(Fault, u64)>,
    pub violation: Option<String>,
}

/// The world, shared with the drivers.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub fn new(world: World) -> Self {
        Shared(Arc::new(Mutex::new(world)))
    }

    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a driver's action goes.
pub enum Reach {
    /// All of it.
    Whole,
    /// It fails at once.
    Nothing(DriverError),
    /// It fails when half of it is done.
    Half(DriverError),
}

impl World {
    pub fn new(seed: u64, print: bool) -> Self {
        let mut rng = Rng::new(seed);
        let faults = Faults::draw(&mut rng);
        let old_kernel = rng.chance(200);
        World {
            now: 0,
            boot: 0,
            wall: 1_400_000_000_000,
            off: 0,
            faults,
            trace: Trace::new(print),
            queue: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            seq: 0,
            epoch: 0,
            epochs: 0,
            began: 0,
            crashed: false,
            cgroups: BTreeMap::new(),
            serials: 0,
            pids: BTreeMap::new(),
            next_pid: 100,
            net: Net::default(),
            files: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            followed: BTreeSet::new(),
            kept: Kept::default(),
            listener: None,
            accepted: BTreeSet::new(),
            refused_at: None,
            held_ports: BTreeSet::new(),
            facts: BTreeMap::new(),
            ended: BTreeMap::new(),
            models: BTreeMap::new(),
            in_force: None,
            down: false,
            leaving: BTreeMap::new(),
            draining: BTreeMap::new(),
            operator_stopped: BTreeMap::new(),
            perhaps_stopped: BTreeSet::new(),
            acting: None,
            acted: None,
            stood: Stood::default(),
            looked: BTreeMap::new(),
            drains: BTreeMap::new(),
            planned_at: 0,
            cleared: BTreeMap::new(),
            starts: false,
            catalog: None,
            healthy_at: BTreeMap::new(),
            ill_at: BTreeMap::new(),
            meddled_at: None,
            strangers_at: None,
            unread_at: None,
            took_at: 0,
            beginning: false,
            allow_empty: false,
            down_kill: false,
            last_view: None,
            seen_up: BTreeSet::new(),
            last_net: None,
            mutations: 0,
            blind_at: None,
            old_kernel,
            recovery: None,
            told: BTreeSet::new(),
            violation: None,
            rng,
        }
    }

    /// The boot clock; it did not begin with zero.
    pub fn clock(&self) -> Time {
        Time(self.now - self.boot + 5 * SECOND)
    }

    pub fn at(&mut self, when: u64, what: Happening) {
        self.seq += 1;
        self.queue.push(Reverse((when, self.seq)));
        self.waiting.insert(self.seq, what);
    }

    pub fn after(&mut self, delay: Duration, what: Happening) {
        let when = self.now + delay.as_nanos() as u64;
        self.at(when, what);
    }

    /// What is next, no later than `until`.
    pub fn pop(&mut self, until: u64) -> Option<Happening> {
        let Reverse((when, seq)) = *self.queue.peek()?;
        if when > until {
            return None;
        }
        self.queue.pop();
        // After a suspended time, what was due in it is late.
        self.now = self.now.max(when);
        self.waiting.remove(&seq)
    }

    /// Whether a fault happens now that has its effect at once.
    pub fn fires(&mut self, fault: Fault, action: Action) -> bool {
        let fires = self.draws(fault);
        if fires {
            self.note(fault, action);
        }
        fires
    }

    /// Whether a fault is to happen, be its effect now or later: then it is noted.
    pub fn draws(&mut self, fault: Fault) -> bool {
        self.faults.draws(&mut self.rng, fault)
    }

    /// A fault has its effect now.
    pub fn note(&mut self, fault: Fault, action: Action) {
        let now = self.now;
        self.faults.note(fault, action);
        self.trace.line(
            now,
            format_args!("fault: {} at {}", fault.words(), action.words()),
        );
    }

    pub fn log(&mut self, what: std::fmt::Arguments<'_>) {
        let now = self.now;
        self.trace.line(now, what);
    }

    /// Something comes of what happened; it is noted once for each spec.
    pub fn tells(&mut self, fault: Fault, action: Action) {
        let revision = self.in_force.as_ref().map_or(0, |model| model.revision);
        if self.told.insert((fault, revision)) {
            self.note(fault, action);
        }
    }

    /// Something that must never be; the first is kept.
    pub fn violate(&mut self, what: String) {
        let now = self.now;
        self.trace.line(now, format_args!("VIOLATION: {what}"));
        if self.violation.is_none() {
            self.violation = Some(format!("at {:.6} s: {what}", now as f64 / 1e9));
        }
    }

    /// Passes the faults that every action of a driver may meet. `half` says that it can be
    /// left half done.
    pub fn reach(&mut self, action: Action, half: bool) -> Reach {
        if self.crashed {
            return Reach::Nothing(error(ErrorKind::Failed, "the controller is dead"));
        }
        self.mutations += 1;
        (self.last_view, self.last_net) = (None, None);
        if self.fires(Fault::CrashBefore, action) {
            self.crashed = true;
            return Reach::Nothing(error(ErrorKind::Failed, "the controller is dead"));
        }
        if half && self.fires(Fault::CrashWithin, action) {
            self.crashed = true;
            return Reach::Half(error(ErrorKind::Failed, "the controller is dead"));
        }
        let kinds = [
            (Fault::Foreign, ErrorKind::Foreign),
            (Fault::Gone, ErrorKind::Gone),
            (Fault::Failed, ErrorKind::Failed),
            (Fault::TimedOut, ErrorKind::TimedOut),
        ];
        for (fault, kind) in kinds {
            // Gone is what some calls say of what they cannot find, and nothing else.
            let told = kind == ErrorKind::Gone
                && matches!(action, Action::Signal | Action::Kill | Action::Remove);
            if !told && self.fires(fault, action) {
                let why = error(kind, fault.words());
                return match half && self.fires(Fault::HalfDone, action) {
                    true => Reach::Half(why),
                    false => Reach::Nothing(why),
                };
            }
        }
        if self.fires(Fault::CrashAfter, action) {
            self.crashed = true;
        }
        Reach::Whole
    }

    /// Has the controller told of something, unless that is lost.
    pub fn tell(&mut self, event: Event) {
        if self.epoch == 0 {
            return;
        }
        if self.fires(Fault::LostEvent, Action::Event) {
            self.blind_at = Some(self.now);
            return;
        }
        let twice = self.draws(Fault::TwiceEvent);
        let epoch = self.epoch;
        let delay = Duration::from_micros(self.rng.range(20, 2_000));
        if twice {
            let later = delay + self.rng.millis(0, 3_000);
            let again = Some(Fault::TwiceEvent);
            self.after(later, Happening::Deliver(epoch, event.clone(), again));
        }
        self.after(delay, Happening::Deliver(epoch, event, None));
    }

    /// A pid that nobody has; one that somebody had comes again soon.
    pub fn pid(&mut self, serial: u64) -> i32 {
        loop {
            self.next_pid = match self.next_pid {
                140.. => 100,
                pid => pid + 1,
            };
            if self.pids.len() > 30 {
                // Many live: the numbers go on.
                self.next_pid = 200 + self.rng.range(0, 2000) as i32;
            }
            if !self.pids.contains_key(&self.next_pid) {
                self.pids.insert(self.next_pid, serial);
                return self.next_pid;
            }
        }
    }

    /// A step begins: what of it can be seen before it is done.
    pub fn begin_step(&mut self, step: &Step) -> Duration {
        match step {
            Step::Start(start) => {
                self.make_cgroup(start);
                self.rng.millis(5, 120)
            }
            Step::Attach(attachment) => {
                self.half_attach(attachment);
                self.rng.millis(1, 20)
            }
            Step::ReloadProcess { life, signal, .. } => {
                self.reload_signal(life, *signal);
                self.rng.millis(5, 200)
            }
            Step::Validate { .. } => self.rng.millis(5, 50),
            Step::PreStart { .. } | Step::ReloadCommand { .. } => self.rng.millis(5, 500),
            _ => Duration::from_micros(self.rng.range(10, 3_000)),
        }
    }

    /// Somebody sets the wall clock, forward or back.
    pub fn jump(&mut self) {
        let most = *self.rng.pick(&[2_000, 600_000, 200_000_000]);
        let far = self.rng.range(1_000, most) as i64;
        self.off += if self.rng.chance(500) { far } else { -far };
        let off = self.off;
        self.log(format_args!("the wall clock is {off} ms off"));
    }

    /// All that a reboot leaves is on disk.
    pub fn reboot(&mut self) {
        self.boot = self.now;
        // It is kept with the id of the boot.
        self.kept.carried.given_up.clear();
        self.cgroups.clear();
        self.pids.clear();
        self.net = Net::default();
        self.files.retain(|path, _| !path.starts_with("/run"));
        self.unsettled.retain(|path| !path.starts_with("/run"));
        self.facts.clear();
        self.leaving.clear();
        self.draining.clear();
        (self.last_view, self.last_net) = (None, None);
    }

    /// The controller is gone; nothing else changes.
    pub fn controller_gone(&mut self) {
        self.epoch = 0;
        self.crashed = false;
        // Why something is to end is known to nobody else, where that is not noted.
        for cgroup in self.cgroups.values_mut() {
            cgroup.late = cgroup.noted_late;
            (cgroup.restarting, cgroup.had_time) = (false, false);
            cgroup.ending_planned = cgroup.ending_planned.filter(|_| cgroup.asked.is_some());
        }
        for facts in self.facts.values_mut() {
            facts.restarting = false;
        }
        self.listener = None;
        self.followed.clear();
        self.leaving.clear();
        self.draining.clear();
        (self.last_view, self.last_net) = (None, None);
        self.catalog = None;
        self.down = false;
        self.down_kill = false;
        self.healthy_at.clear();
    }
}

pub fn error(kind: ErrorKind, why: &str) -> DriverError {
    DriverError {
        message: format!("cannot do it: {why}"),
        kind,
    }
}

impl Clock for Shared {
    fn now(&self) -> Time {
        self.lock().clock()
    }

    fn wall_ms(&self) -> u64 {
        let world = self.lock();
        world.wall.saturating_add_signed(world.off) + world.now / MILLI
    }
}
