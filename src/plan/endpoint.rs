//! Endpoints of services: their registration follows their target.

use super::context::{Context, Level, Planned, detail, status};
use super::model::{Change, Detail, Gate, Item, NodeState, Step};
use super::world::LifeState;
use crate::graph::desired::EndpointNode;
use crate::spec::model::Status;
use crate::spec::node::NodeId;

/// What is compared to know whether a registration is current.
pub fn registration_hash(endpoint: &EndpointNode) -> String {
    let checks: Vec<_> = endpoint
        .checks
        .iter()
        .map(|check| (&check.id, &check.name))
        .collect();
    let ttls: Vec<_> = endpoint
        .checks
        .iter()
        .filter_map(|check| match check.probe {
            crate::graph::desired::ProbeNode::Ttl(ttl) => Some((&check.id, ttl.as_millis())),
            _ => None,
        })
        .collect();
    let parts = format!(
        "{:?}{:?}{:?}{:?}{:?}{:?}{checks:?}{ttls:?}",
        endpoint.service,
        endpoint.service_id,
        endpoint.address,
        endpoint.port,
        endpoint.tags,
        endpoint.meta
    );
    blake3::hash(parts.as_bytes())
        .to_hex()
        .chars()
        .take(16)
        .collect()
}

/// Plans one endpoint; `None` for that of a spare seat.
pub(super) fn plan(context: &Context<'_>, id: &NodeId, endpoint: &EndpointNode) -> Option<Planned> {
    let target = endpoint.target.as_ref();
    let spare = target.is_some_and(|target| context.spare.contains(target));
    let registered = context.observed.registered.get(&endpoint.service_id);
    let health = context.endpoint_status(&endpoint.service_id);
    let stopped = spare || target.is_some_and(|target| context.resting.contains(target));
    let leaving = target.is_some_and(|target| context.leaving.contains(target));
    let mut planned = match registered {
        None if spare => return None,
        Some(_) if leaving || stopped => leave(id, endpoint),
        Some(there) if there.hash == registration_hash(endpoint) => {
            let level = Level {
                started: true,
                healthy: health == Some(Status::Passing),
                completed: false,
            };
            Planned::idle(status(id, NodeState::Running, ""), level)
        }
        Some(_) => register(
            context,
            id,
            endpoint,
            Change::Change,
            "registration changed",
        ),
        None if leaving => {
            let words = "its target leaves";
            Planned::idle(status(id, NodeState::Stopping, words), Level::default())
        }
        None if target.is_some_and(|target| is_ending(context, target)) => {
            let words = "its target ends";
            Planned::idle(status(id, NodeState::Stopping, words), Level::default())
        }
        None if stopped => {
            let words = "its target rests";
            Planned::idle(status(id, NodeState::Stopped, words), Level::default())
        }
        None => register(context, id, endpoint, Change::Add, "not registered"),
    };
    planned.status.health = health;
    planned.status.address = Some(format!("{}:{}", endpoint.address, endpoint.port));
    Some(planned)
}

/// Whether what still runs of a target is on its way out: it is not announced again.
fn is_ending(context: &Context<'_>, target: &NodeId) -> bool {
    context
        .current(target)
        .is_some_and(|life| life.state == LifeState::Ending)
}

fn leave(id: &NodeId, endpoint: &EndpointNode) -> Planned {
    let reason = "its target leaves";
    let item = Item {
        node: id.clone(),
        change: Change::Change,
        reason: reason.to_owned(),
        gate: Gate::Ready,
        steps: vec![Step::Deregister(endpoint.service_id.clone())],
        details: Vec::new(),
        diff: None,
    };
    Planned {
        status: status(id, NodeState::Stopping, reason),
        item: Some(item),
        level: Level::default(),
        wake: None,
    }
}

fn register(
    context: &Context<'_>,
    id: &NodeId,
    endpoint: &EndpointNode,
    change: Change,
    reason: &str,
) -> Planned {
    let mut waits = context.lacking(id);
    // An adopted target that is not ready yet is registered all the same: it serves.
    if let Some(target) = &endpoint.target
        && context.current(target).is_some()
    {
        waits.retain(|wait| *wait != target.to_string());
    }
    let (gate, steps) = if waits.is_empty() {
        (
            Gate::Ready,
            vec![Step::Register(Box::new(endpoint.clone()))],
        )
    } else {
        (Gate::Waiting(waits.clone()), Vec::new())
    };
    let words = if waits.is_empty() {
        reason.to_owned()
    } else {
        format!("waiting on {}", waits.join(", "))
    };
    let item = Item {
        node: id.clone(),
        change,
        reason: reason.to_owned(),
        gate,
        steps,
        details: attributes(endpoint),
        diff: None,
    };
    Planned {
        status: status(id, NodeState::Waiting, words),
        item: Some(item),
        level: Level::default(),
        wake: None,
    }
}

fn attributes(endpoint: &EndpointNode) -> Vec<Detail> {
    let mut details = vec![detail(
        "address",
        format!("{}:{}", endpoint.address, endpoint.port),
    )];
    if !endpoint.tags.is_empty() {
        details.push(detail("tags", endpoint.tags.join(", ")));
    }
    for check in &endpoint.checks {
        details.push(detail(
            "check",
            format!(
                "{} every {}",
                check.name,
                super::context::words(check.interval)
            ),
        ));
    }
    details
}
