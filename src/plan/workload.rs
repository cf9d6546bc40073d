//! Containers and processes: which life each should have, and the way there.

use std::collections::BTreeMap;

use super::backoff::restart_delay;
use super::context::{Context, Level, Planned, detail, earliest, status, words};
use super::ending::{self, Ending};
use super::memory::{LastExit, WorkloadMemory};
use super::model::{Change, Detail, Gate, Item, NodeState, NodeStatus, Notes, Start, Step};
use super::template;
use super::world::{Exit, FileView, Identity, Life, LifeId, LifeState};
use super::{firewall, network};
use crate::graph::desired::{ReadyNode, ReloadNode, RootRun, WorkloadNode};
use crate::graph::{hosts_text, identity};
use crate::spec::model::Firewall;
use crate::spec::model::{RestartPolicy, RootMode, Status};
use crate::spec::node::NodeId;

/// Plans one workload.
pub(super) fn plan(context: &mut Context<'_>, node: &WorkloadNode, notes: &mut Notes) -> Planned {
    let current = context.current(&node.id);
    let mut planned = match current {
        Some(life) => alive(context, node, life, notes),
        None => absent(context, node),
    };
    describe(context, node, current, &mut planned.status);
    planned
}

/// What of it is there to see.
fn describe(
    context: &Context<'_>,
    node: &WorkloadNode,
    current: Option<&Life>,
    status: &mut NodeStatus,
) {
    status.address = node
        .attachment
        .as_ref()
        .map(|attachment| attachment.address.to_string());
    if let Some(memory) = context.memory.workloads.get(&node.id) {
        status.restarts = memory.restarts;
        status.last_exit = memory.last_exit.map(|last| exit_words(last.exit));
    }
    let Some(life) = current else { return };
    status.age = Some(context.now.since(life.started));
    status.pid = (life.main_pid > 0).then_some(life.main_pid);
    status.leader_pid = (life.leader_pid > 0).then_some(life.leader_pid);
    status.health = context.health(&node.id);
}

/// "exited 1", "killed by signal 9", "ended unseen".
pub fn exit_words(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited {code}"),
        Exit::Signal(signal) => {
            format!("killed by {}", crate::spec::model::Signal(signal))
        }
        Exit::Unknown => "ended unseen".to_owned(),
    }
}

/// What it would be started as. A watched file that cannot be read now is believed to be
/// what the running life had, so that a half-done save rolls nothing.
fn wanted(
    context: &Context<'_>,
    node: &WorkloadNode,
    life: Option<&Life>,
) -> Result<Identity, String> {
    let mut watched = BTreeMap::new();
    let mut missing = Vec::new();
    for path in &node.watch {
        match context.observed.files.get(path) {
            Some(FileView::File { hash, .. }) => {
                watched.insert(path.clone(), hash.clone());
            }
            Some(FileView::Unreadable(why)) => missing.push((path, why.as_str())),
            Some(FileView::Missing) | None => missing.push((path, "it is not there")),
        }
    }
    let mut identity = identity::identity(node, &watched, &context.desired.spec_dir);
    if let Some((path, why)) = missing.first() {
        let Some(life) = life else {
            return Err(format!(
                "cannot read `{}`, which it watches: {why}",
                path.display()
            ));
        };
        for (path, _) in &missing {
            let field = identity::watch_field(path, &context.desired.spec_dir);
            if let Some(value) = life.identity.0.get(&field) {
                identity.0.insert(field, value.clone());
            }
        }
    }
    Ok(identity)
}

/// The names of the fields that differ, as a reason.
fn difference(old: &Identity, new: &Identity) -> Option<String> {
    let names: Vec<&str> = old
        .differences(new)
        .into_iter()
        .map(|name| name.strip_prefix("watch:").unwrap_or(name))
        .collect();
    (!names.is_empty()).then(|| format!("{} changed", names.join(", ")))
}

