//! The loop as a machine that is driven from outside: it awaits nothing, starts nothing and
//! never sleeps. What it wants done it gives back, and what came of it is brought to it.
//!
//! [`run`](super::run::run) drives it on a host; a simulation drives it through virtual time.

use std::time::Duration;

use tokio::sync::broadcast;

use super::begin::begin;
use super::controller::{Controller, Dirty};
use super::execute::{Done, Job};
use super::handle::{Happening, Request};
use super::host::Host;
use super::load::Surroundings;
use super::schedule::{Verdict, Wanted};
use crate::driver::Event;
use crate::plan::model::Plan;
use crate::plan::plan;
use crate::plan::saved::SavedPlan;
use crate::plan::world::{Life, LifeState};
use crate::reconcile::handle::SpecText;
use crate::spec::time::Time;

/// How often everything is observed though nothing told of a change.
const RESYNC: Duration = Duration::from_secs(30);

/// How soon what could not be observed is tried again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What a controller begins with.
pub struct Beginning {
    /// The drivers.
    pub host: Host,
    /// Folders and environment.
    pub around: Surroundings,
    /// The spec; `None` begins with an empty one, to take the stack down.
    pub spec: Option<SpecText>,
    /// The stack's name when there is no spec.
    pub stack: String,
    /// Only as far as this plan of the spec goes, if the world is still the one that it was
    /// made on.
    pub saved: Option<SavedPlan>,
    /// What the stack went back from. As long as the file holds this text, it stays out of force.
    pub left: Option<SpecText>,
    /// Whether edits of the spec's file are followed.
    pub follows: bool,
    /// A commit that did not converge so long after it was taken is left for the spec that
    /// converged before; `None` when it is held.
    pub commit_deadline: Option<Duration>,
    /// What left the spec is kept.
    pub keeps: bool,
    /// For jitter.
    pub seed: u64,
}

/// One controller's life.
pub struct Engine {
    controller: Controller,
}

/// Something that a controller is told.
#[derive(Debug)]
pub enum Input {
    /// By a driver: something may have changed.
    Event(Event),
    /// How a job went.
    Done(Done),
    /// What a check's answers came to.
    Verdict(Verdict),
    /// By an operator.
    Request(Box<Request>),
}

/// What follows from one pass.
#[derive(Debug, Default)]
pub struct Pass {
    /// What is to be done now, side by side.
    pub jobs: Vec<Job>,
    /// From now on these checks are asked and no others; `None` when nothing changed.
    pub watch: Option<Wanted>,
    /// The controller's life is over.
    pub end: Option<End>,
}

/// Why a controller ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was asked to; workloads live on.
    Leave,
    /// All is gone.
    Down,
}

impl Engine {
    /// Compiles the spec and looks at what runs already. It blocks as drivers do.
    ///
    /// # Errors
    /// The spec's report when it does not compile, or what could not be seen.
    pub fn begin(
        beginning: Beginning,
        happenings: &broadcast::Sender<Happening>,
    ) -> Result<Engine, String> {
        let controller = begin(beginning, happenings)?;
        Ok(Engine { controller })
    }

    /// Takes note of something; what follows from it comes with the next [`Engine::pass`].
    pub fn take(&mut self, input: Input) -> Option<End> {
        match input {
            Input::Event(event) => self.controller.on_event(event),
            Input::Done(done) => self.controller.on_done(done),
            Input::Verdict(verdict) => self.controller.on_verdict(&verdict),
            Input::Request(request) => return self.controller.on_request(*request),
        }
        None
    }

    /// When to look again though nothing happened.
    pub fn next_look(&self) -> Time {
        let controller = &self.controller;
        let expiry = controller
            .host
            .catalog
            .with(|catalog| catalog.next_expiry());
        let deadline = controller.commit_due();
        [
            controller.plan.wake,
            expiry,
            controller.heartbeats_due,
            deadline,
        ]
        .into_iter()
        .flatten()
        .fold(controller.synced + RESYNC, Time::min)
    }

    /// The newest plan.
    pub fn plan(&self) -> &Plan {
        &self.controller.plan
    }

    /// Whether nothing is outstanding and everything is well.
    pub fn converged(&self) -> bool {
        self.controller.converged
    }

    /// Looks, plans, and gives what begins now. It blocks as drivers do.
    pub fn pass(&mut self) -> Pass {
        self.look();
        if self.controller.dirty.lives || self.controller.dirty.network {
            return self.blind();
        }
        let mut plan = self.make_plan();
        if !plan.notes.lacks.is_empty() {
            let lacks = std::mem::take(&mut plan.notes.lacks);
            self.controller.fetch(lacks);
            plan = self.make_plan();
        }
        let controller = &mut self.controller;
        let now = controller.host.clock.now();
        controller.memory.absorb(&plan.notes, now);
        let late = controller.late_commit(&plan);
        if let Some(why) = plan.notes.rollback.take().or(late) {
            controller.roll_back(&why);
            plan = self.make_plan();
        }
        let controller = &mut self.controller;
        controller.plan = plan;
        if controller.dirty != Dirty::default() {
            // What could not be observed is tried again soon.
            controller.wake_at(now + LOOK_AGAIN);
        }
        controller.report();
        controller.keep_given_up();
        let jobs = controller.dispatch();
        controller.follow_files();
        let watch = std::mem::take(&mut controller.rewatch).then(|| controller.watched.clone());
        let end = controller.is_gone().then(|| {
            controller.finish_down();
            End::Down
        });
        controller.keep_events();
        Pass { jobs, watch, end }
    }

    /// What runs could not be seen. A plan on what was seen before would start a second time
    /// what began since, so there is none until it can be.
    fn blind(&mut self) -> Pass {
        let controller = &mut self.controller;
        let now = controller.host.clock.now();
        controller.plan.wake = Some(now + LOOK_AGAIN);
        controller.keep_events();
        let watch = std::mem::take(&mut controller.rewatch).then(|| controller.watched.clone());
        Pass {
            watch,
            ..Pass::default()
        }
    }

    fn look(&mut self) {
        let controller = &mut self.controller;
        let now = controller.host.clock.now();
        if now.since(controller.synced) >= RESYNC {
            controller.dirty = Dirty {
                spec: true,
                ..Dirty::ALL
            };
            controller.synced = now;
            if let Err(error) = controller.host.workloads.rotate_logs() {
                controller.warn(error.message);
            }
        }
        // Nothing tells when one that seemed to end was only about to execute its program, or
        // when the last of its processes goes.
        let ends = |life: &Life| life.state == LifeState::Ending;
        controller.dirty.lives |= controller.observed.lives.iter().any(ends);
        controller.look_at_spec();
        controller.observe();
        controller.settle_unchecked();
        controller.set_monitors();
    }

    fn make_plan(&self) -> Plan {
        let controller = &self.controller;
        let now = controller.host.clock.now();
        plan(
            &controller.desired,
            &controller.observed,
            &controller.memory,
            now,
        )
    }
}
