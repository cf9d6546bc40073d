//! One seed's history: everything that happens, in the order of virtual time.

mod controller;
mod operator;
mod outside;
mod step;
mod trial;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use hatchery::reconcile::engine::Input;

use crate::faults::{Action, Fault};
use crate::specs::{Model, Role, SPEC, instance};
use crate::world::{Happening, SECOND, Shared, World};
use crate::{always, oracle};

use controller::Controller;

/// From the last fault on, everything must be well within this time.
pub const CONVERGES_WITHIN: u64 = 300 * SECOND;

/// What came of a seed.
#[derive(Debug)]
pub struct Outcome {
    pub violation: Option<String>,
    pub hash: u64,
    pub events: u64,
    pub passes: u64,
    pub edits: u64,
    pub fired: BTreeMap<(Fault, Action), u64>,
    pub converged_after: u64,
}

pub fn text_hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// A run.
pub struct Run {
    world: Shared,
    controller: Option<Controller>,
    /// What the spec's file is meant to say.
    model: Model,
    past: Vec<Arc<Model>>,
    seed: u64,
    /// Those that came to something.
    edits: u64,
    revisions: u64,
    passes: u64,
    events: u64,
    /// When the last fault was.
    calm: Option<u64>,
    /// Since when nothing is outstanding, though something is not well.
    quiet: Option<u64>,
    nudges: u32,
    /// What is tried once all is well.
    trial: Option<trial::Trial>,
    /// Something is to fail and to recover.
    recovers: bool,
}

/// Runs one seed.
pub fn run(seed: u64, print: bool, faults: bool) -> Outcome {
    let mut world = World::new(seed, print);
    world.faults.on = faults;
    let model = Model::draw(&mut world.rng);
    let mut run = Run {
        world: Shared::new(world),
        controller: None,
        model,
        past: Vec::new(),
        seed,
        edits: 0,
        revisions: 1,
        passes: 0,
        events: 0,
        calm: None,
        quiet: None,
        nudges: 0,
        trial: None,
        recovers: false,
    };
    run.prepare(faults);
    let converged_after = run.live();
    let world = run.world.lock();
    Outcome {
        violation: world.violation.clone(),
        hash: world.trace.hash(),
        events: run.events,
        passes: run.passes,
        edits: run.edits,
        fired: world.faults.fired.clone(),
        converged_after,
    }
}

impl Run {
    fn prepare(&mut self, faults: bool) {
        let text = self.publish();
        let mut world = self.world.lock();
        world.put(SPEC.into(), text, None);
        for number in 0..2 {
            world.put(
                format!("/spec/watched{number}").into(),
                "one".to_owned(),
                None,
            );
        }
        drop(world);
        self.write_sources();
        let mut world = self.world.lock();
        world.at(0, Happening::Up);
        world.at(SECOND, Happening::Heartbeats);
        if faults {
            world.at(SECOND / 2, Happening::Outside);
        }
        always::outside(&mut world);
    }

    /// Notes the model as one whose text may be read from now on.
    fn publish(&mut self) -> String {
        let text = self.model.yaml();
        let model = Arc::new(self.model.clone());
        self.past.push(model.clone());
        let mut world = self.world.lock();
        world.models.insert(text_hash(&text), model);
        text
    }

    fn write_sources(&mut self) {
        let templates = self.model.templates.clone();
        let mut world = self.world.lock();
        for template in &templates {
            let (path, text) = (template.source(), template.text());
            let same = world
                .files
                .get(std::path::Path::new(&path))
                .is_some_and(|file| file.text == text);
            if !same {
                world.save(&path, text);
            }
        }
    }

