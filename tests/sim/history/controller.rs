//! One controller's life in virtual time: the product's own engine and its schedule of checks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hatchery::graph::desired::Dirs;
use hatchery::health::Answer;
use hatchery::plan::model::{Change, Gate, Step};
use hatchery::plan::world::LifeId;
use hatchery::reconcile::Job;
use hatchery::reconcile::engine::{Beginning, End, Engine, Input};
use hatchery::reconcile::handle::SpecText;
use hatchery::reconcile::host::{Host, Keep};
use hatchery::reconcile::load::Surroundings;
use hatchery::reconcile::monitors::Schedule;
use hatchery::reconcile::shared::SharedCatalog;
use hatchery::registry::{Catalog, Config};
use hatchery::spec::generation::went_back;
use hatchery::spec::model::Status;
use hatchery::spec::time::Time;
use tokio::sync::broadcast;

use super::{Run, step};
use crate::faults::{Action, Fault};
use crate::specs::{Model, SPEC, STACK};
use crate::world::{Happening, SECOND, World};

/// More passes in a second than this are no reaction to anything.
const PASSES: u64 = 2_000;

/// A controller.
pub struct Controller {
    pub engine: Engine,
    pub epoch: u64,
    schedule: Schedule,
    host: Host,
    jobs: BTreeMap<u64, Running>,
    numbers: u64,
    pass_at: Option<u64>,
    launch_at: Option<u64>,
    /// Passes in this second.
    passes: (u64, u64),
    story: broadcast::Receiver<hatchery::reconcile::handle::Happening>,
}

/// A job under way.
struct Running {
    job: Job,
    /// What the plan said that is left to be done.
    planned: VecDeque<Step>,
    under: Option<Arc<Model>>,
    starts: bool,
    /// When it was planned.
    since: u64,
}

impl Controller {
    /// Whether nothing is being done.
    pub fn idle(&self) -> bool {
        self.jobs.is_empty()
    }
}

fn simulated(world: &World, time: Time) -> u64 {
    (time.0 + world.boot).saturating_sub(5 * SECOND)
}

impl Run {
    /// A controller begins.
    pub(super) fn up(&mut self) {
        if self.controller.is_some() {
            return;
        }
        let (epoch, text) = {
            let mut world = self.world.lock();
            world.decay();
            world.epochs += 1;
            world.epoch = world.epochs;
            world.began = world.now;
            world.beginning = true;
            world.failures_begin();
            let file = world.files.get(std::path::Path::new(SPEC));
            let text = file.map(|file| file.text.clone()).unwrap_or_default();
            let epoch = world.epoch;
            world.log(format_args!("controller {epoch} begins"));
            (epoch, text)
        };
        let (text, left) = self.gone_back(text);
        let config = Config {
            node: "host".to_owned(),
            address: "127.0.0.1".to_owned(),
            datacenter: "dc1".to_owned(),
        };
        let host = Host {
            workloads: Arc::new(self.world.clone()),
            networks: Arc::new(self.world.clone()),
            files: Arc::new(self.world.clone()),
            commands: Arc::new(self.world.clone()),
            probes: Arc::new(self.world.clone()),
            clock: Arc::new(self.world.clone()),
            follow: Arc::new(self.world.clone()),
            listener: Arc::new(self.world.clone()),
            keep: Arc::new(self.world.clone()),
            catalog: SharedCatalog::new(Catalog::new(config, 1)),
        };
        self.world.lock().catalog = Some(host.catalog.clone());
        let (happenings, story) = broadcast::channel(64);
        let beginning = Beginning {
            commit_deadline: None,
            keeps: false,
            suspended: false,
            host: host.clone(),
            around: Surroundings {
                dirs: Arc::new(dirs),
                env: BTreeMap::new(),
                compares: false,
            },
            spec: Some(SpecText::of(SPEC, text.clone())),
            stack: STACK.to_owned(),
            saved: None,
            left,
            follows: true,
            seed: self.seed,
        };
        let begun = Engine::begin(beginning, &happenings);
        if begun.is_ok() {
            crate::invariants::takes(&mut self.world.lock(), &text);
        }
        self.world.lock().beginning = false;
        match begun {
            Ok(engine) => {
                self.controller = Some(Controller {
                    engine,
                    epoch,
                    schedule: Schedule::new(self.seed),
                    host,
                    jobs: BTreeMap::new(),
                    numbers: 0,
                    pass_at: None,
                    launch_at: None,
                    passes: (0, 0),
                    story,
                });
                self.pass_soon();
            }
            Err(why) => {
                let mut world = self.world.lock();
                world.log(format_args!("controller {epoch} cannot begin"));
                world.trace.remark(world.now, format_args!("{why}"));
                world.controller_gone();
                let again = world.rng.millis(1_000, 3_000);
                world.after(again, Happening::Up);
            }
        }
        self.after_drivers();
    }

