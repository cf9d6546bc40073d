//! An instance that is replaced start-first: two seats, of which one runs. The newcomer takes
//! the free seat and joins; when it is well, the other leaves.

use super::context::{Context, Level, Planned, status};
use super::ending::{self, Ending};
use super::model::{Change, Gate, Item, NodeState, Notes, Step};
use super::workload::{ending_of, is_ready, keeps, leave, outdated};
use super::world::{Life, LifeState};
use super::{rolling, start, workload};
use crate::graph::desired::{EndpointNode, Node, WorkloadNode};
use crate::graph::{first_seat, second_seat};
use crate::spec::node::NodeId;

impl<'a> Context<'a> {
    /// How far `on` is for `node`. Of two seats the one that is further counts, except for the
    /// endpoint of either.
    pub fn level_for(&self, node: &NodeId, on: &NodeId) -> Level {
        let own = self.level(on);
        let Some(partner) = self.desired.pairs.get(on) else {
            return own;
        };
        let leads_to = |endpoint: &EndpointNode| endpoint.target.as_ref() == Some(on);
        match self.desired.nodes.get(node) {
            // An endpoint is about the one seat that it leads to.
            Some(Node::Endpoint(endpoint)) if leads_to(endpoint) => own,
            _ => own.or(self.level(partner)),
        }
    }

    /// The other seat of an instance that has two.
    pub fn partner(&self, id: &NodeId) -> Option<&'a WorkloadNode> {
        match self.desired.nodes.get(self.desired.pairs.get(id)?) {
            Some(Node::Workload(workload)) => Some(workload),
            _ => None,
        }
    }

    /// The first of an instance's seats: the one that stands for it.
    pub fn first_seat<'b>(&'b self, id: &'b NodeId) -> &'b NodeId {
        match self.desired.pairs.get(id) {
            Some(partner) => id.min(partner),
            None => id,
        }
    }

    /// The instance of the spec that has this one for a second seat no more: it is replaced
    /// stop-first by now.
    pub fn instance_of(&self, left: &NodeId) -> Option<&'a WorkloadNode> {
        let first = first_seat(left).filter(|_| self.memory.down.is_none())?;
        match self.desired.nodes.get(&first) {
            Some(Node::Workload(first)) if !self.desired.nodes.contains_key(left) => Some(first),
            _ => None,
        }
    }

    /// The life that still sits in the second seat of an instance that has only one by now.
    pub fn in_left_seat(&self, first: &NodeId) -> Option<&'a Life> {
        if self.desired.pairs.contains_key(first) {
            return None;
        }
        self.current(&second_seat(first))
    }

    /// Whether that life serves in place of the first seat.
    pub fn serves_for(&self, first: &WorkloadNode, life: &Life) -> bool {
        self.is_settled(life) && is_ready(self, first, life)
    }

    /// Whether a life is up, and nothing asks or prepares its end.
    pub fn is_settled(&self, life: &Life) -> bool {
        life.state == LifeState::Up
            && !self.memory.asked.contains_key(&life.id)
            && !self.memory.leaving.contains_key(&life.id)
    }

    /// Whether nothing is to run in a seat, because the other one does or will.
    pub fn is_spare(&self, id: &NodeId) -> bool {
        let Some(partner) = self.desired.pairs.get(id) else {
            return false;
        };
        match (self.current(id), self.current(partner)) {
            (Some(_), _) => false,
            (None, Some(_)) => true,
            (None, None) => !super::pair::is_chosen(self, id),
        }
    }
}

/// Plans an instance of one seat in which nothing runs. What still sits in the second one that
/// it had is to go before it starts, and serves in its place until then.
pub(super) fn absent(context: &mut Context<'_>, node: &WorkloadNode, notes: &Notes) -> Planned {
    let Some(life) = context.in_left_seat(&node.id) else {
        return start::absent(context, node);
    };
    let mut planned = join(context, node, vec![format!("{} to end", life.id.node)]);
    planned.level.started = context.serves_for(node, life) && !notes.leaving.contains(&life.id);
    // Its checks are asked no more.
    planned.level.healthy = planned.level.started && context.endpoints(&node.id).is_empty();
    planned
}