fn alive(
    context: &mut Context<'_>,
    node: &WorkloadNode,
    life: &Life,
    notes: &mut Notes,
) -> Planned {
    if let Some(older) = context
        .lives(&node.id)
        .iter()
        .find(|other| other.id != life.id && !matches!(other.state, LifeState::Ended { .. }))
    {
        return ending::kill(older, "a second life of it runs");
    }
    let ending = Ending {
        life,
        signal: node.stop_signal,
        grace: node.stop_grace_period,
    };
    if life.state == LifeState::Ending {
        return ending::leftovers(context, &ending);
    }
    if context.memory.stopped.contains(&node.id) {
        return end(
            context,
            node,
            &ending,
            Change::Remove,
            "stopped by an operator",
            notes,
        );
    }
    if context.memory.restart.contains(&life.id) {
        return end(
            context,
            node,
            &ending,
            Change::Replace,
            "restart was asked for",
            notes,
        );
    }
    let reason = match wanted(context, node, Some(life)) {
        Ok(wanted) => difference(&life.identity, &wanted),
        Err(_) => None,
    }
    .or_else(|| lost_network(context, node));
    if let Some(reason) = reason {
        return replace(context, node, &ending, &reason, notes);
    }
    if context.memory.asked.contains_key(&life.id) {
        // What was asked for is no longer wanted, but the signal cannot be taken back.
        return end(
            context,
            node,
            &ending,
            Change::Replace,
            "it was asked to end",
            notes,
        );
    }
    if let Some(late) = too_late(context, node, life) {
        return end(context, node, &ending, Change::Replace, &late, notes);
    }
    keep(context, node, life)
}

/// A life whose namespace was taken from under it cannot be mended from outside.
fn lost_network(context: &Context<'_>, node: &WorkloadNode) -> Option<String> {
    let attachment = node.attachment.as_ref()?;
    let view = context
        .observed
        .network
        .attachments
        .get(&attachment.namespace);
    let there = view.is_some_and(|view| view.namespace);
    (!there).then(|| "its network namespace is gone".to_owned())
}

fn too_late(context: &Context<'_>, node: &WorkloadNode, life: &Life) -> Option<String> {
    let timeout = match &node.ready {
        ReadyNode::Started => return None,
        ReadyNode::Notify { timeout } | ReadyNode::Check { timeout, .. } => *timeout,
    };
    let late = !is_ready(context, node, life) && context.now.since(life.started) >= timeout;
    late.then(|| format!("not ready after {}", words(timeout)))
}

/// Whether a life is ready; once it was, it stays so.
pub(super) fn is_ready(context: &Context<'_>, node: &WorkloadNode, life: &Life) -> bool {
    // Without a main process its start is still under way.
    if life.state != LifeState::Up || life.main_pid <= 0 {
        return false;
    }
    match &node.ready {
        ReadyNode::Started => true,
        ReadyNode::Notify { .. } => life.notified,
        ReadyNode::Check { .. } => context.memory.ready.contains(&life.id),
    }
}

/// Whether it serves as well as it can: ready, and all that it serves passes.
fn is_healthy(context: &Context<'_>, node: &WorkloadNode) -> bool {
    let Some(life) = context.current(&node.id) else {
        return false;
    };
    is_ready(context, node, life)
        && context
            .health(&node.id)
            .is_none_or(|health| health != Status::Critical)
}

/// One of a group leaves at a time, and only while all others are well; one that is not well
/// itself costs nothing.
fn replace(
    context: &mut Context<'_>,
    node: &WorkloadNode,
    ending: &Ending<'_>,
    reason: &str,
    notes: &mut Notes,
) -> Planned {
    let under_way = context.memory.asked.contains_key(&ending.life.id)
        || context.memory.leaving.contains_key(&ending.life.id);
    if !under_way && is_healthy(context, node) {
        let others: Vec<String> = context
            .group(node)
            .iter()
            .filter(|other| other.id != node.id)
            .filter(|other| !context.memory.stopped.contains(&other.id))
            .filter(|other| !is_healthy(context, other) || leaves_first(context, other, node))
            .map(|other| format!("{} to be well", other.id))
            .collect();
        if !others.is_empty() {
            let mut planned =
                ending::waiting(context, ending.life, Change::Replace, reason, others);
            planned.level = level(context, node, ending.life);
            planned.status.state = NodeState::Running;
            return planned;
        }
    }
    end(context, node, ending, Change::Replace, reason, notes)
}

/// Whether `other` is the one of the group that leaves before `node`: it is leaving already,
/// or stands before it and is due as well.
fn leaves_first(context: &Context<'_>, other: &WorkloadNode, node: &WorkloadNode) -> bool {
    let Some(life) = context.current(&other.id) else {
        return false;
    };
    if context.memory.leaving.contains_key(&life.id) || context.memory.asked.contains_key(&life.id)
    {
        return true;
    }
    let due = wanted(context, other, Some(life))
        .is_ok_and(|wanted| difference(&life.identity, &wanted).is_some());
    due && other.replica < node.replica
}

