//! The model of a host.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::endpoint::registration_hash;
use super::super::memory::{LastExit, Memory};
use super::super::model::{Gate, Note, Plan, Start, Step};
use super::super::world::{
    AttachmentView, BridgeView, Exit, FileView, Life, LifeState, Observed, Registered, RegistryView,
};
pub use super::farm::*;
use crate::graph::desired::{Desired, Node};
use crate::spec::model::Status;
use crate::spec::node::NodeId;
use crate::spec::time::Time;
use crate::template::{Instance, Snapshot};

const SOURCE: &str =
    "{% for i in service('prime') %}server {{ i.address }}:{{ i.port }};\n{% endfor %}";
/// A host that does at once what it is told.
pub struct World {
    pub desired: Desired,
    pub observed: Observed,
    pub memory: Memory,
    pub now: Time,
    /// Every step, in order.
    pub done: Vec<Step>,
    /// What the validator answers.
    pub accepts: bool,
    /// Instances that do not pass.
    pub sick: BTreeSet<String>,
    /// Established connections by instance; none where nothing is said.
    pub connections: BTreeMap<String, u32>,
}

fn begun(start: &Start, now: Time) -> Life {
    Life {
        commit: None,
        id: start.id.clone(),
        identity: start.identity.clone(),
        started: now,
        state: LifeState::Up,
        main_pid: 1,
        leader_pid: 1,
        notified: false,
        applied: start.applied.clone(),
        cgroup: PathBuf::new(),
        farewell: Some(start.farewell.clone()),
        asked: false,
        late: false,
    }
}

impl World {
    pub fn new(desired: Desired) -> World {
        let mut observed = Observed::default();
        observed
            .inputs
            .files
            .insert("/spec/upstream.j2".into(), Ok(SOURCE.to_owned()));
        World {
            desired,
            observed,
            memory: Memory::default(),
            now: Time(1_000_000_000_000),
            done: Vec::new(),
            accepts: true,
            sick: BTreeSet::new(),
            connections: BTreeMap::new(),
        }
    }

    pub fn look(&mut self) {
        let up: BTreeSet<&NodeId> = self
            .observed
            .lives
            .iter()
            .filter(|life| life.state == LifeState::Up)
            .map(|life| &life.id.node)
            .collect();
        let registered: BTreeMap<_, _> = self.observed.registered.iter().collect();
        let instances = registered.into_iter().filter_map(|(id, registered)| {
            let target = registered.target.as_ref()?;
            let passing = up.contains(target) && !self.sick.contains(&target.name);
            Some(Instance {
                id: id.clone(),
                name: registered.service.clone(),
                address: format!("addr-{}", target.name),
                port: 8080,
                tags: Vec::new(),
                meta: BTreeMap::new(),
                node: "host".to_owned(),
                status: if passing {
                    Status::Passing
                } else {
                    Status::Critical
                },
            })
        });
        let mut snapshot = Snapshot::default();
        snapshot
            .services
            .insert("prime".to_owned(), instances.collect());
        self.observed.catalog = Arc::new(snapshot);
    }

    pub fn plan(&mut self) -> Plan {
        self.look();
        self.observed.connections = self
            .memory
            .draining
            .keys()
            .map(|life| (life.clone(), self.connections.get(&life.node.name)))
            .map(|(life, count)| (life, count.copied().unwrap_or(0)))
            .collect();
        let connections = self.observed.connections.clone();
        self.memory.count_connections(&connections, self.now);
        let plan = crate::plan::plan(&self.desired, &self.observed, &self.memory, self.now);
        self.memory.absorb(&plan.notes, self.now);
        plan
    }

    /// One pass: everything that is ready is done; the clock goes to the next wake.
    pub fn pass(&mut self) -> Plan {
        let plan = self.plan();
        for item in &plan.items {
            if item.gate == Gate::Ready {
                for step in &item.steps {
                    self.apply(step);
                }
            }
        }
        let busy = plan.items.iter().any(|item| item.gate == Gate::Ready);
        self.now = match plan.wake {
            Some(wake) if wake > self.now && !busy => wake,
            _ => self.now + Duration::from_millis(1),
        };
        plan
    }

    pub fn converge(&mut self) -> usize {
        for passes in 0..200 {
            if self.pass().is_empty() {
                return passes;
            }
        }
        let plan = self.plan();
        panic!("no empty plan after 200 passes: {:#?}", plan.items);
    }

