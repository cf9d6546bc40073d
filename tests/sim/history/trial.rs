//! Once all is well: an update to what cannot run, or something that fails for a while, and
//! whether what is to come of it comes.

use std::sync::Arc;
use std::time::Duration;

use hatchery::plan::model::NodeState;
use hatchery::spec::node::NodeId;

use super::Run;
use crate::specs::{Action, Defect, Model, Ready, Role, SPEC, Update, Work, instance};
use crate::world::{End, SECOND, World};

/// The last of the trial's specs must be in force and well by then.
pub const TRIED_WITHIN: u64 = 900 * SECOND;

/// So long one instance may take to leave.
const LEAVES_WITHIN: u64 = 60 * SECOND;

/// What is to come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    /// The spec before it comes back by itself.
    Back,
    /// The others stay as they are.
    Pause,
    /// The others are replaced all the same.
    GoOn,
    /// It is not run again.
    GiveUp,
}

/// An update to what cannot run.
pub(super) struct Trial {
    expects: Expects,
    /// Of which group.
    group: String,
    before: Arc<Model>,
    bad: Arc<Model>,
    /// When it was taken.
    taken: Option<u64>,
    /// The controller was killed after it went back.
    crashed: bool,
    /// It was edited into what runs.
    mended: bool,
}

impl Run {
    /// Tries something, if chance will have it.
    pub(super) fn begin_trial(&mut self) -> bool {
        let mut world = self.world.lock();
        if !world.rng.chance(120) {
            return false;
        }
        // What rests may be what others wait for.
        let stands = |work: &Work| match work.role {
            Role::Once => work.instances().iter().all(|node| {
                let mut stopped = world.operator_stopped.keys();
                let end = world.last_end(node);
                // What was edited since it was stopped has not completed, and is not run again.
                end.is_some_and(End::completed) && !stopped.any(|id| instance(id) == *node)
            }),
            Role::App | Role::Proxy => whole(&world, work) == work.instances().len(),
        };
        if !self.model.works.iter().all(stands) {
            return false;
        }
        let recovers = world.rng.chance(300);
        drop(world);
        match recovers {
            true => self.begin_recovery(),
            false => self.begin_bad_update(),
        }
    }

    /// Whether anything is tried.
    pub(super) fn is_tried(&self) -> bool {
        self.trial.is_some() || self.recovers
    }

    /// Has something fail for a while, where a back-off that never ends would be seen.
    fn begin_recovery(&mut self) -> bool {
        let mut world = self.world.lock();
        let fits = |work: &&Work| {
            let tells = work.delay >= 500 && work.max_delay >= 4 * work.delay;
            let nodes = work.instances();
            work.role == Role::App
                && work.max_attempts.is_none()
                && tells
                && !nodes.is_empty()
                && whole(&world, work) == nodes.len()
        };
        let works = self.model.works.iter().filter(fits);
        let works: Vec<&Work> = works.collect();
        if works.is_empty() {
            return false;
        }
        let work = *world.rng.pick(&works);
        let node = world.rng.pick(&work.instances()).clone();
        let lasts = Duration::from_millis(work.reset_after + 2_000);
        world.begin_recovery(node, lasts);
        self.recovers = true;
        true
    }

    fn begin_bad_update(&mut self) -> bool {
        let mut world = self.world.lock();
        let expects = *world.rng.pick(&[
            Expects::Back,
            Expects::Back,
            Expects::Pause,
            Expects::GoOn,
            Expects::GiveUp,
        ]);
        let least = match expects {
            Expects::Back | Expects::GiveUp => 1,
            Expects::Pause | Expects::GoOn => 2,
        };
        let fits = |work: &&Work| {
            let nodes = work.instances();
            work.role == Role::App && nodes.len() >= least && whole(&world, work) == nodes.len()
        };
        let groups = self.model.works.iter().filter(fits);
        let groups: Vec<String> = groups.map(Work::reference).collect();
        if groups.is_empty() {
            return false;
        }
        let group = world.rng.pick(&groups).clone();
        let before = Arc::new(self.model.clone());
        let both = matches!(expects, Expects::Pause | Expects::Back);
        let start_first = both && world.rng.chance(500);
        let mute = expects != Expects::GiveUp && world.rng.chance(400);
        let deadline = world.rng.range(3, 8) * 1_000;
        drop(world);
        self.change(&group, |work| {
            let defect = match mute && work.ready != Ready::Started {
                true => Defect::Mute,
                false => Defect::Ends,
            };
            break_it(work, expects, defect, start_first, deadline);
        });
        let bad = Arc::new(self.model.clone());
        if expects == Expects::Back {
            self.model = (*before).clone();
        }
        self.world
            .lock()
            .log(format_args!("a bad update of {group}, {expects:?}"));
        self.trial = Some(Trial {
            expects,
            group,
            before,
            bad,
            taken: None,
            crashed: false,
            mended: false,
        });
        true
    }

    /// Edits one group, and saves the spec.
    fn change(&mut self, group: &str, edit: impl FnOnce(&mut Work)) {
        self.model.revision += 1;
        let mut works = self.model.works.iter_mut();
        if let Some(work) = works.find(|work| work.reference() == group) {
            edit(work);
        }
        let text = self.publish();
        self.quiet = None;
        self.world.lock().save(SPEC, text);
    }

