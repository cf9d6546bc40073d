//! What operators ask of a controller, and what the oracle makes of it.

use hatchery::reconcile::engine::Input;
use hatchery::reconcile::handle::{Request, SpecText, Verb};
use hatchery::spec::generation::{Cause, User};
use tokio::sync::oneshot;

use super::Run;
use crate::specs::{SPEC, instance};
use crate::world::Happening;

impl Run {
    /// Hands over a spec; whether it is taken.
    pub(super) fn apply(&mut self, text: String, allow_empty: bool) -> bool {
        let Some(controller) = &self.controller else {
            return false;
        };
        let (answer, mut told) = oneshot::channel();
        let spec = SpecText::of(SPEC, text);
        let epoch = controller.epoch;
        self.world.lock().allow_empty = allow_empty;
        let request = Request::Apply {
            spec,
            allow_empty,
            saved: None,
            cause: Cause::Apply { by: operator() },
            answer,
        };
        self.tell(epoch, Input::Request(Box::new(request)));
        let mut world = self.world.lock();
        world.allow_empty = false;
        let calm = !world.faults.on && !world.down;
        let answer = told.try_recv();
        if let Ok(Err(report)) = &answer {
            world
                .trace
                .remark(world.now, format_args!("refused: {report}"));
            if calm {
                world.violate(format!("the last spec is refused: {report}"));
            }
        }
        matches!(answer, Ok(Ok(_)))
    }

    /// Whether there was somebody to do it.
    pub(super) fn operate(&mut self, verb: Verb, names: Vec<String>) -> bool {
        let Some(controller) = &self.controller else {
            return false;
        };
        let epoch = controller.epoch;
        let (answer, mut told) = oneshot::channel();
        self.world
            .lock()
            .log(format_args!("operator: {verb:?} {names:?}"));
        let request = Request::Operate {
            verb,
            names,
            by: operator(),
            answer,
        };
        let seen_up = self.world.lock().seen_up.clone();
        // Judged before it is asked: a start may follow at once.
        self.tell(epoch, Input::Request(Box::new(request)));
        let Ok(Ok(nodes)) = told.try_recv() else {
            return false;
        };
        let any = !nodes.is_empty();
        let mut world = self.world.lock();
        let now = world.now;
        for node in nodes {
            if verb == Verb::Stop {
                world.facts.entry(node.clone()).or_default().forgotten = now;
                world.operator_stopped.insert(node, now);
                continue;
            }
            // It may have been stopped when it had another seat as well.
            let started = instance(&node);
            world
                .operator_stopped
                .retain(|stopped, _| instance(stopped) != started);
            world
                .perhaps_stopped
                .retain(|stopped| instance(stopped) != started);
            if verb == Verb::Restart {
                // One that is started at this moment is what was asked for.
                let lives = world.cgroups.iter_mut().filter(|(id, _)| id.node == node);
                for (_, cgroup) in lives.filter(|(id, _)| seen_up.contains(id)) {
                    cgroup.restarting = true;
                }
            }
            let facts = world.facts.entry(node).or_default();
            facts.forgiven = true;
            facts.restarting = verb == Verb::Restart;
            (facts.failures, facts.forgotten) = (0, now);
        }
        any
    }

    /// Asks what would be done for a spec: nothing may be done for that.
    pub(super) fn ask_for_plan(&mut self, text: String) {
        let Some(controller) = &self.controller else {
            return;
        };
        let epoch = controller.epoch;
        let (answer, _told) = oneshot::channel();
        let before = self.world.lock().mutations;
        let spec = SpecText::of(SPEC, text);
        self.tell(epoch, Input::Request(Box::new(Request::Plan(spec, answer))));
        let mut world = self.world.lock();
        if world.mutations != before {
            world.violate("`plan` changed something".to_owned());
        }
    }

    pub(super) fn take_down(&mut self, kill: bool) {
        let Some(controller) = &self.controller else {
            return;
        };
        let epoch = controller.epoch;
        let (answer, _told) = oneshot::channel();
        {
            let mut world = self.world.lock();
            world.log(format_args!("operator: down, kill {kill}"));
            world.down = true;
            // A kill that is on its way is not called back.
            world.down_kill |= kill;
        }
        let request = Request::Down {
            purge: false,
            kill,
            by: operator(),
            answer,
        };
        self.tell(epoch, Input::Request(Box::new(request)));
    }

    pub(super) fn went_down(&mut self) {
        let mut world = self.world.lock();
        world.log(format_args!("the stack is down"));
        world.cgroups.clear();
        world.controller_gone();
        world.facts.clear();
        world.operator_stopped.clear();
        world.perhaps_stopped.clear();
        let again = world.rng.millis(100, 4_000);
        world.after(again, Happening::Up);
        drop(world);
        self.controller = None;
    }

    pub(super) fn leave(&mut self) {
        let Some(controller) = &self.controller else {
            return;
        };
        let epoch = controller.epoch;
        let (answer, _told) = oneshot::channel();
        self.tell(epoch, Input::Request(Box::new(Request::Leave(answer))));
    }
}

/// Who asks.
fn operator() -> User {
    User { uid: 0, name: None }
}