    /// A stack that went back by itself stays so, and be it under another controller: the text
    /// to begin with, and the one that it left.
    fn gone_back(&self, text: String) -> (String, Option<SpecText>) {
        let past = self.world.past();
        let file = SpecText::of(SPEC, text.clone());
        let back = went_back(&past.generations, &file, |generation| {
            self.world.spec(generation)
        });
        match back {
            Some(back) => (back.text, Some(file)),
            None => (text, None),
        }
    }

    /// The controller is killed at this very moment.
    pub(super) fn crash(&mut self) {
        let mut world = self.world.lock();
        world.log(format_args!("the controller dies"));
        world.cut_starts();
        world.controller_gone();
        let again = world.rng.millis(50, 8_000);
        world.after(again, Happening::Up);
        drop(world);
        self.controller = None;
    }

    /// A driver may have had it die.
    fn after_drivers(&mut self) {
        let crashed = self.world.lock().crashed;
        if crashed {
            self.crash();
        }
    }

    fn lives(&self, epoch: u64) -> bool {
        self.controller
            .as_ref()
            .is_some_and(|controller| controller.epoch == epoch)
    }

    pub(super) fn pass_soon(&mut self) {
        let now = {
            let mut world = self.world.lock();
            world.now + world.rng.range(10_000, 800_000)
        };
        self.pass_at(now);
    }

    fn pass_at(&mut self, when: u64) {
        let Some(controller) = &mut self.controller else {
            return;
        };
        if controller.pass_at.is_none_or(|at| when < at) {
            controller.pass_at = Some(when);
            let epoch = controller.epoch;
            self.world.lock().at(when, Happening::Pass(epoch));
        }
    }

    /// The controller hears of something.
    pub(super) fn tell(&mut self, epoch: u64, input: Input) {
        if !self.lives(epoch) {
            return;
        }
        let Some(controller) = &mut self.controller else {
            return;
        };
        let end = controller.engine.take(input);
        if end == Some(End::Leave) {
            self.crash();
            return;
        }
        self.after_drivers();
        self.pass_soon();
    }

    pub(super) fn pass(&mut self, epoch: u64) {
        if !self.lives(epoch) {
            return;
        }
        let Some(controller) = &mut self.controller else {
            return;
        };
        let now = self.world.lock().now;
        if controller.pass_at.is_none_or(|at| at > now) {
            return;
        }
        controller.pass_at = None;
        self.passes += 1;
        let (second, passes) = controller.passes;
        controller.passes = match second == now / SECOND {
            true => (second, passes + 1),
            false => (now / SECOND, 1),
        };
        if controller.passes.1 > PASSES {
            return self
                .world
                .lock()
                .violate("it passes all the time".to_owned());
        }
        let pass = controller.engine.pass();
        self.note_plan();
        let Some(controller) = &mut self.controller else {
            return;
        };
        if let Some(wanted) = &pass.watch {
            let clock = self.world.lock().clock();
            controller.schedule.set(wanted, clock);
        }
        let look = controller.engine.next_look();
        let dies = self.world.lock().crashed;
        if dies {
            return self.crash();
        }
        for job in pass.jobs {
            self.put(job);
        }
        if pass.end == Some(End::Down) {
            return self.went_down();
        }
        let look = {
            let world = self.world.lock();
            simulated(&world, look).max(world.now + 200_000)
        };
        self.pass_at(look);
        self.launch(epoch);
    }

