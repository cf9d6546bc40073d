//! A workload of which nothing runs: whether it starts, when, and how.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::backoff::restart_delay;
use super::context::{Context, Level, Planned, detail, earliest, status, words};
use super::memory::{LastExit, WorkloadMemory};
use super::model::{Change, Detail, Gate, Item, NodeState, Start, Step};
use super::place::{firewall_words, surroundings};
use super::workload::{difference, exit_words, wanted};
use super::world::{Exit, Identity, Life, LifeId, LifeState};
use super::{network, template};
use crate::graph::desired::{ProbeNode, ReadyNode, RootRun, WorkloadNode};
use crate::spec::model::{RestartPolicy, RootMode};

/// Nothing of it runs.
pub(super) fn absent(context: &Context<'_>, node: &WorkloadNode) -> Planned {
    let memory = context.memory.workloads.get(&node.id);
    let ended = context.lives(&node.id).last().copied();
    if context.memory.stopped.contains(&node.id) {
        let status = status(&node.id, NodeState::Stopped, "stopped by an operator");
        let level = match has_completed(context, node, ended) {
            true => Level::FULL,
            false => Level::default(),
        };
        return Planned::idle(status, level);
    }
    let wanted = match wanted(context, node, None) {
        Ok(wanted) => wanted,
        Err(error) => return cannot_start(node, error),
    };
    let changed = ended.and_then(|life| difference(&life.identity, &wanted));
    let mut due = Due {
        change: Change::Add,
        reason: "not running".to_owned(),
        at: None,
    };
    if ended.is_some_and(never_began) {
        due.reason = "its start was cut off".to_owned();
    } else if let Some(changed) = changed {
        due = Due {
            change: Change::Replace,
            reason: changed,
            at: None,
        };
    } else if let Some(memory) = memory
        && let Some(last) = memory.last_exit
        && ended.map_or(memory.kept, |life| life.id.incarnation == last.incarnation)
    {
        match after_exit(context, node, memory, last) {
            Ok(after) => due = after,
            Err(resting) => return *resting,
        }
    }
    start(context, node, wanted, due)
}

/// Whether its last life did its job for good, as the spec wants it: that it is not to run does
/// not undo it.
fn has_completed(context: &Context<'_>, node: &WorkloadNode, ended: Option<&Life>) -> bool {
    let memory = context.memory.workloads.get(&node.id);
    let last = memory.and_then(|memory| memory.last_exit);
    let for_good = [RestartPolicy::No, RestartPolicy::OnFailure].contains(&node.restart.policy);
    ended.zip(last).is_some_and(|(life, last)| {
        let success = last.exit == Exit::Code(0) && !last.late && !last.asked;
        let same = wanted(context, node, None)
            .is_ok_and(|wanted| difference(&life.identity, &wanted).is_none());
        for_good && success && same && life.id.incarnation == last.incarnation
    })
}

fn never_began(life: &Life) -> bool {
    let exit = match life.state {
        LifeState::Ended { exit, .. } => Some(exit),
        _ => None,
    };
    exit == Some(Exit::NotBegun)
}

/// Whether nothing of it runs and its policy leaves it so.
pub(super) fn rests(context: &Context<'_>, node: &WorkloadNode) -> bool {
    let rests = [NodeState::Completed, NodeState::Exited];
    context.current(&node.id).is_none()
        && !context.lives(&node.id).is_empty()
        && rests.contains(&absent(context, node).status.state)
}

struct Due {
    change: Change,
    reason: String,
    at: Option<crate::spec::time::Time>,
}

/// Files that a process reads and that are about to change: it would have read nobody knows
/// which text.
fn unwritten(context: &Context<'_>, node: &WorkloadNode) -> Vec<String> {
    let templates = context.reloads_of(node);
    templates
        .iter()
        .filter(|read| {
            let state = context.templates.get(read.name.as_str());
            state.is_some_and(|state| template::writes_soon(context, state))
        })
        .map(|read| format!("`{}`", read.destination.display()))
        .collect()
}

/// When it starts again after this exit; or how it rests.
fn after_exit(
    context: &Context<'_>,
    node: &WorkloadNode,
    memory: &WorkloadMemory,
    last: LastExit,
) -> Result<Due, Box<Planned>> {
    let ago = words(context.now.since(last.at));
    let reason = format!("{} {ago} ago", exit_words(last.exit));
    if last.asked {
        return Ok(Due {
            change: Change::Add,
            reason: "was stopped".to_owned(),
            at: None,
        });
    }
    let success = last.exit == Exit::Code(0) && !last.late;
    let again = match node.restart.policy {
        RestartPolicy::No => false,
        RestartPolicy::OnFailure => !success,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
    };
    if !again {
        let state = if success {
            NodeState::Completed
        } else {
            NodeState::Exited
        };
        let level = if success {
            Level::FULL
        } else {
            Level::default()
        };
        return Err(Box::new(Planned::idle(
            status(&node.id, state, reason),
            level,
        )));
    }
    if let Some(gave_up) = memory.gave_up(&node.restart) {
        let error = format!("{reason}; {gave_up}");
        return Err(Box::new(cannot_start(node, error)));
    }
    let failures = memory.failures.max(1);
    let at = last.at + restart_delay(&node.restart, &node.id, failures);
    Ok(Due {
        change: Change::Add,
        reason,
        at: Some(at),
    })
}

fn cannot_start(node: &WorkloadNode, error: String) -> Planned {
    let item = Item {
        node: node.id.clone(),
        change: Change::Add,
        reason: error.clone(),
        gate: Gate::Blocked(error.clone()),
        steps: Vec::new(),
        details: Vec::new(),
        diff: None,
    };
    Planned {
        status: status(&node.id, NodeState::Failed, error),
        item: Some(item),
        level: Level::default(),
        wake: None,
    }
}