    /// Until it is well, or something is wrong. Gives how long after the last fault.
    fn live(&mut self) -> u64 {
        let chaos = {
            let mut world = self.world.lock();
            match world.faults.on {
                true => world.rng.range(20, 90) * SECOND,
                false => 0,
            }
        };
        let mut end = chaos;
        let mut converged_after = CONVERGES_WITHIN;
        loop {
            let next = self.world.lock().pop(end);
            let Some(next) = next else {
                if self.calm.is_none() {
                    self.calm_down(end);
                    end = self.world.lock().now + CONVERGES_WITHIN;
                    continue;
                }
                self.not_converged(end);
                return converged_after;
            };
            self.events += 1;
            let is_outside = matches!(next, Happening::Outside | Happening::Saved(..));
            self.happen(next);
            match is_outside {
                true => always::outside(&mut self.world.lock()),
                false => always::holds(&mut self.world.lock()),
            }
            let now = self.world.lock().now;
            if self.world.lock().violation.is_some() {
                return 0;
            }
            let Some(calm) = self.calm else { continue };
            let well = self.is_well(now);
            if self.is_tried() {
                if self.on_trial(now, well) {
                    return converged_after;
                }
            } else if well {
                converged_after = now - calm;
                if !self.begin_trial() {
                    return converged_after;
                }
                end = now + trial::TRIED_WITHIN;
            }
        }
    }

    fn happen(&mut self, what: Happening) {
        let mut world = self.world.lock();
        match what {
            Happening::Exec(serial) => world.exec(serial),
            Happening::Ready(serial) => world.ready(serial),
            // What is tried is judged by what comes of that alone.
            Happening::Exit(_, _, faults)
                if self.is_tried() && faults.contains(&Fault::LateExit) => {}
            Happening::Exit(serial, exit, faults) => world.exit(serial, exit, faults),
            Happening::Gone(serial) => world.gone(serial),
            Happening::NspawnKilled(serial) => world.nspawn_killed(serial),
            Happening::ProxyReads(serial) => world.proxy_reads(serial, false),
            Happening::Settled(path) => world.settled(path),
            // What was being saved when the faults ended is saved by the last edit.
            Happening::Saved(..) if self.calm.is_some() => {}
            Happening::Saved(path, text) => {
                let path = path.display().to_string();
                world.save(&path, text);
            }
            Happening::Heartbeats => {
                drop(world);
                self.heartbeats();
            }
            Happening::Up => {
                drop(world);
                self.up();
            }
            Happening::Outside => {
                drop(world);
                self.outside();
            }
            Happening::Deliver(epoch, event, again) => {
                if let Some(fault) = again.filter(|_| world.epoch == epoch) {
                    world.note(fault, Action::Event);
                }
                drop(world);
                self.tell(epoch, Input::Event(event));
            }
            Happening::Pass(epoch) => {
                drop(world);
                self.pass(epoch);
            }
            Happening::Launch(epoch) => {
                drop(world);
                self.launch(epoch);
            }
            Happening::Begin(epoch, job) => {
                drop(world);
                self.begin_step(epoch, job);
            }
            Happening::Advance(epoch, job) => {
                drop(world);
                self.advance(epoch, job);
            }
            Happening::Answer(epoch, id, turn, answer) => {
                drop(world);
                self.answer(epoch, &id, turn, answer);
            }
        }
    }

    /// Services that are well say so to the registry.
    fn heartbeats(&mut self) {
        let mut world = self.world.lock();
        world.after(Duration::from_secs(1), Happening::Heartbeats);
        let Some(catalog) = world.catalog.clone() else {
            return;
        };
        let due: Vec<String> = catalog.read(|catalog| {
            let entries = catalog.entries().filter(|entry| {
                let own = &entry.registration;
                let address = own.address.parse();
                address.is_ok_and(|address| {
                    let cgroup = world.listening(address, own.port);
                    cgroup.is_some_and(|cgroup| world.well(cgroup))
                })
            });
            let checks = entries.flat_map(|entry| &entry.checks);
            checks
                .filter(|check| matches!(check.spec.kind, hatchery::registry::CheckKind::Ttl(_)))
                .map(|check| check.spec.id.clone())
                .collect()
        });
        let now = world.clock();
        let mut changed = false;
        for id in due {
            let status = hatchery::spec::model::Status::Passing;
            let told = catalog.with(|catalog| catalog.set_check(&id, status, "", now));
            changed |= told == Ok(true);
        }
        drop(world);
        if changed {
            self.pass_soon();
        }
    }

