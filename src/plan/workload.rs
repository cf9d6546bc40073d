//! Containers and processes: which life each should have, and the way there.

use std::path::PathBuf;
use std::sync::Arc;

use super::context::{Context, Level, Planned, status, words};
use super::ending::{self, Ending};
use super::model::{Change, NodeState, NodeStatus, Notes};
use super::world::{Exit, FileView, Identity, Life, LifeState};
use super::{pair, permit, place, rolling};
use crate::graph::desired::{ReadyNode, WorkloadNode};
use crate::graph::{identity, instance_of};
use crate::spec::model::Status;
use crate::spec::node::NodeId;

/// Plans one workload.
pub(super) fn plan(
    context: &mut Context<'_>,
    node: &WorkloadNode,
    notes: &mut Notes,
) -> Option<Planned> {
    let current = context.current(&node.id);
    let mut planned = match (context.partner(&node.id), current) {
        (Some(partner), _) => pair::plan(context, node, partner, notes)?,
        (None, Some(life)) => alive(context, node, life, notes),
        (None, None) => pair::absent(context, node, notes),
    };
    describe(context, node, current, &mut planned.status);
    let rests = [NodeState::Stopped, NodeState::Exited, NodeState::Completed];
    if rests.contains(&planned.status.state) {
        context.resting.insert(node.id.clone());
    }
    Some(planned)
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
    describe_life(context, life, status);
    if status.health.is_none() {
        status.health = context.health(&node.id);
    }
}

/// Since when it runs, and as which processes.
pub(super) fn describe_life(context: &Context<'_>, life: &Life, status: &mut NodeStatus) {
    status.age = Some(context.now.since(life.started));
    status.pid = (life.main_pid > 0).then_some(life.main_pid);
    status.leader_pid = (life.leader_pid > 0).then_some(life.leader_pid);
}

/// "exited 1", "killed by signal 9", "ended unseen".
pub fn exit_words(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited {code}"),
        Exit::Signal(signal) => {
            format!("killed by {}", crate::spec::model::Signal(signal))
        }
        Exit::Unknown => "ended unseen".to_owned(),
        Exit::NotBegun => "never began".to_owned(),
    }
}

/// What it would be started as. A watched file that cannot be read now is believed to be
/// what the running life had, so that a half-done save rolls nothing; so is a change that
/// the applied plan does not have.
pub(super) fn wanted(
    context: &Context<'_>,
    node: &WorkloadNode,
    life: Option<&Life>,
) -> Result<Arc<Identity>, String> {
    let identity = specified(context, node, life)?;
    Ok(match life {
        Some(life) if !permit::may_become(context, &node.id, &identity) => {
            Arc::new(life.identity.clone())
        }
        _ => identity,
    })
}

/// The same, whatever an applied plan lets happen.
pub(super) fn specified(
    context: &Context<'_>,
    node: &WorkloadNode,
    life: Option<&Life>,
) -> Result<Arc<Identity>, String> {
    let known = node.identity.known(|asked| is_asked(context, node, asked));
    if let Some(identity) = known {
        return Ok(identity);
    }
    let mut watched = Vec::new();
    let mut missing = Vec::new();
    for path in &node.watch {
        match context.observed.files.get(path) {
            Some(FileView::File { hash, .. }) => {
                watched.push((path.clone(), hash.clone()));
            }
            Some(FileView::Unreadable(why)) => missing.push((path, why.as_str())),
            Some(FileView::Missing) | None => missing.push((path, "it is not there")),
        }
    }
    let origin = context.desired.origin();
    let work_out = |watched: &Vec<_>| {
        let watched = watched.iter().cloned().collect();
        identity::identity(node, &watched, origin)
    };
    let mut identity = node.identity.answer(watched, work_out);
    if let Some((path, why)) = missing.first() {
        let Some(life) = life else {
            return Err(format!(
                "cannot read `{}`, which it watches: {why}",
                path.display()
            ));
        };
        for (path, _) in &missing {
            let field = origin.watch_field(path);
            if let Some(value) = life.identity.fields().get(&field) {
                Arc::make_mut(&mut identity).set(field, value.clone());
            }
        }
    }
    Ok(identity)
}

/// Whether all that a workload watches can be read and is what `asked` says.
fn is_asked(context: &Context<'_>, node: &WorkloadNode, asked: &[(PathBuf, String)]) -> bool {
    let mut files = node.watch.iter().zip(asked);
    asked.len() == node.watch.len()
        && files.all(|(path, (same, known))| {
            // Paths that are written differently are no more than another question.
            path.as_os_str() == same.as_os_str()
                && matches!(
                    context.observed.files.get(path),
                    Some(FileView::File { hash, .. }) if hash == known
                )
        })
}

