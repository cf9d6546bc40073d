//! A life as the kernel holds it: a cgroup with its mark, and what runs in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use hatchery::graph::desired::{Farewell, NetworkRun};
use hatchery::plan::model::Start;
use hatchery::plan::world::{Exit, Identity, Life, LifeId, LifeState};
use hatchery::spec::node::Kind;

use super::proxy::Proxy;
use super::{Happening, World};
use crate::faults::Fault;

/// A main process.
#[derive(Debug, Clone)]
pub struct Main {
    pub pid: i32,
    /// When its program began.
    pub since: u64,
}

/// One cgroup of the stack.
#[derive(Debug)]
pub struct Cgroup {
    pub serial: u64,
    /// Without a mark it is a folder with a name.
    pub marked: bool,
    pub identity: Identity,
    /// On the boot clock, as marked.
    pub started: hatchery::spec::time::Time,
    pub farewell: Option<Farewell>,
    pub applied: BTreeMap<String, String>,
    pub notified: bool,
    pub command: Vec<String>,
    pub namespace: Option<String>,
    pub container: bool,
    pub notify: bool,
    /// The contents of the files that it watches, when it began.
    pub watched: BTreeMap<std::path::PathBuf, Option<String>>,
    /// What was last seen of those files by whoever started it: it cannot know better when
    /// nobody told of an edit.
    pub believed: BTreeMap<std::path::PathBuf, String>,
    /// This controller's start of it is under way.
    pub starting: Option<u64>,
    /// The spawned process is there: nspawn, or what will become the program.
    pub spawned: bool,
    /// There was a process in it at some time, and it noted itself.
    pub process: bool,
    pub main: Option<Main>,
    /// It ran its program at some time.
    pub ran: bool,
    /// The registry led to it at some time.
    pub served: bool,
    /// Something of it outlives its main process.
    pub rest: bool,
    /// It is ready and listens.
    pub listens: bool,
    pub was_ready: bool,
    /// It had its time under an earlier spec, and counts as ready for this controller.
    pub had_time: bool,
    /// It takes longer than others until it is ready.
    pub slow: bool,
    pub deaf: bool,
    pub flapping: Option<(u64, u64)>,
    pub hanging: bool,
    /// Which faults a check met already.
    pub met: BTreeSet<Fault>,
    pub proxy: Option<Proxy>,
    /// Which controller started it.
    pub begun_by: u64,
    /// Which controller holds its processes, and so learns how they end.
    pub tracked: u64,
    /// How it ended, if the drivers know.
    pub exit: Option<Exit>,
    pub emptied: Option<u64>,
    /// When this controller saw it empty.
    pub seen_empty: Option<(u64, hatchery::spec::time::Time)>,
    /// When it was first asked to end.
    pub asked: Option<u64>,
    /// When a plan first had it end.
    pub ending_planned: Option<u64>,
    /// An operator asked for another in its place: its end counts as asked for.
    pub restarting: bool,
    /// A plan said that it is not ready in time.
    pub late: bool,
    /// That was noted on it when it was asked to end.
    pub noted_late: bool,
    /// When the cgroup was made.
    pub made: u64,
}

impl Cgroup {
    /// Whether any process is in it.
    pub fn populated(&self) -> bool {
        self.spawned || self.main.is_some() || self.rest
    }

    pub fn age(&self, now: u64) -> u64 {
        self.main.as_ref().map_or(0, |main| now - main.since)
    }

    pub fn port(&self) -> Option<u16> {
        let words = self.command.iter();
        let mut ports = words.filter_map(|word| word.strip_prefix("port="));
        ports.next().and_then(|port| port.parse().ok())
    }
}

impl World {
    /// The cgroup and its mark, before anything runs in it.
    pub fn make_cgroup(&mut self, start: &Start) {
        crate::invariants::before_start(self, start);
        if self.cgroups.contains_key(&start.id) {
            return;
        }
        self.serials += 1;
        let namespace = match start.run.container.as_ref().map(|run| &run.network) {
            Some(NetworkRun::Namespace(name)) => Some(name.clone()),
            _ => None,
        };
        let watched = self.watched_now(&start.id);
        let cgroup = Cgroup {
            serial: self.serials,
            marked: true,
            identity: start.identity.clone(),
            started: self.clock(),
            farewell: Some(start.farewell.clone()),
            applied: start.applied.clone(),
            notified: false,
            command: start.run.command.clone(),
            namespace,
            container: start.id.node.kind == Kind::Containers,
            notify: start.run.notify,
            watched,
            believed: self.looked.clone(),
            starting: Some(self.epoch),
            spawned: false,
            process: false,
            served: false,
            main: None,
            ran: false,
            rest: false,
            listens: false,
            was_ready: false,
            had_time: false,
            slow: false,
            deaf: false,
            flapping: None,
            hanging: false,
            met: BTreeSet::new(),
            proxy: None,
            begun_by: self.epoch,
            tracked: self.epoch,
            exit: None,
            emptied: None,
            seen_empty: None,
            asked: None,
            ending_planned: None,
            restarting: false,
            late: false,
            noted_late: false,
            made: self.now,
        };
        self.cgroups.insert(start.id.clone(), cgroup);
        self.mutations += 1;
        self.last_view = None;
        self.log(format_args!(
            "makes cgroup {} {}",
            start.id.node, start.id.incarnation
        ));
    }

    fn watched_now(&self, id: &LifeId) -> BTreeMap<std::path::PathBuf, Option<String>> {
        let watch = self
            .in_force
            .as_ref()
            .and_then(|model| model.work_of(&id.node))
            .map(|work| work.watch.clone())
            .unwrap_or_default();
        watch
            .iter()
            .map(|name| {
                let path = std::path::PathBuf::from(name.replacen('.', crate::specs::DIR, 1));
                let hash = self.files.get(&path).map(|file| file.hash.clone());
                (path, hash)
            })
            .collect()
    }

