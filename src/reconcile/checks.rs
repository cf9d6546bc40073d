//! Which checks are asked, about which life, and what holds until they have answered.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::controller::Controller;
use super::schedule::{Wanted, Watched};
use crate::graph::desired::{CheckNode, Node, ProbeNode, ReadyNode};
use crate::health::First;
use crate::plan::world::{Life, LifeState, Observed};
use crate::planted::{self, Bug};
use crate::spec::model::Status;
use crate::spec::node::NodeId;
use crate::spec::time::Time;

/// What is said of a check that nobody has asked yet.
const UNCHECKED: &str = "not checked yet";

impl Controller {
    /// What an endpoint's checks said about an earlier life says nothing about this one.
    pub(super) fn forget_answers(&self, newest: &HashMap<&NodeId, &Life>) {
        let now = self.host.clock.now();
        for node in self.desired.nodes.values() {
            let Node::Endpoint(endpoint) = node else {
                continue;
            };
            let target = endpoint.target.as_ref();
            let Some(life) = target.and_then(|target| newest.get(target)) else {
                continue;
            };
            for check in &endpoint.checks {
                let asked = self.watched.get(&check.id).map(|asked| asked.since);
                if matches!(check.probe, ProbeNode::Ttl(_)) || asked == Some(life.started) {
                    continue;
                }
                self.host.catalog.with(|catalog| {
                    // One that is not registered yet begins critical.
                    let _ = catalog.set_check(&check.id, Status::Critical, UNCHECKED, now);
                });
            }
        }
    }

    /// Tells the monitors what is to be asked from now on.
    pub(super) fn set_monitors(&mut self) {
        let up: BTreeMap<&NodeId, &Life> = self
            .observed
            .lives
            .iter()
            .filter(|life| life.state == LifeState::Up)
            .map(|life| (&life.id.node, life))
            .collect();
        let mut wanted = match planted::has(Bug::ReusedPid) {
            true => self.watched.clone(),
            false => Wanted::new(),
        };
        let mut rounds = self.rounds;
        let mut announced: Vec<(&CheckNode, Option<&Life>)> = Vec::new();
        for node in self.desired.nodes.values() {
            match node {
                Node::Workload(workload) => {
                    let (ReadyNode::Check { check, .. }, Some(life)) =
                        (&workload.ready, up.get(&workload.id))
                    else {
                        continue;
                    };
                    if !self.memory.ready.contains(&life.id) {
                        self.watch(&mut wanted, &mut rounds, check, Some(life));
                    }
                }
                Node::Endpoint(endpoint) => {
                    let life = endpoint
                        .target
                        .as_ref()
                        .map(|target| up.get(target).copied());
                    if life == Some(None)
                        || !self.observed.registered.contains_key(&endpoint.service_id)
                    {
                        continue;
                    }
                    let checks = endpoint.checks.iter();
                    announced.extend(checks.map(|check| (check, life.flatten())));
                }
                _ => {}
            }
        }
        // An answer about what the registry does not know yet would be lost.
        self.host.catalog.read(|catalog| {
            announced.retain(|(check, _)| catalog.check_status(&check.id).is_some());
        });
        for (check, life) in announced {
            self.watch(&mut wanted, &mut rounds, check, life);
        }
        if self.memory.down.is_some() {
            wanted.clear();
        }
        let now = self.host.clock.now();
        for (id, watched) in &wanted {
            let same = self.watched.get(id).is_some_and(|before| {
                before.since == watched.since && before.round == watched.round
            });
            if !same && !matches!(watched.check.probe, ProbeNode::Ttl(_)) {
                self.host.catalog.with(|catalog| {
                    // A readiness check has no entry in the catalog.
                    let _ = catalog.set_check(id, Status::Critical, UNCHECKED, now);
                });
            }
        }
        self.rounds = rounds;
        if wanted != self.watched {
            self.watched = wanted;
            self.rewatch = true;
        }
    }

    fn watch(&self, wanted: &mut Wanted, rounds: &mut u64, check: &CheckNode, life: Option<&Life>) {
        let first = if self.memory.unchecked.contains(&check.id) {
            First::Adopted
        } else {
            First::Started
        };
        // What is known of it matters only when its monitor begins; afterwards it stays as it
        // was, so that nothing starts anew.
        let (first, round) = match self.watched.get(&check.id) {
            Some(before) => (before.first, before.round),
            None => {
                *rounds += 1;
                (first, *rounds)
            }
        };
        let watched = Watched {
            check: check.clone(),
            pid: life.map(|life| life.main_pid).filter(|pid| *pid > 0),
            since: life.map_or(Time(0), |life| life.started),
            round,
            first,
        };
        wanted.insert(check.id.clone(), watched);
    }

    /// Forgets checks that need not be waited for any more: their instance ended, or its
    /// heartbeat came, or had its whole TTL to come.
    pub(super) fn settle_unchecked(&mut self) {
        if self.memory.unchecked.is_empty() {
            return;
        }
        let still = unchecked(&self.desired, &self.observed);
        self.memory.unchecked.retain(|id| still.contains(id));
        let now = self.host.clock.now();
        let mut wake = None;
        for node in self.desired.nodes.values() {
            let Node::Endpoint(endpoint) = node else {
                continue;
            };
            for check in &endpoint.checks {
                let ProbeNode::Ttl(ttl) = check.probe else {
                    continue;
                };
                let status = self
                    .host
                    .catalog
                    .read(|catalog| catalog.check_status(&check.id).map(|(status, _)| status));
                let beaten = status.is_some_and(|status| status != Status::Critical);
                let end = self.began + ttl;
                if beaten || now >= end {
                    self.memory.unchecked.remove(&check.id);
                } else if self.memory.unchecked.contains(&check.id) {
                    wake = Some(wake.map_or(end, |wake: Time| wake.min(end)));
                }
            }
        }
        self.heartbeats_due = wake;
    }
}

/// Checks of everything that serves already when a controller begins: nothing is rendered
/// before each of them has answered once.
pub(super) fn unchecked(
    desired: &crate::graph::desired::Desired,
    observed: &Observed,
) -> BTreeSet<String> {
    let up: BTreeSet<&NodeId> = observed
        .lives
        .iter()
        .filter(|life| life.state == LifeState::Up)
        .map(|life| &life.id.node)
        .collect();
    let mut unchecked = BTreeSet::new();
    for node in desired.nodes.values() {
        match node {
            Node::Workload(workload) if up.contains(&workload.id) => {
                if let ReadyNode::Check { check, .. } = &workload.ready {
                    unchecked.insert(check.id.clone());
                }
            }
            Node::Endpoint(endpoint)
                if endpoint
                    .target
                    .as_ref()
                    .is_none_or(|target| up.contains(target)) =>
            {
                unchecked.extend(endpoint.checks.iter().map(|check| check.id.clone()));
            }
            _ => {}
        }
    }
    unchecked
}