/// The names of the fields that differ, as a reason.
pub(super) fn difference(old: &Identity, new: &Identity) -> Option<String> {
    if old == new {
        return None;
    }
    let names: Vec<&str> = old
        .differences(new)
        .into_iter()
        .map(|name| name.strip_prefix("watch:").unwrap_or(name))
        .collect();
    Some(format!("{} changed", names.join(", ")))
}

/// Why a life is to be replaced, if it is: somebody asked, what it runs changed, or it lost
/// its namespace.
pub(super) fn outdated(context: &Context<'_>, node: &WorkloadNode, life: &Life) -> Option<String> {
    if context.memory.restart.contains(&life.id) {
        return Some("restart was asked for".to_owned());
    }
    wanted(context, node, Some(life))
        .ok()
        .and_then(|wanted| difference(&life.identity, &wanted))
        .or_else(|| lost_network(context, node))
}

/// Something of it runs.
pub(super) fn alive(
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
        return ending::kill(context, older, Change::Remove, "a second life of it runs");
    }
    if life.state == LifeState::Ending {
        return ending::leftovers(context, &ending_of(context, node, life));
    }
    if !permit::may_touch(context, &node.id) {
        return keep(context, node, life);
    }
    if context.memory.stopped.contains(&node.id) {
        let why = (Change::Remove, "stopped by an operator");
        return end(context, node, life, why, notes);
    }
    if let Some(reason) = outdated(context, node, life) {
        return replace(context, node, life, &reason, notes);
    }
    keeps(context, node, life, notes)
}

/// It is the one that the spec wants; it stays, unless it is on its way out already.
pub(super) fn keeps(
    context: &mut Context<'_>,
    node: &WorkloadNode,
    life: &Life,
    notes: &mut Notes,
) -> Planned {
    if context.memory.asked.contains_key(&life.id) {
        // What was asked for is no longer wanted, but the signal cannot be taken back.
        let why = (Change::Replace, "it was asked to end");
        return end(context, node, life, why, notes);
    }
    if let Some(late) = too_late(context, node, life) {
        notes.late.insert(life.id.clone());
        return end(context, node, life, (Change::Replace, &late), notes);
    }
    keep(context, node, life)
}

/// A life whose namespace was taken from under it cannot be mended from outside.
fn lost_network(context: &Context<'_>, node: &WorkloadNode) -> Option<String> {
    node.attachment.as_ref()?;
    let view = context.sight(&node.id).attachment;
    let there = view.is_some_and(|view| view.namespace);
    (!there).then(|| "its network namespace is gone".to_owned())
}

/// Why a life is to end that did not become ready in its time.
pub(super) fn too_late(context: &Context<'_>, node: &WorkloadNode, life: &Life) -> Option<String> {
    let timeout = match &node.ready {
        ReadyNode::Started => return None,
        // It may have said so while nobody listened: no reason to end what may be well.
        ReadyNode::Notify { .. } if context.memory.adopted.contains(&life.id) => return None,
        ReadyNode::Notify { timeout } | ReadyNode::Check { timeout, .. } => *timeout,
    };
    // An adopted life, or one whose spec changed, is asked from now on, however old it is.
    let since = context
        .memory
        .seen
        .get(&life.id)
        .copied()
        .unwrap_or(context.now);
    let late = !is_ready(context, node, life) && context.now.since(since) >= timeout;
    late.then(|| format!("not ready after {}", words(timeout)))
}

/// Whether a life is ready; once it was, it stays so.
pub(super) fn is_ready(context: &Context<'_>, node: &WorkloadNode, life: &Life) -> bool {
    // Without a main process its start is still under way.
    let coming = life.main_pid <= 0 || context.memory.starting.contains(&life.id);
    if life.state != LifeState::Up || coming {
        return false;
    }
    context.memory.is_ready(&node.ready, life)
}

/// Leaves when the rest of its group allows it; one that does not serve costs nothing.
fn replace(
    context: &mut Context<'_>,
    node: &WorkloadNode,
    life: &Life,
    reason: &str,
    notes: &mut Notes,
) -> Planned {
    let under_way = context.memory.asked.contains_key(&life.id)
        || context.memory.leaving.contains_key(&life.id);
    if !under_way && rolling::serves(context, node) {
        let others = rolling::before(context, node);
        if !others.is_empty() {
            let mut planned = ending::waiting(context, life, Change::Replace, reason, others);
            planned.level = level(context, node, life);
            planned.status.state = NodeState::Running;
            return planned;
        }
    }
    leave(context, node, life, reason, notes)
}

