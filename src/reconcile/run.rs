//! The loop: wait for a reason to look, look, plan, begin what is ready.

use std::time::Duration;

use tokio::sync::{broadcast, mpsc};

use super::begin::begin;
use super::controller::{Controller, Dirty};
use super::execute::Done;
use super::handle::{Happening, Level, Request, SpecText};
use super::host::Host;
use super::load::{Surroundings, load};
use super::monitors::Verdict;
use crate::driver::{ErrorKind, Event};
use crate::plan::backoff::retry_delay;
use crate::plan::memory::Attempt;
use crate::plan::model::Plan;
use crate::plan::plan;
use crate::spec::model::Status;

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
    /// Whether edits of the spec's file are followed.
    pub follows: bool,
    /// For jitter.
    pub seed: u64,
}

/// The loop's ends.
pub struct Channels {
    /// From the drivers.
    pub events: mpsc::UnboundedReceiver<Event>,
    /// From whoever holds a [`Handle`](super::handle::Handle).
    pub requests: mpsc::Receiver<Request>,
    /// To all who listen.
    pub happenings: broadcast::Sender<Happening>,
}

/// Runs until it is asked to leave or everything is down.
///
/// # Errors
/// The spec's report when it does not compile.
pub async fn run(beginning: Beginning, channels: Channels) -> Result<(), String> {
    let (done, finished) = mpsc::unbounded_channel();
    let (verdicts_in, verdicts) = mpsc::channel(256);
    let controller = begin(beginning, &channels.happenings, done, verdicts_in)?;
    Loop {
        controller,
        channels,
        finished,
        verdicts,
    }
    .run()
    .await;
    Ok(())
}

struct Loop {
    controller: Controller,
    channels: Channels,
    finished: mpsc::UnboundedReceiver<Done>,
    verdicts: mpsc::Receiver<Verdict>,
}

/// Why the loop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Workloads live on.
    Leave,
    /// All is gone.
    Down,
}

