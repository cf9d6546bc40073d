//! Containers and processes, as their driver does them.

use std::collections::BTreeSet;
use std::time::Duration;

use hatchery::driver::{ErrorKind, Result, Start, Workloads};
use hatchery::plan::model::Note;
use hatchery::plan::world::{Exit, Life, LifeId, LifeState};
use hatchery::spec::model::{Confirm, Signal};

use super::{End, Facts, Happening, Reach, SECOND, Shared, World, error};
use crate::faults::{Action, Fault};
use crate::invariants;

impl World {
    /// A controller is told of these lives.
    fn show(&mut self, view: &[Life]) {
        let up = view.iter().filter(|life| life.state == LifeState::Up);
        self.seen_up = up.map(|life| life.id.clone()).collect();
    }
}

impl Workloads for Shared {
    fn observe(&self) -> Result<Vec<Life>> {
        let mut world = self.lock();
        if world.crashed {
            return Err(error(ErrorKind::Failed, "the controller is dead"));
        }
        if world.fires(Fault::NoView, Action::Observe) {
            world.blind_at = Some(world.now);
            return Err(error(ErrorKind::Failed, "no view"));
        }
        let now = world.now;
        // What was done through the driver is always seen; what happened by itself may be late.
        let fresh = |at: &u64| now - at < SECOND / 2;
        let old = world
            .last_view
            .as_ref()
            .filter(|(at, _)| fresh(at))
            .map(|(_, view)| view.clone());
        if let Some(view) = old
            && world.draws(Fault::StaleView)
            && !world.is_as(&view)
        {
            world.note(Fault::StaleView, Action::Observe);
            world.blind_at = Some(now);
            world.show(&view);
            return Ok(view);
        }
        let ids: Vec<LifeId> = world.cgroups.keys().cloned().collect();
        let view: Vec<Life> = ids.iter().filter_map(|id| world.view(id)).collect();
        world.last_view = Some((now, view.clone()));
        world.show(&view);
        Ok(view)
    }

    fn start(&self, start: &Start) -> Result<()> {
        let mut world = self.lock();
        let reach = world.reach(Action::Start, true);
        let Some(cgroup) = world.cgroups.get_mut(&start.id) else {
            return Err(error(ErrorKind::Failed, "its cgroup went away"));
        };
        let serial = cgroup.serial;
        let missing = cgroup.namespace.clone().filter(|name| {
            let space = world.net.namespaces.get(name);
            space.is_none_or(|space| space.foreign.is_some())
        });
        let reach = match missing {
            Some(_) => Reach::Nothing(error(ErrorKind::Failed, "its namespace is not there")),
            None => reach,
        };
        if world.crashed {
            if let Reach::Whole = reach {
                world.exec(serial);
            }
            return Err(error(ErrorKind::Failed, "the controller is dead"));
        }
        match reach {
            Reach::Whole => {}
            Reach::Nothing(why) => {
                // The driver takes back what it made.
                world.cgroups.remove(&start.id);
                return Err(why);
            }
            Reach::Half(why) => {
                let now = world.now;
                if let Some(cgroup) = world.cgroups.get_mut(&start.id) {
                    cgroup.starting = None;
                    cgroup.emptied = Some(now);
                }
                return Err(why);
            }
        }
        world.exec(serial);
        if let Some(cgroup) = world.cgroups.get_mut(&start.id) {
            cgroup.starting = None;
        }
        Ok(())
    }

    fn signal(&self, life: &LifeId, signal: Signal, late: bool) -> Result<()> {
        let mut world = self.lock();
        let reach = world.reach(Action::Signal, false);
        if let Reach::Nothing(why) | Reach::Half(why) = reach {
            return Err(why);
        }
        let now = world.now;
        let Some(cgroup) = world
            .cgroups
            .get(life)
            .filter(|cgroup| cgroup.main.is_some())
        else {
            return Err(error(ErrorKind::Gone, "it does not run"));
        };
        let (serial, deaf) = (cgroup.serial, cgroup.deaf && world.faults.on);
        invariants::before_signal(&mut world, life);
        world.log(format_args!(
            "{} {} gets {signal}",
            life.node, life.incarnation
        ));
        let delay = world.rng.millis(1, 400);
        let exit = match world.rng.chance(500) {
            true => Exit::Signal(signal.0),
            false => Exit::Code(0),
        };
        if let Some(cgroup) = world.cgroups.get_mut(life) {
            cgroup.noted_late |= late && cgroup.asked.is_none();
            cgroup.asked.get_or_insert(now);
        }
        match deaf {
            true => world.note(Fault::DeafToTerm, Action::Process),
            false => world.after(delay, Happening::Exit(serial, exit, &[])),
        }
        Ok(())
    }

