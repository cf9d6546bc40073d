//! What the controller tells, and what it keeps of it: generations and events.
//!
//! Nothing of it is needed to go on, so a disk that refuses it is told of once and stops
//! nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use super::controller::{Controller, Proven};
use super::handle::{EventKind, Happening, Level, SpecText};
use super::happening::one_line;
use super::host::Host;
use super::load::load;
use super::turn::changed;
use crate::driver::Result;
use crate::plan::model::{NodeState, NodeStatus, Plan};
use crate::plan::world::{Exit, Life, LifeId, LifeState};
use crate::plan::{exit_words, words};
use crate::spec::generation::{Cause, Generation, Outcome, Past, last_converged, last_taken};
use crate::spec::model::Status;
use crate::spec::node::NodeId;
use crate::spec::time::Time;

/// So many failures in a row are called a crash loop.
const CRASH_LOOP: u32 = 5;
/// Events that wait for the end of a pass at most; what comes beyond them is told and not kept.
const UNKEPT: usize = 16 * 1024;

/// What a controller knows of the stack's history.
pub(super) struct History {
    /// The generation in force.
    pub current: Generation,
    /// The highest number that one has.
    newest: u64,
    /// When the current one came.
    since: Time,
    /// Since when a commit in force is on trial: it came then, or this controller did, for what
    /// nobody kept had no chance to become well.
    tried_since: Time,
    /// How everything stands was told, and what was adopted had answered by then.
    pub told: bool,
    /// An operator wants the stack left as it is: no commit is on trial.
    suspended: bool,
    /// Lives whose end was told, as long as something of them is there.
    ended: BTreeSet<LifeId>,
    /// What runs already was looked at.
    adopted: bool,
    /// Told, and not kept yet.
    unkept: Vec<Happening>,
    /// The last try to keep something failed.
    failing: bool,
    /// The generation of which it was told that there is nothing to go back to.
    no_way_back: Option<u64>,
}

impl History {
    /// What earlier controllers left.
    pub fn after(past: &Past, host: &Host, suspended: bool) -> Self {
        // Before the first one there was none, and nothing becomes of it.
        let none = Generation {
            commit: None,
            number: 0,
            path: "/".into(),
            cause: Cause::Begin,
            at_ms: 0,
            boot: String::new(),
            outcome: Outcome::Superseded,
        };
        let current = last_taken(&past.generations).cloned().unwrap_or(none);
        let age = host.clock.wall_ms().saturating_sub(current.at_ms);
        let now = host.clock.now();
        History {
            since: now - Duration::from_millis(age),
            tried_since: now,
            told: false,
            suspended,
            current,
            newest: past.newest,
            ended: BTreeSet::new(),
            adopted: false,
            unkept: Vec::new(),
            failing: false,
            no_way_back: None,
        }
    }
}

impl Controller {
    /// Tells a line of the story to all who listen, and keeps it.
    pub(super) fn tell(
        &mut self,
        kind: EventKind,
        node: Option<&NodeId>,
        level: Level,
        text: impl Into<String>,
    ) {
        let happening = self.happening(kind, node, level, text);
        self.say(happening);
    }

    /// Tells that the controller begins, and what of its history it could not read.
    pub(super) fn tell_beginning(&mut self, unread: &[String]) {
        let text = format!(
            "the controller begins, hatchery {}",
            env!("CARGO_PKG_VERSION")
        );
        self.tell(EventKind::Begin, None, Level::Progress, text);
        for unread in unread {
            self.warn(format!("{unread}; the controller goes on without it"));
        }
    }

