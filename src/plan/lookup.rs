//! Indexes that one planning makes of its arguments.

use std::collections::{BTreeMap, BTreeSet};

use super::memory::Memory;
use super::render;
use super::world::{Life, Observed};
use crate::graph::desired::Desired;
use crate::spec::node::{Kind, NodeId};

/// Lives by their nodes, the oldest first.
pub(super) fn lives(observed: &Observed) -> BTreeMap<&NodeId, Vec<&Life>> {
    let mut lives: BTreeMap<&NodeId, Vec<&Life>> = BTreeMap::new();
    for life in &observed.lives {
        lives.entry(&life.id.node).or_default().push(life);
    }
    for of_node in lives.values_mut() {
        of_node.sort_by_key(|life| life.id.incarnation);
    }
    lives
}

/// Who needs whom, in this spec and in those before it.
pub(super) fn dependents<'a>(
    desired: &'a Desired,
    memory: &'a Memory,
) -> BTreeMap<&'a NodeId, BTreeSet<&'a NodeId>> {
    let mut dependents: BTreeMap<&NodeId, BTreeSet<&NodeId>> = BTreeMap::new();
    for (node, needs) in &desired.needs {
        for need in needs {
            dependents.entry(&need.on).or_default().insert(node);
        }
    }
    let past = memory.past_needs.iter();
    // What the spec says now is the truth for what it still names: another spec may have had
    // it the other way round.
    for (node, needs) in past.filter(|(node, _)| !desired.needs.contains_key(*node)) {
        for need in needs {
            dependents.entry(need).or_default().insert(node);
        }
    }
    dependents
}

/// What templates wait for before they are written.
pub(super) fn template_needs(desired: &Desired) -> BTreeSet<&NodeId> {
    let templates = desired.needs.iter();
    templates
        .filter(|(node, _)| node.kind == Kind::Templates)
        .flat_map(|(_, needs)| needs)
        .filter(|need| !render::is_listing(need))
        .map(|need| &need.on)
        .collect()
}

/// Of what is registered, the first id of each workload.
pub(super) fn registered(observed: &Observed) -> BTreeMap<&NodeId, &str> {
    let ids = observed.registered.iter().rev();
    ids.filter_map(|(id, registered)| Some((registered.target.as_ref()?, id.as_str())))
        .collect()
}
