//! What operators ask, and what it does to the memory.

use tokio::sync::oneshot;

use super::controller::{Controller, Leaving};
use super::execute::Finished;
use super::handle::{Level, SpecText, Verb};
use super::load::{Loaded, load};
use super::schedule::Verdict;
use crate::plan::memory::{Down, LastExit};
use crate::plan::model::Step;
use crate::plan::names;
use crate::plan::saved::SavedPlan;
use crate::plan::world::LifeState;
use crate::spec::model::Status;
use crate::spec::node::{Kind, NodeId};
use crate::spec::time::Time;

impl Controller {
    /// An edit that is not taken: everything goes on as before.
    pub(super) fn refuse_spec(&mut self, report: String) {
        if self.spec_error.as_ref() != Some(&report) {
            self.tell(
                None,
                Level::Error,
                format!("the edit is not taken:\n{report}"),
            );
        }
        self.spec_error = Some(report);
    }

    /// Why a spec of another stack is not taken.
    pub(super) fn other_stack(&self, loaded: &Loaded) -> String {
        let (theirs, ours) = (&loaded.desired.stack, &self.desired.stack);
        format!(
            "the spec is of stack `{theirs}`, this controller keeps stack `{ours}`, and a stack \
             that runs cannot change its name; take `{ours}` down first, or bring `{theirs}` up \
             from a file of its own"
        )
    }

    /// Why a spec is held: it would end every workload that runs.
    pub(super) fn removes_all(&self, loaded: &Loaded) -> Option<String> {
        let up = |kind: Option<Kind>| {
            let lives = self.observed.lives.iter();
            lives.filter(move |life| {
                life.state == LifeState::Up && kind.is_none_or(|kind| life.id.node.kind == kind)
            })
        };
        // Every container, or everything at all.
        let all_of = |kind: Option<Kind>| {
            up(kind).next().is_some()
                && !up(kind).any(|life| loaded.desired.nodes.contains_key(&life.id.node))
        };
        let what = if all_of(None) {
            "workload"
        } else if all_of(Some(Kind::Containers)) {
            "container"
        } else {
            return None;
        };
        Some(format!(
            "it would remove every {what} of stack `{}`; if that is meant, use `hatchery apply \
             --allow-empty {}`",
            self.desired.stack,
            self.spec.path.display()
        ))
    }

    /// Goes back to the spec under which everything was well, because this one is not.
    pub(super) fn roll_back(&mut self, why: &str) {
        let Some(proven) = self
            .proven
            .clone()
            .filter(|proven| proven.spec != self.spec)
        else {
            return;
        };
        let held = self.held();
        let files = self.host.files.clone();
        let loaded = match load(&proven.spec, &self.around, &held, files.as_ref(), false) {
            Ok(loaded) => loaded,
            Err(report) => {
                let number = proven.generation;
                let text = format!("cannot go back to generation {number}:\n{report}");
                self.tell(None, Level::Error, text);
                self.proven = None;
                return;
            }
        };
        let (failed, number) = (self.generation, proven.generation);
        let spec = self.spec.clone();
        self.adopt_spec(proven.spec, loaded);
        self.failed = Some(spec);
        let text = format!(
            "generation {failed} failed: {why}; went back to what generation {number} was, as \
             generation {}; edit the spec to try again",
            self.generation
        );
        self.tell(None, Level::Error, text.clone());
        self.spec_error = Some(text);
    }

    /// Takes a spec: whole, or as far as a saved plan of it goes. A plan that would remove
    /// everything was made and read as such.
    pub(super) fn apply(
        &mut self,
        spec: SpecText,
        allow_empty: bool,
        saved: Option<&SavedPlan>,
    ) -> Result<u64, String> {
        if self.memory.down.is_some() {
            return Err("the stack is going down".to_owned());
        }
        let loaded = load(
            &spec,
            &self.around,
            &self.held(),
            self.host.files.as_ref(),
            false,
        )?;
        if loaded.desired.stack != self.desired.stack {
            return Err(self.other_stack(&loaded));
        }
        let permit = match saved {
            Some(saved) => Some(self.outlook(spec.clone(), loaded.clone())?.permit(saved)?),
            None => None,
        };
        let meant = allow_empty || saved.is_some();
        if !meant && let Some(held) = self.removes_all(&loaded) {
            return Err(held);
        }
        self.adopt_spec(spec, loaded);
        self.memory.permitted = permit;
        self.converged = false;
        self.busy_since = self.host.clock.now();
        self.tell(
            None,
            Level::Notice,
            format!("took generation {}", self.generation),
        );
        Ok(self.generation)
    }

    pub(super) fn go_down(
        &mut self,
        purge: bool,
        kill: bool,
        answer: oneshot::Sender<Result<(), String>>,
    ) {
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

    pub(super) fn operate(&mut self, verb: Verb, asked: &[String]) -> Result<Vec<NodeId>, String> {
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
            self.tell(None, Level::Warning, error.message);
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
                let before = |last: LastExit| last.incarnation < start.id.incarnation;
                if memory
                    .last_exit
                    .is_some_and(|last| !last.asked && before(last))
                {
                    memory.restarts = memory.restarts.saturating_add(1);
                }
            }
            Step::RemoveFile { path, .. } => {
                let mut rendered = self.host.keep.rendered();
                if rendered.remove(path)
                    && let Err(error) = self.host.keep.set_rendered(&rendered)
                {
                    self.tell(None, Level::Warning, error.message);
                }
            }
            _ => {}
        }
    }

    /// What reload commands have told is kept: the next controller need not tell it again.
    fn keep_told(&self) {
        let told = self
            .memory
            .templates
            .iter()
            .filter_map(|(name, memory)| Some((name.clone(), memory.told.clone()?)))
            .collect();
        if let Err(error) = self.host.keep.told(&told) {
            self.tell(None, Level::Warning, error.message);
        }
    }

    /// A check that changed sides.
    pub(super) fn report_flip(&self, verdict: &Verdict) {
        let level = match verdict.status {
            Status::Passing => Level::Progress,
            Status::Warning | Status::Critical => Level::Warning,
        };
        let text = format!("check `{}` is {}: {}", verdict.check_id, verdict.status, {
            verdict.output.lines().next().unwrap_or("")
        });
        self.tell(None, level, text);
    }
}
