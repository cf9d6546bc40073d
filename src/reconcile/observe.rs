//! Looks at the parts of the world that may have changed, and brings memory and catalog in line
//! with what is there.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::controller::Controller;
use super::execute::life_check;
use super::handle::{EventKind, Level};
use super::load::INPUT_LIMIT;
use crate::driver::DriverError;
use crate::graph::desired::{Node, ReadyNode};
use crate::plan::exit_words;
use crate::plan::memory::LastExit;
use crate::plan::world::{Life, LifeId, LifeState, Registered};
use crate::planted::{self, Bug};
use crate::spec::model::Status;
use crate::spec::node::NodeId;
use crate::spec::time::Time;

impl Controller {
    /// Observes what is dirty. What cannot be observed stays dirty, and as it was.
    pub(super) fn observe(&mut self) {
        self.see_lives();
        let unseen = self.dirty.lives;
        let dirty = std::mem::take(&mut self.dirty);
        self.dirty.lives = unseen;
        if dirty.network {
            let names = network_names(&self.desired);
            match self.host.networks.observe(&names) {
                Ok(view) => self.observed.network = view,
                Err(error) => self.unseen(&error, |dirty| dirty.network = true),
            }
        }
        if dirty.files {
            self.observe_files();
        }
        self.settle_lives();
        self.count_connections();
        self.observe_catalog();
    }

    /// Looks at what runs, if something of it may have changed; it may not be seen.
    pub(super) fn see_lives(&mut self) {
        if !std::mem::take(&mut self.dirty.lives) {
            return;
        }
        match self.host.workloads.observe() {
            Ok(mut lives) => {
                if planted::has(Bug::Orphan) {
                    lives.retain(|life| self.desired.nodes.contains_key(&life.id.node));
                }
                self.observed.lives = lives;
            }
            Err(error) => self.unseen(&error, |dirty| dirty.lives = true),
        }
    }

    /// Counts the connections of what drains: nothing tells of them.
    fn count_connections(&mut self) {
        let draining: Vec<_> = self
            .memory
            .draining
            .iter()
            .map(|(life, draining)| (life.clone(), draining.ports.clone()))
            .collect();
        let mut connections = BTreeMap::new();
        for (life, ports) in draining {
            match self.host.workloads.connections(&life, &ports) {
                Ok(count) => {
                    connections.insert(life, count);
                }
                // Not counted is not quiet; the wait has an end of its own.
                Err(error) => tracing::debug!("{}", error.message),
            }
        }
        let now = self.host.clock.now();
        self.memory.count_connections(&connections, now);
        self.observed.connections = connections;
    }

    fn unseen(&mut self, error: &DriverError, mark: impl FnOnce(&mut super::controller::Dirty)) {
        mark(&mut self.dirty);
        self.warn(error.message.clone());
    }

    fn observe_files(&mut self) {
        let mut paths = self.host.keep.rendered();
        let mut rendered = BTreeSet::new();
        for node in self.desired.nodes.values() {
            match node {
                Node::Workload(workload) => {
                    paths.extend(workload.watch.iter().cloned());
                    if let Some(container) = &workload.run.container {
                        paths.insert(container.hosts.clone());
                    }
                }
                Node::Template(template) => {
                    rendered.insert(template.destination.clone());
                }
                _ => {}
            }
        }
        paths.extend(rendered.iter().cloned());
        // A file that is being saved is believed to be what it was, until it has settled. What
        // we write ourselves is never in the middle of it.
        let unsettled: BTreeSet<_> = self
            .host
            .follow
            .unsettled()
            .into_iter()
            .filter(|path| !rendered.contains(path))
            .collect();
        let mut files = foldhash::HashMap::default();
        for path in paths {
            let view = match self.observed.files.remove(&path) {
                Some(before) if unsettled.contains(&path) => before,
                _ => self.host.files.look(&path),
            };
            files.insert(path, view);
        }
        self.observed.files = files;
        let inputs: Vec<_> = self
            .observed
            .inputs
            .files
            .keys()
            .filter(|path| !unsettled.contains(*path))
            .cloned()
            .collect();
        self.fetch(inputs);
    }

