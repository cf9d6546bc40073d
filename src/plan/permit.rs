//! What an applied plan lets happen: what it says, and what keeps the rest as it is.
//!
//! A plan file is applied by taking its spec as a new generation with a permit. It lasts until
//! the next generation is taken. Repairs of what stood as the spec wants it, restarts of what
//! ran, and files that follow the registry are no changes of the world that was approved;
//! another program than the one that was approved is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::context::{Context, Planned};
use super::model::{Change, Gate, Item, NodeState};
use super::workload::{difference, specified};
use super::world::Identity;
use crate::graph::desired::{Node, WorkloadNode};
use crate::spec::node::NodeId;

/// What a node says whose action is not in the applied plan.
pub const WITHHELD: &str = "not in the applied plan";

/// What a withheld action waits for.
const NEXT: &str = "another `apply`: it is not in the applied plan";

/// What may be done while an applied plan is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    /// Nodes of the plan's items, and those that were as they should be when it was applied.
    pub nodes: BTreeSet<NodeId>,
    /// What each workload may be started as; one that is missing may become anything.
    pub identities: BTreeMap<NodeId, Arc<Identity>>,
}

impl Permit {
    /// What a person asks of a workload by name is approved by that.
    pub fn allow(&mut self, node: &NodeId) {
        self.nodes.insert(node.clone());
        self.identities.remove(node);
    }
}

/// The permit in force; taking the stack down needs none.
fn permit<'a>(context: &Context<'a>) -> Option<&'a Permit> {
    let permit = context.memory.permitted.as_ref();
    permit.filter(|_| context.memory.down.is_none())
}

/// Whether anything may be done to a node.
pub(super) fn may_touch(context: &Context<'_>, node: &NodeId) -> bool {
    permit(context).is_none_or(|permit| permit.nodes.contains(node))
}

/// Whether a workload may be started as this.
pub(super) fn may_become(context: &Context<'_>, node: &NodeId, identity: &Identity) -> bool {
    permit(context).is_none_or(|permit| {
        permit.nodes.contains(node)
            && permit
                .identities
                .get(node)
                .is_none_or(|approved| **approved == *identity)
    })
}

/// Lets an action wait that the applied plan does not have; whether it does. What is under way
/// goes on.
pub(super) fn withhold(context: &Context<'_>, planned: &mut Planned) -> bool {
    let node = &planned.status.node;
    let under_way = |attempt: &super::memory::Attempt| attempt.running;
    if permit(context).is_none() || context.memory.attempts.get(node).is_some_and(under_way) {
        return false;
    }
    let changed = match context.desired.nodes.get(node) {
        Some(Node::Workload(workload)) => another(context, workload),
        _ => None,
    };
    let runs = context.current(node).is_some();
    match (&planned.item, changed) {
        // Its present life stays as it is, and what keeps it so is done.
        (Some(_), Some(_)) if runs && may_touch(context, node) => return false,
        (Some(_), None) if may_touch(context, node) => return false,
        (None, None) => return false,
        (None, Some(reason)) => planned.item = Some(replacement(node, reason)),
        (Some(_), _) => {}
    }
    if let Some(item) = &mut planned.item {
        item.gate = Gate::Waiting(vec![NEXT.to_owned()]);
        item.steps.clear();
    }
    planned.status.state = if runs {
        NodeState::Running
    } else {
        NodeState::Waiting
    };
    WITHHELD.clone_into(&mut planned.status.detail);
    planned.wake = None;
    true
}

/// How what the spec wants now differs from what may be started, if that is due.
fn another(context: &Context<'_>, workload: &WorkloadNode) -> Option<String> {
    let life = context.current(&workload.id);
    let wanted = specified(context, workload, life).ok()?;
    if may_become(context, &workload.id, &wanted) || context.memory.stopped.contains(&workload.id) {
        return None;
    }
    match life {
        Some(life) => difference(&life.identity, &wanted),
        None => difference(permit(context)?.identities.get(&workload.id)?, &wanted),
    }
}

fn replacement(node: &NodeId, reason: String) -> Item {
    Item {
        node: node.clone(),
        change: Change::Replace,
        reason,
        gate: Gate::Ready,
        steps: Vec::new(),
        details: Vec::new(),
        diff: None,
    }
}
