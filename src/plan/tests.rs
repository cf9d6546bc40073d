//! The planner against a model of the host: what it plans is done, and the world answers.
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

use proptest::prelude::*;

use super::endpoint::registration_hash;
use super::memory::{Attempt, Down, LastExit, Memory};
use super::model::{Change, ErrorKind, Gate, Plan, Step};
use super::world::{
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

fn run(command: &str, container: Option<ContainerRun>) -> Run {
    Run {
        command: vec![command.to_owned()],
        environment: BTreeMap::new(),
        user: None,
        working_dir: None,
        notify: false,
        container,
    }
}

fn restart() -> Restart {
    Restart {
        policy: RestartPolicy::OnFailure,
        delay: Duration::from_secs(1),
        max_delay: Duration::from_secs(60),
        max_attempts: None,
        reset_after: Duration::from_secs(10),
    }
}

fn workload(id: NodeId, group: &str, replica: u32, run: Run) -> WorkloadNode {
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
        log: LogLimit {
            max_size: 1 << 20,
            max_files: 1,
        },
    }
}

fn container(replica: u32, command: &str) -> WorkloadNode {
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
fn farm(replicas: u32, command: &str) -> Desired {
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
        stack: "t".to_owned(),
        spec_dir: "/spec".into(),
        dirs: Dirs {
            run: "/run".into(),
            state: "/state".into(),
            log: "/log".into(),
        },
        requires: Vec::new(),
        nodes,
        needs,
        waves: Vec::new(),
        vars: indexmap::IndexMap::new(),
    }
}

