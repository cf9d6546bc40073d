//! The model of a host, and a farm by hand.
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
use super::super::model::{Gate, Plan, Step};
use super::super::world::{
    AttachmentView, BridgeView, Exit, FileView, Life, LifeState, Observed, Registered, RegistryView,
};
use crate::graph::desired::*;
use crate::spec::model::{
    Condition, Confirm, LogLimit, Registry, Restart, RestartPolicy, Signal, Status, Wait, WhenEmpty,
};
use crate::spec::node::{Kind, NodeId};
use crate::spec::time::Time;
use crate::template::{Instance, Snapshot};

const SOURCE: &str =
    "{% for i in service('prime') %}server {{ i.address }}:{{ i.port }};\n{% endfor %}";
pub fn run(command: &str, container: Option<ContainerRun>) -> Run {
    Run {
        command: vec![command.to_owned()],
        environment: BTreeMap::new(),
        user: None,
        working_dir: None,
        notify: false,
        container,
    }
}

pub fn restart() -> Restart {
    Restart {
        policy: RestartPolicy::OnFailure,
        delay: Duration::from_secs(1),
        max_delay: Duration::from_secs(60),
        max_attempts: None,
        window: None,
        reset_after: Duration::from_secs(10),
    }
}

pub fn workload(id: NodeId, group: &str, replica: u32, run: Run) -> WorkloadNode {
    WorkloadNode {
        id,
        group: group.to_owned(),
        replica,
        run,
        watch: Vec::new(),
        restart: restart(),
        stop_signal: Signal(15),
        stop_grace_period: Duration::from_secs(10),
        ready: ReadyNode::Started,
        attachment: None,
        pre_start: Vec::new(),
        update: Default::default(),
        drain: Default::default(),
        ports: Default::default(),
        log: LogLimit {
            max_size: 1 << 20,
            max_files: 1,
        },
        identity: Default::default(),
    }
}

pub fn container(replica: u32, command: &str) -> WorkloadNode {
    let name = format!("prime{replica}");
    let namespace = format!("hatchery-t-{name}");
    let address = std::net::Ipv4Addr::new(10, 50, 0, u8::try_from(replica).unwrap() + 1);
    let run = run(
        command,
        Some(ContainerRun {
            hostname: name.clone(),
            machine: format!("t-{name}"),
            root: RootRun::Host,
            mounts: Vec::new(),
            tmpfs: Vec::new(),
            network: NetworkRun::Namespace(namespace.clone()),
            hosts: format!("/run/hatchery/t/hosts/{name}").into(),
        }),
    );
    let mut node = workload(
        NodeId::new(Kind::Containers, name.clone()),
        "prime",
        replica,
        run,
    );
    node.attachment = Some(Attachment {
        network: "prime0".to_owned(),
        bridge: "prime0".to_owned(),
        namespace,
        link: name,
        address,
        prefix: 24,
        gateway: std::net::Ipv4Addr::new(10, 50, 0, 1),
        firewall: None,
    });
    node
}