impl Loop {
    async fn run(mut self) {
        let mut catalog = self.controller.host.catalog.changed();
        loop {
            if let Some(End::Down) = tokio::task::block_in_place(|| self.pass()) {
                self.finish_down();
                return;
            }
            let wake = self.sleep();
            tokio::select! {
                event = self.channels.events.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => return,
                },
                Some(done) = self.finished.recv() => self.on_done(done),
                Some(verdict) = self.verdicts.recv() => self.on_verdict(verdict),
                request = self.channels.requests.recv() => match request {
                    Some(request) => if self.on_request(request).await == Some(End::Leave) {
                        return;
                    },
                    None => return,
                },
                // An index that moved is read in the pass that follows.
                changed = catalog.changed() => if changed.is_err() { return },
                () = wake => {}
            }
            self.drain().await;
            catalog.borrow_and_update();
        }
    }

    /// Takes everything that is waiting, so that one pass answers it all.
    async fn drain(&mut self) {
        while let Ok(event) = self.channels.events.try_recv() {
            self.on_event(event);
        }
        while let Ok(done) = self.finished.try_recv() {
            self.on_done(done);
        }
        while let Ok(verdict) = self.verdicts.try_recv() {
            self.on_verdict(verdict);
        }
    }

    fn sleep(&self) -> impl Future<Output = ()> + use<> {
        let controller = &self.controller;
        let now = controller.host.clock.now();
        let expiry = controller
            .host
            .catalog
            .with(|catalog| catalog.next_expiry());
        let next = [controller.plan.wake, expiry, controller.heartbeats_due]
            .into_iter()
            .flatten()
            .chain([controller.synced + RESYNC])
            .min()
            .map_or(RESYNC, |at| at.since(now));
        tokio::time::sleep(next)
    }

    /// Looks, plans, begins.
    fn pass(&mut self) -> Option<End> {
        let controller = &mut self.controller;
        let now = controller.host.clock.now();
        if now.since(controller.synced) >= RESYNC {
            controller.dirty = Dirty::ALL;
            controller.synced = now;
            if let Err(error) = controller.host.workloads.rotate_logs() {
                controller.tell(None, Level::Warning, error.message);
            }
        }
        controller.observe();
        controller.settle_unchecked();
        controller.set_monitors();
        let mut plan = self.make_plan();
        if !plan.notes.lacks.is_empty() {
            let lacks = std::mem::take(&mut plan.notes.lacks);
            self.controller.fetch(lacks);
            plan = self.make_plan();
        }
        let controller = &mut self.controller;
        let now = controller.host.clock.now();
        controller.memory.absorb(&plan.notes, now);
        controller.plan = plan;
        if controller.dirty != Dirty::default() {
            // What could not be observed is tried again soon.
            let soon = now + LOOK_AGAIN;
            controller.plan.wake = Some(controller.plan.wake.map_or(soon, |wake| wake.min(soon)));
        }
        controller.report();
        controller.dispatch();
        let paths = controller.followed();
        if paths != controller.following {
            match controller.host.follow.set(paths.clone()) {
                Ok(()) => {
                    // What changed before the watch began was told by nobody.
                    controller.following = paths;
                    controller.dirty.files = true;
                    controller.plan.wake = Some(controller.host.clock.now());
                }
                Err(error) => {
                    // Told once; the resync observes what cannot be followed.
                    controller.following = paths;
                    controller.tell(None, Level::Warning, error.message);
                }
            }
        }
        let idle = controller
            .memory
            .attempts
            .values()
            .all(|attempt| !attempt.running);
        let gone = controller.down.is_some()
            && controller.plan.items.is_empty()
            && controller.observed.lives.is_empty()
            && idle;
        gone.then_some(End::Down)
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

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Ended(_) | Event::Notified(_) => self.controller.dirty.lives = true,
            Event::Network => self.controller.dirty.network = true,
            Event::Files(paths) => {
                self.controller.dirty.files = true;
                // Something that a validator reads may be another.
                self.controller.memory.verdicts.clear();
                let spec = &self.controller.spec.path;
                let source = paths.iter().any(|path| {
                    (self.controller.follows && path == spec)
                        || self.controller.observed.inputs.files.contains_key(path)
                });
                if source {
                    self.follow_spec();
                }
            }
        }
    }

    /// Reads the spec's file and the template sources again.
    fn follow_spec(&mut self) {
        let controller = &mut self.controller;
        if controller.memory.down.is_some() {
            return;
        }
        let mut spec = controller.spec.clone();
        if controller.follows {
            match controller
                .host
                .files
                .read(&spec.path, super::load::INPUT_LIMIT)
            {
                Ok(text) => spec.text = text,
                Err(error) => {
                    let text = format!("{}; the last good spec stays in force", error.message);
                    controller.refuse_spec(text);
                    return;
                }
            }
        }
        let held = controller.held();
        let loaded = load(
            &spec,
            &controller.around,
            &held,
            controller.host.files.as_ref(),
            false,
        );
        match loaded {
            Ok(loaded) if loaded.desired.stack != controller.desired.stack => {
                let refusal = controller.other_stack(&loaded);
                controller.refuse_spec(refusal);
            }
            Ok(loaded) => {
                if let Some(held) = controller.removes_all(&loaded) {
                    controller.refuse_spec(held);
                } else if loaded.desired != controller.desired
                    || loaded.sources != controller.observed.inputs.files
                    || spec != controller.spec
                {
                    controller.adopt_spec(spec, loaded);
                    let text = format!("took generation {}", controller.generation);
                    controller.tell(None, Level::Notice, text);
                } else if controller.spec_error.take().is_some() {
                    controller.tell(None, Level::Notice, "the spec is good again");
                }
            }
            Err(report) => controller.refuse_spec(report),
        }
    }

    fn on_done(&mut self, done: Done) {
        let controller = &mut self.controller;
        let now = controller.host.clock.now();
        let of_node = |life: &crate::plan::world::LifeId| life.node == done.node;
        controller.memory.starting.retain(|life| !of_node(life));
        for finished in &done.steps {
            controller.dirty.by(&finished.step);
            controller.report_step(&done.node, finished);
            controller.note_step(finished, now);
        }
        let Some(error) = done.error else {
            controller.memory.attempts.remove(&done.node);
            let steps: Vec<_> = done
                .steps
                .into_iter()
                .map(|finished| finished.step)
                .collect();
            controller.succeeded(done.node, &steps, now);
            return;
        };
        // Whatever the failed step did in part is seen by looking again.
        controller.dirty = Dirty::ALL;
        let failures = controller
            .memory
            .attempts
            .get(&done.node)
            .map_or(1, |attempt| attempt.failures.saturating_add(1));
        let retry = match error.kind {
            ErrorKind::Gone if failures <= 3 => Duration::from_millis(50),
            _ => retry_delay(failures),
        };
        if error.kind == ErrorKind::Foreign || failures > 1 {
            tracing::info!(node = %done.node, failures, "{}", error.message);
        }
        controller.memory.attempts.insert(
            done.node,
            Attempt {
                running: false,
                failures,
                error: Some((error.kind, error.message)),
                retry_at: now + retry,
            },
        );
    }

    fn on_verdict(&mut self, verdict: Verdict) {
        let controller = &mut self.controller;
        let watched = controller.watched.get(&verdict.check_id);
        if watched.is_none_or(|watched| watched.since != verdict.since) {
            // It is about an earlier life.
            return;
        }
        let now = controller.host.clock.now();
        let ready = controller
            .workloads()
            .find(|node| {
                matches!(&node.ready, crate::graph::desired::ReadyNode::Check { check, .. }
                    if check.id == verdict.check_id)
            })
            .map(|node| node.id.clone());
        controller.memory.unchecked.remove(&verdict.check_id);
        match ready {
            Some(node) if verdict.status != Status::Critical => {
                let life = controller
                    .observed
                    .lives
                    .iter()
                    .filter(|life| life.id.node == node && life.started == verdict.since)
                    .map(|life| life.id.clone())
                    .next();
                controller.memory.ready.extend(life);
            }
            Some(_) => {}
            None => {
                let changed = controller.host.catalog.with(|catalog| {
                    catalog.set_check(&verdict.check_id, verdict.status, &verdict.output, now)
                });
                if verdict.flip
                    && verdict.failing | (verdict.status != Status::Critical)
                    && changed.is_ok()
                {
                    controller.report_flip(&verdict);
                }
            }
        }
    }

    fn finish_down(&mut self) {
        let controller = &mut self.controller;
        let Some(down) = controller.down.take() else {
            return;
        };
        let result = controller
            .host
            .workloads
            .clear_stack()
            .and_then(|()| controller.host.keep.clear(down.purge))
            .map_err(|error| error.message);
        controller.tell(
            None,
            Level::Notice,
            format!("stack `{}` is down", controller.desired.stack),
        );
        for answer in down.answers {
            // Who asked may have gone away meanwhile.
            let _ = answer.send(result.clone());
        }
    }

    async fn on_request(&mut self, request: Request) -> Option<End> {
        let controller = &mut self.controller;
        match request {
            Request::Status(answer) => {
                let _ = answer.send(controller.stack_status());
            }
            Request::Plan(spec, answer) => {
                let _ = answer.send(controller.plan_for(&spec));
            }
            Request::Apply {
                spec,
                allow_empty,
                answer,
            } => {
                let _ = answer.send(controller.apply(spec, allow_empty));
            }
            Request::Down {
                purge,
                kill,
                answer,
            } => controller.go_down(purge, kill, answer),
            Request::Operate {
                verb,
                names,
                answer,
            } => {
                let _ = answer.send(controller.operate(verb, &names));
            }
            Request::Leave(answer) => {
                let _ = answer.send(());
                return Some(End::Leave);
            }
        }
        None
    }
}