fn start(context: &Context<'_>, node: &WorkloadNode, identity: Arc<Identity>, due: Due) -> Planned {
    let mut item = Item {
        node: node.id.clone(),
        change: due.change,
        reason: due.reason.clone(),
        gate: Gate::Ready,
        steps: Vec::new(),
        details: attributes(node),
        diff: None,
    };
    let mut wake = None;
    let mut waits = context.lacking(&node.id);
    waits.extend(network::address_taken(context, node));
    waits.extend(network::old_link(context, node));
    waits.extend(unwritten(context, node));
    let mut state = NodeState::Waiting;
    if let Some(at) = due.at.filter(|at| *at > context.now) {
        waits.push(format!(
            "its restart delay, {}",
            words(at.since(context.now))
        ));
        wake = earliest(wake, Some(at));
        state = NodeState::Backoff;
    }
    if let Some(blocked) = network::blocked(context, node) {
        item.gate = Gate::Blocked(blocked.clone());
        let status = status(&node.id, NodeState::Failed, blocked);
        return Planned {
            status,
            item: Some(item),
            level: Level::default(),
            wake,
        };
    }
    let words = if waits.is_empty() {
        item.steps = start_steps(context, node, identity);
        due.reason
    } else {
        let words = format!("waiting on {}", waits.join(", "));
        item.gate = Gate::Waiting(waits);
        if state == NodeState::Backoff {
            format!("{}; {words}", due.reason)
        } else {
            words
        }
    };
    let status = status(&node.id, state, words);
    Planned {
        status,
        item: Some(item),
        level: Level::default(),
        wake,
    }
}

/// Ports of the host's own at which it will listen, as far as its readiness and its services say:
/// an address that may be elsewhere says nothing of this host.
fn own_ports(context: &Context<'_>, node: &WorkloadNode) -> BTreeSet<SocketAddr> {
    if node.attachment.is_some() {
        return BTreeSet::new();
    }
    let ready = match &node.ready {
        ReadyNode::Check { check, .. } => match &check.probe {
            ProbeNode::Tcp(address) => Some(address.as_str()),
            ProbeNode::Http { url, .. } => url
                .strip_prefix("http://")
                .map(|rest| rest.split(['/', '?', '#']).next().unwrap_or(rest)),
            _ => None,
        },
        _ => None,
    };
    let ready = ready.and_then(|address| address.parse().ok());
    let endpoints = context.endpoints(&node.id).iter();
    let served = endpoints.filter_map(|endpoint| {
        let address = endpoint.address.parse().ok()?;
        Some(SocketAddr::new(address, endpoint.port))
    });
    let here = |at: &SocketAddr| at.ip().is_loopback() || at.ip().is_unspecified();
    ready.into_iter().chain(served).filter(here).collect()
}

fn start_steps(context: &Context<'_>, node: &WorkloadNode, identity: Arc<Identity>) -> Vec<Step> {
    let lives = context.lives(&node.id);
    let mut steps: Vec<Step> = lives
        .iter()
        .map(|life| Step::Clear(life.id.clone()))
        .collect();
    steps.extend(surroundings(context, node).0);
    let ports = own_ports(context, node);
    steps.extend(ports.into_iter().map(Step::PortFree));
    steps.extend(node.pre_start.iter().map(|command| Step::PreStart {
        command: command.clone(),
        dir: context.desired.spec_dir.clone(),
    }));
    let newest = lives
        .iter()
        .map(|life| life.id.incarnation)
        .max()
        .unwrap_or(0);
    let remembered = context
        .memory
        .workloads
        .get(&node.id)
        .map_or(0, |memory| memory.incarnation);
    // Milliseconds since boot make it unique even after everything was forgotten.
    let incarnation = (newest.max(remembered) + 1).max(context.now.0 / 1_000_000);
    steps.push(Step::Start(Box::new(Start {
        id: LifeId {
            node: node.id.clone(),
            incarnation,
        },
        identity: Arc::unwrap_or_clone(identity),
        applied: template::files_of(context, node),
        run: node.run.clone(),
        log: node.log,
        farewell: node.farewell(),
        commit: context
            .desired
            .tree
            .as_ref()
            .map(|tree| tree.commit.clone()),
    })));
    steps
}

/// What a reader wants to know of a new workload. Values of the environment are not shown.
pub(super) fn attributes(node: &WorkloadNode) -> Vec<Detail> {
    let mut details = vec![detail("command", node.run.command.join(" "))];
    if let Some(container) = &node.run.container {
        details.push(detail("root", root_words(&container.root)));
        for mount in &container.mounts {
            let mode = if mount.read_only { "ro" } else { "rw" };
            let words = format!(
                "{}:{}:{mode}",
                mount.source.display(),
                mount.destination.display()
            );
            details.push(detail("mount", words));
        }
    }
    if let Some(attachment) = &node.attachment {
        details.push(detail(
            "address",
            format!("{}/{}", attachment.address, attachment.prefix),
        ));
        if attachment.firewall.is_some() {
            details.push(detail(
                "firewall",
                firewall_words(attachment.firewall.as_ref()),
            ));
        }
    }
    details
}

fn root_words(root: &RootRun) -> String {
    match root {
        RootRun::Host => "host".to_owned(),
        RootRun::Path { path, mode } => {
            let mode = match mode {
                RootMode::ReadOnly => "read-only",
                RootMode::Ephemeral => "ephemeral",
                RootMode::Persistent => "persistent",
            };
            format!("{} ({mode})", path.display())
        }
    }
}