/// Leaves to be replaced.
pub(super) fn leave(
    context: &mut Context<'_>,
    node: &WorkloadNode,
    life: &Life,
    reason: &str,
    notes: &mut Notes,
) -> Planned {
    end(context, node, life, (Change::Replace, reason), notes)
}

/// Leaves the registry, the proxies and its connections first, then ends.
fn end(
    context: &mut Context<'_>,
    node: &WorkloadNode,
    life: &Life,
    why: (Change, &str),
    notes: &mut Notes,
) -> Planned {
    let mut ending = ending_of(context, node, life);
    ending.late = notes.late.contains(&life.id);
    context.leaving.insert(node.id.clone());
    match ending::must_leave(context, &node.id, &ending) {
        true => ending::leave(context, &node.id, &ending, why, notes),
        false => ending::end(context, &ending, why),
    }
}

/// How a life of this node ends. What led to it under an earlier spec counts as well: what is
/// outdated has nothing noted on it any more.
pub(super) fn ending_of<'a>(
    context: &Context<'_>,
    node: &WorkloadNode,
    life: &'a Life,
) -> Ending<'a> {
    let mut farewell = ending::farewell(node, life);
    let remembered = context.memory.workloads.get(&node.id);
    if let Some(before) = remembered.and_then(|memory| memory.farewell.as_ref()) {
        farewell.ports.extend(&before.ports);
    }
    Ending {
        life,
        farewell,
        late: false,
    }
}

pub(super) fn level(context: &Context<'_>, node: &WorkloadNode, life: &Life) -> Level {
    level_with(context, node, life, context.health(&node.id))
}

/// The same, where the health of what it serves is known.
fn level_with(
    context: &Context<'_>,
    node: &WorkloadNode,
    life: &Life,
    health: Option<Status>,
) -> Level {
    let started = is_ready(context, node, life);
    let healthy = started && health.is_none_or(|health| health == Status::Passing);
    Level {
        started,
        healthy,
        completed: false,
    }
}

/// It runs what it should. What is left can change in place.
fn keep(context: &Context<'_>, node: &WorkloadNode, life: &Life) -> Planned {
    let health = context.health(&node.id);
    let level = level_with(context, node, life, health);
    let (state, words) = match (&node.ready, level.started) {
        (_, true) => (NodeState::Running, String::new()),
        (ReadyNode::Notify { .. }, false) => {
            (NodeState::Starting, "waiting on its READY=1".to_owned())
        }
        (ReadyNode::Check { .. }, false) => (
            NodeState::Starting,
            "waiting on its readiness check".to_owned(),
        ),
        (ReadyNode::Started, false) => (NodeState::Starting, "being started".to_owned()),
    };
    let mut planned = Planned::idle(status(&node.id, state, words), level);
    planned.status.health = health;
    if let ReadyNode::Notify { timeout } | ReadyNode::Check { timeout, .. } = &node.ready
        && !level.started
    {
        let since = context
            .memory
            .seen
            .get(&life.id)
            .copied()
            .unwrap_or(context.now);
        // One that is late all the same, because an applied plan leaves it alone, is late for good.
        planned.wake = Some(since + *timeout).filter(|end| *end > context.now);
    }
    planned.item =
        place::in_place(context, node, life).or_else(|| place::reload(context, node, life));
    planned
}

/// Whether a name means this node: its own, its instance's or its group's, bare or with the kind.
pub fn names(node: &WorkloadNode, name: &str) -> bool {
    let id = &node.id;
    [id.name.as_str(), instance_of(&id.name), &node.group]
        .into_iter()
        .any(|own| own == name || NodeId::new(id.kind, own).to_string() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::world::container;
    use crate::spec::node::Kind;

    #[test]
    fn a_seat_goes_by_its_own_name_and_by_its_instances() {
        let first = container(1, "python3");
        let mut second = first.clone();
        second.id = NodeId::new(Kind::Containers, "prime1.b");
        for name in ["prime1", "prime", "containers/prime1", "containers/prime"] {
            assert!(names(&first, name) && names(&second, name), "{name}");
        }
        for name in ["prime1.b", "containers/prime1.b"] {
            assert!(!names(&first, name) && names(&second, name), "{name}");
        }
        for name in ["prime2", "processes/prime1", "b", ".b", ""] {
            assert!(!names(&first, name) && !names(&second, name), "{name}");
        }
    }
}
