//! Indexes that one planning makes of its arguments.

use std::collections::{HashMap, HashSet};

use super::render;
use super::world::{Life, Observed};
use crate::graph::desired::Desired;
use crate::spec::node::{Kind, NodeId};

/// Lives by their nodes, the oldest first.
pub(super) fn lives(observed: &Observed) -> HashMap<&NodeId, Vec<&Life>> {
    let mut lives: HashMap<&NodeId, Vec<&Life>> = HashMap::new();
    for life in &observed.lives {
        lives.entry(&life.id.node).or_default().push(life);
    }
    for of_node in lives.values_mut() {
        of_node.sort_by_key(|life| life.id.incarnation);
    }
    lives
}

/// What templates wait for before they are written.
pub(super) fn template_needs(desired: &Desired) -> HashSet<&NodeId> {
    let templates = desired.needs.iter();
    templates
        .filter(|(node, _)| node.kind == Kind::Templates)
        .flat_map(|(_, needs)| needs)
        .filter(|need| !render::is_listing(need))
        .map(|need| &need.on)
        .collect()
}
