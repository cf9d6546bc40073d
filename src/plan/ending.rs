//! How a life ends: it leaves the registry and the proxy, is asked, and is killed when its
//! grace is over.

use std::time::Duration;

use super::context::{Context, Level, Planned, earliest, status, words};
use super::model::{Change, Gate, Item, NodeState, Notes, Step};
use super::world::{Life, LifeState};
use super::{render, template};
use crate::graph::desired::{EndpointNode, Farewell, WorkloadNode};
use crate::planted::{self, Bug};
use crate::spec::model::Drain;
use crate::spec::node::{Kind, NodeId};
use crate::spec::time::Time;

/// How long the proxies get to forget an instance before it ends all the same, beyond the time
/// that templates wait for quiet.
const LEAVE_AT_MOST: Duration = Duration::from_secs(10);

/// How often the connections of a life that drains are counted: nothing tells of their end.
const DRAIN_LOOK: Duration = Duration::from_millis(50);

/// How long the rest of a life may outlive its main process.
const LEFTOVERS: Duration = Duration::from_millis(500);

/// How long the kernel gets to end what was killed.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// A life and how it is asked to end.
pub(super) struct Ending<'a> {
    pub life: &'a Life,
    pub farewell: Farewell,
    /// It ends because it did not become ready in time.
    pub late: bool,
}

/// How a life of this node is to end. A service that led to it once counts for good: its
/// connections may outlive it.
pub(super) fn farewell(node: &WorkloadNode, life: &Life) -> Farewell {
    served(node.farewell(), life)
}

/// Whether exactly that is noted on the life.
pub(super) fn is_noted(node: &WorkloadNode, life: &Life) -> bool {
    life.farewell.as_ref().is_some_and(|noted| {
        noted.signal == node.stop_signal
            && noted.grace == node.stop_grace_period
            && noted.drain == node.drain
            && node.ports.is_subset(&noted.ports)
    })
}

/// The same with the ports at which the life is noted to have served.
pub(super) fn served(mut farewell: Farewell, life: &Life) -> Farewell {
    if let Some(noted) = &life.farewell {
        farewell.ports.extend(&noted.ports);
    }
    farewell
}

fn planned(life: &Life, item: Item, words: String, wake: Option<Time>) -> Planned {
    Planned {
        status: status(&life.id.node, NodeState::Stopping, words),
        item: Some(item),
        level: Level::default(),
        wake,
    }
}

fn item(life: &Life, change: Change, reason: &str, gate: Gate, steps: Vec<Step>) -> Item {
    Item {
        node: life.id.node.clone(),
        change,
        reason: reason.to_owned(),
        gate,
        steps,
        details: Vec::new(),
        diff: None,
    }
}

/// An end that something stands before.
pub(super) fn waiting(
    context: &Context<'_>,
    life: &Life,
    change: Change,
    reason: &str,
    on: Vec<String>,
) -> Planned {
    let words = format!("{reason}; waiting on {}", on.join(", "));
    let item = item(life, change, reason, Gate::Waiting(on), Vec::new());
    let wake = context
        .memory
        .leaving
        .get(&life.id)
        .map(|since| *since + leave_at_most(context));
    planned(life, item, words, wake.filter(|wake| *wake > context.now))
}

/// Kills all of a life at once.
pub(super) fn kill(context: &Context<'_>, life: &Life, change: Change, reason: &str) -> Planned {
    if let Some(killed) = context.memory.killed.get(&life.id) {
        let again = *killed + KILL_AGAIN;
        if context.now < again {
            let mut planned = waiting(
                context,
                life,
                change,
                reason,
                vec!["the kernel to end it".to_owned()],
            );
            planned.wake = Some(again);
            return planned;
        }
    }
    let steps = vec![Step::Kill(life.id.clone())];
    planned(
        life,
        item(life, change, reason, Gate::Ready, steps),
        reason.to_owned(),
        None,
    )
}