    pub fn by_serial(&mut self, serial: u64) -> Option<(LifeId, &mut Cgroup)> {
        self.cgroups
            .iter_mut()
            .find(|(_, cgroup)| cgroup.serial == serial)
            .map(|(id, cgroup)| (id.clone(), cgroup))
    }

    /// A controller begins: of what ended before it, it knows the last end.
    pub fn failures_begin(&mut self) {
        for facts in self.facts.values_mut() {
            (facts.failures, facts.doubted) = (0, false);
        }
        for (id, cgroup) in &self.cgroups {
            let facts = self.facts.entry(id.node.clone()).or_default();
            // One whose start was cut off has no end, though a life before it may.
            let own = facts.ends.last().filter(|end| end.at >= cgroup.made);
            if !cgroup.populated() && own.is_some_and(|end| !end.asked || end.noted_late) {
                facts.failures = 1;
            }
        }
    }

    /// What a crash of the controller leaves of starts under way.
    pub fn cut_starts(&mut self) {
        let epoch = self.epoch;
        let ids: Vec<LifeId> = self
            .cgroups
            .iter()
            .filter(|(_, cgroup)| cgroup.starting == Some(epoch) && epoch != 0)
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            let way = self.rng.range(0, 2);
            let delay = self.rng.millis(1, 80);
            let Some(cgroup) = self.cgroups.get_mut(&id) else {
                continue;
            };
            cgroup.starting = None;
            if cgroup.main.is_some() || cgroup.emptied.is_some() {
                continue;
            }
            let serial = cgroup.serial;
            match way {
                // Made, and not marked.
                0 if !cgroup.spawned => {
                    cgroup.marked = false;
                    cgroup.emptied = Some(self.now);
                }
                // Marked, and empty.
                1 if !cgroup.spawned => cgroup.emptied = Some(self.now),
                // The spawned process goes on by itself.
                _ => {
                    cgroup.spawned = true;
                    cgroup.process = true;
                    self.after(delay, Happening::Exec(serial));
                }
            }
            self.log(format_args!("start of {} is cut, way {way}", id.node));
        }
    }

    /// How the drivers see it.
    pub fn view(&mut self, id: &LifeId) -> Option<Life> {
        let (epoch, clock) = (self.epoch, self.clock());
        let (now, old_kernel) = (self.now, self.old_kernel);
        let boot = self.boot;
        let cgroup = self.cgroups.get_mut(id)?;
        if cgroup.tracked != epoch && cgroup.emptied.is_none() && !old_kernel {
            cgroup.tracked = epoch;
        }
        let main_pid = cgroup.main.as_ref().map_or(0, |main| main.pid);
        let coming =
            cgroup.starting == Some(epoch) || (cgroup.container && cgroup.spawned && !cgroup.ran);
        let state = if cgroup.main.is_some() || coming {
            LifeState::Up
        } else if cgroup.populated() {
            LifeState::Ending
        } else {
            let emptied = cgroup.emptied.get_or_insert(now);
            let at = match cgroup.seen_empty {
                Some((by, at)) if by == epoch => at,
                _ if cgroup.tracked == epoch => {
                    hatchery::spec::time::Time(*emptied - boot + 5 * super::SECOND)
                }
                _ => clock,
            };
            cgroup.seen_empty = Some((epoch, at));
            LifeState::Ended {
                exit: cgroup.exit.unwrap_or(match cgroup.process {
                    true => Exit::Unknown,
                    false => Exit::NotBegun,
                }),
                at,
            }
        };
        let identity = match cgroup.marked {
            true => cgroup.identity.clone(),
            false => Identity::default(),
        };
        Some(Life {
            commit: None,
            id: id.clone(),
            identity,
            started: if cgroup.marked { cgroup.started } else { clock },
            state,
            main_pid,
            leader_pid: main_pid,
            notified: cgroup.notified,
            applied: cgroup.applied.clone(),
            cgroup: std::path::PathBuf::from("/sys/fs/cgroup/hatchery"),
            farewell: cgroup.farewell.clone().filter(|_| cgroup.marked),
            asked: cgroup.marked && cgroup.asked.is_some(),
            late: cgroup.marked && cgroup.noted_late,
        })
    }

    /// Whether what a view shows of what runs is so still.
    pub fn is_as(&self, view: &[Life]) -> bool {
        let same = |life: &Life| {
            let cgroup = self.cgroups.get(&life.id);
            cgroup.is_some_and(|cgroup| {
                let pid = cgroup.main.as_ref().map_or(0, |main| main.pid);
                let ended = matches!(life.state, LifeState::Ended { .. });
                pid == life.main_pid
                    && cgroup.notified == life.notified
                    && (cgroup.emptied.is_some() == ended)
            })
        };
        view.len() == self.cgroups.len() && view.iter().all(same)
    }

    /// Where it answers.
    pub fn address(&self, cgroup: &Cgroup) -> Option<(Ipv4Addr, u16)> {
        let port = cgroup.port()?;
        let address = match &cgroup.namespace {
            None => Ipv4Addr::LOCALHOST,
            Some(name) => self.net.namespaces.get(name)?.address?.addr(),
        };
        Some((address, port))
    }

    /// Who answers at an address.
    pub fn listening(&self, address: Ipv4Addr, port: u16) -> Option<&Cgroup> {
        self.cgroups.values().find(|cgroup| {
            cgroup.listens && cgroup.main.is_some() && self.address(cgroup) == Some((address, port))
        })
    }
}
