//! What is ours and not in the spec: it goes, in reverse order.

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::ptr;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};

use super::context::{Context, Level, Planned, status};
use super::ending::{self, Ending};
use super::model::{Change, Gate, Item, NodeState, Notes, Step};
use super::network::{self, id_of_bridge};
use super::pair;
use super::workload;
use super::world::{AttachmentView, FileView, Life, LifeState};
use crate::graph::desired::{Attachment, Farewell, Node};
use crate::planted::{self, Bug};
use crate::spec::model::{Drain, Signal};
use crate::spec::node::{Kind, NodeId};

/// How a workload ends of which nothing is remembered or noted.
static FAREWELL: Farewell = Farewell {
    signal: Signal(15),
    grace: Duration::from_secs(10),
    drain: Drain {
        quiet: Duration::ZERO,
        timeout: Duration::ZERO,
    },
    ports: BTreeSet::new(),
};

/// What is said of a life that left the spec and runs on.
pub const KEPT: &str = "not in the spec; kept, because nothing is pruned";

/// Whether a node is wanted at all, be it in another seat.
pub(super) fn wanted(context: &Context<'_>, id: &NodeId) -> bool {
    context.memory.down.is_none() && context.desired.stays(id)
}

/// Plans all that left the spec, dependents first.
pub(super) fn plan(context: &Context<'_>, notes: &mut Notes) -> Vec<Planned> {
    let mut planned = lives(context, notes);
    planned.extend(registrations(context, notes));
    planned.extend(files(context));
    planned.extend(attachments(context));
    planned.extend(bridges(context));
    planned
}

fn removal(node: NodeId, reason: &str, waits: Vec<String>, steps: Vec<Step>) -> Planned {
    let words = if waits.is_empty() {
        reason.to_owned()
    } else {
        format!("{reason}; waiting on {}", waits.join(", "))
    };
    let (gate, steps) = if waits.is_empty() {
        (Gate::Ready, steps)
    } else {
        (Gate::Waiting(waits), Vec::new())
    };
    Planned {
        status: status(&node, NodeState::Stopping, words),
        item: Some(Item {
            node,
            change: Change::Remove,
            reason: reason.to_owned(),
            gate,
            steps,
            details: Vec::new(),
            diff: None,
        }),
        level: Level::default(),
        wake: None,
    }
}