/// Which others of its group are to be well before what sits in the second seat that `first` had
/// may leave. One that does not serve, or in whose place the first one serves, costs nothing.
pub(super) fn others(context: &Context<'_>, first: &WorkloadNode, life: &Life) -> Vec<String> {
    let free = context.memory.stopped.contains(&first.id)
        || !is_ready(context, first, life)
        || rolling::is_well(context, first).is_ok();
    match free {
        true => Vec::new(),
        false => rolling::before(context, first),
    }
}

/// Plans one seat; `None` when it is spare and nothing of it is left.
pub(super) fn plan(
    context: &mut Context<'_>,
    node: &WorkloadNode,
    partner: &WorkloadNode,
    notes: &mut Notes,
) -> Option<Planned> {
    let (here, there) = (context.current(&node.id), context.current(&partner.id));
    let Some(life) = here else {
        let newcomer = match there {
            Some(other) => newcomer(context, node, partner, other),
            None => (is_chosen(context, &node.id)).then(Vec::new),
        };
        return match newcomer {
            Some(waits) => Some(join(context, node, waits)),
            None => spare(context, node),
        };
    };
    let Some(other) = there else {
        return Some(alone(context, (node, life), partner, notes));
    };
    Some(both(context, (node, life), (partner, other), notes))
}

/// Whether this is the seat that starts when nothing of either runs: the one that ran last.
pub(super) fn is_chosen(context: &Context<'_>, id: &NodeId) -> bool {
    let newest = |id: &NodeId| {
        let lives = context.lives(id).iter().map(|life| life.id.incarnation);
        let remembered = context.memory.workloads.get(id);
        lives
            .chain(remembered.map(|memory| memory.incarnation))
            .max()
            .unwrap_or(0)
    };
    let Some(partner) = context.desired.pairs.get(id) else {
        return true;
    };
    let (own, others) = (newest(id), newest(partner));
    own > others || (own == others && context.first_seat(id) == id)
}

/// Whether a newcomer is to sit here, because the life in the other seat is to be replaced;
/// and what it waits for.
fn newcomer(
    context: &mut Context<'_>,
    node: &WorkloadNode,
    partner: &WorkloadNode,
    other: &Life,
) -> Option<Vec<String>> {
    if context.memory.stopped.contains(&node.id) || other.state != LifeState::Up {
        return None;
    }
    let asked = context.memory.asked.contains_key(&other.id);
    if !asked {
        outdated(context, partner, other)?;
    }
    if rolling::serves(context, partner) {
        Some(rolling::before(context, partner))
    } else {
        Some(Vec::new())
    }
}

fn join(context: &mut Context<'_>, node: &WorkloadNode, waits: Vec<String>) -> Planned {
    let mut planned = start::absent(context, node);
    if let Some(item) = &mut planned.item
        && !waits.is_empty()
        && !matches!(item.gate, Gate::Blocked(_))
    {
        planned.status.detail = format!("waiting on {}", waits.join(", "));
        item.gate = match &item.gate {
            Gate::Waiting(more) => Gate::Waiting(waits.iter().chain(more).cloned().collect()),
            _ => Gate::Waiting(waits),
        };
        item.steps.clear();
    }
    planned
}

/// Nothing is to run here; what an earlier life left is cleared.
fn spare(context: &mut Context<'_>, node: &WorkloadNode) -> Option<Planned> {
    context.spare.insert(node.id.clone());
    let steps: Vec<Step> = context
        .lives(&node.id)
        .iter()
        .map(|life| Step::Clear(life.id.clone()))
        .collect();
    if steps.is_empty() {
        return None;
    }
    let reason = "it was replaced";
    Some(Planned {
        status: status(&node.id, NodeState::Stopping, reason),
        item: Some(Item {
            node: node.id.clone(),
            change: Change::Remove,
            reason: reason.to_owned(),
            gate: Gate::Ready,
            steps,
            details: Vec::new(),
            diff: None,
        }),
        level: Level::default(),
        wake: None,
    })
}

