//! What becomes of the memory when another spec comes into force.

use std::collections::{BTreeSet, HashSet};

use crate::graph::desired::{Desired, EndpointNode, Node, ProbeNode};
use crate::plan::memory::Memory;
use crate::plan::world::Observed;
use crate::spec::node::{Kind, NodeId};

/// Turns the memory from `old` to `new`. A plan that is only shown is made on the same memory as
/// the one that is carried out.
pub(super) fn turn_to(memory: &mut Memory, old: &Desired, new: &Desired, observed: &Observed) {
    forget_left(memory, old, new, observed);
    remember_needs(memory, old);
    // What an earlier spec that did not converge changed is on trial still.
    memory.changed.extend(changed(old, new));
    memory.unchecked.extend(new_checks(old, new, observed));
    remember_stops(memory, new);
    memory.seen.clear();
    memory.trying.clear();
    memory.stopped.retain(|node| new.nodes.contains_key(node));
    // An instance that has two seats from now on is stopped in both.
    let other = |node| new.pairs.get(node).cloned();
    let others: Vec<NodeId> = memory.stopped.iter().filter_map(other).collect();
    memory.stopped.extend(others);
    memory.begin_generation();
}

/// Forgets what left with an earlier spec and is gone: names may come and go for years.
fn forget_left(memory: &mut Memory, old: &Desired, new: &Desired, observed: &Observed) {
    let lives = observed.lives.iter().map(|life| &life.id.node);
    let there: HashSet<NodeId> = lives.chain(memory.attempts.keys()).cloned().collect();
    let named = |node: &NodeId| new.nodes.contains_key(node) || old.nodes.contains_key(node);
    // One that is gone may stand between two that are there, in the order of their ends.
    if there.iter().all(named) {
        memory.past_needs.retain(|node, _| named(node));
    }
    let known = |node: &NodeId| named(node) || there.contains(node);
    memory.workloads.retain(|node, _| known(node));
    memory.templates.retain(|name, _| {
        let node = NodeId::new(Kind::Templates, name.as_str());
        known(&node)
    });
}

/// Workloads that are new, or that are not what they were in what they run, when they are
/// ready or what they serve.
pub(super) fn changed(old: &Desired, new: &Desired) -> BTreeSet<NodeId> {
    let mut changed = BTreeSet::new();
    for (id, node) in &new.nodes {
        if old.nodes.get(id) == Some(node) {
            continue;
        }
        match node {
            Node::Workload(_) => {
                changed.insert(id.clone());
            }
            Node::Endpoint(endpoint) => changed.extend(endpoint.target.clone()),
            _ => {}
        }
    }
    changed
}

/// Checks that are new for endpoints that serve already: one that was not asked yet must not
/// take its endpoint away.
fn new_checks(old: &Desired, new: &Desired, observed: &Observed) -> BTreeSet<String> {
    let known: BTreeSet<&str> = endpoints(old)
        .flat_map(|endpoint| &endpoint.checks)
        .map(|check| check.id.as_str())
        .collect();
    endpoints(new)
        .filter(|endpoint| observed.registered.contains_key(&endpoint.service_id))
        .flat_map(|endpoint| &endpoint.checks)
        .filter(|check| !known.contains(check.id.as_str()))
        .filter(|check| !matches!(check.probe, ProbeNode::Ttl(_)))
        .map(|check| check.id.clone())
        .collect()
}

fn endpoints(desired: &Desired) -> impl Iterator<Item = &EndpointNode> {
    desired.nodes.values().filter_map(|node| match node {
        Node::Endpoint(endpoint) => Some(endpoint),
        _ => None,
    })
}

/// Keeps what needed what, so that what leaves with a later spec leaves in order.
fn remember_needs(memory: &mut Memory, desired: &Desired) {
    for (node, needs) in &desired.needs {
        let on = needs.iter().map(|need| need.on.clone()).collect();
        memory.past_needs.insert(node.clone(), on);
    }
}

/// Keeps how each workload is asked to end, for when it leaves the spec.
fn remember_stops(memory: &mut Memory, desired: &Desired) {
    for node in desired.nodes.values() {
        if let Node::Workload(workload) = node {
            let memory = memory.workloads.entry(workload.id.clone()).or_default();
            let mut farewell = workload.farewell();
            // Connections may outlive the service that led them here.
            if let Some(before) = &memory.farewell {
                farewell.ports.extend(&before.ports);
            }
            memory.farewell = Some(farewell);
        }
    }
}