    /// The faults end, and what stands in the way for good is taken away.
    fn calm_down(&mut self, end: u64) {
        {
            let mut world = self.world.lock();
            world.now = world.now.max(end);
            world.faults.on = false;
            world.log(format_args!("the faults end"));
            let now = world.now;
            self.calm = Some(now);
            world.net.bridges.retain(|_, bridge| bridge.ours);
            world
                .net
                .namespaces
                .retain(|_, space| space.foreign.is_none());
            world.held_ports.clear();
            let strange = |path: &std::path::Path, file: &crate::world::File| {
                path.starts_with("/etc") && file.mark.is_none()
            };
            world.files.retain(|path, file| !strange(path, file));
            world.tell(hatchery::driver::Event::Network);
        }
        if self.controller.is_none() {
            // The last edit may have closed a cycle: no controller takes that.
            for work in &mut self.model.works {
                work.needs.clear();
            }
        }
        for work in &mut self.model.works {
            work.defect = None;
            if let Some(update) = &mut work.update {
                // What takes long only because of what was before is not to be given up.
                update.deadline = None;
            }
        }
        self.model.revision = 1_000_000;
        let text = self.publish();
        self.write_sources();
        self.world.lock().save(SPEC, text.clone());
        self.apply(text, true);
        always::outside(&mut self.world.lock());
    }

    /// Whether everything is as it should be; asked after each event of the calm time.
    fn is_well(&mut self, now: u64) -> bool {
        self.nudge(now);
        let Some(controller) = &self.controller else {
            return false;
        };
        if !controller.engine.plan().is_empty() || !controller.idle() {
            self.quiet = None;
            return false;
        }
        let world = self.world.lock();
        let newest = world
            .in_force
            .as_ref()
            .is_some_and(|model| model.revision == self.model.revision);
        let since = *self.quiet.get_or_insert(now);
        if !newest || !world.unsettled.is_empty() {
            return false;
        }
        match oracle::judge(&world, &self.model) {
            None => {
                self.quiet = None;
                controller.engine.converged()
            }
            // The resync would have told.
            Some(why) if now - since > 70 * SECOND => {
                drop(world);
                self.world
                    .lock()
                    .violate(format!("nothing is outstanding, and yet: {why}"));
                false
            }
            Some(_) => false,
        }
    }

    /// What gave up, and what an operator stopped, is started by the operator again.
    fn nudge(&mut self, now: u64) {
        let due = match self.nudges {
            0 => 5,
            1 => 40,
            2 => 90,
            3 => 150,
            _ => return,
        };
        let calm = self.calm.unwrap_or(now);
        if now < calm + due * SECOND || self.controller.is_none() {
            return;
        }
        if self.is_tried() {
            return;
        }
        self.nudges += 1;
        let names: Vec<String> = {
            let world = self.world.lock();
            let mut names = Vec::new();
            for work in &self.model.works {
                for node in work.instances() {
                    let of = |other: &hatchery::spec::node::NodeId| instance(other) == node;
                    let up = world
                        .cgroups
                        .iter()
                        .any(|(id, cgroup)| of(&id.node) && cgroup.populated());
                    // What was lost may have brought an old stop back.
                    let kept = world.kept.lossy && world.kept.stopped.iter().any(of);
                    let perhaps = world.perhaps_stopped.iter().any(of);
                    let stopped = world.operator_stopped.keys().any(of) || perhaps || kept;
                    let gave_up = work.max_attempts.is_some() || work.policy == "no";
                    // What ended well may have others wait for what it serves, for good.
                    let late = self.nudges > 2 && work.role == Role::App;
                    let done = oracle::rests(&world, work, &node) && !stopped && !late;
                    if !up && !done && (stopped || gave_up || late) {
                        names.push(node.to_string());
                    }
                }
            }
            names
        };
        if !names.is_empty() {
            self.operate(hatchery::reconcile::handle::Verb::Start, names);
        }
    }

    fn not_converged(&mut self, end: u64) {
        let mut why = Vec::new();
        match &self.controller {
            None => why.push("no controller runs".to_owned()),
            Some(controller) => {
                for item in &controller.engine.plan().items {
                    why.push(format!("{}: {} ({:?})", item.node, item.reason, item.gate));
                }
                for node in &controller.engine.plan().nodes {
                    if node.health == Some(hatchery::spec::model::Status::Critical) {
                        why.push(format!("{} is critical", node.node));
                    }
                }
            }
        }
        let mut world = self.world.lock();
        why.extend(oracle::judge(&world, &self.model));
        let calm = self.calm.unwrap_or_default();
        let within = end.saturating_sub(calm) / SECOND;
        world.violate(format!(
            "not converged within {within} s: {}",
            why.join("; ")
        ));
    }
}