/// Only this seat runs. It stays until another is well, or was and did what it was to do, unless
/// somebody wants it to end.
fn alone(
    context: &mut Context<'_>,
    (node, life): (&WorkloadNode, &Life),
    partner: &WorkloadNode,
    notes: &mut Notes,
) -> Planned {
    let moves = life.state == LifeState::Up
        && !context.memory.stopped.contains(&node.id)
        && !context.memory.asked.contains_key(&life.id);
    let reason = outdated(context, node, life).filter(|_| moves);
    let Some(reason) = reason else {
        return workload::alive(context, node, life, notes);
    };
    if !context.lives(&partner.id).is_empty()
        && start::absent(context, partner).status.state == NodeState::Completed
    {
        return leave(context, node, life, &reason, notes);
    }
    stays_until(context, node, &ending_of(context, node, life), &reason)
}

/// It serves on while the other seat is filled.
fn stays_until(
    context: &Context<'_>,
    node: &WorkloadNode,
    ending: &Ending<'_>,
    reason: &str,
) -> Planned {
    let on = context.desired.pairs.get(&node.id);
    let on = on.map(|partner| format!("{partner} to be well"));
    let on = on.into_iter().collect();
    let mut planned = ending::waiting(context, ending.life, Change::Replace, reason, on);
    planned.level = workload::level(context, node, ending.life);
    planned.status.state = NodeState::Running;
    planned
}

/// Both seats run: one of them is to go.
fn both(
    context: &mut Context<'_>,
    (node, life): (&WorkloadNode, &Life),
    (partner, other): (&WorkloadNode, &Life),
    notes: &mut Notes,
) -> Planned {
    let leaves = |context: &Context<'_>, life: &Life| {
        life.state != LifeState::Up
            || context.memory.asked.contains_key(&life.id)
            || context.memory.leaving.contains_key(&life.id)
    };
    if leaves(context, life) || context.memory.stopped.contains(&node.id) {
        return match outdated(context, node, life) {
            Some(reason) if life.state == LifeState::Up => {
                leave(context, node, life, &reason, notes)
            }
            _ => going(context, node, life, notes),
        };
    }
    let mine = outdated(context, node, life);
    if leaves(context, other) {
        return match mine {
            Some(reason) => stays_until(context, node, &ending_of(context, node, life), &reason),
            None => keeps(context, node, life, notes),
        };
    }
    let theirs = outdated(context, partner, other);
    match (mine, theirs) {
        (Some(reason), None) => match rolling::is_well(context, partner) {
            Ok(()) => leave(context, node, life, &reason, notes),
            Err(soon) => {
                let mut planned =
                    stays_until(context, node, &ending_of(context, node, life), &reason);
                planned.wake = super::context::earliest(planned.wake, soon);
                planned
            }
        },
        (None, Some(_)) => keeps(context, node, life, notes),
        (mine, _) => {
            let goes = loses(context, (node, life), (partner, other));
            let reason = mine.unwrap_or_else(|| "a second life of it runs".to_owned());
            match goes {
                true => leave(context, node, life, &reason, notes),
                false => keeps(context, node, life, notes),
            }
        }
    }
}

/// Of two that are equally right or wrong, the one that does not serve goes; else the younger.
fn loses(
    context: &Context<'_>,
    (node, life): (&WorkloadNode, &Life),
    (partner, other): (&WorkloadNode, &Life),
) -> bool {
    let serves = rolling::serves(context, node);
    if serves != rolling::serves(context, partner) {
        return !serves;
    }
    (life.started, &life.id) > (other.started, &other.id)
}

/// It was asked to end, or is half gone, though nothing of it is outdated.
fn going(
    context: &mut Context<'_>,
    node: &WorkloadNode,
    life: &Life,
    notes: &mut Notes,
) -> Planned {
    if life.state == LifeState::Up && !context.memory.stopped.contains(&node.id) {
        // One that leaves because it was not ready in time failed, and is no other's loss.
        let asked = context.memory.asked.contains_key(&life.id);
        let late = workload::too_late(context, node, life).filter(|_| !asked);
        if late.is_some() {
            notes.late.insert(life.id.clone());
        }
        let reason = late.unwrap_or_else(|| "it was replaced".to_owned());
        return leave(context, node, life, &reason, notes);
    }
    workload::alive(context, node, life, notes)
}
