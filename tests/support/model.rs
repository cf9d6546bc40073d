//! A model of a host that does at once what a plan tells it, on the public types alone. It shows
//! the planner a world, and answers as a host would: what was started runs, what was asked to end
//! ends, checks of what runs pass.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hatchery::graph::desired::{Desired, Dirs, EndpointNode, Node, ReadyNode};
use hatchery::graph::{self, CompileInputs};
use hatchery::plan::endpoint::registration_hash;
use hatchery::plan::firewall;
use hatchery::plan::memory::{LastExit, Memory};
use hatchery::plan::model::{Gate, Note, Plan, Start, Step};
use hatchery::plan::world::{
    AttachmentView, BridgeView, Exit, FileMark, FileView, Life, LifeId, LifeState, Observed,
    Registered, RegistryView,
};
use hatchery::spec::model::Status;
use hatchery::spec::node::NodeId;
use hatchery::spec::time::Time;
use hatchery::spec::{Diagnostic, Places, model::Spec};
use hatchery::template::{Instance, Snapshot};

/// The folder that every spec here is said to be in.
pub const SPEC_DIR: &str = "/spec";

/// A program that does its work and ends well; all others run on.
pub const ONCE: &str = "/bin/once";

/// What compiling needs beside the spec: `templates` by the names of their files.
pub fn inputs(stack: &str, templates: &BTreeMap<&str, &str>) -> CompileInputs {
    let folder = |of: &str| PathBuf::from(format!("/{of}/hatchery/{stack}"));
    CompileInputs {
        spec_dir: SPEC_DIR.into(),
        tree: None,
        dirs: Dirs {
            run: folder("run"),
            state: folder("var/lib"),
            log: folder("var/log"),
        },
        env: Default::default(),
        template_sources: templates
            .iter()
            .map(|(name, text)| (Path::new(SPEC_DIR).join(name), Ok((*text).to_owned())))
            .collect(),
        held: BTreeMap::new(),
    }
}

/// Reads and compiles a spec that has to be good.
pub fn compiled(text: &str, templates: &BTreeMap<&str, &str>) -> Desired {
    let (spec, places) = read(text).unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"));
    graph::compile(&spec, &places, &inputs(&spec.name, templates))
        .unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"))
}

/// Reads and validates a spec.
pub fn read(text: &str) -> Result<(Spec, Places), Vec<Diagnostic>> {
    hatchery::spec::read("spec.yaml", text)
}

/// The host, and what its controller remembers.
pub struct Model {
    pub desired: Desired,
    pub observed: Observed,
    pub memory: Memory,
    pub now: Time,
    /// Every step that was done, in order.
    pub done: Vec<Step>,
    /// Whether the steps that are done are kept.
    pub keeps: bool,
}

impl Model {
    /// An empty host.
    pub fn new(desired: Desired, templates: &BTreeMap<&str, &str>) -> Model {
        let mut observed = Observed::default();
        observed.inputs.files = inputs("", templates).template_sources;
        observed.inputs.vars = desired.vars.clone();
        observed.inputs.spec_dir = desired.spec_dir.clone();
        let mut model = Model {
            desired,
            observed,
            memory: Memory::default(),
            now: Time(1_000_000_000_000),
            done: Vec::new(),
            keeps: true,
        };
        model.save_watched();
        model.look();
        model
    }

    /// Another spec takes the place of the one before.
    pub fn edit(&mut self, desired: Desired) {
        for (node, needs) in &self.desired.needs {
            let on = needs.iter().map(|need| need.on.clone()).collect();
            self.memory.past_needs.insert(node.clone(), on);
        }
        self.desired = desired;
        self.done.clear();
        self.save_watched();
    }

    fn save_watched(&mut self) {
        for node in self.desired.nodes.values() {
            if let Node::Workload(workload) = node {
                for path in &workload.watch {
                    put(&mut self.observed, path, "watched", None);
                }
            }
        }
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
        hatchery::plan::plan(&self.desired, &self.observed, &self.memory, self.now)
    }

    /// One pass: everything that is ready is done; the clock goes to the next wake.
    pub fn pass(&mut self) -> Plan {
        self.look();
        let plan = self.plan();
        self.memory.absorb(&plan.notes, self.now);
        let mut busy = false;
        for item in plan.items.iter().filter(|item| item.gate == Gate::Ready) {
            busy = true;
            for step in &item.steps {
                self.apply(step);
            }
        }
        self.settle();
        self.now = match plan.wake {
            Some(wake) if wake > self.now && !busy => wake,
            _ => self.now + Duration::from_millis(1),
        };
        plan
    }

    /// Passes until nothing is outstanding; how many it took, `None` when `most` were not enough.
    pub fn converge(&mut self, most: usize) -> Option<usize> {
        (0..most).find(|_| self.pass().is_empty())
    }

    /// What is about lives that are gone is forgotten.
    fn settle(&mut self) {
        let there: BTreeSet<&LifeId> = self.observed.lives.iter().map(|life| &life.id).collect();
        let memory = &mut self.memory;
        memory.ready.retain(|life| there.contains(life));
        memory.asked.retain(|life, _| there.contains(life));
        memory.restart.retain(|life| there.contains(life));
        memory.late.retain(|life| there.contains(life));
    }

    /// Does one step.
    pub fn apply(&mut self, step: &Step) {
        if self.keeps {
            self.done.push(step.clone());
        }
        let observed = &mut self.observed;
        match step {
            Step::Rewrite { path, content } => put(observed, path, content, None),
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
        assert!(!self.runs(&node), "a second copy of {node} was started");
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
        });
        if let Some(Node::Workload(workload)) = self.desired.nodes.get(&node)
            && matches!(workload.ready, ReadyNode::Check { .. })
        {
            self.memory.ready.insert(start.id.clone());
        }
        if start.run.command.first().map(String::as_str) == Some(ONCE) {
            self.exit(&start.id, Exit::Code(0));
        }
    }

    /// Whether a life of this node is up.
    pub fn runs(&self, node: &NodeId) -> bool {
        let mut lives = self.observed.lives.iter();
        self.keeps && lives.any(|life| life.id.node == *node && life.state == LifeState::Up)
    }

    fn apply_to_network(&mut self, step: &Step) {
        let observed = &mut self.observed;
        let attachments = &mut observed.network.attachments;
        match step {
            Step::OpenRegistry(registry) => {
                observed.registry = RegistryView {
                    up: true,
                    http: registry.http,
                };
            }
            Step::CreateNetwork(network) => {
                let address = ipnet::Ipv4Net::new(network.gateway, network.subnet.prefix_len());
                let view = BridgeView {
                    ours: true,
                    up: true,
                    addresses: vec![address.unwrap()],
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

    /// What is up, by node.
    pub fn lives(&self) -> BTreeMap<NodeId, u64> {
        let up = self.observed.lives.iter();
        up.filter(|life| life.state == LifeState::Up)
            .map(|life| (life.id.node.clone(), life.id.incarnation))
            .collect()
    }
}

fn put(observed: &mut Observed, path: &Path, content: &str, mark: Option<FileMark>) {
    let hash = blake3::hash(content.as_bytes()).to_hex().to_string();
    let mode = 0o644;
    let view = FileView::File { hash, mark, mode };
    observed.files.insert(path.to_owned(), view);
}
