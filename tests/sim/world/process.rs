//! What programs do: begin, become ready, answer, end.

use std::time::Duration;

use hatchery::driver::Event;
use hatchery::plan::world::{Exit, LifeId};

use hatchery::spec::node::NodeId;

use super::proxy::Proxy;
use super::{End, Happening, MILLI, Main, SECOND, World};
use crate::faults::{Action, Fault};
use crate::specs::{Defect, Ready, Work, instance};

impl World {
    /// The program begins.
    pub fn exec(&mut self, serial: u64) {
        let now = self.now;
        let Some((id, cgroup)) = self.by_serial(serial) else {
            return;
        };
        if cgroup.main.is_some() || cgroup.ran || cgroup.emptied.is_some() {
            return;
        }
        let program = cgroup.command.first().cloned().unwrap_or_default();
        cgroup.ran = true;
        cgroup.process = true;
        cgroup.spawned = cgroup.container;
        let (port, container) = (cgroup.port(), cgroup.container);
        let pid = self.pid(serial);
        if let Some((_, cgroup)) = self.by_serial(serial) {
            cgroup.main = Some(Main { pid, since: now });
        }
        let facts = self.facts.entry(id.node.clone()).or_default();
        (facts.forgiven, facts.restarting) = (false, false);
        self.log(format_args!("{} {} runs as {pid}", id.node, id.incarnation));
        crate::invariants::one_copy(self, &id);
        if self.draws(Fault::InstantExit) {
            let exit = self.bad_exit();
            let delay = self.rng.millis(0, 30);
            let faults = &[Fault::InstantExit, Fault::BadCode];
            return self.after(delay, Happening::Exit(serial, exit, faults));
        }
        let other = port.filter(|port| !container && self.port_taken(*port, serial));
        if other.is_some() {
            return self.after(
                Duration::from_millis(3),
                Happening::Exit(serial, Exit::Code(98), &[]),
            );
        }
        match program.as_str() {
            "/bin/once" => self.run_once(serial),
            "/bin/proxy" => self.run_proxy(serial, &id),
            _ => self.run_app(serial),
        }
    }

    fn port_taken(&self, port: u16, serial: u64) -> bool {
        let holds = |cgroup: &super::Cgroup| {
            cgroup.serial != serial
                && cgroup.namespace.is_none()
                && cgroup.port() == Some(port)
                && cgroup.ran
                && cgroup.populated()
        };
        self.held_ports.contains(&port) || self.cgroups.values().any(holds)
    }

    fn run_once(&mut self, serial: u64) {
        let delay = self.rng.millis(1, 3_000);
        let (exit, faults): (Exit, &'static [Fault]) = match self.draws(Fault::BadCode) {
            true => (self.bad_exit(), &[Fault::BadCode]),
            false => (Exit::Code(0), &[]),
        };
        self.after(delay, Happening::Exit(serial, exit, faults));
    }

    fn run_proxy(&mut self, serial: u64, id: &LifeId) {
        let files = self.proxy_files(serial);
        let whole = files.iter().all(|path| {
            let file = self.files.get(path);
            file.is_some_and(|file| !file.text.contains("BAD"))
        });
        if !whole {
            self.log(format_args!("{} finds no good files", id.node));
            return self.after(
                Duration::from_millis(5),
                Happening::Exit(serial, Exit::Code(1), &[]),
            );
        }
        if let Some((_, cgroup)) = self.by_serial(serial) {
            cgroup.proxy = Some(Proxy::default());
        }
        self.proxy_reads(serial, true);
        self.run_app(serial);
    }

    fn run_app(&mut self, serial: u64) {
        if self.has(serial, Defect::Ends) {
            let delay = self.rng.millis(20, 400);
            let exit = Exit::Code(1);
            return self.after(delay, Happening::Exit(serial, exit, &[Fault::BadUpdate]));
        }
        if self.has(serial, Defect::Mute) || self.relapses(serial) {
            return;
        }
        let slow = self.draws(Fault::SlowStart);
        let delay = match slow {
            true => self.rng.millis(500, 30_000),
            false => self.rng.millis(1, 400),
        };
        self.after(delay, Happening::Ready(serial));
        if self.draws(Fault::LateExit) {
            let (exit, faults): (Exit, &'static [Fault]) = match self.rng.chance(700) {
                true => (self.bad_exit(), &[Fault::LateExit, Fault::BadCode]),
                false => (Exit::Code(0), &[Fault::LateExit]),
            };
            let delay = self.rng.millis(50, 60_000);
            self.after(delay, Happening::Exit(serial, exit, faults));
        }
        let deaf = self.draws(Fault::DeafToTerm);
        let hanging = self.draws(Fault::HangingProbe);
        let flapping = self.draws(Fault::Flapping).then(|| {
            let period = self.rng.range(500, 8_000) * MILLI;
            (period, self.rng.range(0, period))
        });
        let container = self
            .by_serial(serial)
            .is_some_and(|(_, cgroup)| cgroup.container);
        if container && self.draws(Fault::NspawnKilled) {
            let delay = self.rng.millis(10, 40_000);
            self.after(delay, Happening::NspawnKilled(serial));
        }
        if let Some((_, cgroup)) = self.by_serial(serial) {
            cgroup.slow = slow;
            cgroup.deaf = deaf;
            cgroup.hanging = hanging;
            cgroup.flapping = flapping;
        }
    }

