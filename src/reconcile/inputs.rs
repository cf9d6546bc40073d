//! What a controller is told, and what it takes from it: marks on what is to be looked at
//! again, and memory. Nothing is decided here.

use std::time::Duration;

use super::controller::{Controller, Dirty};
use super::engine::End;
use super::execute::Done;
use super::handle::{EventKind, Level, Request, SpecText};
use super::load::load;
use super::reading::OnHost;
use super::schedule::Verdict;
use crate::driver::{ErrorKind, Event};
use crate::plan::backoff::retry_delay;
use crate::plan::memory::Attempt;
use crate::spec::gather::gather;
use crate::spec::generation::Cause;
use crate::spec::model::Status;

impl Controller {
    pub(super) fn on_event(&mut self, event: Event) {
        match event {
            Event::Ended(_) | Event::Notified(_) => self.dirty.lives = true,
            Event::Network => self.dirty.network = true,
            Event::Files(paths) => {
                self.dirty.files = true;
                // Something that a validator reads may be another.
                self.memory.verdicts.clear();
                let spec = self.spec.files();
                let source = paths.iter().any(|path| {
                    (self.follows && spec.contains(path))
                        || self.observed.inputs.files.contains_key(path)
                });
                self.reread |= source;
            }
        }
    }

    /// Whether a file of the spec is being saved at this moment.
    fn is_unsettled(&self) -> bool {
        let unsettled = self.host.follow.unsettled();
        !unsettled.is_empty() && !unsettled.is_disjoint(&self.spec.files())
    }

    /// What the files of a spec hold now.
    ///
    /// # Errors
    /// Which of them cannot be read.
    pub(super) fn read_again(&self, spec: &SpecText) -> Result<SpecText, String> {
        let mut reading = OnHost {
            files: self.host.files.as_ref(),
            env: &self.around.env,
        };
        gather(&spec.sought(), &mut reading)
    }

    /// Takes an edit of the spec's files or of a template's source.
    pub(super) fn look_at_spec(&mut self) {
        let told = std::mem::take(&mut self.reread);
        if !told && !self.edited_untold() {
            return;
        }
        // What an edit would end is judged by what runs now.
        self.see_lives();
        if self.dirty.lives {
            self.reread = true;
        } else {
            self.follow_spec();
        }
    }

    /// Whether there is an edit of which nobody told: one before the watch began, or one whose
    /// notification was lost.
    fn edited_untold(&mut self) -> bool {
        let asked = std::mem::take(&mut self.dirty.spec);
        asked
            && self.follows
            && !self.is_unsettled()
            && self.read_again(&self.spec).as_ref() != Ok(&self.spec)
    }

