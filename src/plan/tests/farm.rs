//! A farm by hand: registry, bridge, containers, endpoints, template, nginx.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::graph::desired::*;
use crate::spec::model::{
    Condition, Confirm, LogLimit, Registry, Restart, RestartPolicy, Signal, Wait, WhenEmpty,
};
use crate::spec::node::{Kind, NodeId};

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
        min_healthy_time: Duration::ZERO,
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
    let mut nodes = Nodes::default();
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

/// The same with two seats for each container.
pub fn seated(replicas: u32, command: &str) -> Desired {
    let mut desired = farm(replicas, command);
    let mut nodes = Nodes::default();
    for (id, node) in std::mem::take(&mut desired.nodes) {
        let second = match &node {
            Node::Workload(workload) if id.kind == Kind::Containers => second_seat(workload),
            Node::Endpoint(endpoint) => second_endpoint(&id, endpoint),
            _ => {
                nodes.insert(id, node);
                continue;
            }
        };
        let (other, seat) = second;
        desired.pairs.insert(id.clone(), other.clone());
        desired.pairs.insert(other.clone(), id.clone());
        let needs = desired.needs[&id].iter().map(|need| {
            let on = desired.pairs.get(&need.on).unwrap_or(&need.on).clone();
            Need { on, ..need.clone() }
        });
        let needs = needs.collect();
        desired.needs.insert(other.clone(), needs);
        for needs in desired.needs.values_mut() {
            let both = needs.iter().find(|need| need.on == id).cloned();
            if let Some(need) = both.filter(|_| id.kind == Kind::Services) {
                needs.push(Need {
                    on: other.clone(),
                    ..need
                });
            }
        }
        nodes.insert(id, node);
        nodes.insert(other, seat);
    }
    desired.nodes = nodes;
    desired
}

fn second_seat(first: &WorkloadNode) -> (NodeId, Node) {
    let mut seat = first.clone();
    seat.id.name.push_str(".b");
    let attachment = seat.attachment.as_mut().unwrap();
    attachment.namespace.push_str(".b");
    attachment.link.push('b');
    let [a, b, c, d] = attachment.address.octets();
    attachment.address = std::net::Ipv4Addr::new(a, b, c, d + 100);
    let namespace = attachment.namespace.clone();
    let container = seat.run.container.as_mut().unwrap();
    container.network = NetworkRun::Namespace(namespace);
    container.hosts = format!("/run/hatchery/t/hosts/{}", seat.id.name).into();
    (seat.id.clone(), Node::Workload(Box::new(seat)))
}

fn second_endpoint(id: &NodeId, first: &EndpointNode) -> (NodeId, Node) {
    let mut seat = first.clone();
    seat.service_id.push_str(".b");
    seat.target.as_mut().unwrap().name.push_str(".b");
    seat.address.push('b');
    let id = NodeId::new(id.kind, format!("{}.b", id.name));
    (id, Node::Endpoint(seat))
}

/// Changes every container.
pub fn each_container(desired: &mut Desired, change: impl Fn(&mut WorkloadNode)) {
    for node in desired.nodes.values_mut() {
        if let Node::Workload(workload) = node
            && workload.id.kind == Kind::Containers
        {
            change(workload);
        }
    }
}

fn nothing() -> Desired {
    Desired {
        stack: "t".to_owned(),
        spec_dir: "/spec".into(),
        tree: None,
        dirs: Dirs {
            run: "/run".into(),
            state: "/state".into(),
            log: "/log".into(),
        },
        requires: Vec::new(),
        nodes: Nodes::default(),
        needs: BTreeMap::new(),
        waves: Default::default(),
        vars: indexmap::IndexMap::new(),
        pairs: BTreeMap::new(),
        hosts: Default::default(),
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
        text: Default::default(),
    }
}
