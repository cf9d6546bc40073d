//! A host in the mind: it does at once whatever a plan tells it, and everything goes well. A spec
//! that is rehearsed on it until nothing is outstanding leaves the world in which that spec is
//! in force, and another spec can be planned from there without any host at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::registration_hash;
use super::firewall;
use super::memory::{LastExit, Memory};
use super::model::{Gate, Note, Plan, Start, Step};
use super::world::{
    AttachmentView, BridgeView, Exit, FileMark, FileView, Life, LifeId, LifeState, Observed,
    Registered, RegistryView,
};
use crate::graph::desired::{Desired, EndpointNode, Node, ReadyNode};
use crate::spec::model::{Condition, Status};
use crate::spec::node::NodeId;
use crate::spec::time::Time;
use crate::template::{Instance, Snapshot};

/// When it begins; any time does, but nothing may lie before the boot.
const BEGIN: Time = Time(1_000_000_000_000);

/// The host, and what its controller remembers.
#[derive(Debug)]
pub struct Rehearsal {
    /// What the world is to be.
    pub desired: Desired,
    /// What there is.
    pub observed: Observed,
    /// What is remembered.
    pub memory: Memory,
    /// The time.
    pub now: Time,
    /// What was written where.
    pub contents: BTreeMap<PathBuf, String>,
}

impl Rehearsal {
    /// An empty host, on which these template sources and files that templates read lie.
    pub fn new(desired: Desired, sources: BTreeMap<PathBuf, Result<String, String>>) -> Rehearsal {
        let mut observed = Observed::default();
        observed.inputs.files = sources;
        observed.inputs.vars = desired.vars.clone();
        observed.inputs.spec_dir = desired.spec_dir.clone();
        let mut rehearsal = Rehearsal {
            desired,
            observed,
            memory: Memory::default(),
            now: BEGIN,
            contents: BTreeMap::new(),
        };
        rehearsal.look();
        rehearsal
    }

    /// Another spec takes the place of the one before.
    pub fn edit(&mut self, desired: Desired) {
        for (node, needs) in &self.desired.needs {
            let on = needs.iter().map(|need| need.on.clone()).collect();
            self.memory.past_needs.insert(node.clone(), on);
        }
        self.desired = desired;
    }

    /// A file that somebody else wrote.
    pub fn put(&mut self, path: &Path, content: &str) {
        self.write(path, content, None);
    }

    /// Brings the catalog in line with what runs.
    pub fn look(&mut self) {
        let up: BTreeSet<&NodeId> = self
            .observed
            .lives
            .iter()
            .filter(|life| life.state == LifeState::Up)
            .map(|life| &life.id.node)
            .collect();
        let endpoints: BTreeMap<&str, &EndpointNode> = self
            .desired
            .nodes
            .values()
            .filter_map(|node| match node {
                Node::Endpoint(endpoint) => Some((endpoint.service_id.as_str(), endpoint)),
                _ => None,
            })
            .collect();
        let mut snapshot = Snapshot::default();
        let registered: BTreeMap<_, _> = self.observed.registered.iter().collect();
        for (id, registered) in registered {
            let endpoint = endpoints.get(id.as_str());
            let target = registered.target.as_ref();
            let passes = target.is_none_or(|target| up.contains(target));
            let instances = snapshot.services.entry(registered.service.clone());
            instances.or_default().push(Instance {
                id: id.clone(),
                name: registered.service.clone(),
                address: endpoint.map_or_else(|| "gone".to_owned(), |one| one.address.clone()),
                port: endpoint.map_or(1, |one| one.port),
                tags: endpoint.map_or_else(Vec::new, |one| one.tags.clone()),
                meta: BTreeMap::new(),
                node: "host".to_owned(),
                status: if passes {
                    Status::Passing
                } else {
                    Status::Critical
                },
            });
        }
        self.observed.catalog = Arc::new(snapshot);
        self.count_connections();
    }

    /// Nobody is connected to anything that drains.
    fn count_connections(&mut self) {
        let draining = self.memory.draining.keys();
        self.observed.connections = draining.map(|life| (life.clone(), 0)).collect();
        self.memory
            .count_connections(&self.observed.connections, self.now);
    }

    /// What is outstanding now; only looks.
    pub fn plan(&self) -> Plan {
        super::plan(&self.desired, &self.observed, &self.memory, self.now)
    }

    /// One pass: everything that is ready is done; the clock goes to the next wake. What a
    /// template lacks is asked of `read`.
    pub fn pass(&mut self, read: &dyn Fn(&Path) -> Result<String, String>) -> Plan {
        self.look();
        let plan = self.plan();
        self.memory.absorb(&plan.notes, self.now);
        for path in &plan.notes.lacks {
            let text = read(path);
            self.observed.inputs.files.insert(path.clone(), text);
        }
        let ready = || plan.items.iter().filter(|item| item.gate == Gate::Ready);
        for step in ready().flat_map(|item| &item.steps) {
            self.apply(step);
        }
        self.settle();
        self.wait(&plan, ready().next().is_some());
        plan
    }

    /// The clock goes to the plan's wake if it has nothing else to do.
    pub fn wait(&mut self, plan: &Plan, busy: bool) {
        self.now = match plan.wake {
            Some(wake) if wake > self.now && !busy => wake,
            _ => self.now + Duration::from_millis(1),
        };
    }