    /// Whether the trial is over. `well` says whether all is as the model says.
    pub(super) fn on_trial(&mut self, now: u64, well: bool) -> bool {
        let Some(trial) = &mut self.trial else {
            return well && self.world.lock().recovery.is_none();
        };
        if trial.mended {
            return well;
        }
        let in_force = self.world.lock().in_force.clone();
        let revision = in_force.map_or(0, |model| model.revision);
        let Some(taken) = trial.taken else {
            trial.taken = (revision == trial.bad.revision).then_some(now);
            return false;
        };
        if trial.expects == Expects::Back {
            if !well {
                return false;
            }
            if !std::mem::replace(&mut trial.crashed, true) && self.rare() {
                // The one that follows begins with what the stack went back to.
                self.quiet = None;
                self.crash();
                return false;
            }
        } else if let Err(wrong) = self.stands(taken, now) {
            self.world.lock().violate(wrong);
            return true;
        } else if now < taken + self.lasts() {
            return false;
        }
        self.mend_it();
        false
    }

    /// How long is waited before it is judged what came of it.
    fn lasts(&self) -> u64 {
        let Some(trial) = &self.trial else { return 0 };
        let Some(work) = trial.bad.work(&trial.group) else {
            return 0;
        };
        let update = work.update.as_ref();
        let deadline = update.and_then(|update| update.deadline).unwrap_or(0) * SECOND / 1_000;
        match trial.expects {
            Expects::GoOn => (deadline + LEAVES_WITHIN) * work.instances().len() as u64,
            _ => deadline + LEAVES_WITHIN,
        }
    }

    /// Whether it stands as it is to stand, so long after it was taken.
    fn stands(&self, taken: u64, now: u64) -> Result<(), String> {
        let (Some(trial), Some(controller)) = (&self.trial, &self.controller) else {
            return Ok(());
        };
        let world = self.world.lock();
        let group = &trial.group;
        let (Some(old), Some(new)) = (trial.before.work(group), trial.bad.work(group)) else {
            return Ok(());
        };
        let (all, there) = (old.instances().len(), whole(&world, old));
        let judged = now >= taken + self.lasts();
        let nodes = &controller.engine.plan().nodes;
        let says = |words: &str| {
            nodes.iter().any(|status| {
                let of = new.instances().contains(&instance(&status.node));
                of && status.detail.contains(words)
            })
        };
        match trial.expects {
            Expects::Pause => {
                let start_first = new.update.as_ref().is_some_and(|update| update.start_first);
                let away = if start_first { 0 } else { 1 };
                // One that a check from before finds ill serves nobody, and waits for nobody.
                let is_ill = |node: &&NodeId| {
                    let at = world.ill_at.iter().filter(|(id, _)| instance(id) == **node);
                    at.map(|(_, at)| *at).max() >= Some(taken)
                };
                let ill = old.instances().iter().filter(is_ill).count();
                if all - there > away + ill {
                    return Err(format!(
                        "{there} of {all} of {group} are left by a bad update"
                    ));
                }
                if judged && !says("the update pauses") {
                    return Err(format!("the bad update of {group} is not said to pause"));
                }
            }
            Expects::GoOn if judged && there > 0 => {
                return Err(format!("{there} of {all} of {group} were not updated"));
            }
            Expects::GiveUp if judged => {
                let gave_up = nodes.iter().find(|status| {
                    let of = new.instances().contains(&instance(&status.node));
                    of && status.state == NodeState::Failed && status.detail.contains("gave up")
                });
                if gave_up.is_none() {
                    return Err(format!("{group} never gives up"));
                }
            }
            Expects::GoOn | Expects::GiveUp | Expects::Back => {}
        }
        Ok(())
    }

    fn mend_it(&mut self) {
        let Some(trial) = &mut self.trial else { return };
        trial.mended = true;
        let group = trial.group.clone();
        self.model = (*trial.bad).clone();
        self.world
            .lock()
            .log(format_args!("the update of {group} is mended"));
        self.change(&group, |work| {
            work.defect = None;
            work.version += 1;
            work.max_attempts = None;
            work.window = None;
            if let Some(update) = &mut work.update {
                update.deadline = None;
            }
        });
    }
}

fn break_it(work: &mut Work, expects: Expects, defect: Defect, start_first: bool, deadline: u64) {
    // What never is ready ends for that, again and again, before its deadline.
    work.ready = match (work.ready, defect) {
        (Ready::Notify(_), Defect::Mute) => Ready::Notify(1_000),
        (Ready::Tcp(_), Defect::Mute) => Ready::Tcp(1_000),
        (Ready::Check(_), Defect::Mute) => Ready::Check(1_000),
        (ready, _) => ready,
    };
    work.defect = Some(defect);
    work.version += 1;
    (work.max_attempts, work.window) = (None, None);
    let may_be_two = work.network.is_some();
    let action = match expects {
        Expects::Back => Action::Rollback,
        Expects::Pause => Action::Pause,
        Expects::GoOn => Action::Continue,
        Expects::GiveUp => {
            (work.delay, work.max_delay) = (100, 400);
            (work.max_attempts, work.window) = (Some(2), Some(60_000));
            if work.version.is_multiple_of(2) {
                work.window = None;
            }
            work.update = None;
            return;
        }
    };
    work.update = Some(Update {
        start_first: start_first && may_be_two,
        max_unavailable: 1,
        min_healthy: None,
        deadline: Some(deadline),
        action,
    });
}

/// How many instances run what the group says.
fn whole(world: &World, work: &Work) -> usize {
    let command = work.command();
    let runs = |node: &NodeId| {
        let mut lives = world.cgroups.iter();
        lives.any(|(id, cgroup)| {
            instance(&id.node) == *node && cgroup.main.is_some() && cgroup.command == command
        })
    };
    let nodes = work.instances();
    nodes.iter().filter(|node| runs(node)).count()
}