/// The main process is gone and something of it is left. A container's own processes end by
/// themselves in a moment; what stays after that is killed, because it holds ports and files
/// that the next life needs.
pub(super) fn leftovers(context: &Context<'_>, ending: &Ending<'_>) -> Planned {
    let life = ending.life;
    let reason = "its main process ended, other processes of it are left";
    let since = context
        .memory
        .ending
        .get(&life.id)
        .copied()
        .unwrap_or(context.now);
    let end = since + LEFTOVERS;
    if context.now >= end {
        return kill(context, life, Change::Remove, reason);
    }
    let on = vec![format!(
        "its other processes, at most {}",
        words(end.since(context.now))
    )];
    let item = item(life, Change::Change, reason, Gate::Waiting(on), Vec::new());
    planned(life, item, reason.to_owned(), Some(end))
}

/// Whether a life leaves the registry before it ends. When everything is taken down, the
/// proxies end first and nobody has to be told.
pub(super) fn must_leave(context: &Context<'_>, node: &NodeId, ending: &Ending<'_>) -> bool {
    let life = &ending.life.id;
    !planted::has(Bug::ForgottenDrain)
        && context.memory.down.is_none()
        // It serves by the spec, or did once: connections may outlive a service's place in it.
        && (!context.endpoints(node).is_empty()
            || context.registered_for(node).is_some()
            || !ending.farewell.ports.is_empty()
            // A file from before may list the address, which another life had when it served.
            || node.kind == Kind::Containers && !template::settled(context)
            || context.memory.leaving.contains_key(life))
        && !context.memory.asked.contains_key(life)
}

/// Leaves the registry, the proxies and its connections first, then ends.
pub(super) fn leave(
    context: &Context<'_>,
    node: &NodeId,
    ending: &Ending<'_>,
    (change, reason): (Change, &str),
    notes: &mut Notes,
) -> Planned {
    let life = ending.life;
    notes.leaving.insert(life.id.clone());
    if let Some(still) = still_announced(context, node, life) {
        // Files that change for another's sake meanwhile give its connections no more time.
        if let Some(draining) = context.memory.draining.get(&life.id) {
            let ports = draining.ports.clone();
            notes.draining.insert(life.id.clone(), ports);
        }
        return waiting(context, life, change, reason, vec![still]);
    }
    if let Some((still, wake)) = still_connected(context, ending, notes) {
        let mut planned = waiting(context, life, change, reason, vec![still]);
        planned.wake = earliest(planned.wake, Some(wake));
        return planned;
    }
    end(context, ending, (change, reason))
}

/// What still leads requests to a life that is to end; `None` when nothing does, or when the
/// proxies had their time. What is registered counts whatever the spec says of it now: a service
/// that left it, or that leads elsewhere by it, is there until it is deregistered.
fn still_announced(context: &Context<'_>, node: &NodeId, life: &Life) -> Option<String> {
    let since = context
        .memory
        .leaving
        .get(&life.id)
        .copied()
        .unwrap_or(context.now);
    if context.now.since(since) >= leave_at_most(context) && !is_being_told(context) {
        return None;
    }
    let endpoints = context.endpoints(node);
    let announced = |endpoint: &&&EndpointNode| {
        let registered = &context.observed.registered;
        // A registration that is under way counts: it is there in a moment.
        let coming = || context.is_busy(&NodeId::endpoint(&endpoint.service, &node.name));
        registered.contains_key(&endpoint.service_id) || coming()
    };
    let wanted = endpoints.iter().find(announced);
    let announced = wanted
        .map(|endpoint| endpoint.service_id.as_str())
        .or_else(|| context.registered_for(node));
    if let Some(id) = announced {
        return Some(format!("`{id}` to leave the registry"));
    }
    if template::settled(context) {
        return None;
    }
    // Which services a node that left the spec served is not known any more, so every file
    // that is on its way is waited for.
    let listed = endpoints.first();
    Some(listed.map_or_else(
        || "the files that list it".to_owned(),
        |endpoint| format!("the files that list `{}`", endpoint.service),
    ))
}