fn upstream() -> TemplateNode {
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
struct World {
    desired: Desired,
    observed: Observed,
    memory: Memory,
    now: Time,
    /// Every step, in order.
    done: Vec<Step>,
    /// What the validator answers.
    accepts: bool,
    /// Instances that do not pass.
    sick: BTreeSet<String>,
}

impl World {
    fn new(desired: Desired) -> World {
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

    fn look(&mut self) {
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

    fn plan(&mut self) -> Plan {
        self.look();
        let plan = super::plan(&self.desired, &self.observed, &self.memory, self.now);
        self.memory.absorb(&plan.notes, self.now);
        plan
    }

    /// One pass: everything that is ready is done; the clock goes to the next wake.
    fn pass(&mut self) -> Plan {
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

    fn converge(&mut self) -> usize {
        for passes in 0..200 {
            if self.pass().is_empty() {
                return passes;
            }
        }
        let plan = self.plan();
        panic!("no empty plan after 200 passes: {:#?}", plan.items);
    }

    fn apply(&mut self, step: &Step) {
        self.done.push(step.clone());
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
            Step::Firewall { .. }
            | Step::PortFree(_)
            | Step::PreStart { .. }
            | Step::ReloadCommand { .. } => {}
        }
    }

    /// The newest life of a node ends.
    fn exit(&mut self, node: &NodeId, exit: Exit) {
        let now = self.now;
        let life = self
            .observed
            .lives
            .iter_mut()
            .rev()
            .find(|life| life.id.node == *node);
        let Some(life) = life else { return };
        life.state = LifeState::Ended { exit, at: now };
        let asked =
            self.memory.asked.contains_key(&life.id) || self.memory.restart.contains(&life.id);
        let memory = self.memory.workloads.entry(node.clone()).or_default();
        memory.failures = if asked { 0 } else { memory.failures + 1 };
        memory.last_exit = Some(LastExit {
            exit,
            at: now,
            incarnation: life.id.incarnation,
            asked,
        });
    }

    fn edit(&mut self, desired: Desired) {
        for (node, needs) in &self.desired.needs {
            let on = needs.iter().map(|need| need.on.clone()).collect();
            self.memory.past_needs.insert(node.clone(), on);
        }
        self.desired = desired;
        self.done.clear();
    }

    fn lives(&self) -> BTreeMap<String, u64> {
        self.observed
            .lives
            .iter()
            .filter(|life| life.state == LifeState::Up)
            .map(|life| (life.id.node.to_string(), life.id.incarnation))
            .collect()
    }

    fn file(&self) -> &FileView {
        &self.observed.files[&PathBuf::from("/etc/upstream.conf")]
    }
}

fn put(
    observed: &mut Observed,
    path: &std::path::Path,
    content: &str,
    mark: Option<super::world::FileMark>,
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

#[test]
fn the_first_plan_adds_everything_and_says_what_waits() {
    let mut world = World::new(farm(4, "python3"));
    let plan = world.plan();
    assert_eq!(plan.counts(), (12, 0, 0));
    let nginx = plan
        .items
        .iter()
        .find(|item| item.node.name == "nginx")
        .unwrap();
    assert_eq!(
        nginx.gate,
        Gate::Waiting(vec!["templates/upstream".to_owned()])
    );
    let template = plan
        .items
        .iter()
        .find(|item| item.node.kind == Kind::Templates)
        .unwrap();
    let unknown = template.diff.as_ref().unwrap().unknown.as_deref().unwrap();
    assert_eq!(unknown, "known after an instance of `prime` that passes");
}

#[test]
fn a_farm_converges_in_order_and_then_plans_nothing() {
    let mut world = World::new(farm(4, "python3"));
    world.converge();
    assert!(world.plan().is_empty());
    let at = |what: fn(&Step) -> bool| world.done.iter().position(what).unwrap();
    let nginx = at(|s| matches!(s, Step::Start(start) if start.id.node.name == "nginx"));
    let network = at(|s| matches!(s, Step::CreateNetwork(_)));
    let first = at(|s| matches!(s, Step::Start(_)));
    let validated = at(|s| matches!(s, Step::Validate { .. }));
    let written = at(|s| matches!(s, Step::Write(_)));
    assert!(network < first && first < validated && validated < written && written < nginx);
}

#[test]
fn an_exit_leaves_the_file_first_and_restarts_after_its_delay() {
    let mut world = World::new(farm(4, "python3"));
    world.converge();
    let before = world.lives();
    world.done.clear();
    let node = NodeId::new(Kind::Containers, "prime2");
    world.exit(&node, Exit::Signal(9));
    let died = world.now;
    let plan = world.pass();
    let item = plan.items.iter().find(|item| item.node == node).unwrap();
    assert!(
        item.reason.starts_with("killed by SIGKILL"),
        "{}",
        item.reason
    );
    assert!(matches!(&item.gate, Gate::Waiting(on) if on[0].starts_with("its restart delay")));
    while !world
        .done
        .iter()
        .any(|step| matches!(step, Step::ReloadProcess { .. }))
    {
        world.pass();
    }
    assert!(
        world.now.since(died) < Duration::from_millis(100),
        "the reload waited"
    );
    world.converge();
    assert!(world.now.since(died) >= Duration::from_secs(1));
    let after = world.lives();
    let changed: Vec<_> = before
        .iter()
        .filter(|(node, life)| after[*node] != **life)
        .collect();
    assert_eq!(changed.len(), 1);
}

#[test]
fn scaling_touches_only_the_difference() {
    let mut world = World::new(farm(4, "python3"));
    world.converge();
    let before = world.lives();
    world.edit(farm(6, "python3"));
    world.converge();
    let six = world.lives();
    assert_eq!(six.len(), 7);
    assert!(before.iter().all(|(node, life)| six[node] == *life));
    world.edit(farm(2, "python3"));
    world.converge();
    let two = world.lives();
    assert_eq!(two.len(), 3);
    assert!(two.iter().all(|(node, life)| six[node] == *life));
    // The file forgot them before they were asked to end.
    let told = world
        .done
        .iter()
        .position(|s| matches!(s, Step::ReloadProcess { .. }))
        .unwrap();
    let asked = world
        .done
        .iter()
        .position(|s| matches!(s, Step::Signal { .. }))
        .unwrap();
    assert!(
        told < asked,
        "an instance was stopped while nginx still led to it"
    );
}

#[test]
fn a_changed_command_rolls_one_after_the_other() {
    let mut world = World::new(farm(4, "python3"));
    world.converge();
    world.edit(farm(4, "python4"));
    let mut least = usize::MAX;
    for _ in 0..400 {
        let plan = world.pass();
        let up = world
            .lives()
            .keys()
            .filter(|node| node.starts_with("containers/"))
            .count();
        least = least.min(up);
        if plan.is_empty() {
            break;
        }
    }
    assert!(world.plan().is_empty());
    assert_eq!(least, 3, "more than one instance was away at a time");
    let starts = world
        .done
        .iter()
        .filter(|s| matches!(s, Step::Start(_)))
        .count();
    assert_eq!(starts, 4, "nginx was started again, or an instance twice");
}

#[test]
fn a_refused_text_stays_out_and_the_last_good_file_serves() {
    let mut world = World::new(farm(2, "python3"));
    world.converge();
    let good = world.file().clone();
    world.accepts = false;
    world.exit(&NodeId::new(Kind::Containers, "prime1"), Exit::Code(1));
    let blocked = (0..10).any(|_| {
        world.pass().items.iter().any(
            |item| matches!(&item.gate, Gate::Blocked(why) if why.contains("refuses the new text")),
        )
    });
    assert!(blocked, "the refusal is not in the plan");
    assert_eq!(*world.file(), good);
}

#[test]
fn an_empty_list_keeps_the_last_good_file() {
    let mut world = World::new(farm(2, "python3"));
    world.converge();
    let good = world.file().clone();
    world.sick = ["prime1".to_owned(), "prime2".to_owned()].into();
    let plan = world.pass();
    assert!(
        plan.items
            .iter()
            .all(|item| item.node.kind != Kind::Templates)
    );
    assert_eq!(*world.file(), good);
}

#[test]
fn nothing_is_rendered_before_adopted_checks_answered() {
    let mut world = World::new(farm(2, "python3"));
    for node in world.desired.nodes.values_mut() {
        if let Node::Endpoint(endpoint) = node {
            endpoint.checks.push(CheckNode {
                id: format!("{}:answers", endpoint.service_id),
                name: "answers".to_owned(),
                probe: ProbeNode::Tcp("x:1".to_owned()),
                interval: Duration::from_secs(5),
                timeout: Duration::from_secs(1),
                retries: 1,
                start_period: Duration::ZERO,
                start_interval: Duration::from_secs(5),
            });
        }
    }
    world.converge();
    world.memory = Memory::default();
    world.memory.unchecked = ["t-prime-prime1:answers".to_owned()].into();
    world.sick = ["prime1".to_owned()].into();
    for _ in 0..5 {
        assert!(
            world.pass().is_empty(),
            "something was planned on unknown health"
        );
    }
    world.memory.unchecked.clear();
    assert!(!world.pass().is_empty());
}

#[test]
fn a_foreign_file_and_a_foreign_bridge_stop_their_node_alone() {
    let mut world = World::new(farm(1, "python3"));
    put(
        &mut world.observed,
        std::path::Path::new("/etc/upstream.conf"),
        "mine",
        None,
    );
    for _ in 0..50 {
        world.pass();
    }
    let plan = world.plan();
    let template = plan
        .items
        .iter()
        .find(|item| item.node.kind == Kind::Templates)
        .unwrap();
    assert!(matches!(&template.gate, Gate::Blocked(why) if why.contains("not written by")));
    assert!(world.lives().contains_key("containers/prime1"));
    assert!(
        world
            .done
            .iter()
            .all(|step| !matches!(step, Step::Write(_)))
    );

    let mut world = World::new(farm(1, "python3"));
    world.observed.network.bridges.insert(
        "prime0".to_owned(),
        BridgeView {
            ours: false,
            up: true,
            addresses: Vec::new(),
            holder: "docker".to_owned(),
        },
    );
    let plan = world.pass();
    let network = plan
        .items
        .iter()
        .find(|item| item.node.kind == Kind::Networks)
        .unwrap();
    assert!(matches!(&network.gate, Gate::Blocked(why) if why.contains("docker")));
}

#[test]
fn down_goes_in_reverse_and_leaves_nothing() {
    let mut world = World::new(farm(3, "python3"));
    world.converge();
    world.done.clear();
    world.memory.down = Some(Down { kill: false });
    world.converge();
    assert!(world.observed.lives.is_empty());
    assert!(world.observed.network.attachments.is_empty());
    assert!(world.observed.network.bridges.is_empty());
    assert_eq!(*world.file(), FileView::Missing);
    let signals: Vec<&str> = world
        .done
        .iter()
        .filter_map(|step| match step {
            Step::Signal { life, .. } => Some(life.node.name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(signals[0], "nginx");
    assert_eq!(signals.len(), 4);
}

#[test]
fn what_failed_waits_for_its_next_try_and_holds_nothing_else() {
    let mut world = World::new(farm(2, "python3"));
    let node = NodeId::new(Kind::Containers, "prime1");
    world.memory.attempts.insert(
        node.clone(),
        Attempt {
            running: false,
            failures: 3,
            error: Some((ErrorKind::Failed, "cannot start it".to_owned())),
            retry_at: world.now + Duration::from_secs(3600),
        },
    );
    for _ in 0..60 {
        let before = world.now;
        world.pass();
        if world.now.since(before) > Duration::from_secs(60) {
            world.now = before + Duration::from_millis(1);
        }
    }
    assert!(
        world.lives().contains_key("processes/nginx"),
        "an independent branch was held up"
    );
    assert!(!world.lives().contains_key("containers/prime1"));
    let plan = world.plan();
    assert_eq!(plan.items.len(), 2, "{:#?}", plan.items);
    assert!(plan.items.iter().all(|item| item.change == Change::Add));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever edits and deaths come, in the end nothing is outstanding, every wanted
    /// workload has one life, and nothing else has any.
    #[test]
    fn any_history_ends_in_the_empty_plan(
        history in proptest::collection::vec((0u8..4, 1u32..6, 0usize..5), 1..12)
    ) {
        let mut world = World::new(farm(3, "v0"));
        let mut version = 0;
        for (what, number, passes) in history {
            match what {
                0 => world.edit(farm(number, &format!("v{version}"))),
                1 => {
                    version += 1;
                    let replicas = world.desired.nodes.keys()
                        .filter(|id| id.kind == Kind::Containers).count();
                    world.edit(farm(u32::try_from(replicas).unwrap(), &format!("v{version}")));
                }
                2 => {
                    let node = NodeId::new(Kind::Containers, format!("prime{number}"));
                    let up = world.lives().contains_key(&node.to_string());
                    if up {
                        world.exit(&node, Exit::Code(1));
                    }
                }
                _ => world.memory = Memory { unchecked: BTreeSet::new(), ..Memory::default() },
            }
            for _ in 0..passes {
                world.pass();
            }
        }
        world.converge();
        let wanted: BTreeSet<String> = world.desired.nodes.iter()
            .filter(|(_, node)| matches!(node, Node::Workload(_)))
            .map(|(id, _)| id.to_string())
            .collect();
        let lives: BTreeSet<String> = world.lives().keys().cloned().collect();
        prop_assert_eq!(wanted, lives);
        prop_assert!(world.observed.lives.iter().all(|life| life.state == LifeState::Up));
    }
}