    /// Reads files for templates.
    pub(super) fn fetch(&mut self, paths: impl IntoIterator<Item = std::path::PathBuf>) {
        for path in paths {
            let text = self
                .host
                .files
                .read(&path, INPUT_LIMIT)
                .map_err(|error| error.message);
            self.observed.inputs.files.insert(path, text);
        }
    }

    /// Remembers ends, and forgets what is about lives that are gone.
    fn settle_lives(&mut self) {
        let now = self.host.clock.now();
        // Those that do not run as they did: what failed before does not hold up what follows.
        let mut turned: BTreeSet<LifeId> = BTreeSet::new();
        let there: BTreeSet<LifeId> = self
            .observed
            .lives
            .iter()
            .map(|life| life.id.clone())
            .collect();
        for life in &self.observed.lives {
            if life.late {
                // Perhaps an earlier controller found it so.
                self.memory.late.insert(life.id.clone());
            }
            match life.state {
                LifeState::Up => {
                    self.memory.seen.entry(life.id.clone()).or_insert(now);
                    if life.asked {
                        // Perhaps by an earlier controller: its grace begins anew.
                        self.memory.asked.entry(life.id.clone()).or_insert(now);
                    }
                }
                LifeState::Ending => {
                    if !self.memory.ending.contains_key(&life.id) {
                        self.memory.ending.insert(life.id.clone(), now);
                        turned.insert(life.id.clone());
                    }
                }
                LifeState::Ended { .. } if planted::has(Bug::LostExit) => {}
                LifeState::Ended { exit, at } => {
                    turned.insert(life.id.clone());
                    // What did not become ready in time failed, though it was asked to end.
                    let late = self.memory.late.contains(&life.id);
                    let asked = !late
                        && (life.asked
                            || self.memory.asked.contains_key(&life.id)
                            || self.memory.restart.contains(&life.id));
                    let last = LastExit {
                        exit,
                        at,
                        incarnation: life.id.incarnation,
                        asked,
                        late,
                    };
                    note_exit(&mut self.memory, &self.desired, life, last);
                }
            }
        }
        let memory = &mut self.memory;
        let holds = |life: &LifeId| there.contains(life) && !turned.contains(life);
        memory
            .attempts
            .retain(|_, attempt| attempt.running || attempt.life.as_ref().is_none_or(holds));
        memory.ready.retain(|life| there.contains(life));
        memory.asked.retain(|life, _| there.contains(life));
        memory.ending.retain(|life, _| there.contains(life));
        memory.restart.retain(|life| there.contains(life));
        memory.seen.retain(|life, _| there.contains(life));
        memory.adopted.retain(|life| there.contains(life));
        memory.late.retain(|life| there.contains(life));
        memory.killed.retain(|life, _| there.contains(life));
        memory.draining.retain(|life, _| there.contains(life));
        self.settle_adopted(now);
        self.tell_ends(&there);
    }

    /// Adopted lives that were to say that they are ready, and may have while nobody listened,
    /// count as ready once they had their time to say it again.
    fn settle_adopted(&mut self, now: Time) {
        let nodes = &self.desired.nodes;
        let lives = self.observed.lives.iter().filter(|life| {
            let timeout = match nodes.get(&life.id.node) {
                Some(Node::Workload(node)) => match node.ready {
                    ReadyNode::Notify { timeout } => timeout,
                    _ => return false,
                },
                _ => return false,
            };
            let seen = self.memory.seen.get(&life.id);
            life.state == LifeState::Up
                && life.main_pid > 0
                && self.memory.adopted.contains(&life.id)
                && !life.notified
                && !self.memory.ready.contains(&life.id)
                && seen.is_some_and(|seen| now.since(*seen) >= timeout)
        });
        let lives: Vec<LifeId> = lives.map(|life| life.id.clone()).collect();
        for life in lives {
            let text = "counts as ready: it ran before this controller, which cannot know whether \
                        it said so";
            self.tell_life(EventKind::Warning, &life, Level::Warning, text);
            self.memory.ready.insert(life);
        }
    }

