//! What operators ask, and what it does to the memory.

use tokio::sync::oneshot;

use super::controller::{Controller, Leaving, PassedOver};
use super::execute::Finished;
use super::handle::{EventKind, Level, SpecText, Verb};
use super::happening::one_line;
use super::load::load;
use super::schedule::Verdict;
use super::sync::Fault;
use crate::graph::desired::Node;
use crate::plan::memory::{Down, LastExit};
use crate::plan::model::Step;
use crate::plan::names;
use crate::plan::saved::SavedPlan;
use crate::plan::world::LifeState;
use crate::spec::generation::{Cause, Outcome, User};
use crate::spec::model::Status;
use crate::spec::node::NodeId;
use crate::spec::time::Time;

impl Controller {
    /// An edit that is not taken: everything goes on as before.
    pub(super) fn refuse_spec(&mut self, report: String) {
        if self.spec_error.as_ref() != Some(&report) {
            let text = format!("the edit is not taken:\n{report}");
            self.tell(EventKind::Refused, None, Level::Error, text);
        }
        self.spec_error = Some(report);
    }

    /// As [`Self::refuse_spec`], of a text that is there to be looked at later.
    pub(super) fn refuse_edit(&mut self, spec: &SpecText, report: String) {
        if self.spec_error.as_ref() != Some(&report) {
            self.keep_refused(spec, Cause::FileEdit, &report);
        }
        self.refuse_spec(report);
    }

    /// The file's text stays out of force until it changes.
    pub(super) fn pass_over(&mut self, over: Option<PassedOver>) {
        self.spec_error = over.as_ref().map(|over| over.why.clone());
        self.passed_over = over;
    }

    /// Goes back to the spec under which everything was well, because this one is not.
    pub(super) fn roll_back(&mut self, why: &str) {
        let Some(proven) = self
            .proven
            .clone()
            .filter(|proven| proven.spec != self.spec)
        else {
            self.tell_no_way_back(why);
            return;
        };
        let held = self.held();
        let files = self.host.files.clone();
        let loaded = load(&proven.spec, &self.around, &held, files.as_ref(), false);
        // Nothing is well where nothing runs, and what is well now would end.
        let runs = loaded.and_then(|loaded| match loaded.desired.has_workloads() {
            true => Ok(loaded),
            false => Err("error: it has no container and no process".to_owned()),
        });
        let loaded = match runs {
            Ok(loaded) => loaded,
            Err(report) => {
                let number = proven.generation;
                let text = format!("cannot go back to generation {number}:\n{report}");
                self.tell(EventKind::Refused, None, Level::Error, text);
                self.proven = None;
                return;
            }
        };
        let (failed, to) = (self.history.current.number, proven.generation);
        let spec = self.spec.clone();
        let reason = Some(one_line(why));
        self.become_of_it(Outcome::RolledBack { to, why: reason });
        self.adopt_spec(proven.spec, loaded, Cause::Rollback { to, by: None });
        let why = format!(
            "generation {failed} failed: {why}; went back to what generation {to} was, as \
             generation {}; edit the spec to try again",
            self.history.current.number
        );
        self.tell(EventKind::RolledBack, None, Level::Error, why.clone());
        self.pass_over(Some(PassedOver { spec, why }));
    }

    /// Takes a spec: whole, or as far as a saved plan of it goes. A plan that would remove
    /// everything was made and read as such.
    pub(super) fn apply(
        &mut self,
        spec: SpecText,
        allow_empty: bool,
        saved: Option<&SavedPlan>,
        cause: Cause,
    ) -> Result<u64, Fault> {
        if self.memory.down.is_some() {
            return Err(Fault::Later("the stack is going down".to_owned()));
        }
        self.see_now()?;
        let taken = self.loaded_for(&spec, allow_empty, saved);
        let (loaded, permit) = taken.inspect_err(|why| self.tell_refused(&spec, &cause, why))?;
        let over = match cause {
            Cause::Rollback { to, .. } => self.left_behind(&spec, to),
            _ => None,
        };
        self.adopt_spec(spec, loaded, cause);
        // An edit that came before it and was not looked at yet is no news any more.
        self.reread = false;
        self.memory.permitted = permit;
        self.pass_over(over);
        Ok(self.history.current.number)
    }

    /// A spec that was handed over is not taken. A commit that may be taken later is offered
    /// again and again, and whoever offers it tells of it.
    fn tell_refused(&mut self, spec: &SpecText, cause: &Cause, why: &Fault) {
        if matches!((why, cause), (Fault::Later(_), Cause::Commit)) {
            return;
        }
        let why = why.to_string();
        self.keep_refused(spec, cause.clone(), &why);
        let why = why.lines().next().unwrap_or_default();
        let text = format!("did not take a spec ({cause}): {why}");
        let commit = spec.commit().map(|commit| commit.id.clone());
        self.tell_of_commit(EventKind::Refused, Level::Warning, text, commit);
    }

