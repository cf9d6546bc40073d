//! Spec -> dependency graph; start and stop order; cycle paths. The only user of petgraph.

mod at;
mod checks;
pub mod desired;
mod edges;
pub mod effects;
mod evaluate;
mod hosts;
pub mod identity;
mod instances;
mod memo;
mod names;
mod order;
mod rendered;
mod services;
#[cfg(test)]
mod tests;
mod text;
mod workloads;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::spec::diagnostic::Diagnostic;
use crate::spec::model::{Env, Spec};
use crate::spec::node::{Kind, NodeId};
use crate::spec::places::Places;
use crate::template::expr::Evaluator;
use crate::template::normalise;
use at::{At, Locate, Problems};
use desired::{Desired, Dirs, NetworkNode, Node, Nodes, Tree};
use edges::Edges;
use instances::{Groups, Instance};

pub use hosts::Hosts;
pub use memo::Memo;
pub use names::{container_of, first_seat, instance_of, namespace, second_seat};
pub use text::{dot, waves_text};

/// What compiling needs beside the spec.
#[derive(Debug, Clone)]
pub struct CompileInputs {
    /// The folder of the spec, absolute.
    pub spec_dir: PathBuf,
    /// The tree of the commit that the spec was read from.
    pub tree: Option<Arc<Tree>>,
    /// Where the stack keeps things.
    pub dirs: Dirs,
    /// Environment variables.
    pub env: Env,
    /// The text of each of [`template_files`], or why it cannot be read.
    pub template_sources: BTreeMap<PathBuf, Result<String, String>>,
    /// The addresses that instances have now; they keep them where the spec leaves the choice.
    pub held: BTreeMap<NodeId, Ipv4Addr>,
}

/// The files that must be read before [`compile`], absolute, without duplicates.
pub fn template_files(spec: &Spec, spec_dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = spec
        .templates
        .values()
        .map(|template| normalise(spec_dir, &template.source.to_string_lossy()))
        .collect();
    files.sort();
    files.dedup();
    files
}

/// Evaluates every expression of `spec`, expands its groups and orders what it describes.
///
/// # Errors
/// All of them at once, each at its place: expressions that cannot be evaluated or give what
/// cannot be used there, references to nothing, templates that cannot be read, addresses that
/// run out, and cycles with their path.
pub fn compile(
    spec: &Spec,
    places: &Places,
    inputs: &CompileInputs,
) -> Result<Desired, Vec<Diagnostic>> {
    compile_with(spec, places, inputs)
}

fn compile_with(
    spec: &Spec,
    places: &dyn Locate,
    inputs: &CompileInputs,
) -> Result<Desired, Vec<Diagnostic>> {
    let mut compiler = Compiler {
        spec,
        inputs,
        evaluator: Evaluator::new(&inputs.spec_dir, &spec.vars, &inputs.env),
        problems: Problems::new(places),
    };
    if inputs.spec_dir.to_str().is_none() {
        let message = format!(
            "cannot use the folder `{}`: its name is not UTF-8",
            inputs.spec_dir.display()
        );
        compiler.problems.note(message, None, None, None);
    }
    let (instances, groups) = instances::expand(&mut compiler);
    let nodes = compiler.nodes(&instances, &groups);
    let edges = Edges::collect(&mut compiler, &nodes, &instances, &groups);
    let Compiler { mut problems, .. } = compiler;
    let order = order::order(&nodes, &edges, &mut problems);
    match order {
        Some(order) if problems.is_empty() => Ok(assemble(spec, inputs, nodes, edges, order)),
        _ => Err(problems.into_found()),
    }
}