    fn reload(
        &self,
        life: &LifeId,
        _signal: Signal,
        confirm: Confirm,
        _timeout: Duration,
    ) -> Result<()> {
        let mut world = self.lock();
        let reach = world.reach(Action::Reload, false);
        if let Reach::Nothing(why) | Reach::Half(why) = reach {
            return Err(why);
        }
        let Some(cgroup) = world
            .cgroups
            .get_mut(life)
            .filter(|cgroup| cgroup.main.is_some())
        else {
            return Err(error(ErrorKind::Gone, "it does not run"));
        };
        let Some(proxy) = &mut cgroup.proxy else {
            return Ok(());
        };
        let before = proxy.signalled.take();
        let confirmed = before.is_some_and(|before| proxy.generation > before);
        match confirmed || confirm == Confirm::None {
            true => Ok(()),
            false => Err(error(ErrorKind::TimedOut, "no new child")),
        }
    }

    fn connections(&self, life: &LifeId, ports: &BTreeSet<u16>) -> Result<u32> {
        let mut world = self.lock();
        if world.fires(Fault::Uncounted, Action::Count) {
            return Err(error(ErrorKind::Failed, "no answer from the kernel"));
        }
        let Some(cgroup) = world.cgroups.get(life) else {
            return Err(error(ErrorKind::Gone, "it is gone"));
        };
        let Some((address, _)) = world.address(cgroup) else {
            return Ok(0);
        };
        let to = ports
            .iter()
            .map(|port| world.connections_to(&format!("{address}:{port}")));
        Ok(to.sum())
    }

    fn kill(&self, life: &LifeId) -> Result<()> {
        let mut world = self.lock();
        if let Reach::Nothing(why) | Reach::Half(why) = world.reach(Action::Kill, false) {
            return Err(why);
        }
        let Some(cgroup) = world.cgroups.get(life) else {
            return Err(error(ErrorKind::Gone, "it is gone"));
        };
        let (serial, up) = (cgroup.serial, cgroup.main.is_some());
        invariants::before_kill(&mut world, life);
        world.log(format_args!("{} {} is killed", life.node, life.incarnation));
        let now = world.now;
        if let Some(cgroup) = world.cgroups.get_mut(life) {
            if up {
                cgroup.asked.get_or_insert(now);
            }
            cgroup.spawned &= up;
        }
        let delay = world.rng.millis(0, 30);
        if up {
            world.after(delay, Happening::Exit(serial, Exit::Signal(9), &[]));
        }
        world.after(delay + Duration::from_millis(1), Happening::Gone(serial));
        Ok(())
    }

    fn remove(&self, life: &LifeId) -> Result<()> {
        let mut world = self.lock();
        if let Reach::Nothing(why) | Reach::Half(why) = world.reach(Action::Remove, false) {
            return Err(why);
        }
        match world.cgroups.get(life) {
            None => Ok(()),
            Some(cgroup) if cgroup.populated() => {
                Err(error(ErrorKind::Failed, "something of it still runs"))
            }
            Some(_) => {
                world.cgroups.remove(life);
                let facts = world.facts.get(&life.node);
                if facts
                    .and_then(|facts| facts.ends.last())
                    .is_some_and(End::completed)
                {
                    let now = world.now;
                    world.cleared.insert(life.node.clone(), now);
                }
                if !world.starts {
                    // The world tells nobody any more how it ended.
                    let doubted = Facts {
                        doubted: true,
                        ..Facts::default()
                    };
                    world.facts.insert(life.node.clone(), doubted);
                }
                world.log(format_args!(
                    "{} {} is cleared",
                    life.node, life.incarnation
                ));
                Ok(())
            }
        }
    }

    fn clear_stack(&self) -> Result<()> {
        let mut world = self.lock();
        invariants::when_down(&mut world);
        Ok(())
    }

    fn rotate_logs(&self) -> Result<Option<Duration>> {
        Ok(None)
    }

    fn note(&self, life: &LifeId, note: &Note) -> Result<()> {
        let mut world = self.lock();
        if let Reach::Nothing(mut why) | Reach::Half(mut why) = world.reach(Action::Note, false) {
            if world.cgroups.contains_key(life) {
                // What is there is never said to be gone: what needs no note needs no second try.
                why.kind = ErrorKind::Failed;
            }
            return Err(why);
        }
        match world.cgroups.get_mut(life) {
            None => Err(error(ErrorKind::Gone, "it is gone")),
            Some(cgroup) => {
                match note {
                    Note::Applied(applied) => cgroup.applied.clone_from(applied),
                    Note::Farewell(farewell) => cgroup.farewell = Some(farewell.clone()),
                }
                Ok(())
            }
        }
    }
}