    fn has(&mut self, serial: u64, defect: Defect) -> bool {
        let found = self.by_serial(serial);
        found.is_some_and(|(_, cgroup)| cgroup.command.iter().any(|word| word == defect.word()))
    }

    fn bad_exit(&mut self) -> Exit {
        match self.rng.range(0, 3) {
            0 => Exit::Signal(*self.rng.pick(&[1, 2, 6, 9, 11, 15, 31])),
            _ => Exit::Code(self.rng.range(1, 255) as i32),
        }
    }

    /// It says that it is ready, and listens.
    pub fn ready(&mut self, serial: u64) {
        let epoch = self.epoch;
        let Some((id, cgroup)) = self.by_serial(serial) else {
            return;
        };
        if cgroup.main.is_none() {
            return;
        }
        cgroup.listens = true;
        cgroup.was_ready = true;
        let slow = std::mem::take(&mut cgroup.slow);
        // Without a controller nobody hears it.
        let heard = cgroup.notify && epoch != 0;
        cgroup.notified |= heard;
        self.log(format_args!("{} {} is ready", id.node, id.incarnation));
        if slow {
            self.note(Fault::SlowStart, Action::Process);
        }
        if heard {
            self.last_view = None;
            self.tell(Event::Notified(id));
        }
        self.recovered(serial);
    }

    pub fn nspawn_killed(&mut self, serial: u64) {
        if let Some((id, cgroup)) = self.by_serial(serial)
            && cgroup.main.is_some()
        {
            cgroup.spawned = false;
            self.note(Fault::NspawnKilled, Action::Process);
            self.log(format_args!("nspawn of {} is killed", id.node));
        }
    }

    /// The main process ends.
    pub fn exit(&mut self, serial: u64, exit: Exit, faults: &[Fault]) {
        let (now, epoch) = (self.now, self.epoch);
        let Some((id, cgroup)) = self.by_serial(serial) else {
            return;
        };
        let Some(main) = cgroup.main.take() else {
            return;
        };
        let container = cgroup.container;
        // Somebody had waited for it for longer than it takes others.
        let slow = std::mem::take(&mut cgroup.slow) && now - main.since > SECOND / 2;
        let spawned_alone = container && !cgroup.spawned;
        cgroup.listens = false;
        cgroup.spawned = false;
        // Nobody learns the code of what ends while no controller holds it.
        let known = epoch != 0 && cgroup.tracked == epoch && !spawned_alone;
        if known {
            cgroup.exit = Some(exit);
        }
        let end = End {
            exit,
            known,
            at: now,
            lasted: now - main.since,
            was_ready: cgroup.was_ready,
            gone: None,
            asked: cgroup.asked.is_some() || cgroup.ending_planned.is_some() || cgroup.restarting,
            epoch,
            signalled: cgroup.asked.is_some(),
            late: cgroup.late,
            noted_late: cgroup.noted_late,
            identity: cgroup.identity.clone(),
            pid: main.pid,
        };
        self.pids.remove(&main.pid);
        self.facts
            .entry(id.node.clone())
            .or_default()
            .ends
            .push(end);
        *self.ended.entry(id.node.clone()).or_default() += 1;
        self.log(format_args!(
            "{} {} ends: {exit:?}",
            id.node, id.incarnation
        ));
        for fault in faults.iter().chain(slow.then_some(&Fault::SlowStart)) {
            self.note(*fault, Action::Process);
        }
        self.hang_up(serial);
        let stays = self.fires(Fault::Outlives, Action::Process);
        let rest = match (stays, container) {
            (true, _) => Some(self.rng.millis(10, 5_000)),
            (false, true) => Some(Duration::from_micros(self.rng.range(100, 20_000))),
            (false, false) => None,
        };
        match rest {
            Some(rest) => {
                if let Some((_, cgroup)) = self.by_serial(serial) {
                    cgroup.rest = true;
                }
                self.after(rest, Happening::Gone(serial));
                self.tell(Event::Ended(id));
            }
            None => self.gone(serial),
        }
    }