    /// Reads the spec's files and the template sources again.
    fn follow_spec(&mut self) {
        let controller = self;
        if controller.memory.down.is_some() {
            return;
        }
        let mut spec = controller.spec.clone();
        // A file that is being saved is read once it has settled; this is about another one.
        let unsettled = controller.is_unsettled();
        if controller.follows && !unsettled {
            match controller.read_again(&spec) {
                Ok(read) => spec = read,
                Err(error) => {
                    let text = format!("{error}; the last good spec stays in force");
                    controller.refuse_spec(text);
                    return;
                }
            }
        }
        // Template sources are followed though the spec itself is passed over.
        let passed_over = controller.passed_over.take();
        let passed_over =
            passed_over.filter(|over| !controller.follows || unsettled || over.spec == spec);
        if passed_over.is_some() {
            spec = controller.spec.clone();
        }
        controller.passed_over.clone_from(&passed_over);
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
                controller.refuse_edit(&spec, refusal);
            }
            Ok(loaded) => {
                // An edit of a template's source asks nothing new of the machine.
                let same = spec == controller.spec;
                let lacks = || (!same).then(|| controller.lacks(&loaded.desired)).flatten();
                if let Some(held) = controller.removes_all(&loaded).or_else(lacks) {
                    controller.refuse_edit(&spec, held);
                } else if loaded.desired != controller.desired
                    || controller.sources_differ(&loaded)
                    || spec != controller.spec
                {
                    controller.adopt_spec(spec, loaded, Cause::FileEdit);
                    controller.pass_over(passed_over);
                } else if passed_over.is_some() {
                    controller.pass_over(passed_over);
                } else if controller.spec_error.take().is_some() {
                    let text = "the spec is good again";
                    controller.tell(EventKind::Accepted, None, Level::Notice, text);
                }
            }
            Err(report) => controller.refuse_edit(&spec, report),
        }
    }

    /// Whether a template's source is another. Files that templates read are no part of the
    /// spec.
    pub(super) fn sources_differ(&self, loaded: &super::load::Loaded) -> bool {
        let known = &self.observed.inputs.files;
        let mut sources = loaded.sources.iter();
        sources.any(|(path, text)| known.get(path) != Some(text))
    }

    pub(super) fn on_done(&mut self, done: Done) {
        let controller = self;
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
        let before = controller.memory.attempts.get(&done.node);
        let life = before.and_then(|attempt| attempt.life.clone());
        let failures = before.map_or(1, |attempt| attempt.failures.saturating_add(1));
        let known = before.and_then(|attempt| attempt.error.as_ref());
        if known.is_none_or(|(_, known)| *known != error.message) {
            // For the record; how the node stands says it to people.
            let text = error.message.clone();
            controller.tell(
                EventKind::StepFailed,
                Some(&done.node),
                Level::Progress,
                text,
            );
        }
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
                attaches: None,
                life,
                failures,
                error: Some((error.kind, error.message)),
                retry_at: now + retry,
            },
        );
    }

    pub(super) fn on_verdict(&mut self, verdict: &Verdict) {
        let controller = self;
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
                    controller.report_flip(verdict);
                }
            }
        }
    }

    /// Whether a stack that goes down is gone.
    pub(super) fn is_gone(&self) -> bool {
        let idle = self
            .memory
            .attempts
            .values()
            .all(|attempt| !attempt.running);
        self.down.is_some() && self.plan.items.is_empty() && self.observed.lives.is_empty() && idle
    }

    pub(super) fn finish_down(&mut self) {
        let controller = self;
        let Some(down) = controller.down.take() else {
            return;
        };
        let cleared = controller.host.workloads.clear_stack();
        let text = format!("stack `{}` is down", controller.desired.stack);
        controller.tell(EventKind::Down, None, Level::Notice, text);
        // What comes after this has no place to be kept in.
        controller.keep_events();
        let result = cleared
            .and_then(|()| controller.host.keep.clear(down.purge))
            .map_err(|error| error.message);
        for answer in down.answers {
            // Who asked may have gone away meanwhile.
            let _ = answer.send(result.clone());
        }
    }

    pub(super) fn on_request(&mut self, request: Request) -> Option<End> {
        let controller = self;
        match request {
            Request::Status(answer) => {
                let _ = answer.send(controller.stack_status());
            }
            Request::Plan(spec, answer) => {
                let _ = answer.send(controller.plan_for(spec));
            }
            Request::Explain { spec, name, answer } => {
                let _ = answer.send(controller.explain_for(spec, &name));
            }
            Request::Apply {
                spec,
                allow_empty,
                saved,
                cause,
                answer,
            } => {
                let taken = controller.apply(spec, allow_empty, saved.as_deref(), cause);
                let _ = answer.send(taken);
            }
            Request::Reload { by, answer } => {
                let _ = answer.send(controller.reload(&by));
            }
            Request::Down {
                purge,
                kill,
                by,
                answer,
            } => controller.go_down(purge, kill, &by, answer),
            Request::Operate {
                verb,
                names,
                by,
                answer,
            } => {
                let _ = answer.send(controller.operate(verb, &names, &by));
            }
            Request::Suspend(suspended) => controller.suspend(suspended),
            Request::Tell {
                kind,
                level,
                text,
                commit,
            } => controller.tell_of_commit(kind, level, text, commit),
            Request::Leave(answer) => {
                let text = "the controller ends, and leaves what runs";
                controller.tell(EventKind::Leave, None, Level::Progress, text);
                controller.keep_events();
                let _ = answer.send(());
                return Some(End::Leave);
            }
        }
        None
    }
}