fn reason(context: &Context<'_>) -> &'static str {
    if context.memory.down.is_some() {
        "the stack goes down"
    } else {
        "not in the spec"
    }
}

fn lives(context: &Context<'_>, notes: &mut Notes) -> Vec<Planned> {
    let mut planned = Vec::new();
    for node in context.left() {
        let lives = context.lives(node);
        let up: Vec<&&Life> = lives
            .iter()
            .filter(|life| !matches!(life.state, LifeState::Ended { .. }))
            .collect();
        planned.push(match up.last() {
            None => {
                let steps = lives
                    .iter()
                    .map(|life| Step::Clear(life.id.clone()))
                    .collect();
                removal(node.clone(), reason(context), Vec::new(), steps)
            }
            Some(_) if up.len() > 1 => {
                let oldest = up.first().copied().copied();
                match oldest {
                    Some(oldest) => {
                        ending::kill(context, oldest, Change::Remove, "a second life of it runs")
                    }
                    None => continue,
                }
            }
            Some(life) if is_kept(context, life) => Planned {
                status: status(node, NodeState::Running, KEPT.to_owned()),
                item: None,
                level: Level::default(),
                wake: None,
            },
            Some(life) => stop(context, node, life, notes),
        });
        if let (Some(life), Some(planned)) = (up.last(), planned.last_mut()) {
            workload::describe_life(context, life, &mut planned.status);
        }
    }
    planned
}

/// Whether a life that left the spec runs on. What it is on stays with it: its registration, its
/// namespace, the bridge.
fn is_kept(context: &Context<'_>, life: &Life) -> bool {
    let memory = context.memory;
    memory.keeps
        && memory.down.is_none()
        && life.state == LifeState::Up
        && !memory.asked.contains_key(&life.id)
        && !context.desired.nodes.contains_key(&life.id.node)
        && context.instance_of(&life.id.node).is_none()
}

fn keeps(context: &Context<'_>, node: &NodeId) -> bool {
    let life = context.current(node);
    life.is_some_and(|life| is_kept(context, life))
}

fn stop(context: &Context<'_>, node: &NodeId, life: &Life, notes: &mut Notes) -> Planned {
    let (reason, waits) = match context.instance_of(node) {
        Some(first) => {
            let reason = "not in the spec: `update.order` is `stop-first`";
            (reason, pair::others(context, first, life))
        }
        None => {
            let mut waits = context.dependents_left(node);
            if node.kind == Kind::Containers {
                waits.extend(context.strangers().iter().cloned());
            }
            (reason(context), waits)
        }
    };
    if !waits.is_empty() && !context.memory.asked.contains_key(&life.id) {
        let mut planned = ending::waiting(context, life, Change::Remove, reason, waits);
        if context.instance_of(node).is_some() {
            planned.status.state = NodeState::Running;
        }
        return planned;
    }
    let remembered = context.memory.workloads.get(node);
    let farewell = remembered
        .and_then(|memory| memory.farewell.as_ref())
        .or(life.farewell.as_ref())
        .unwrap_or(&FAREWELL);
    let ending = Ending {
        life,
        farewell: ending::served(farewell.clone(), life),
        late: false,
    };
    let why = (Change::Remove, reason);
    if context.memory.down.is_none() && !context.memory.asked.contains_key(&life.id) {
        return ending::leave(context, node, &ending, why, notes);
    }
    ending::end(context, &ending, why)
}

fn registrations(context: &Context<'_>, notes: &Notes) -> Vec<Planned> {
    let down = context.memory.down.is_some();
    // What belongs to a node of the spec was found for it: it is known by where it is.
    let mut wanted = HashSet::with_capacity(context.observed.registered.len());
    let sights = context.sights.iter();
    wanted.extend(sights.filter_map(|sight| Some(ptr::from_ref(sight.registered?))));
    let registered = context.observed.registered.iter();
    let mut left: Vec<_> = registered
        .filter(|(_, registered)| down || !wanted.contains(&ptr::from_ref(*registered)))
        .filter(|(_, registered)| {
            let target = registered.target.as_ref();
            !target.is_some_and(|target| keeps(context, target) || sits(context, target, notes))
        })
        .collect();
    left.sort_unstable_by_key(|(service_id, _)| *service_id);
    left.into_iter()
        .map(|(service_id, registered)| {
            // Named as the spec names it, where the workload behind it is known.
            let target = registered.target.as_ref();
            let instance = target.map_or(service_id, |target| &target.name);
            let node = NodeId::endpoint(&registered.service, instance);
            let steps = vec![Step::Deregister(service_id.clone())];
            removal(node, reason(context), Vec::new(), steps)
        })
        .collect()
}

/// Whether a life sits in a second seat that it does not leave yet.
fn sits(context: &Context<'_>, node: &NodeId, notes: &Notes) -> bool {
    let life = context
        .instance_of(node)
        .and_then(|_| context.current(node));
    life.is_some_and(|life| context.is_settled(life) && !notes.leaving.contains(&life.id))
}

/// Files that carry our mark and that no template of the spec renders.
fn files(context: &Context<'_>) -> Vec<Planned> {
    let rendered: BTreeSet<_> = context
        .desired
        .nodes
        .values()
        .filter_map(|node| match node {
            Node::Template(template) => Some(&template.destination),
            _ => None,
        })
        .collect();
    let down = context.memory.down.is_some();
    let processes = if down {
        processes_left(context)
    } else {
        Vec::new()
    };
    let starts = starts_under_way(context);
    let files = context.observed.files.iter();
    let mut left: Vec<_> = files
        .filter_map(|(path, view)| match view {
            FileView::File {
                mark: Some(mark), ..
            } if mark.stack == context.desired.stack => Some((path, mark)),
            _ => None,
        })
        .filter(|(path, _)| down || !rendered.contains(path))
        .filter(|(_, mark)| {
            let is_wanted = context.templates.contains_key(mark.template.as_str());
            down || is_wanted || !context.memory.keeps
        })
        .collect();
    left.sort_unstable_by_key(|(path, _)| *path);
    left.into_iter()
        .map(|(path, mark)| {
            let node = NodeId::new(Kind::Templates, mark.template.clone());
            let mut waits = context.dependents_left(&node);
            if !down && let Some(state) = context.templates.get(mark.template.as_str()) {
                // It has another destination now; the old file serves until the new one does.
                if !state.written() || !super::template::settled(context) {
                    waits.push(format!("`{}`", state.node.destination.display()));
                }
                let node = NodeId::new(Kind::Templates, format!("{}/old", mark.template));
                return removal(
                    node,
                    "its `destination` changed",
                    waits,
                    vec![remove(context, path)],
                );
            }
            waits.extend(processes.iter().chain(&starts).cloned());
            waits.sort();
            waits.dedup();
            removal(node, reason(context), waits, vec![remove(context, path)])
        })
        .collect()
}

fn remove(context: &Context<'_>, path: &std::path::Path) -> Step {
    Step::RemoveFile {
        path: path.to_owned(),
        stack: context.desired.stack.clone(),
    }
}

/// Processes may read any rendered file until they are gone.
fn processes_left(context: &Context<'_>) -> Vec<String> {
    let left = |node: &NodeId| node.kind == Kind::Processes && context.current(node).is_some();
    context
        .nodes_with_lives(left)
        .into_iter()
        .map(|node| format!("{node} to end"))
        .collect()
}

/// A start that is under way may have begun because a file was there, whatever its workload needs
/// by now.
fn starts_under_way(context: &Context<'_>) -> Vec<String> {
    let attempts = context.memory.attempts.iter();
    attempts
        .filter(|(node, attempt)| attempt.running && context.current(node).is_none())
        .filter(|(node, _)| matches!(node.kind, Kind::Containers | Kind::Processes))
        .map(|(node, _)| format!("the start of {node}"))
        .collect()
}

/// Namespaces of containers that left, and those that nobody is in while another is to have their
/// address. The container goes first.
fn attachments(context: &Context<'_>) -> Vec<Planned> {
    let down = context.memory.down.is_some();
    let seen = &context.observed.network.attachments;
    let mut wanted: HashMap<*const AttachmentView, &Attachment> =
        HashMap::with_capacity(seen.len());
    let nodes = context.desired.nodes.values().zip(&context.sights);
    wanted.extend(nodes.filter_map(|(node, sight)| match node {
        Node::Workload(workload) => {
            let due = workload.attachment.as_ref()?;
            Some((ptr::from_ref(sight.attachment?), due))
        }
        _ => None,
    }));
    let prefix = format!("hatchery-{}-", context.desired.stack);
    let mut left: Vec<_> = seen
        .iter()
        .filter(|(_, view)| view.foreign.is_none())
        .filter(|(_, view)| match wanted.get(&ptr::from_ref(*view)) {
            Some(due) if !down => network::in_the_way(context, due, view),
            _ => true,
        })
        .map(|(name, _)| {
            let instance = name.strip_prefix(&prefix).unwrap_or(name);
            (name, instance, NodeId::new(Kind::Containers, instance))
        })
        .filter(|(_, _, node)| !keeps(context, node))
        .collect();
    left.sort_unstable();
    left.into_iter()
        .map(|(name, instance, node)| {
            // A start under way needs it before anything of it can be seen.
            let starts = context.is_busy(&node);
            let waits = match context.current(&node) {
                Some(life) if in_it(context, life) => vec![format!("{node} to end")],
                None if starts => vec![format!("the start of {node}")],
                _ => Vec::new(),
            };
            let node = NodeId::new(Kind::Networks, format!("links/{instance}"));
            removal(
                node,
                reason(context),
                waits,
                vec![Step::Detach(name.clone())],
            )
        })
        .collect()
}

/// Whether a life may be in the namespace of its node: one that is what the spec wants is not,
/// where that wants no namespace.
fn in_it(context: &Context<'_>, life: &Life) -> bool {
    match context.desired.nodes.get(&life.id.node) {
        Some(Node::Workload(node)) => {
            node.attachment.is_some() || workload::outdated(context, node, life).is_some()
        }
        _ => true,
    }
}

fn bridges(context: &Context<'_>) -> Vec<Planned> {
    let down = context.memory.down.is_some();
    let wanted: BTreeSet<&str> = context
        .desired
        .nodes
        .values()
        .filter_map(|node| match node {
            Node::Network(network) => Some(network.bridge.as_str()),
            _ => None,
        })
        .collect();
    let attachments = context.observed.network.attachments.values();
    let in_use: LazyCell<BTreeSet<&str>, _> = LazyCell::new(|| {
        let bridges = attachments.filter_map(|attachment| attachment.link.as_ref()?.1.as_deref());
        let coming = context.memory.attaching();
        bridges
            .chain(coming.map(|attachment| attachment.bridge.as_str()))
            .collect()
    });
    context
        .observed
        .network
        .bridges
        .iter()
        .filter(|(_, view)| view.ours || planted::has(Bug::PruneForeign))
        .filter(|(name, _)| down || !wanted.contains(name.as_str()))
        .filter(|(name, _)| {
            let keeps = context.memory.keeps && !down;
            !(keeps && in_use.contains(name.as_str()))
        })
        .map(|(bridge, _)| {
            let waits = if in_use.contains(bridge.as_str()) {
                vec![format!("the links of `{bridge}`")]
            } else {
                Vec::new()
            };
            removal(
                id_of_bridge(bridge),
                reason(context),
                waits,
                vec![Step::RemoveNetwork(bridge.clone())],
            )
        })
        .collect()
}