fn assemble(
    spec: &Spec,
    inputs: &CompileInputs,
    mut nodes: Nodes,
    edges: Edges,
    order: order::Order,
) -> Desired {
    let needs = edges.into_needs(nodes.keys());
    let pairs = pairs(&nodes);
    let mut sorted = Nodes::with_capacity_and_hasher(nodes.len(), Default::default());
    for id in &order.sequence {
        if let Some(node) = nodes.swap_remove(id) {
            sorted.insert(id.clone(), node);
        }
    }
    Desired {
        stack: spec.name.clone(),
        spec_dir: inputs.spec_dir.clone(),
        tree: inputs.tree.clone(),
        dirs: inputs.dirs.clone(),
        requires: spec.requires.clone(),
        nodes: sorted,
        needs,
        waves: order.waves.into(),
        vars: spec.vars.clone(),
        pairs,
        hosts: Memo::default(),
    }
}

/// From either seat of an instance or endpoint to the other.
fn pairs(nodes: &Nodes) -> BTreeMap<NodeId, NodeId> {
    nodes
        .keys()
        .map(|first| (first.clone(), names::second_seat(first)))
        .filter(|(_, second)| nodes.contains_key(second))
        .flat_map(|(first, second)| [(first.clone(), second.clone()), (second, first)])
        .collect()
}

/// What every step of compiling sees.
struct Compiler<'a> {
    spec: &'a Spec,
    inputs: &'a CompileInputs,
    evaluator: Evaluator,
    problems: Problems<'a>,
}

impl<'a> Compiler<'a> {
    /// Every node in spec order. What is wrong is noted and left out.
    fn nodes(&mut self, instances: &[Instance<'a>], groups: &Groups) -> Nodes {
        let spec = self.spec;
        let mut nodes = Nodes::default();
        nodes.insert(NodeId::registry(), Node::Registry(spec.registry.clone()));
        for name in spec.networks.keys() {
            if let Some(network) = self.network(name) {
                nodes.insert(
                    NodeId::new(Kind::Networks, name.as_str()),
                    Node::Network(network),
                );
            }
        }
        for instance in instances {
            if let Some(workload) = workloads::workload(self, instance) {
                nodes.insert(instance.id.clone(), Node::Workload(Box::new(workload)));
            }
        }
        self.refuse_equal_interfaces(&nodes);
        services::add(self, instances, groups, &mut nodes);
        for name in spec.checks.keys() {
            nodes.insert(NodeId::new(Kind::Checks, name.as_str()), Node::Check);
        }
        for (name, template) in &spec.templates {
            if let Some(template) = rendered::template(self, name, template) {
                nodes.insert(
                    NodeId::new(Kind::Templates, name.as_str()),
                    Node::Template(Box::new(template)),
                );
            }
        }
        nodes
    }

    fn network(&mut self, name: &str) -> Option<NetworkNode> {
        let network = self.spec.networks.get(name)?;
        let Some(gateway) = instances::gateway(network.subnet) else {
            let section = At::section(Kind::Networks.word());
            self.problems.add(
                &section.key(name).key("subnet"),
                format!(
                    "subnet `{}` of network `{name}` has no room for the host and a container",
                    network.subnet
                ),
            );
            return None;
        };
        Some(NetworkNode {
            name: name.to_owned(),
            bridge: names::bridge(&self.spec.name, name),
            subnet: network.subnet.trunc(),
            gateway,
            forward: network.forward,
        })
    }

    /// Names that were cut to an interface's 15 bytes may meet, however seldom.
    fn refuse_equal_interfaces(&mut self, nodes: &Nodes) {
        let mut taken: BTreeMap<&str, &NodeId> = BTreeMap::new();
        for (id, node) in nodes {
            let (name, group) = match node {
                Node::Network(network) => (network.bridge.as_str(), network.name.as_str()),
                Node::Workload(workload) => match &workload.attachment {
                    Some(attachment) => (attachment.link.as_str(), workload.group.as_str()),
                    None => continue,
                },
                _ => continue,
            };
            if let Some(other) = taken.insert(name, id) {
                self.problems.advise(
                    &At::section(id.kind.word()).key(group),
                    format!("`{id}` and `{other}` both get the interface name `{name}`"),
                    "rename one of them",
                );
            }
        }
    }
}