    /// A plan has it end. Where one is to be asked that ended by itself, nobody saw that yet, and
    /// it is taken for the end that was asked for.
    pub fn end_planned(&mut self, life: &LifeId, asks: bool) {
        let now = self.now;
        let Some(cgroup) = self.cgroups.get_mut(life) else {
            return;
        };
        cgroup.ending_planned.get_or_insert(now);
        if asks
            && cgroup.main.is_none()
            && let Some(facts) = self.facts.get_mut(&life.node)
            && let Some(end) = facts.ends.last_mut()
        {
            end.asked = true;
            facts.failures = 0;
        }
    }

    /// A life is over: it counts from the making of its cgroup until nothing was left in it.
    fn count(&mut self, node: &NodeId, lasted: u64) {
        let now = self.now;
        let model = self.in_force.clone();
        let work = model.as_ref().and_then(|model| model.work_of(node));
        let reset = work.map(|work| work.reset_after);
        let is_started = work.is_some_and(|work| work.ready == Ready::Started);
        let facts = self.facts.entry(node.clone()).or_default();
        let Some(end) = facts.ends.last_mut() else {
            return;
        };
        end.lasted = lasted;
        end.gone = Some(now);
        let was_ready = end.was_ready || is_started;
        facts.failures = if !end.failed() || facts.restarting {
            0
        } else if was_ready && reset.is_some_and(|reset| lasted >= reset * MILLI) {
            1
        } else {
            facts.failures + 1
        };
    }

    /// The failures in a row that a controller must know of, where the truth leaves no doubt.
    pub fn failures_at_least(&self, node: &NodeId, work: &Work, end: &End) -> u32 {
        self.failures_known(node, work, end).unwrap_or(1)
    }

    /// The same; `None` where there is doubt.
    pub fn failures_known(&self, node: &NodeId, work: &Work, end: &End) -> Option<u32> {
        let ends = self.facts.get(node).map_or(&[][..], |facts| &facts.ends);
        let near = |end: &End| (end.lasted / MILLI).abs_diff(work.reset_after) < 50;
        // One that was well for long and failed by itself is the first of a new row: what was
        // before it does not count any more.
        let fresh = |end: &End| {
            let was_ready = end.was_ready || work.ready == Ready::Started;
            let well = was_ready && end.lasted / MILLI > work.reset_after + 1_000;
            well && end.failed() && end.epoch == self.epoch
        };
        let first = ends.iter().rposition(fresh).unwrap_or(0);
        let row = ends.get(first..).unwrap_or_default();
        let doubtful = row
            .iter()
            .rev()
            .take(12)
            .any(|end| near(end) && end.failed());
        // Which of an edit and an end was seen first is not always known.
        let edited = row
            .iter()
            .any(|end| end.at.abs_diff(self.took_at) < 3 * SECOND);
        let counted = self.facts.get(node).map_or(1, |facts| facts.failures);
        // What failed in which of two seats is counted for that seat.
        let mut seats = self.facts.iter();
        let hidden = seats.any(|(other, facts)| {
            let paired = other != node && !facts.ends.is_empty();
            instance(other) == instance(node) && (paired || facts.doubted)
        });
        let doubtful = doubtful || hidden;
        let known = end.epoch == self.epoch && !doubtful && !edited && self.sighted_for(40);
        known.then_some(counted.max(1))
    }

    /// The newest end of an instance, in whichever seat.
    pub fn last_end(&self, node: &NodeId) -> Option<&End> {
        let wanted = instance(node);
        let facts = self
            .facts
            .iter()
            .filter(|(node, _)| instance(node) == wanted);
        facts
            .filter_map(|(_, facts)| facts.ends.last())
            .max_by_key(|end| end.at)
    }

    /// Nothing of it is left but its cgroup.
    pub fn gone(&mut self, serial: u64) {
        let now = self.now;
        let Some((id, cgroup)) = self.by_serial(serial) else {
            return;
        };
        if cgroup.emptied.is_some() || cgroup.main.is_some() {
            return;
        }
        cgroup.rest = false;
        cgroup.spawned = false;
        cgroup.emptied = Some(now);
        let lasted = now.saturating_sub(cgroup.made);
        self.count(&id.node, lasted);
        self.log(format_args!("{} {} is gone", id.node, id.incarnation));
        self.tell(Event::Ended(id));
    }

    /// Whether it answers well now: what a check would find.
    pub fn well(&self, cgroup: &super::Cgroup) -> bool {
        if !cgroup.listens || cgroup.main.is_none() {
            return false;
        }
        match cgroup.flapping {
            Some((period, phase)) if self.faults.on => {
                ((self.now + phase) / period).is_multiple_of(2)
            }
            _ => true,
        }
    }

    /// Whether everything has been quiet for so long.
    pub fn sighted_for(&self, seconds: u64) -> bool {
        self.blind_at
            .is_none_or(|at| self.now - at > seconds * SECOND)
    }
}