/// The farm, by hand: registry, bridge, containers, endpoints, template, nginx.
pub fn farm(replicas: u32, command: &str) -> Desired {
    let mut nodes = indexmap::IndexMap::new();
    let mut needs = BTreeMap::new();
    let need = |on: &NodeId| Need {
        on: on.clone(),
        condition: Condition::Started,
    };
    let registry = NodeId::registry();
    nodes.insert(registry.clone(), Node::Registry(Registry::default()));
    let network = NodeId::new(Kind::Networks, "prime0");
    nodes.insert(
        network.clone(),
        Node::Network(NetworkNode {
            name: "prime0".to_owned(),
            bridge: "prime0".to_owned(),
            subnet: "10.50.0.0/24".parse().unwrap(),
            gateway: std::net::Ipv4Addr::new(10, 50, 0, 1),
            forward: false,
        }),
    );
    let template = NodeId::new(Kind::Templates, "upstream");
    let mut template_needs = vec![need(&registry)];
    for replica in 1..=replicas {
        let node = container(replica, command);
        let endpoint = NodeId::endpoint("prime", &node.id.name);
        needs.insert(node.id.clone(), vec![need(&network)]);
        needs.insert(endpoint.clone(), vec![need(&registry), need(&node.id)]);
        template_needs.push(need(&endpoint));
        nodes.insert(
            endpoint,
            Node::Endpoint(EndpointNode {
                service: "prime".to_owned(),
                service_id: format!("t-prime-{}", node.id.name),
                target: Some(node.id.clone()),
                address: node.attachment.as_ref().unwrap().address.to_string(),
                port: 8080,
                tags: Vec::new(),
                meta: BTreeMap::new(),
                checks: Vec::new(),
            }),
        );
        nodes.insert(node.id.clone(), Node::Workload(Box::new(node)));
    }
    // Endpoints follow their targets.
    nodes.sort_by(|a, _, b, _| (a.kind == Kind::Services).cmp(&(b.kind == Kind::Services)));
    nodes.insert(template.clone(), Node::Template(Box::new(upstream())));
    needs.insert(template.clone(), template_needs);
    let nginx = NodeId::new(Kind::Processes, "nginx");
    nodes.insert(
        nginx.clone(),
        Node::Workload(Box::new(workload(
            nginx.clone(),
            "nginx",
            1,
            run("nginx", None),
        ))),
    );
    needs.insert(nginx, vec![need(&template)]);
    Desired {
        nodes,
        needs,
        ..nothing()
    }
}

fn nothing() -> Desired {
    Desired {
        stack: "t".to_owned(),
        spec_dir: "/spec".into(),
        dirs: Dirs {
            run: "/run".into(),
            state: "/state".into(),
            log: "/log".into(),
        },
        requires: Vec::new(),
        nodes: indexmap::IndexMap::new(),
        needs: BTreeMap::new(),
        waves: Default::default(),
        vars: indexmap::IndexMap::new(),
        pairs: BTreeMap::new(),
    }
}

pub fn upstream() -> TemplateNode {
    TemplateNode {
        name: "upstream".to_owned(),
        source: "/spec/upstream.j2".into(),
        destination: "/etc/upstream.conf".into(),
        mode: 0o644,
        owner: None,
        validate: Some(vec!["nginx".to_owned(), "-t".to_owned()]),
        reload: Some(ReloadNode::Signal {
            process: NodeId::new(Kind::Processes, "nginx"),
            signal: Signal(1),
            confirm: Confirm::NewChild,
        }),
        wait: Wait {
            min: Duration::from_millis(5),
            max: Duration::from_millis(20),
        },
        when_empty: WhenEmpty::Keep,
        reads: vec!["prime".to_owned()],
    }
}

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
        let instances = self
            .observed
            .registered
            .iter()
            .filter_map(|(id, registered)| {
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
            Step::Start(start) => observed.lives.push(Life {
                id: start.id.clone(),
                identity: start.identity.clone(),
                started: self.now,
                state: LifeState::Up,
                main_pid: 1,
                leader_pid: 1,
                notified: false,
                applied: start.applied.clone(),
                cgroup: PathBuf::new(),
                farewell: Some(start.farewell.clone()),
            }),
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
            Step::ReloadProcess { life, applied, .. } => {
                for other in &mut observed.lives {
                    if other.id == *life {
                        other.applied.clone_from(applied);
                    }
                }
            }
            step => self.apply_to_network(step),
        }
    }

    fn apply_to_network(&mut self, step: &Step) {
        let observed = &mut self.observed;
        match step {
            Step::OpenRegistry(registry) => {
                observed.registry = RegistryView {
                    up: true,
                    http: registry.http,
                };
            }
            Step::CreateNetwork(network) => {
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
        let memory = self.memory.workloads.entry(node.clone()).or_default();
        memory.failures = if asked { 0 } else { memory.failures + 1 };
        memory.last_exit = Some(LastExit {
            exit,
            at: now,
            incarnation: life.id.incarnation,
            asked,
        });
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