/// Leaves the registry and the proxy first, then ends.
fn end(
    context: &mut Context<'_>,
    node: &WorkloadNode,
    ending: &Ending<'_>,
    change: Change,
    reason: &str,
    notes: &mut Notes,
) -> Planned {
    if ending::must_leave(context, &node.id, ending.life) {
        context.leaving.insert(node.id.clone());
        notes.leaving.insert(ending.life.id.clone());
        let still = ending::still_announced(context, &node.id, ending.life);
        if let Some(still) = still {
            return ending::waiting(context, ending.life, change, reason, vec![still]);
        }
    }
    ending::end(context, ending, change, reason)
}

fn level(context: &Context<'_>, node: &WorkloadNode, life: &Life) -> Level {
    let started = is_ready(context, node, life);
    let healthy = started
        && context
            .health(&node.id)
            .is_none_or(|health| health == Status::Passing);
    Level {
        started,
        healthy,
        completed: false,
    }
}

/// It runs what it should. What is left can change in place.
fn keep(context: &Context<'_>, node: &WorkloadNode, life: &Life) -> Planned {
    let level = level(context, node, life);
    let (state, words) = match (&node.ready, level.started) {
        (_, true) => (NodeState::Running, String::new()),
        (ReadyNode::Notify { .. }, false) => {
            (NodeState::Starting, "waiting on its READY=1".to_owned())
        }
        (_, false) => (
            NodeState::Starting,
            "waiting on its readiness check".to_owned(),
        ),
    };
    let mut planned = Planned::idle(status(&node.id, state, words), level);
    if let ReadyNode::Notify { timeout } | ReadyNode::Check { timeout, .. } = &node.ready
        && !level.started
    {
        planned.wake = Some(life.started + *timeout);
    }
    planned.item = in_place(context, node).or_else(|| reload(context, node, life));
    planned
}

/// What differs and can change while it runs: link, firewall, hosts file.
fn in_place(context: &Context<'_>, node: &WorkloadNode) -> Option<Item> {
    let (steps, details) = surroundings(context, node);
    let names: Vec<&str> = details.iter().map(|detail| detail.name.as_str()).collect();
    let reason = format!("{} changed", names.join(", "));
    (!steps.is_empty()).then(|| Item {
        node: node.id.clone(),
        change: Change::Change,
        reason,
        gate: Gate::Ready,
        steps,
        details,
        diff: None,
    })
}

/// The steps that bring about what a container stands in, as far as it is not there.
fn surroundings(context: &Context<'_>, node: &WorkloadNode) -> (Vec<Step>, Vec<Detail>) {
    let mut steps = Vec::new();
    let mut details = Vec::new();
    if let Some(attachment) = &node.attachment {
        let view = context
            .observed
            .network
            .attachments
            .get(&attachment.namespace);
        if !view.is_some_and(|view| network::attached(view, attachment)) {
            steps.push(Step::Attach(Box::new(attachment.clone())));
            details.push(detail("network link", &attachment.link));
        }
        let in_force = view.and_then(|view| view.firewall.clone());
        let due = attachment.firewall.as_ref().map(firewall::hash);
        if in_force != due {
            steps.push(Step::Firewall {
                namespace: attachment.namespace.clone(),
                firewall: attachment.firewall.clone(),
            });
            details.push(detail(
                "firewall",
                firewall_words(attachment.firewall.as_ref()),
            ));
        }
    }
    if let Some(container) = &node.run.container {
        let content = hosts_text(context.desired, node);
        let hash = blake3::hash(content.as_bytes()).to_hex().to_string();
        let right = matches!(
            context.observed.files.get(&container.hosts),
            Some(FileView::File { hash: there, .. }) if *there == hash
        );
        if !right {
            steps.push(Step::Rewrite {
                path: container.hosts.clone(),
                content,
            });
            details.push(detail("hosts", "names of this stack"));
        }
    }
    (steps, details)
}

/// It has not read what its files hold by now.
fn reload(context: &Context<'_>, node: &WorkloadNode, life: &Life) -> Option<Item> {
    let told = context.reloads_of(node);
    let files = template::files_of(context, node);
    let stale: Vec<_> = told
        .iter()
        .filter(|template| files.get(&template.name) != life.applied.get(&template.name))
        .filter(|template| {
            context
                .templates
                .get(template.name.as_str())
                .is_some_and(|state| state.foreign.is_none())
        })
        .filter(|template| files.contains_key(&template.name))
        .collect();
    let ReloadNode::Signal {
        signal, confirm, ..
    } = stale.first()?.reload.as_ref()?
    else {
        return None;
    };
    let (signal, confirm) = (*signal, *confirm);
    let names: Vec<String> = stale
        .iter()
        .map(|template| template.destination.display().to_string())
        .collect();
    let unsettled = told.iter().any(|template| {
        context
            .templates
            .get(template.name.as_str())
            .is_some_and(|state| template::writes_soon(context, state))
    });
    let gate = if !is_ready(context, node, life) {
        Gate::Waiting(vec![format!("{} to be ready", node.id)])
    } else if unsettled {
        Gate::Waiting(vec!["the other files that it reads".to_owned()])
    } else {
        Gate::Ready
    };
    let step = Step::ReloadProcess {
        life: life.id.clone(),
        signal,
        confirm,
        applied: files,
    };
    Some(Item {
        node: node.id.clone(),
        change: Change::Change,
        reason: format!("{} changed since it was read", names.join(", ")),
        steps: if gate == Gate::Ready {
            vec![step]
        } else {
            Vec::new()
        },
        gate,
        details: vec![detail("reload", signal)],
        diff: None,
    })
}