    /// The newest life of every node that has one.
    pub(super) fn newest_lives(&self) -> HashMap<&NodeId, &Life> {
        let mut newest: HashMap<&NodeId, &Life> = HashMap::new();
        for life in &self.observed.lives {
            let known = newest.entry(&life.id.node).or_insert(life);
            if known.id.incarnation <= life.id.incarnation {
                *known = life;
            }
        }
        newest
    }

    /// Whether a node, whose newest life this is, is up and ready.
    fn serving(&self, node: &NodeId, newest: Option<&Life>) -> Result<(), String> {
        let Some(life) = newest else {
            return Err(format!("{node} does not run"));
        };
        match life.state {
            LifeState::Up if life.main_pid > 0 && !self.memory.starting.contains(&life.id) => {}
            LifeState::Up => return Err(format!("{node} is being started")),
            LifeState::Ending => return Err(format!("the main process of {node} ended")),
            LifeState::Ended { exit, .. } => {
                return Err(format!("{node} {}", exit_words(exit)));
            }
        }
        let ready = match self.desired.nodes.get(node) {
            Some(Node::Workload(workload)) => self.memory.is_ready(&workload.ready, life),
            _ => true,
        };
        if ready {
            Ok(())
        } else {
            Err(format!("{node} is not ready yet"))
        }
    }

    /// What ended serves no longer, whatever its checks said last.
    fn observe_catalog(&mut self) {
        let now = self.host.clock.now();
        let newest = self.newest_lives();
        for (service_id, target) in &self.targets {
            let serving = self.serving(target, newest.get(target).copied());
            self.host.catalog.with(|catalog| {
                let (status, words) = match &serving {
                    Ok(()) => (Status::Passing, "it runs".to_owned()),
                    Err(why) => (Status::Critical, why.clone()),
                };
                // An endpoint that is not registered any more has no checks to set.
                let _ = catalog.set_check(&life_check(service_id), status, &words, now);
            });
        }
        self.forget_answers(&newest);
        self.host.catalog.with(|catalog| catalog.expire(now));
        self.observed.catalog = self.host.catalog.snapshot();
        let registered = self.host.catalog.with(|catalog| catalog.registered());
        let mut attempts = self.memory.attempts.values();
        let busy = attempts.any(|attempt| attempt.running);
        self.targets
            .retain(|service_id, _| busy || registered.contains_key(service_id));
        self.observed.registered = registered
            .into_iter()
            .map(|(id, (hash, service))| {
                let target = self.targets.get(&id).cloned();
                (
                    id,
                    Registered {
                        hash,
                        service,
                        target,
                    },
                )
            })
            .collect();
        self.observed.registry = self.host.listener.look();
    }
}

/// Every name that the spec wants for a bridge, a link or a namespace.
pub fn network_names(desired: &crate::graph::desired::Desired) -> Vec<String> {
    let mut names = Vec::new();
    for node in desired.nodes.values() {
        match node {
            Node::Network(network) => names.push(network.bridge.clone()),
            Node::Workload(workload) => {
                if let Some(attachment) = &workload.attachment {
                    names.push(attachment.link.clone());
                    names.push(attachment.namespace.clone());
                }
            }
            _ => {}
        }
    }
    names
}

fn note_exit(
    memory: &mut crate::plan::memory::Memory,
    desired: &crate::graph::desired::Desired,
    life: &Life,
    last: LastExit,
) {
    let node = match desired.nodes.get(&life.id.node) {
        Some(Node::Workload(node)) => Some(node.as_ref()),
        _ => None,
    };
    let ready = node.is_some_and(|node| memory.is_ready(&node.ready, life));
    let served = ready.then(|| last.at.since(life.started));
    let restart = node.map(|node| &node.restart);
    let workload = memory.workloads.entry(life.id.node.clone()).or_default();
    workload.note_exit(last, served, restart);
}