    pub fn apply(&mut self, step: &Step) {
        self.done.push(step.clone());
        let observed = &mut self.observed;
        match step {
            Step::Rewrite { path, content } => put(observed, path, content, None),
            Step::Start(start) => observed.lives.push(begun(start, self.now)),
            Step::Signal { life, .. } | Step::Kill(life) => {
                self.memory.asked.entry(life.clone()).or_insert(self.now);
                let node = life.node.clone();
                self.exit(&node, Exit::Signal(15));
            }
            Step::Clear(life) => observed.lives.retain(|other| other.id != *life),
            Step::Register(endpoint) => {
                observed.registered.insert(
                    endpoint.service_id.clone(),
                    Registered {
                        hash: registration_hash(endpoint),
                        service: endpoint.service.clone(),
                        target: endpoint.target.clone(),
                    },
                );
            }
            Step::Deregister(id) => {
                observed.registered.remove(id);
            }
            Step::Validate { key, .. } => {
                self.memory
                    .judge(key.clone(), self.accepts, "no".to_owned(), self.now);
            }
            Step::Write(file) => put(observed, &file.path, &file.content, file.mark.clone()),
            Step::RemoveFile { path, .. } => {
                observed.files.insert(path.clone(), FileView::Missing);
            }
            Step::Note { life, note } => {
                let lives = observed.lives.iter_mut();
                for noted in lives.filter(|other| other.id == *life) {
                    match note {
                        Note::Applied(applied) => noted.applied.clone_from(applied),
                        Note::Farewell(farewell) => noted.farewell = Some(farewell.clone()),
                    }
                }
            }
            Step::ReloadProcess { life, applied, .. } => {
                let lives = observed.lives.iter_mut();
                for other in lives.filter(|other| other.id == *life) {
                    other.applied.clone_from(applied);
                }
            }
            Step::ReloadCommand { applied, .. } => {
                for (name, hash) in applied {
                    let memory = self.memory.templates.entry(name.clone()).or_default();
                    memory.told = Some(hash.clone());
                }
            }
            step => self.apply_to_network(step),
        }
    }

    fn apply_to_network(&mut self, step: &Step) {
        let observed = &mut self.observed;
        match step {
            Step::OpenRegistry(registry) => {
                observed.registry = RegistryView::opened(registry);
            }
            Step::CreateNetwork(network) => {
                observed.network.forward |= network.forward;
                let address = ipnet::Ipv4Net::new(network.gateway, network.subnet.prefix_len());
                observed.network.bridges.insert(
                    network.bridge.clone(),
                    BridgeView {
                        ours: true,
                        up: true,
                        addresses: vec![address.unwrap()],
                        holder: String::new(),
                    },
                );
            }
            Step::RemoveNetwork(bridge) => {
                observed.network.bridges.remove(bridge);
            }
            Step::Attach(wanted) => {
                let view = AttachmentView {
                    namespace: true,
                    link: Some((wanted.link.clone(), Some(wanted.bridge.clone()))),
                    address: ipnet::Ipv4Net::new(wanted.address, wanted.prefix).ok(),
                    gateway: Some(wanted.gateway),
                    firewall: None,
                    foreign: None,
                };
                observed
                    .network
                    .attachments
                    .insert(wanted.namespace.clone(), view);
            }
            Step::Firewall {
                namespace,
                firewall,
            } => {
                if let Some(view) = observed.network.attachments.get_mut(namespace) {
                    view.firewall = firewall.as_ref().map(crate::plan::firewall::hash);
                }
            }
            Step::Detach(namespace) => {
                observed.network.attachments.remove(namespace);
            }
            _ => {}
        }
    }

    /// The newest life of a node ends.
    pub fn exit(&mut self, node: &NodeId, exit: Exit) {
        let now = self.now;
        let life = self
            .observed
            .lives
            .iter_mut()
            .rev()
            .find(|life| life.id.node == *node);
        let Some(life) = life else { return };
        life.state = LifeState::Ended { exit, at: now };
        let asked = !self.memory.late.contains(&life.id)
            && (self.memory.asked.contains_key(&life.id) || self.memory.restart.contains(&life.id));
        let restart = match self.desired.nodes.get(node) {
            Some(Node::Workload(workload)) => Some(&workload.restart),
            _ => None,
        };
        let last = LastExit {
            exit,
            at: now,
            incarnation: life.id.incarnation,
            asked,
            late: false,
        };
        let memory = self.memory.workloads.entry(node.clone()).or_default();
        memory.note_exit(last, Some(now.since(life.started)), restart);
    }

    pub fn edit(&mut self, desired: Desired) {
        for (node, needs) in &self.desired.needs {
            let on = needs.iter().map(|need| need.on.clone()).collect();
            self.memory.past_needs.insert(node.clone(), on);
        }
        self.desired = desired;
        self.done.clear();
    }

    pub fn lives(&self) -> BTreeMap<String, u64> {
        self.observed
            .lives
            .iter()
            .filter(|life| life.state == LifeState::Up)
            .map(|life| (life.id.node.to_string(), life.id.incarnation))
            .collect()
    }

    pub fn file(&self) -> &FileView {
        &self.observed.files[&PathBuf::from("/etc/upstream.conf")]
    }
}

pub fn put(
    observed: &mut Observed,
    path: &std::path::Path,
    content: &str,
    mark: Option<crate::plan::world::FileMark>,
) {
    let hash = blake3::hash(content.as_bytes()).to_hex().to_string();
    observed.files.insert(
        path.to_owned(),
        FileView::File {
            hash,
            mark,
            mode: 0o644,
        },
    );
}
