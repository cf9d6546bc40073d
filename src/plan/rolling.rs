//! Who of a group may be replaced now, and whether an update fails.

use std::collections::{BTreeMap, BTreeSet};

use super::context::{Context, earliest, words};
use super::model::{Gate, NodeState, NodeStatus, Notes, Plan};
use super::start;
use super::workload::{is_ready, outdated};
use super::world::{Life, LifeState};
use crate::graph::desired::{Node, WorkloadNode};
use crate::spec::model::{FailureAction, Status};
use crate::spec::node::NodeId;
use crate::spec::time::Time;

/// How one instance of a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is as it should be and serves.
    Well,
    /// It serves and is to be replaced.
    Due,
    /// It is away, on its way out, or on its way in.
    Away,
}

/// How many of those that come first are named; the rest is counted.
pub(super) const NAMED: usize = 8;

/// How a group stands, for the one that would leave; it is looked at once in a plan. Instances
/// that an operator stopped are no part of it. Of two seats the first stands for both.
#[derive(Debug)]
pub(super) struct Roll<'a> {
    /// Who is away.
    away: Vec<(usize, &'a NodeId)>,
    /// Who is due, by replica: the lower ones leave first.
    due: Vec<(u32, usize, &'a NodeId)>,
}

impl<'a> Roll<'a> {
    /// Looks at every member of a group.
    pub fn of(context: &Context<'_>, group: &[&'a WorkloadNode]) -> Self {
        let mut roll = Roll {
            away: Vec::new(),
            due: Vec::new(),
        };
        let members = group.iter().enumerate().filter(|(_, node)| {
            *context.first_seat(&node.id) == node.id && !context.memory.stopped.contains(&node.id)
        });
        for (place, node) in members {
            match standing(context, node) {
                Standing::Well => {}
                Standing::Due => roll.due.push((node.replica, place, &node.id)),
                Standing::Away => roll.away.push((place, &node.id)),
            }
        }
        roll.due.sort_unstable();
        roll
    }

    /// Which others are to be well before `own`, an instance of this node's, may begin to leave;
    /// empty when it may.
    fn before(&self, node: &WorkloadNode, own: &NodeId) -> Vec<String> {
        let lower = self
            .due
            .partition_point(|(replica, ..)| *replica < node.replica);
        let lower = self.due.get(..lower).unwrap_or_default();
        let away = || self.away.iter().filter(|(_, id)| *id != own);
        let count = away().count() + lower.len();
        if count < node.update.max_unavailable as usize {
            return Vec::new();
        }
        let mut named: Vec<(usize, &NodeId)> = away().copied().take(NAMED).collect();
        named.extend(lower.iter().take(NAMED).map(|(_, place, id)| (*place, *id)));
        named.sort_unstable();
        named.truncate(NAMED);
        let more = count - named.len();
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

/// Whether a life serves as well as it can: ready, nothing that it serves is critical.
pub(super) fn serves(context: &Context<'_>, node: &WorkloadNode) -> bool {
    let Some(life) = context.current(&node.id) else {
        return false;
    };
    is_ready(context, node, life)
        && context
            .health(&node.id)
            .is_none_or(|health| health != Status::Critical)
}

/// Whether it serves, and has for as long as counts; else when it will have, if it serves.
pub(super) fn is_well(context: &Context<'_>, node: &WorkloadNode) -> Result<(), Option<Time>> {
    let Some(life) = context.current(&node.id).filter(|_| serves(context, node)) else {
        return Err(None);
    };
    let since = context.memory.well.get(&life.id).copied();
    let end = since.unwrap_or(context.now) + node.min_healthy_time;
    if context.now >= end {
        Ok(())
    } else {
        Err(Some(end))
    }
}

/// Which others are to be well before this instance may begin to leave; empty when it may.
pub(super) fn before(context: &Context<'_>, node: &WorkloadNode) -> Vec<String> {
    let roll = context.roll(node);
    roll.before(node, context.first_seat(&node.id))
}

fn standing(context: &Context<'_>, first: &WorkloadNode) -> Standing {
    let failed = first.update.failure_action == FailureAction::Continue
        && failed_at(context, first).is_some_and(|at| context.now >= at);
    if failed {
        return Standing::Well;
    }
    let seats = [Some(first), context.partner(&first.id)];
    let mut alive = seats
        .into_iter()
        .flatten()
        .filter_map(|seat| Some((seat, context.current(&seat.id)?)));
    let (Some((seat, life)), None) = (alive.next(), alive.next()) else {
        if let Some(life) = context.in_left_seat(&first.id) {
            return match context.serves_for(first, life) {
                true => Standing::Due,
                false => Standing::Away,
            };
        }
        // One that ended for good is as it should be.
        let mut seats = seats.into_iter().flatten();
        return match seats.any(|seat| start::rests(context, seat)) {
            true => Standing::Well,
            false => Standing::Away,
        };
    };
    let on_its_way = context.memory.leaving.contains_key(&life.id)
        || context.memory.asked.contains_key(&life.id);
    match is_well(context, seat) {
        _ if on_its_way => Standing::Away,
        Ok(()) if outdated(context, seat, life).is_some() => Standing::Due,
        Ok(()) => Standing::Well,
        Err(_) => Standing::Away,
    }
}

/// When an instance that the spec in force brought or changed has failed, unless it is well by
/// then.
fn failed_at(context: &Context<'_>, node: &WorkloadNode) -> Option<Time> {
    let since = context.memory.trying.get(context.first_seat(&node.id))?;
    Some(*since + node.update.healthy_deadline)
}

/// Notes who is well, who is tried, and whether the spec in force is to give way.
pub(super) fn judge(context: &Context<'_>, plan: &mut Plan) {
    for node in context.desired.nodes.values() {
        let Node::Workload(node) = node else { continue };
        // Where no time is asked for, nobody asks since when.
        if node.min_healthy_time.is_zero() {
            continue;
        }
        if let Some(life) = context.current(&node.id)
            && serves(context, node)
        {
            plan.notes.well.insert(life.id.clone());
            let soon = is_well(context, node).err().flatten();
            plan.wake = earliest(plan.wake, soon);
        }
    }
    if context.memory.down.is_some() || context.memory.changed.is_empty() {
        return;
    }
    let begun: BTreeSet<NodeId> = plan
        .items
        .iter()
        .filter(|item| matches!(item.gate, Gate::Ready | Gate::Running))
        .map(|item| item.node.clone())
        .collect();
    let statuses: Vec<NodeStatus> = plan
        .nodes
        .iter()
        .filter(|status| context.memory.changed.contains(&status.node))
        .cloned()
        .collect();
    for status in &statuses {
        let id = &status.node;
        let Some(Node::Workload(node)) = context.desired.nodes.get(id) else {
            continue;
        };
        let is_late = context
            .current(id)
            .is_some_and(|life| plan.notes.late.contains(&life.id));
        if !is_late && !is_tried(context, node, status.state, begun.contains(id)) {
            continue;
        }
        let first = context.first_seat(id).clone();
        plan.notes.trying.insert(first.clone());
        let Some(end) = failed_at(context, node) else {
            let end = context.now + node.update.healthy_deadline;
            plan.wake = earliest(plan.wake, Some(end));
            continue;
        };
        if context.now < end {
            plan.wake = earliest(plan.wake, Some(end));
        } else {
            fail(node, &first, &status.detail, &mut plan.notes);
        }
    }
    verdicts(context, plan);
}

/// Whether it has all that it needs and is not well all the same.
fn is_tried(context: &Context<'_>, node: &WorkloadNode, state: NodeState, begun: bool) -> bool {
    match context.current(&node.id) {
        Some(life) => {
            outdated(context, node, life).is_none()
                && (state != NodeState::Stopping || fails(context, life))
                && is_well(context, node).is_err()
        }
        None => match state {
            NodeState::Backoff | NodeState::Failed => true,
            NodeState::Waiting => begun,
            _ => false,
        },
    }
}

/// Whether a life that goes does so by its own doing. It is tried until then: what fails again and
/// again would have a new deadline each time.
fn fails(context: &Context<'_>, life: &Life) -> bool {
    let memory = context.memory;
    let by_itself = life.state == LifeState::Ending && !memory.asked.contains_key(&life.id);
    let stopped = memory.stopped.contains(&life.id.node);
    !stopped && (by_itself || memory.late.contains(&life.id))
}

fn fail(node: &WorkloadNode, first: &NodeId, detail: &str, notes: &mut Notes) {
    if node.update.failure_action != FailureAction::Rollback {
        return;
    }
    let mut why = format!(
        "{first} is not well after {}",
        words(node.update.healthy_deadline)
    );
    if !detail.is_empty() {
        why.push_str(": ");
        why.push_str(detail);
    }
    notes.rollback.get_or_insert(why);
}

/// Says of those that failed what becomes of the update.
fn verdicts(context: &Context<'_>, plan: &mut Plan) {
    let failed: BTreeMap<&NodeId, String> = context
        .memory
        .trying
        .keys()
        .filter(|id| plan.notes.trying.contains(*id))
        .filter_map(|id| match context.desired.nodes.get(id) {
            Some(Node::Workload(node)) => Some(node),
            _ => None,
        })
        .filter(|node| failed_at(context, node).is_some_and(|at| context.now >= at))
        .map(|node| {
            let then = match node.update.failure_action {
                FailureAction::Continue => "goes on",
                FailureAction::Pause | FailureAction::Rollback => "pauses",
            };
            let deadline = words(node.update.healthy_deadline);
            let words = format!("not well after {deadline}, the update {then}");
            (&node.id, words)
        })
        .collect();
    for status in &mut plan.nodes {
        if let Some(words) = failed.get(&status.node) {
            status.detail = if status.detail.is_empty() {
                words.clone()
            } else {
                format!("{}; {words}", status.detail)
            };
        }
    }
}