/// Nothing of it runs.
fn absent(context: &Context<'_>, node: &WorkloadNode) -> Planned {
    let memory = context.memory.workloads.get(&node.id);
    let ended = context.lives(&node.id).last().copied();
    if context.memory.stopped.contains(&node.id) {
        let status = status(&node.id, NodeState::Stopped, "stopped by an operator");
        return Planned::idle(status, Level::default());
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
    if let Some(changed) = changed {
        due = Due {
            change: Change::Replace,
            reason: changed,
            at: None,
        };
    } else if let Some(last) = memory.and_then(|memory| memory.last_exit)
        && ended.is_some_and(|life| life.id.incarnation == last.incarnation)
    {
        match after_exit(context, node, memory, last) {
            Ok(after) => due = after,
            Err(resting) => return *resting,
        }
    }
    start(context, node, wanted, due)
}

struct Due {
    change: Change,
    reason: String,
    at: Option<crate::spec::time::Time>,
}

/// When it starts again after this exit; or how it rests.
fn after_exit(
    context: &Context<'_>,
    node: &WorkloadNode,
    memory: Option<&WorkloadMemory>,
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
    let success = last.exit == Exit::Code(0);
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
    let failures = memory.map_or(1, |memory| memory.failures).max(1);
    if node
        .restart
        .max_attempts
        .is_some_and(|most| failures > most)
    {
        let error = format!("{reason}; gave up after {failures} failures in a row");
        return Err(Box::new(cannot_start(node, error)));
    }
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

fn start(context: &Context<'_>, node: &WorkloadNode, identity: Identity, due: Due) -> Planned {
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

fn start_steps(context: &Context<'_>, node: &WorkloadNode, identity: Identity) -> Vec<Step> {
    let lives = context.lives(&node.id);
    let mut steps: Vec<Step> = lives
        .iter()
        .map(|life| Step::Clear(life.id.clone()))
        .collect();
    steps.extend(surroundings(context, node).0);
    if let ReadyNode::Check { check, .. } = &node.ready
        && let crate::graph::desired::ProbeNode::Tcp(address) = &check.probe
        && node.run.container.is_none()
        && let Ok(address) = address.parse()
    {
        steps.push(Step::PortFree(address));
    }
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
        identity,
        applied: template::files_of(context, node),
        run: node.run.clone(),
        log: node.log,
    })));
    steps
}

/// What a reader wants to know of a new workload. Values of the environment are not shown.
fn attributes(node: &WorkloadNode) -> Vec<Detail> {
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

fn firewall_words(firewall: Option<&Firewall>) -> String {
    let Some(firewall) = firewall else {
        return "open".to_owned();
    };
    let mut words = Vec::new();
    let ports = |ports: &[u16]| {
        ports
            .iter()
            .map(u16::to_string)
            .collect::<Vec<_>>()
            .join(",")
    };
    if !firewall.allow_tcp.is_empty() {
        words.push(format!("tcp {}", ports(&firewall.allow_tcp)));
    }
    if !firewall.allow_udp.is_empty() {
        words.push(format!("udp {}", ports(&firewall.allow_udp)));
    }
    if firewall.allow_ping {
        words.push("ping".to_owned());
    }
    words.extend(
        firewall
            .allow_from
            .iter()
            .map(|from| format!("all from {from}")),
    );
    if words.is_empty() {
        "nothing may come in".to_owned()
    } else {
        words.join(", ")
    }
}

/// What a node has to do with an id: its own, or its group's.
pub fn names(node: &WorkloadNode, name: &str) -> bool {
    let id = &node.id;
    id.name == name
        || node.group == name
        || id.to_string() == name
        || NodeId::new(id.kind, node.group.clone()).to_string() == name
}
