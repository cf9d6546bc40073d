//! (desired, observed, memory, now) -> plan; reasons; back-off; how a plan reads.
//!
//! [`plan`] is a pure function. It says for every node how it stands and what is outstanding;
//! an action that cannot be done now says what it waits for. Executors make no choices.

pub mod backoff;
mod context;
mod ending;
pub mod endpoint;
pub mod explain;
pub mod firewall;
mod lookup;
pub mod markdown;
pub mod memory;
pub mod model;
mod network;
mod pair;
pub mod permit;
mod place;
mod prune;
pub mod rehearsal;
mod removals;
mod render;
mod rolling;
pub mod saved;
mod start;
mod template;
pub mod text;
pub mod view;
mod workload;
pub mod world;

pub use context::words;
pub use prune::KEPT;
pub use workload::{exit_words, names};

use std::sync::Arc;

use crate::graph::desired::{Desired, Node};
use crate::spec::node::NodeId;
use crate::spec::time::Time;
use context::{Context, Level, Planned, earliest, hold_back, status};
use memory::Memory;
use model::{Gate, NodeState, Plan};
use world::Observed;

/// Works out every outstanding action.
pub fn plan(desired: &Desired, observed: &Observed, memory: &Memory, now: Time) -> Plan {
    survey(&mut Context::new(desired, observed, memory, now))
}

/// The same; how far each node is stays in the context.
fn survey(context: &mut Context<'_>) -> Plan {
    let desired = context.desired;
    let mut plan = Plan {
        waves: Arc::clone(&desired.waves),
        nodes: Vec::with_capacity(desired.nodes.len()),
        ..Plan::default()
    };
    for mut planned in prune::plan(context, &mut plan.notes) {
        hold(context, &mut planned);
        take(&mut plan, planned);
    }
    if context.memory.down.is_none() {
        for (place, (id, node)) in desired.nodes.iter().enumerate() {
            let own = match node {
                Node::Workload(workload) => &workload.id,
                _ => id,
            };
            context.turn = Some((own, place));
            let Some(mut planned) = plan_node(context, id, node, &mut plan) else {
                continue;
            };
            hold(context, &mut planned);
            if planned.item.is_none() && context.is_busy(own) {
                // What an earlier spec wanted is under way still, and may be its removal.
                planned.level = Level::default();
            }
            context.set_level(place, planned.level);
            take(&mut plan, planned);
        }
    }
    let may_touch = |life: &world::LifeId| permit::may_touch(context, &life.node);
    plan.notes.leaving.retain(&may_touch);
    plan.notes.draining.retain(|life, _| may_touch(life));
    rolling::judge(context, &mut plan);
    plan
}

/// What an applied plan does not have waits for another; the rest may wait for itself.
fn hold(context: &Context<'_>, planned: &mut Planned) {
    if !permit::withhold(context, planned) {
        hold_back(context, planned);
    }
}

fn take(plan: &mut Plan, planned: Planned) {
    plan.wake = earliest(plan.wake, planned.wake);
    if let Some(item) = &planned.item
        && matches!(item.gate, Gate::Waiting(_))
    {
        plan.notes.waiting.insert(item.node.clone());
    }
    plan.items.extend(planned.item);
    plan.nodes.push(planned.status);
}

fn plan_node(
    context: &mut Context<'_>,
    id: &NodeId,
    node: &Node,
    plan: &mut Plan,
) -> Option<Planned> {
    Some(match node {
        Node::Registry(registry) => network::plan_registry(context, id, registry),
        Node::Network(bridge) => network::plan_network(context, id, bridge),
        Node::Workload(workload) => return workload::plan(context, workload, &mut plan.notes),
        Node::Endpoint(endpoint) => return endpoint::plan(context, id, endpoint),
        Node::Template(_) => return render::plan(context, id, &mut plan.notes),
        Node::Check => {
            // A definition does nothing by itself: how far it is concerns those that need it.
            Planned::idle(status(id, NodeState::Running, ""), check_level(context, id))
        }
    })
}

/// A check's definition is as far as all the endpoints that use it.
fn check_level(context: &Context<'_>, id: &NodeId) -> Level {
    let needs = context.desired.needs.get(id).map_or(&[][..], Vec::as_slice);
    needs.iter().fold(Level::FULL, |level, need| {
        let other = context.level_for(id, &need.on);
        Level {
            started: level.started && other.started,
            healthy: level.healthy && other.healthy,
            completed: level.completed && other.completed,
        }
    })
}

#[cfg(test)]
mod tests;