    /// Looks at what runs now: what a spec would end is judged by that.
    fn see_now(&mut self) -> Result<(), Fault> {
        self.see_lives();
        match self.dirty.lives {
            true => Err(Fault::Later(
                "cannot see what runs on this host; try again".to_owned(),
            )),
            false => Ok(()),
        }
    }

    /// Takes what the spec's file holds now, whether it is followed or not. Who asked hears at
    /// once why it is not taken.
    pub(super) fn reload(&mut self, by: &User) -> Result<u64, String> {
        if self.memory.down.is_some() {
            return Err("the stack is going down".to_owned());
        }
        let text = format!("{by} asks: reload");
        self.tell(EventKind::Operator, None, Level::Progress, text);
        self.see_now().map_err(|fault| fault.to_string())?;
        let spec = match self.read_again(&self.spec) {
            Ok(spec) => spec,
            Err(error) => {
                let why = format!("{error}; the last good spec stays in force");
                self.refuse_spec(why.clone());
                return Err(why);
            }
        };
        let taken = self.loaded_for(&spec, false, None);
        let (loaded, _) = taken.map_err(|fault| {
            let why = fault.to_string();
            self.refuse_edit(&spec, why.clone());
            why
        })?;
        let same = loaded.desired == self.desired && spec == self.spec;
        if same && !self.sources_differ(&loaded) {
            self.pass_over(None);
        } else {
            self.adopt_spec(spec, loaded, Cause::FileEdit);
        }
        Ok(self.history.current.number)
    }

    /// What the file holds, when the stack goes back to `spec`, which is another text.
    fn left_behind(&self, spec: &SpecText, to: u64) -> Option<PassedOver> {
        if self.spec.commit().is_some() {
            let why = format!(
                "rolled back to generation {to}; it is tried again by `hatchery sync --now`"
            );
            let spec = self.spec.clone();
            return Some(PassedOver { spec, why });
        }
        let spec_of_file = self.read_again(spec).ok()?;
        let why = format!(
            "rolled back to generation {to}; the file stays as it is, and is taken again by \
             `hatchery apply {}`, or once an edit of it is followed",
            spec.shown()
        );
        (spec_of_file != *spec).then_some(PassedOver {
            spec: spec_of_file,
            why,
        })
    }

    /// The same for a controller that begins after that.
    pub(super) fn out_of_force(&self, spec: SpecText) -> PassedOver {
        let again = match spec.commit() {
            Some(_) => "the commit is tried again by `hatchery sync --now`",
            None => {
                "the file stays as it is, and is taken again by `hatchery reload`, or once an \
                 edit of it is followed"
            }
        };
        let why = format!(
            "the stack was rolled back, and goes on with generation {}; {again}",
            self.history.current.number
        );
        PassedOver { spec, why }
    }

    pub(super) fn go_down(
        &mut self,
        purge: bool,
        kill: bool,
        by: &User,
        answer: oneshot::Sender<Result<(), String>>,
    ) {
        let how = match (purge, kill) {
            (true, true) => ", killing, keeping nothing",
            (true, false) => ", keeping nothing",
            (false, true) => ", killing",
            (false, false) => "",
        };
        let text = format!("{by} takes the stack down{how}");
        self.tell(EventKind::Operator, None, Level::Progress, text);
        let kill = kill || self.memory.down.is_some_and(|down| down.kill);
        self.memory.down = Some(Down { kill });
        self.converged = false;
        // Failures of the past must not hold up the way down.
        self.memory.attempts.retain(|_, attempt| attempt.running);
        self.dirty = super::controller::Dirty::ALL;
        let down = self.down.get_or_insert(Leaving {
            purge,
            answers: Vec::new(),
        });
        down.purge |= purge;
        down.answers.push(answer);
    }