/// How long the proxies get to forget an instance.
fn leave_at_most(context: &Context<'_>) -> Duration {
    let waits = context.templates.values().map(|state| state.node.wait.max);
    LEAVE_AT_MOST + waits.max().unwrap_or_default()
}

/// Whether a file that is on its way is being validated, written or read at this moment: each of
/// these has a limit of its own.
fn is_being_told(context: &Context<'_>) -> bool {
    context.unsettled().iter().any(|name| {
        let state = context.templates.get(name);
        context.is_busy(&NodeId::new(Kind::Templates, *name))
            || state.is_some_and(|state| !render::busy_readers(context, state).is_empty())
    })
}

/// What of a life's connections is still waited for, and until when at most; `None` when it is
/// quiet, had its time, or has no port to which anything leads. It is asked about only once
/// nothing new is led to it.
fn still_connected(
    context: &Context<'_>,
    ending: &Ending<'_>,
    notes: &mut Notes,
) -> Option<(String, Time)> {
    let Farewell {
        drain: Drain { quiet, timeout },
        ports,
        ..
    } = &ending.farewell;
    let (quiet, timeout) = (*quiet, *timeout);
    if ports.is_empty() || timeout.is_zero() || ending.life.main_pid <= 0 {
        return None;
    }
    let id = &ending.life.id;
    let known = context.memory.draining.get(id);
    let since = known.map_or(context.now, |draining| draining.since);
    let end = since + timeout;
    if context.now >= end {
        return None;
    }
    let quiet_since = known.and_then(|draining| draining.quiet);
    if quiet_since.is_some_and(|since| context.now >= since + quiet) {
        return None;
    }
    notes.draining.insert(id.clone(), ports.clone());
    let words = match context.observed.connections.get(id) {
        Some(0) => format!("no connection for {}", words(quiet)),
        Some(1) => "its last connection".to_owned(),
        Some(count) => format!("its {count} connections"),
        None => "its connections".to_owned(),
    };
    let words = format!(
        "{words}, at most {}",
        super::context::words(end.since(context.now))
    );
    Some((words, end.min(context.now + DRAIN_LOOK)))
}

/// A life whose start is under way has no main process to be asked yet; one that never gets any
/// is killed.
fn unborn(context: &Context<'_>, ending: &Ending<'_>, change: Change, reason: &str) -> Planned {
    let life = ending.life;
    let since = context
        .memory
        .seen
        .get(&life.id)
        .copied()
        .unwrap_or(context.now);
    let end = since + ending.farewell.grace;
    if context.now >= end {
        return kill(context, life, change, reason);
    }
    let mut planned = waiting(context, life, change, reason, vec!["its start".to_owned()]);
    planned.wake = Some(end);
    planned
}

/// Asks, waits, kills.
pub(super) fn end(
    context: &Context<'_>,
    ending: &Ending<'_>,
    (change, reason): (Change, &str),
) -> Planned {
    let life = ending.life;
    if life.state == LifeState::Ending {
        return leftovers(context, ending);
    }
    if context.memory.down.is_some_and(|down| down.kill) {
        return kill(context, life, change, reason);
    }
    let Some(asked) = context.memory.asked.get(&life.id) else {
        if life.main_pid <= 0 {
            return unborn(context, ending, change, reason);
        }
        let steps = vec![Step::Signal {
            life: life.id.clone(),
            signal: ending.farewell.signal,
            late: ending.late,
        }];
        let item = item(life, change, reason, Gate::Ready, steps);
        return planned(life, item, reason.to_owned(), None);
    };
    let end = *asked + ending.farewell.grace;
    if context.now >= end {
        let (grace, signal) = (words(ending.farewell.grace), ending.farewell.signal);
        let late = format!("{reason}; not gone {grace} after {signal}");
        return kill(context, life, change, &late);
    }
    let left = words(end.since(context.now));
    let on = vec![format!("it to end, at most {left}")];
    let item = item(life, change, reason, Gate::Waiting(on), Vec::new());
    planned(life, item, reason.to_owned(), Some(end))
}