    /// What the newest plan tells the oracle.
    fn note_plan(&mut self) {
        let Some(controller) = &mut self.controller else {
            return;
        };
        let mut world = self.world.lock();
        let now = world.now;
        let plan = controller.engine.plan();
        if world.trace.printing() {
            for item in &plan.items {
                let line = format_args!(
                    "{} {:?}: {} {:?}",
                    item.node, item.change, item.reason, item.gate
                );
                world.trace.remark(now, line);
            }
        }
        while world.trace.printing()
            && let Ok(line) = controller.story.try_recv()
        {
            let text = line.text;
            world.trace.remark(now, format_args!("it says: {text}"));
        }
        crate::limits::backs_off(&mut world, plan);
        crate::limits::gave_up(&mut world, plan);
        crate::limits::pauses(&mut world, plan);
        crate::limits::stopped(&mut world, plan);
        crate::always::knows(&mut world, plan);
        for item in plan
            .items
            .iter()
            .filter(|item| item.change == Change::Replace)
        {
            if item.steps.iter().any(|step| matches!(step, Step::Clear(_))) {
                // Another is to run in its place, and be it that nobody remembers why.
                world.facts.entry(item.node.clone()).or_default().forgiven = true;
            }
        }
        crate::limits::lateness(&mut world, plan);
        let leaving = &plan.notes.leaving;
        // What is just being asked to end waited until it was.
        let is_asked = |life: &LifeId| {
            let mut items = plan.items.iter();
            items.any(|item| item.node == life.node && item.gate == Gate::Running)
        };
        world
            .leaving
            .retain(|life, _| leaving.contains(life) || is_asked(life));
        for life in leaving {
            world.leaving.entry(life.clone()).or_insert(now);
        }
        let draining = &plan.notes.draining;
        for life in draining.keys() {
            world.draining.entry(life.clone()).or_insert(now);
        }
        let world = &mut *world;
        controller.host.catalog.read(|catalog| {
            for (id, cgroup) in &mut world.cgroups {
                let own = format!("-{}", id.node.name);
                let entries = catalog.entries();
                let mut entries = entries
                    .filter(|entry| entry.registration.id.ends_with(&own))
                    .peekable();
                cgroup.served |= entries.peek().is_some();
                let ill = entries.any(|entry| entry.status() == Status::Critical);
                if ill && cgroup.was_ready {
                    world.ill_at.insert(id.node.clone(), now);
                }
            }
            for entry in catalog
                .entries()
                .filter(|entry| entry.status() == Status::Passing)
            {
                match world.healthy_at.get_mut(&entry.registration.id) {
                    Some(at) => *at = now,
                    None => {
                        world.healthy_at.insert(entry.registration.id.clone(), now);
                    }
                }
            }
        });
    }

    /// A job begins; it must be what the plan says.
    fn put(&mut self, job: Job) {
        let Some(controller) = &mut self.controller else {
            return;
        };
        let mut world = self.world.lock();
        let plan = controller.engine.plan();
        let item = plan
            .items
            .iter()
            .find(|item| item.node == *job.node() && item.gate == Gate::Ready);
        let Some(item) = item else {
            return world.violate(format!("a job of {} is not in the plan", job.node()));
        };
        let planned: VecDeque<Step> = item.steps.iter().cloned().collect();
        let now = world.now;
        for step in &planned {
            if let Step::Signal { life, .. } | Step::Kill(life) = step {
                world.end_planned(life, matches!(step, Step::Signal { .. }));
            }
        }
        let starts = planned.iter().any(|step| matches!(step, Step::Start(_)));
        controller.numbers += 1;
        let number = controller.numbers;
        let under = world.in_force.clone();
        let running = Running {
            job,
            planned,
            under,
            starts,
            since: now,
        };
        controller.jobs.insert(number, running);
        let delay = Duration::from_micros(world.rng.range(10, 2_000));
        let epoch = controller.epoch;
        world.after(delay, Happening::Begin(epoch, number));
    }

