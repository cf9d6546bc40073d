//! Endpoints of services: their registration follows their target.

use super::context::{Context, Level, Planned, detail, status};
use super::lookup::Sight;
use super::model::{Change, Detail, Gate, Item, NodeState, Step};
use super::world::LifeState;
use crate::graph::desired::{EndpointNode, ProbeNode};
use crate::spec::model::Status;
use crate::spec::node::NodeId;

/// Hex digits of a registration's hash.
const HASH: usize = 16;

/// What is compared to know whether a registration is current.
pub fn registration_hash(endpoint: &EndpointNode) -> String {
    let mut parts = Parts(Vec::with_capacity(256));
    parts.words([&endpoint.service, &endpoint.service_id, &endpoint.address]);
    parts.number(u64::from(endpoint.port));
    parts.words(&endpoint.tags);
    parts.words(endpoint.meta.iter().flat_map(|(key, value)| [key, value]));
    parts.words(
        endpoint
            .checks
            .iter()
            .flat_map(|check| [&check.id, &check.name]),
    );
    for check in &endpoint.checks {
        if let ProbeNode::Ttl(ttl) = check.probe {
            parts.words([&check.id]);
            parts.number(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        }
    }
    let hex = blake3::hash(&parts.0).to_hex();
    hex.as_str().get(..HASH).unwrap_or_default().to_owned()
}

/// Bytes in which no two different sequences of words and numbers look alike.
struct Parts(Vec<u8>);

impl Parts {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn words<'a>(&mut self, words: impl IntoIterator<Item = &'a String>) {
        let place = self.0.len();
        self.number(0);
        let mut count = 0_u64;
        for word in words {
            count += 1;
            self.number(word.len() as u64);
            self.0.extend_from_slice(word.as_bytes());
        }
        for (byte, of_count) in self.0.iter_mut().skip(place).zip(count.to_le_bytes()) {
            *byte = of_count;
        }
    }
}

/// Plans one endpoint; `None` for that of a spare seat.
pub(super) fn plan(context: &Context<'_>, id: &NodeId, endpoint: &EndpointNode) -> Option<Planned> {
    let target = endpoint.target.as_ref();
    let spare = target.is_some_and(|target| context.spare.contains(target));
    let Sight {
        status: health,
        registered,
        ..
    } = context.sight(id);
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
    let target = endpoint.target.as_ref();
    if let Some((target, life)) = target.and_then(|target| Some((target, context.current(target)?)))
    {
        // A target that is not ready yet is registered all the same: it serves.
        waits.retain(|wait| *wait != target.to_string());
        // What served before goes on, however others are by now.
        if context.memory.adopted.contains(&life.id) {
            waits.clear();
        }
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
