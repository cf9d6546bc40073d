//! What needs what: from references, and from `depends_on`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::Compiler;
use super::at::At;
use super::desired::{Need, Node, Nodes};
use super::instances::{Groups, Instance};
use super::names;
use super::workloads::network_id;
use crate::spec::model::{CheckRef, Condition, Dependency, Ready};
use crate::spec::node::{Kind, NodeId};

/// Why an edge is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// Something names something else.
    Reference,
    /// `depends_on`, and where in the file.
    Written(Option<Range<usize>>),
}

/// One edge: its first end needs the second.
#[derive(Debug, Clone)]
pub(super) struct Edge {
    pub(super) from: NodeId,
    pub(super) need: Need,
    pub(super) origin: Origin,
}

/// All edges, in spec order.
#[derive(Debug, Default)]
pub(super) struct Edges(pub(super) Vec<Edge>);

impl Edges {
    /// The edges of the whole spec; references to nothing are noted.
    pub(super) fn collect(
        compiler: &mut Compiler<'_>,
        nodes: &Nodes,
        instances: &[Instance<'_>],
        groups: &Groups,
    ) -> Edges {
        let mut collector = Collector {
            families: families(compiler, nodes, groups),
            endpoints: endpoints_of(nodes),
            nodes,
            edges: Edges::default(),
        };
        collector.references(compiler, instances);
        collector.written(compiler, instances);
        collector.edges
    }

    fn refer(&mut self, from: &NodeId, on: &NodeId) {
        self.0.push(Edge {
            from: from.clone(),
            need: Need {
                on: on.clone(),
                condition: Condition::Started,
            },
            origin: Origin::Reference,
        });
    }

    /// The needs of every node, sorted; of two on one node `started` goes without saying.
    pub(super) fn into_needs<'n>(
        self,
        ids: impl Iterator<Item = &'n NodeId>,
    ) -> BTreeMap<NodeId, Vec<Need>> {
        let mut needs: BTreeMap<NodeId, Vec<Need>> =
            ids.map(|id| (id.clone(), Vec::new())).collect();
        for edge in self.0 {
            needs.entry(edge.from).or_default().push(edge.need);
        }
        for list in needs.values_mut() {
            list.sort();
            list.dedup();
            let stronger: BTreeSet<NodeId> = list
                .iter()
                .filter(|need| need.condition != Condition::Started)
                .map(|need| need.on.clone())
                .collect();
            list.retain(|need| {
                need.condition != Condition::Started || !stronger.contains(&need.on)
            });
        }
        needs
    }
}

/// What every name of the spec stands for: a group for its instances, a service for its
/// endpoints, an instance for its seats, all else for itself. Also what could not be compiled is here, so that a reference
/// to it is no second error.
fn families(compiler: &Compiler<'_>, nodes: &Nodes, groups: &Groups) -> Groups {
    let spec = compiler.spec;
    let mut families = groups.clone();
    for name in spec.services.keys() {
        families.insert(NodeId::new(Kind::Services, name.as_str()), Vec::new());
    }
    for (id, node) in nodes {
        if let Node::Endpoint(endpoint) = node {
            let service = NodeId::new(Kind::Services, endpoint.service.as_str());
            families.entry(service).or_default().push(id.clone());
        }
    }
    let networks = spec.networks.keys().map(|name| (Kind::Networks, name));
    let checks = spec.checks.keys().map(|name| (Kind::Checks, name));
    let templates = spec.templates.keys().map(|name| (Kind::Templates, name));
    let named = networks
        .chain(checks)
        .chain(templates)
        .map(|(kind, name)| NodeId::new(kind, name.as_str()));
    let instances = groups.values().flatten().cloned();
    let all: BTreeSet<NodeId> = named
        .chain(instances)
        .chain(nodes.keys().cloned())
        .collect();
    for id in &all {
        families.entry(id.clone()).or_insert_with(|| {
            let second = Some(names::second_seat(id)).filter(|second| all.contains(second));
            std::iter::once(id.clone()).chain(second).collect()
        });
    }
    families
}

/// The endpoints behind which each instance stands.
fn endpoints_of(nodes: &Nodes) -> Groups {
    let mut endpoints = Groups::new();
    for (id, node) in nodes {
        if let Node::Endpoint(endpoint) = node
            && let Some(target) = &endpoint.target
        {
            endpoints
                .entry(target.clone())
                .or_default()
                .push(id.clone());
        }
    }
    endpoints
}

struct Collector<'n> {
    families: Groups,
    endpoints: Groups,
    nodes: &'n Nodes,
    edges: Edges,
}