    /// A job's next step begins.
    pub(super) fn begin_step(&mut self, epoch: u64, number: u64) {
        if !self.lives(epoch) {
            return;
        }
        let dies = self.world.lock().draws(Fault::Crash);
        if dies && self.rare() {
            self.world.lock().note(Fault::Crash, Action::Outside);
            return self.crash();
        }
        let Some(controller) = &mut self.controller else {
            return;
        };
        let Some(running) = controller.jobs.get(&number) else {
            return;
        };
        let mut world = self.world.lock();
        let next = running.job.next_step();
        if next != running.planned.front() {
            let node = running.job.node();
            return world.violate(format!(
                "{node} does {next:?}, which is not what the plan says"
            ));
        }
        let Some(step) = next else {
            return;
        };
        world.acting = running.under.clone();
        world.starts = running.starts;
        world.planned_at = running.since;
        let delay = world.begin_step(step);
        world.after(delay, Happening::Advance(epoch, number));
    }

    /// One time in ten.
    pub(super) fn rare(&mut self) -> bool {
        self.world.lock().rng.chance(100)
    }

    pub(super) fn advance(&mut self, epoch: u64, number: u64) {
        if !self.lives(epoch) {
            return;
        }
        let Some(controller) = &mut self.controller else {
            return;
        };
        let Some(running) = controller.jobs.get_mut(&number) else {
            return;
        };
        {
            let mut world = self.world.lock();
            world.acting = running.under.clone();
            // What goes down keeps nothing.
            world.acted = running.under.clone().filter(|_| !world.down);
            world.planned_at = running.since;
            world.starts = running.starts;
            let (node, step) = (running.job.node(), step::name(running.job.next_step()));
            world.log(format_args!("{node}: {step}"));
        }
        running.planned.pop_front();
        let done = running.job.advance(&controller.host);
        self.world.lock().acting = None;
        let crashed = self.world.lock().crashed;
        if crashed {
            return self.crash();
        }
        match done {
            None => {
                let mut world = self.world.lock();
                let delay = Duration::from_micros(world.rng.range(10, 1_000));
                world.after(delay, Happening::Begin(epoch, number));
            }
            Some(done) => {
                controller.jobs.remove(&number);
                self.tell(epoch, Input::Done(done));
            }
        }
    }

    /// Asks what is due.
    pub(super) fn launch(&mut self, epoch: u64) {
        if !self.lives(epoch) {
            return;
        }
        let Some(controller) = &mut self.controller else {
            return;
        };
        let mut world = self.world.lock();
        let clock = world.clock();
        if controller.launch_at.is_some_and(|at| at <= world.now) {
            controller.launch_at = None;
        }
        for probe in controller.schedule.launch(clock) {
            let (delay, answer) = world.ask(&probe.check, probe.pid);
            world.after(
                delay,
                Happening::Answer(epoch, probe.id, probe.turn, answer),
            );
        }
        if let Some(due) = controller.schedule.next_due() {
            let at = simulated(&world, due).max(world.now + 1_000);
            if controller.launch_at.is_none_or(|known| at < known) {
                controller.launch_at = Some(at);
                world.at(at, Happening::Launch(epoch));
            }
        }
    }

    pub(super) fn answer(&mut self, epoch: u64, id: &str, turn: u64, answer: Answer) {
        if !self.lives(epoch) {
            return;
        }
        let Some(controller) = &mut self.controller else {
            return;
        };
        let clock = self.world.lock().clock();
        let verdict = controller.schedule.answer(id, turn, answer, clock);
        if let Some(verdict) = verdict {
            let mut world = self.world.lock();
            world.log(format_args!("{id}: {}", verdict.status));
            drop(world);
            self.tell(epoch, Input::Verdict(verdict));
        }
        self.launch(epoch);
    }
}

fn dirs(stack: &str) -> Dirs {
    Dirs {
        run: format!("/run/hatchery/{stack}").into(),
        state: format!("/var/lib/hatchery/{stack}").into(),
        log: format!("/var/log/hatchery/{stack}").into(),
    }
}