    pub(super) fn operate(
        &mut self,
        verb: Verb,
        asked: &[String],
        by: &User,
    ) -> Result<Vec<NodeId>, String> {
        let mut meant = Vec::new();
        for name in asked {
            let found: Vec<NodeId> = self
                .workloads()
                .filter(|node| names(node, name))
                .map(|node| node.id.clone())
                .collect();
            if found.is_empty() {
                return Err(format!(
                    "stack `{}` has no container or process `{name}`",
                    self.desired.stack
                ));
            }
            meant.extend(found);
        }
        for node in &meant {
            let text = format!("{by} asks: {verb}");
            self.tell(EventKind::Operator, Some(node), Level::Progress, text);
            if let Some(permit) = &mut self.memory.permitted {
                permit.allow(node);
            }
            // One that is under way ends by itself; a second beside it would start twice.
            if self
                .memory
                .attempts
                .get(node)
                .is_some_and(|attempt| !attempt.running)
            {
                self.memory.attempts.remove(node);
            }
            if let Some(memory) = self.memory.workloads.get_mut(node) {
                memory.forget_failures();
            }
            match verb {
                Verb::Stop => {
                    self.memory.stopped.insert(node.clone());
                }
                Verb::Start => {
                    self.memory.stopped.remove(node);
                    self.forgive(node);
                }
                Verb::Restart => {
                    self.memory.stopped.remove(node);
                    self.forgive(node);
                    let lives = self
                        .observed
                        .lives
                        .iter()
                        .filter(|life| life.id.node == *node && life.state == LifeState::Up);
                    self.memory
                        .restart
                        .extend(lives.map(|life| life.id.clone()));
                }
            }
        }
        if let Err(error) = self.host.keep.stopped(&self.memory.stopped) {
            self.warn(error.message);
        }
        Ok(meant)
    }

    /// An operator's word ends a restart delay, and a rest after an exit.
    fn forgive(&mut self, node: &NodeId) {
        if let Some(last) = self
            .memory
            .workloads
            .get_mut(node)
            .and_then(|memory| memory.last_exit.as_mut())
        {
            last.asked = true;
        }
    }

    /// What a step that was done leaves in the memory.
    pub(super) fn note_step(&mut self, finished: &Finished, now: Time) {
        match &finished.step {
            Step::Validate { key, .. } => {
                if let Some(output) = &finished.verdict {
                    let accepted = output.code == Some(0);
                    self.memory
                        .judge(key.clone(), accepted, output.text.clone(), now);
                }
            }
            Step::ReloadCommand { applied, .. } => {
                for (template, hash) in applied {
                    self.memory
                        .templates
                        .entry(template.clone())
                        .or_default()
                        .told = Some(hash.clone());
                }
                self.keep_told();
            }
            Step::Start(start) => {
                let memory = self
                    .memory
                    .workloads
                    .entry(start.id.node.clone())
                    .or_default();
                memory.incarnation = start.id.incarnation;
                memory.kept = false;
                let before = |last: LastExit| last.incarnation < start.id.incarnation;
                if memory
                    .last_exit
                    .is_some_and(|last| !last.asked && before(last))
                {
                    memory.restarts = memory.restarts.saturating_add(1);
                }
            }
            // A spec that came meanwhile may render it again.
            Step::RemoveFile { path, .. } if !self.renders(path) => {
                let mut rendered = self.host.keep.rendered();
                if rendered.remove(path)
                    && let Err(error) = self.host.keep.set_rendered(&rendered)
                {
                    self.warn(error.message);
                }
            }
            _ => {}
        }
    }

    /// Whether a template of the spec has this destination.
    fn renders(&self, path: &std::path::Path) -> bool {
        let mut nodes = self.desired.nodes.values();
        nodes.any(|node| matches!(node, Node::Template(template) if template.destination == path))
    }

    /// Whoever read a file whose text is written again may have met another one meanwhile.
    pub(super) fn forget_told(&mut self, template: &NodeId) {
        let memory = self.memory.templates.get_mut(&template.name);
        if memory.is_some_and(|memory| memory.told.take().is_some()) {
            self.keep_told();
        }
    }

    /// What reload commands have told is kept: the next controller need not tell it again.
    fn keep_told(&mut self) {
        let told = self
            .memory
            .templates
            .iter()
            .filter_map(|(name, memory)| Some((name.clone(), memory.told.clone()?)))
            .collect();
        if let Err(error) = self.host.keep.told(&told) {
            self.warn(error.message);
        }
    }

    /// A check that changed sides.
    pub(super) fn report_flip(&mut self, verdict: &Verdict) {
        let level = match verdict.status {
            Status::Passing => Level::Progress,
            Status::Warning | Status::Critical => Level::Warning,
        };
        let text = format!("check `{}` is {}: {}", verdict.check_id, verdict.status, {
            verdict.output.lines().next().unwrap_or("")
        });
        let node = self.desired.nodes.iter().find_map(|(id, node)| match node {
            Node::Endpoint(endpoint) => {
                let mut checks = endpoint.checks.iter();
                checks
                    .any(|check| check.id == verdict.check_id)
                    .then(|| id.clone())
            }
            _ => None,
        });
        self.tell(EventKind::Check, node.as_ref(), level, text);
    }
}