impl Collector<'_> {
    fn references(&mut self, compiler: &Compiler<'_>, instances: &[Instance<'_>]) {
        let registry = NodeId::registry();
        for instance in instances {
            if let Some(network) = network_id(compiler, instance)
                && self.nodes.contains_key(&network)
            {
                self.edges.refer(&instance.id, &network);
            }
            self.ready_check(compiler, instance);
        }
        for (id, node) in self.nodes {
            match node {
                Node::Endpoint(endpoint) => {
                    self.edges.refer(id, &registry);
                    if let Some(target) = &endpoint.target {
                        self.edges.refer(id, target);
                    }
                    for check in self.named_checks(compiler, &endpoint.service) {
                        self.edges.refer(&check, id);
                    }
                }
                Node::Template(template) => {
                    self.edges.refer(id, &registry);
                    for service in &template.reads {
                        let service = NodeId::new(Kind::Services, service.as_str());
                        for endpoint in self.families.get(&service).into_iter().flatten() {
                            self.edges.refer(id, endpoint);
                        }
                    }
                }
                Node::Registry(_) | Node::Network(_) | Node::Workload(_) | Node::Check => {}
            }
        }
    }

    /// A shared check stands for all that uses it.
    fn ready_check(&mut self, compiler: &Compiler<'_>, instance: &Instance<'_>) {
        let spec = compiler.spec;
        let workload = match instance.id.kind {
            Kind::Containers => spec.containers.get(instance.group).map(|one| &one.workload),
            _ => spec.processes.get(instance.group).map(|one| &one.workload),
        };
        if let Some(Ready::Check {
            check: CheckRef::Named(name),
            ..
        }) = workload.map(|workload| &workload.ready)
        {
            let check = NodeId::new(Kind::Checks, name.as_str());
            if self.nodes.contains_key(&check) {
                self.edges.refer(&check, &instance.id);
            }
        }
    }

    fn named_checks(&self, compiler: &Compiler<'_>, service: &str) -> Vec<NodeId> {
        compiler
            .spec
            .services
            .get(service)
            .into_iter()
            .flat_map(|service| &service.checks)
            .filter_map(|check| match check {
                CheckRef::Named(name) => Some(NodeId::new(Kind::Checks, name.as_str())),
                CheckRef::Inline(_) => None,
            })
            .filter(|check| self.nodes.contains_key(check))
            .collect()
    }

    fn written(&mut self, compiler: &mut Compiler<'_>, instances: &[Instance<'_>]) {
        let spec = compiler.spec;
        for (name, network) in &spec.networks {
            self.depend(compiler, Kind::Networks, name, &network.depends_on, None);
        }
        let workloads = instances.iter().filter_map(|instance| {
            let workload = match instance.id.kind {
                Kind::Containers => &spec.containers.get(instance.group)?.workload,
                _ => &spec.processes.get(instance.group)?.workload,
            };
            Some((instance, workload))
        });
        for (instance, workload) in workloads {
            self.depend(
                compiler,
                instance.id.kind,
                instance.group,
                &workload.depends_on,
                Some(&instance.id),
            );
        }
        for (name, service) in &spec.services {
            self.depend(compiler, Kind::Services, name, &service.depends_on, None);
        }
        for (name, template) in &spec.templates {
            self.depend(compiler, Kind::Templates, name, &template.depends_on, None);
        }
    }

    /// The edges of one `depends_on`: of `only`, or of every node that the name stands for.
    fn depend(
        &mut self,
        compiler: &mut Compiler<'_>,
        kind: Kind,
        name: &str,
        list: &[Dependency],
        only: Option<&NodeId>,
    ) {
        if list.is_empty() {
            return;
        }
        let section = At::section(kind.word());
        let group = section.key(name);
        let at = group.key("depends_on");
        let owner = NodeId::new(kind, name);
        let owners = only.map_or_else(
            || self.families.get(&owner).cloned().unwrap_or_default(),
            |id| vec![id.clone()],
        );
        for (index, dependency) in list.iter().enumerate() {
            let reference = dependency.on.to_string();
            let span = compiler.problems.span(&at.index(index));
            let Some(targets) = self.families.get(&dependency.on) else {
                let message = format!("`{reference}` does not exist");
                compiler.problems.note(message, span, None, None);
                continue;
            };
            let runs = matches!(dependency.on.kind, Kind::Containers | Kind::Processes);
            if dependency.condition == Condition::Completed && !runs {
                let message = format!("`{reference}` never completes");
                let help = "only containers and processes do; use `started` or `healthy`";
                compiler
                    .problems
                    .note(message, span, None, Some(help.to_owned()));
                continue;
            }
            let mut targets = targets.clone();
            if dependency.condition == Condition::Healthy {
                // A workload is healthy by the checks of what it serves: these come before, too.
                let serving = targets
                    .iter()
                    .filter_map(|target| self.endpoints.get(target));
                let serving: Vec<NodeId> = serving.flatten().cloned().collect();
                targets.extend(serving);
            }
            for from in &owners {
                self.edges.0.extend(targets.iter().map(|on| Edge {
                    from: from.clone(),
                    need: Need {
                        on: on.clone(),
                        condition: dependency.condition,
                    },
                    origin: Origin::Written(span.clone()),
                }));
            }
        }
    }
}
