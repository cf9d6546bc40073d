//! Which of a group leaves next. The whole group is looked at once in a plan, not once for each
//! of its members.

use super::context::Context;
use super::workload::{difference, is_healthy, wanted};
use crate::graph::desired::WorkloadNode;
use crate::spec::node::NodeId;

/// How many of those that come first are named; the rest is counted.
pub(super) const NAMED: usize = 8;

/// How a group stands, for the one that would leave. Members that an operator stopped are no
/// part of it.
#[derive(Debug)]
pub(super) struct Roll<'a> {
    /// Who is not well, or leaves already: nobody else leaves meanwhile.
    away: Vec<(usize, &'a NodeId)>,
    /// Who is well and due, by replica: the lower ones leave first.
    due: Vec<(u32, usize, &'a NodeId)>,
}

impl<'a> Roll<'a> {
    /// Looks at every member of a group.
    pub fn of(context: &Context<'_>, group: &[&'a WorkloadNode]) -> Self {
        let mut roll = Roll {
            away: Vec::new(),
            due: Vec::new(),
        };
        let stopped = &context.memory.stopped;
        let members = group.iter().enumerate();
        for (place, node) in members.filter(|(_, node)| !stopped.contains(&node.id)) {
            if !is_healthy(context, node) || leaves(context, node) {
                roll.away.push((place, &node.id));
            } else if is_due(context, node) {
                roll.due.push((node.replica, place, &node.id));
            }
        }
        roll.due.sort_unstable();
        roll
    }

    /// What a member that is well and not leaving yet waits for, in words.
    pub fn before(&self, node: &WorkloadNode) -> Vec<String> {
        let lower = self
            .due
            .partition_point(|(replica, ..)| *replica < node.replica);
        let lower = self.due.get(..lower).unwrap_or_default();
        let mut named: Vec<(usize, &NodeId)> = self.away.iter().copied().take(NAMED).collect();
        named.extend(lower.iter().take(NAMED).map(|(_, place, id)| (*place, *id)));
        named.sort_unstable();
        named.truncate(NAMED);
        let more = self.away.len() + lower.len() - named.len();
        let mut words: Vec<String> = named
            .iter()
            .map(|(_, id)| format!("{id} to be well"))
            .collect();
        if more > 0 {
            words.push(format!("{more} more of them"));
        }
        words
    }
}

fn leaves(context: &Context<'_>, node: &WorkloadNode) -> bool {
    context.current(&node.id).is_some_and(|life| {
        context.memory.leaving.contains_key(&life.id) || context.memory.asked.contains_key(&life.id)
    })
}

fn is_due(context: &Context<'_>, node: &WorkloadNode) -> bool {
    context.current(&node.id).is_some_and(|life| {
        context.memory.restart.contains(&life.id)
            || wanted(context, node, Some(life))
                .is_ok_and(|wanted| difference(&life.identity, &wanted).is_some())
    })
}