    /// Passes until nothing is outstanding; whether `most` were enough.
    pub fn converge(
        &mut self,
        most: usize,
        read: &dyn Fn(&Path) -> Result<String, String>,
    ) -> bool {
        (0..most).any(|_| self.pass(read).is_empty())
    }

    /// What is about lives that are gone is forgotten.
    pub fn settle(&mut self) {
        let there: BTreeSet<&LifeId> = self.observed.lives.iter().map(|life| &life.id).collect();
        let memory = &mut self.memory;
        memory.ready.retain(|life| there.contains(life));
        memory.asked.retain(|life, _| there.contains(life));
        memory.restart.retain(|life| there.contains(life));
        memory.late.retain(|life| there.contains(life));
    }

    /// Does one step.
    pub fn apply(&mut self, step: &Step) {
        let observed = &mut self.observed;
        match step {
            Step::Rewrite { path, content } => self.write(path, content, None),
            Step::Start(start) => self.start(start),
            Step::Signal { life, .. } | Step::Kill(life) => {
                self.memory.asked.entry(life.clone()).or_insert(self.now);
                let life = life.clone();
                self.exit(&life, Exit::Signal(15));
            }
            Step::Clear(life) => observed.lives.retain(|other| other.id != *life),
            Step::Register(endpoint) => {
                let registered = Registered {
                    hash: registration_hash(endpoint),
                    service: endpoint.service.clone(),
                    target: endpoint.target.clone(),
                };
                let id = endpoint.service_id.clone();
                observed.registered.insert(id, registered);
            }
            Step::Deregister(id) => {
                observed.registered.remove(id);
            }
            Step::Validate { key, .. } => {
                let nothing = String::new();
                self.memory.judge(key.clone(), true, nothing, self.now);
            }
            Step::Write(file) => self.write(&file.path, &file.content, file.mark.clone()),
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
                for told in lives.filter(|other| other.id == *life) {
                    told.applied.clone_from(applied);
                }
            }
            Step::ReloadCommand { applied, .. } => {
                for (template, hash) in applied {
                    let memory = self.memory.templates.entry(template.clone()).or_default();
                    memory.told = Some(hash.clone());
                }
            }
            step => self.apply_to_network(step),
        }
    }

    fn start(&mut self, start: &Start) {
        let node = start.id.node.clone();
        self.observed.lives.push(Life {
            commit: None,
            id: start.id.clone(),
            identity: start.identity.clone(),
            started: self.now,
            state: LifeState::Up,
            main_pid: 1,
            leader_pid: 1,
            notified: true,
            applied: start.applied.clone(),
            cgroup: PathBuf::new(),
            farewell: Some(start.farewell.clone()),
            asked: false,
            late: false,
        });
        if let Some(Node::Workload(workload)) = self.desired.nodes.get(&node)
            && matches!(workload.ready, ReadyNode::Check { .. })
        {
            self.memory.ready.insert(start.id.clone());
        }
        let mut needs = self.desired.needs.values().flatten();
        if needs.any(|need| need.on == node && need.condition == Condition::Completed) {
            self.exit(&start.id, Exit::Code(0));
        }
    }

    fn apply_to_network(&mut self, step: &Step) {
        let observed = &mut self.observed;
        let attachments = &mut observed.network.attachments;
        match step {
            Step::OpenRegistry(registry) => {
                observed.registry = RegistryView::opened(registry);
            }
            Step::CreateNetwork(network) => {
                let address = ipnet::Ipv4Net::new(network.gateway, network.subnet.prefix_len());
                let view = BridgeView {
                    ours: true,
                    up: true,
                    addresses: address.into_iter().collect(),
                    holder: String::new(),
                };
                observed.network.forward |= network.forward;
                let bridge = network.bridge.clone();
                observed.network.bridges.insert(bridge, view);
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
                attachments.insert(wanted.namespace.clone(), view);
            }
            Step::Firewall {
                namespace,
                firewall,
            } => {
                if let Some(view) = attachments.get_mut(namespace) {
                    view.firewall = firewall.as_ref().map(firewall::hash);
                }
            }
            Step::Detach(namespace) => {
                attachments.remove(namespace);
            }
            _ => {}
        }
    }

    /// A life ends.
    pub fn exit(&mut self, id: &LifeId, exit: Exit) {
        let now = self.now;
        let mut lives = self.observed.lives.iter_mut();
        let Some(life) = lives.find(|life| life.id == *id) else {
            return;
        };
        life.state = LifeState::Ended { exit, at: now };
        let asked = self.memory.asked.contains_key(id) || self.memory.restart.contains(id);
        let memory = self.memory.workloads.entry(id.node.clone()).or_default();
        memory.failures = if asked { 0 } else { memory.failures + 1 };
        memory.last_exit = Some(LastExit {
            exit,
            at: now,
            incarnation: id.incarnation,
            asked,
            late: false,
        });
    }

    fn write(&mut self, path: &Path, content: &str, mark: Option<FileMark>) {
        let hash = blake3::hash(content.as_bytes()).to_hex().to_string();
        let mode = 0o644;
        let view = FileView::File { hash, mark, mode };
        self.observed.files.insert(path.to_owned(), view);
        self.contents.insert(path.to_owned(), content.to_owned());
    }
}