    /// Tells that something is not as it should be, and stops nothing.
    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.tell(EventKind::Warning, None, Level::Warning, text);
    }

    /// A line about one life.
    pub(super) fn tell_life(
        &mut self,
        kind: EventKind,
        life: &LifeId,
        level: Level,
        text: impl Into<String>,
    ) {
        let mut happening = self.happening(kind, Some(&life.node), level, text);
        happening.incarnation = Some(life.incarnation);
        self.say(happening);
    }

    fn happening(
        &self,
        kind: EventKind,
        node: Option<&NodeId>,
        level: Level,
        text: impl Into<String>,
    ) -> Happening {
        Happening {
            at_ms: self.host.clock.wall_ms(),
            node: node.cloned(),
            level,
            text: text.into(),
            kind,
            incarnation: None,
            exit: None,
            generation: Some(self.history.current.number),
            commit: is_about_spec(kind)
                .then(|| self.spec.commit())
                .flatten()
                .map(|commit| commit.id.clone()),
        }
    }

    /// Tells something about a commit that need not be the one in force.
    pub(super) fn tell_of_commit(
        &mut self,
        kind: EventKind,
        level: Level,
        text: impl Into<String>,
        commit: Option<String>,
    ) {
        let mut happening = self.happening(kind, None, level, text);
        happening.commit = commit;
        self.say(happening);
    }

    fn say(&mut self, happening: Happening) {
        let text = &happening.text;
        match (happening.level, &happening.node) {
            (Level::Error | Level::Warning, Some(node)) => tracing::warn!(%node, "{text}"),
            (Level::Error | Level::Warning, None) => tracing::warn!("{text}"),
            (_, Some(node)) => tracing::info!(%node, "{text}"),
            (_, None) => tracing::info!("{text}"),
        }
        if self.history.unkept.len() < UNKEPT {
            self.history.unkept.push(happening.kept());
        }
        // Nobody listening is no error.
        let _ = self.happenings.send(happening);
    }

    /// Keeps what was told since the last time, in one write. It comes before anything that the
    /// pass began: an end is on record before what is left of the life is cleared away.
    pub(super) fn keep_events(&mut self) {
        let unkept = std::mem::take(&mut self.history.unkept);
        if !unkept.is_empty() {
            let kept = self.host.keep.record(&unkept);
            self.note_keeping(kept);
        }
    }

    fn note_keeping(&mut self, kept: Result<()>) {
        match kept {
            Ok(()) => self.history.failing = false,
            Err(error) if !self.history.failing => {
                self.history.failing = true;
                let text = format!(
                    "{}; the history has a gap until that is mended",
                    error.message
                );
                self.warn(text);
            }
            Err(_) => {}
        }
    }

    /// The spec in force is another one; a controller that begins with what was in force
    /// already goes on with that generation.
    pub(super) fn enter_generation(&mut self, cause: Cause) {
        if self.memory.down.is_some() {
            return;
        }
        if cause == Cause::Begin && self.is_in_force() {
            let text = format!("goes on with generation {}", self.history.current.number);
            self.tell(EventKind::Generation, None, Level::Progress, text);
            return;
        }
        self.become_of_it(match cause {
            Cause::Rollback { to, .. } => Outcome::RolledBack { to, why: None },
            _ => Outcome::Superseded,
        });
        let spec = self.spec.clone();
        let new = self.new_generation(&spec, cause, Outcome::Converging);
        let text = format!("took generation {}: {}", new.number, new.cause);
        self.history.since = self.host.clock.now();
        self.history.tried_since = self.history.since;
        self.history.current = new;
        self.tell(EventKind::Generation, None, Level::Notice, text);
    }

    /// Whether the spec is, to the letter, that of the newest generation.
    fn is_in_force(&self) -> bool {
        let current = &self.history.current;
        let over = matches!(
            current.outcome,
            Outcome::Superseded | Outcome::RolledBack { .. } | Outcome::Refused { .. }
        );
        !over
            && current.path == self.spec.path
            && self.host.keep.spec(current).as_ref() == Some(&self.spec)
    }

    fn new_generation(&mut self, spec: &SpecText, cause: Cause, outcome: Outcome) -> Generation {
        self.history.newest = self.history.newest.saturating_add(1);
        let new = Generation {
            commit: spec.commit().cloned(),
            number: self.history.newest,
            path: spec.path.clone(),
            cause,
            at_ms: self.host.clock.wall_ms(),
            boot: String::new(),
            outcome,
        };
        let kept = self.host.keep.generation(&new, Some(spec));
        self.note_keeping(kept);
        new
    }

    /// Notes a spec that is not taken.
    pub(super) fn keep_refused(&mut self, spec: &SpecText, cause: Cause, why: &str) {
        let why = one_line(why.strip_prefix("error: ").unwrap_or(why));
        self.new_generation(spec, cause, Outcome::Refused { why });
    }

    /// Until when the commit in force is to converge; `None` when it did, is none, or nothing
    /// else could be gone back to, while an operator suspended it, and before it is known how
    /// what was adopted is.
    pub(super) fn commit_due(&self) -> Option<Time> {
        let current = &self.history.current;
        // A controller may have begun with it.
        let on_trial = current.commit.is_some()
            && matches!(current.cause, Cause::Commit | Cause::Begin)
            && matches!(
                current.outcome,
                Outcome::Converging | Outcome::Failed { .. }
            )
            && self.memory.down.is_none()
            && !self.history.suspended
            && self.history.told;
        // There is nothing to go back to where it is itself what was proven.
        let other = self.proven.as_ref().filter(|one| one.spec != self.spec);
        other.filter(|_| on_trial)?;
        Some(self.history.tried_since + self.commit_deadline?)
    }

    /// Why the commit in force is to be left, if its time is over.
    pub(super) fn late_commit(&self, plan: &Plan) -> Option<String> {
        let due = self.commit_due()?;
        if self.host.clock.now() < due || self.converged {
            return None;
        }
        let within = words(self.commit_deadline.unwrap_or_default());
        let unwell = plan.nodes.iter().find(|node| {
            let settled = [NodeState::Running, NodeState::Completed, NodeState::Stopped];
            !settled.contains(&node.state) || node.health == Some(Status::Critical)
        });
        Some(match unwell {
            Some(node) => format!(
                "it did not converge within {within}: {} is {}",
                node.node,
                Self::unwell_words(node)
            ),
            None => format!("it did not converge within {within}"),
        })
    }

    /// Whether nothing may take the place of what is in force: it is a commit, and an operator
    /// wants the stack left as it is.
    pub(super) fn stays_as_it_is(&self) -> bool {
        self.history.suspended && self.spec.commit().is_some()
    }

    /// Leaves the stack as it is from now on, or no longer: then a commit's trial begins anew.
    pub(super) fn suspend(&mut self, suspended: bool) {
        if self.history.suspended && !suspended {
            self.history.tried_since = self.host.clock.now();
            self.memory.trying.clear();
        }
        self.history.suspended = suspended;
    }

    fn unwell_words(node: &NodeStatus) -> String {
        match (node.health, node.detail.as_str()) {
            (_, detail) if !detail.is_empty() => format!("{}: {}", node.state, one_line(detail)),
            (Some(Status::Critical), _) => "critical".to_owned(),
            _ => node.state.to_string(),
        }
    }

    /// Notes what became of the generation in force, unless more is known already.
    pub(super) fn become_of_it(&mut self, outcome: Outcome) {
        let current = &mut self.history.current;
        if outcome.may_follow(&current.outcome) {
            current.outcome = outcome;
            let kept = self.host.keep.generation(current, None);
            self.note_keeping(kept);
        }
    }

    /// Finds out which spec was proven. One that was in force already and converged is not on
    /// trial any more.
    pub(super) fn recall_proven(&mut self, past: &Past) {
        let current = &self.history.current;
        if matches!(current.outcome, Outcome::Converged { .. }) {
            self.memory.changed.clear();
            self.proven = Some(Proven {
                generation: current.number,
                spec: self.spec.clone(),
            });
            return;
        }
        let before = last_converged(&past.generations, current.number);
        self.proven = before.and_then(|before| {
            Some(Proven {
                generation: before.number,
                spec: self.host.keep.spec(before)?,
            })
        });
        let Some(proven) = &self.proven else {
            self.memory.changed.clear();
            return;
        };
        // What the proven spec has as well is not on trial, whoever began the trial.
        let files = self.host.files.clone();
        let held = self.held();
        if let Ok(loaded) = load(&proven.spec, &self.around, &held, files.as_ref(), false) {
            self.memory.changed = changed(&loaded.desired, &self.desired);
        }
    }

    /// The generation in force is to give way, and there is nothing to go back to: told once.
    pub(super) fn tell_no_way_back(&mut self, why: &str) {
        let number = self.history.current.number;
        if self.history.no_way_back == Some(number) {
            return;
        }
        self.history.no_way_back = Some(number);
        let text = format!(
            "generation {number} failed: {why}; it stays in force, because no other one that \
             converged is known to go back to"
        );
        self.tell(EventKind::Failed, None, Level::Error, text);
    }

    /// The generation converged.
    pub(super) fn note_converged(&mut self) {
        let took = self.host.clock.now().since(self.history.since);
        let after_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.become_of_it(Outcome::Converged { after_ms });
    }

    /// Something of the generation failed.
    pub(super) fn note_failed(&mut self, node: &NodeId, why: &str) {
        let why = one_line(&format!("{node}: {why}"));
        self.become_of_it(Outcome::Failed { why });
    }

    /// Tells of what ran already when the controller began.
    pub(super) fn tell_adopted(&mut self) {
        self.history.adopted = true;
        let now = self.host.clock.now();
        let lives: Vec<Life> = self.observed.lives.clone();
        for life in lives.iter().filter(|life| life.state == LifeState::Up) {
            let text = format!("adopted {} after its start", words(now.since(life.started)));
            self.tell_life(EventKind::Adopted, &life.id, Level::Progress, text);
        }
    }

    /// Tells of every life that ended, once.
    pub(super) fn tell_ends(&mut self, there: &BTreeSet<LifeId>) {
        self.history.ended.retain(|life| there.contains(life));
        let ends: Vec<(LifeId, Exit, Duration)> = self
            .observed
            .lives
            .iter()
            .filter(|life| !self.history.ended.contains(&life.id))
            .filter_map(|life| match life.state {
                LifeState::Ended { exit, at } => {
                    Some((life.id.clone(), exit, at.since(life.started)))
                }
                LifeState::Up | LifeState::Ending => None,
            })
            .collect();
        if ends.is_empty() {
            return;
        }
        let unseen = !self.history.adopted;
        // An earlier controller may have told of it, and ended before it cleared it away.
        let told = match unseen {
            true => self.host.keep.ends(self.booted_ms()),
            false => BTreeSet::new(),
        };
        for (life, exit, lasted) in ends {
            if !told.contains(&life) {
                self.tell_end(&life, exit, lasted, unseen);
            }
            self.history.ended.insert(life);
        }
    }

    fn tell_end(&mut self, life: &LifeId, exit: Exit, lasted: Duration, unseen: bool) {
        let workload = self.memory.workloads.get(&life.node);
        let asked = workload
            .and_then(|workload| workload.last_exit)
            .filter(|last| last.incarnation == life.incarnation)
            .map_or_else(|| self.memory.asked.contains_key(life), |last| last.asked);
        let failures = workload.map_or(0, |workload| workload.failures);
        let (level, how) = match (unseen, asked) {
            (true, _) => (Level::Warning, "while no controller ran".to_owned()),
            (false, true) => (Level::Progress, "as it was asked to".to_owned()),
            (false, false) => (Level::Notice, format!("{} after its start", words(lasted))),
        };
        let text = format!("{} {how}", exit_words(exit));
        let mut happening = self.happening(EventKind::Exited, Some(&life.node), level, text);
        happening.incarnation = Some(life.incarnation);
        happening.exit = Some(exit);
        self.say(happening);
        if !asked && failures == CRASH_LOOP {
            let text = format!("crash loop: {failures} failures in a row");
            self.tell_life(EventKind::CrashLoop, life, Level::Warning, text);
        }
    }

    /// When the machine started, in milliseconds since the Unix epoch.
    fn booted_ms(&self) -> u64 {
        let up = self.host.clock.now().since(Time::default());
        let up = u64::try_from(up.as_millis()).unwrap_or(u64::MAX);
        self.host.clock.wall_ms().saturating_sub(up)
    }
}

/// Whether what happened is told of the spec in force as a whole.
fn is_about_spec(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Begin | EventKind::Generation | EventKind::Converged | EventKind::RolledBack
    )
}
