//! What one planning looks up: indexes over the four arguments, made once.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use super::memory::Memory;
use super::model::{Detail, ErrorKind, Gate, Item, NodeState, NodeStatus};
use super::permit;
use super::rolling::Group;
use super::template::{self, TemplateState};
use super::world::{Life, LifeState, Observed};
use crate::graph::desired::{
    CheckNode, Desired, EndpointNode, Need, Node, ProbeNode, ReadyNode, TemplateNode, WorkloadNode,
};
use crate::spec::model::{Condition, Status};
use crate::spec::node::NodeId;
use crate::spec::time::Time;

/// How far a node is, for those that need it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Level {
    pub started: bool,
    pub healthy: bool,
    pub completed: bool,
}

impl Level {
    /// Ready, and nothing more is to be asked of it.
    pub const FULL: Level = Level {
        started: true,
        healthy: true,
        completed: true,
    };

    /// The further of two.
    fn or(self, other: Level) -> Level {
        Level {
            started: self.started || other.started,
            healthy: self.healthy || other.healthy,
            completed: self.completed || other.completed,
        }
    }

    /// Whether a need of this condition is met.
    pub fn reaches(self, condition: Condition) -> bool {
        match condition {
            Condition::Started => self.started,
            Condition::Healthy => self.healthy,
            Condition::Completed => self.completed,
        }
    }
}

/// What planning one node gave.
#[derive(Debug)]
pub(super) struct Planned {
    pub status: NodeStatus,
    pub item: Option<Item>,
    pub level: Level,
    pub wake: Option<Time>,
}

impl Planned {
    /// A node with nothing outstanding.
    pub fn idle(status: NodeStatus, level: Level) -> Self {
        Planned {
            status,
            item: None,
            level,
            wake: None,
        }
    }
}

pub(super) struct Context<'a> {
    pub desired: &'a Desired,
    pub observed: &'a Observed,
    pub memory: &'a Memory,
    pub now: Time,
    lives: BTreeMap<&'a NodeId, Vec<&'a Life>>,
    statuses: BTreeMap<&'a str, Status>,
    endpoints: BTreeMap<&'a NodeId, Vec<&'a EndpointNode>>,
    groups: BTreeMap<NodeId, Vec<&'a WorkloadNode>>,
    dependents: BTreeMap<&'a NodeId, BTreeSet<&'a NodeId>>,
    pub templates: BTreeMap<&'a str, TemplateState<'a>>,
    pub levels: BTreeMap<&'a NodeId, Level>,
    /// Workloads whose endpoints are to leave the registry before they end.
    pub leaving: BTreeSet<NodeId>,
    /// Workloads of which nothing runs, as it should be.
    pub resting: BTreeSet<NodeId>,
    /// Seats that are spare.
    pub spare: BTreeSet<NodeId>,
    /// How groups stand, as far as it was asked.
    pub standings: BTreeMap<NodeId, Rc<Group>>,
}

impl<'a> Context<'a> {
    pub fn new(
        desired: &'a Desired,
        observed: &'a Observed,
        memory: &'a Memory,
        now: Time,
    ) -> Self {
        let mut lives: BTreeMap<&NodeId, Vec<&Life>> = BTreeMap::new();
        for life in &observed.lives {
            lives.entry(&life.id.node).or_default().push(life);
        }
        for of_node in lives.values_mut() {
            of_node.sort_by_key(|life| life.id.incarnation);
        }
        let mut endpoints: BTreeMap<&NodeId, Vec<&EndpointNode>> = BTreeMap::new();
        let mut groups: BTreeMap<NodeId, Vec<&WorkloadNode>> = BTreeMap::new();
        for node in desired.nodes.values() {
            match node {
                Node::Endpoint(endpoint) => {
                    if let Some(target) = &endpoint.target {
                        endpoints.entry(target).or_default().push(endpoint);
                    }
                }
                Node::Workload(workload) => {
                    let group = NodeId::new(workload.id.kind, workload.group.clone());
                    groups.entry(group).or_default().push(workload);
                }
                _ => {}
            }
        }
        let statuses = observed
            .catalog
            .services
            .values()
            .flatten()
            .map(|instance| (instance.id.as_str(), instance.status))
            .collect();
        let mut context = Context {
            desired,
            observed,
            memory,
            now,
            lives,
            statuses,
            endpoints,
            groups,
            dependents: dependents(desired, memory),
            templates: BTreeMap::new(),
            levels: BTreeMap::new(),
            leaving: BTreeSet::new(),
            resting: BTreeSet::new(),
            spare: BTreeSet::new(),
            standings: BTreeMap::new(),
        };
        context.templates = template::states(&context);
        context
    }

    /// Whether something of a node runs and is not on its way out.
    pub fn stays(&self, node: &NodeId) -> bool {
        self.current(node).is_some_and(|life| {
            !self.memory.leaving.contains_key(&life.id)
                && !self.memory.asked.contains_key(&life.id)
                && !self.memory.restart.contains(&life.id)
                && !self.memory.stopped.contains(node)
        })
    }

    /// All lives of a node, the oldest first.
    pub fn lives(&self, node: &NodeId) -> &[&'a Life] {
        self.lives.get(node).map_or(&[], Vec::as_slice)
    }

    /// The newest life of which something still runs.
    pub fn current(&self, node: &NodeId) -> Option<&'a Life> {
        self.lives(node)
            .iter()
            .rev()
            .find(|life| !matches!(life.state, LifeState::Ended { .. }))
            .copied()
    }

    pub fn all_lives(&self) -> impl Iterator<Item = (&'a NodeId, &Vec<&'a Life>)> {
        self.lives.iter().map(|(node, lives)| (*node, lives))
    }

    /// The endpoints that a workload serves.
    pub fn endpoints(&self, node: &NodeId) -> &[&'a EndpointNode] {
        self.endpoints.get(node).map_or(&[], Vec::as_slice)
    }

    pub fn group(&self, node: &WorkloadNode) -> &[&'a WorkloadNode] {
        let group = NodeId::new(node.id.kind, node.group.clone());
        self.groups.get(&group).map_or(&[], Vec::as_slice)
    }

    /// Every workload of the group of this name.
    pub fn group_named(&self, group: &NodeId) -> Vec<&'a WorkloadNode> {
        self.groups
            .get(group)
            .cloned()
            .unwrap_or_else(|| match self.desired.nodes.get(group) {
                Some(Node::Workload(workload)) => vec![workload],
                _ => Vec::new(),
            })
    }

    /// How a registered endpoint stands.
    pub fn endpoint_status(&self, service_id: &str) -> Option<Status> {
        self.statuses.get(service_id).copied()
    }

    /// The worst status of all that a workload serves; `None` when it serves nothing.
    pub fn health(&self, node: &NodeId) -> Option<Status> {
        self.endpoints(node)
            .iter()
            .map(|endpoint| {
                self.endpoint_status(&endpoint.service_id)
                    .unwrap_or(Status::Critical)
            })
            .max()
    }

    /// How far `on` is for `node`. Of two seats the one that is further counts, except for the
    /// endpoints of each.
    pub fn level_for(&self, node: &NodeId, on: &NodeId) -> Level {
        let level = |id: &NodeId| self.levels.get(id).copied().unwrap_or_default();
        let own = level(on);
        match self.desired.pairs.get(on) {
            Some(partner) if !self.desired.pairs.contains_key(node) => own.or(level(partner)),
            _ => own,
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

    /// What a node still needs before it may start, in words.
    pub fn lacking(&self, node: &NodeId) -> Vec<String> {
        let needs: &[Need] = self.desired.needs.get(node).map_or(&[], Vec::as_slice);
        needs
            .iter()
            .filter(|need| !self.level_for(node, &need.on).reaches(need.condition))
            .map(|need| match need.condition {
                Condition::Started => need.on.to_string(),
                Condition::Healthy => format!("{} to be healthy", need.on),
                Condition::Completed => format!("{} to complete", need.on),
            })
            .collect()
    }

    /// What needs this node, near or far, is to go as well, and still runs.
    pub fn dependents_left(&self, node: &NodeId) -> Vec<String> {
        let mut reached: BTreeSet<&NodeId> = BTreeSet::new();
        let mut next = vec![node];
        while let Some(node) = next.pop() {
            for dependent in self.dependents.get(node).into_iter().flatten() {
                if reached.insert(dependent) {
                    next.push(dependent);
                }
            }
        }
        reached
            .into_iter()
            .filter(|dependent| !super::prune::wanted(self, dependent))
            .filter(|dependent| self.current(dependent).is_some())
            .map(|dependent| format!("{dependent} to end"))
            .collect()
    }

    /// Whether a check that we ask ourselves has not answered since the adoption. Heartbeats
    /// are no part of it: they come through the very address that this is asked for.
    pub fn probes_unanswered(&self) -> bool {
        self.desired.nodes.values().any(|node| {
            let checks: Vec<&CheckNode> = match node {
                Node::Endpoint(endpoint)
                    if endpoint
                        .target
                        .as_ref()
                        .is_none_or(|target| self.stays(target)) =>
                {
                    endpoint.checks.iter().collect()
                }
                Node::Workload(workload) => match &workload.ready {
                    ReadyNode::Check { check, .. } => vec![check],
                    _ => Vec::new(),
                },
                _ => Vec::new(),
            };
            checks.iter().any(|check| {
                !matches!(check.probe, ProbeNode::Ttl(_))
                    && self.memory.unchecked.contains(&check.id)
            })
        })
    }

    /// The templates whose reload goes to this process.
    pub fn reloads_of(&self, process: &WorkloadNode) -> Vec<&'a TemplateNode> {
        let group = NodeId::new(process.id.kind, process.group.clone());
        self.desired
            .nodes
            .values()
            .filter_map(|node| match node {
                Node::Template(template) => Some(template.as_ref()),
                _ => None,
            })
            .filter(|template| {
                template
                    .reload
                    .as_ref()
                    .and_then(super::template::reload_process)
                    .is_some_and(|told| *told == group || *told == process.id)
            })
            .collect()
    }
}

/// Who needs whom, in this spec and in those before it.
fn dependents<'a>(
    desired: &'a Desired,
    memory: &'a Memory,
) -> BTreeMap<&'a NodeId, BTreeSet<&'a NodeId>> {
    let mut dependents: BTreeMap<&NodeId, BTreeSet<&NodeId>> = BTreeMap::new();
    for (node, needs) in &desired.needs {
        for need in needs {
            dependents.entry(&need.on).or_default().insert(node);
        }
    }
    let past = memory.past_needs.iter();
    // What the spec says now is the truth for what it still names: another spec may have had
    // it the other way round.
    for (node, needs) in past.filter(|(node, _)| !desired.needs.contains_key(*node)) {
        for need in needs {
            dependents.entry(need).or_default().insert(node);
        }
    }
    dependents
}

/// A status with nothing but its state and a few words.
pub(super) fn status(node: &NodeId, state: NodeState, detail: impl Into<String>) -> NodeStatus {
    NodeStatus {
        node: node.clone(),
        state,
        detail: detail.into(),
        health: None,
        pid: None,
        leader_pid: None,
        age: None,
        restarts: 0,
        address: None,
        last_exit: None,
    }
}

/// One attribute of something new.
pub(super) fn detail(name: &str, new: impl ToString) -> Detail {
    Detail {
        name: name.to_owned(),
        old: None,
        new: Some(new.to_string()),
    }
}

/// Lets what is under way go on, what an applied plan does not have wait, and what failed wait
/// for its next try.
pub(super) fn hold_back(context: &Context<'_>, planned: &mut Planned) {
    if permit::withhold(context, planned) {
        return;
    }
    let Some(item) = &mut planned.item else {
        return;
    };
    let Some(attempt) = context.memory.attempts.get(&item.node) else {
        return;
    };
    if attempt.running {
        item.gate = Gate::Running;
        item.steps.clear();
        return;
    }
    let Some((kind, error)) = &attempt.error else {
        return;
    };
    planned.status.state = NodeState::Failed;
    planned.status.detail.clone_from(error);
    if context.now >= attempt.retry_at {
        return;
    }
    let left = attempt.retry_at.since(context.now);
    item.gate = match kind {
        ErrorKind::Foreign => Gate::Blocked(error.clone()),
        _ => Gate::Waiting(vec![format!("its next try in {}: {error}", words(left))]),
    };
    item.steps.clear();
    planned.wake = earliest(planned.wake, Some(attempt.retry_at));
}

/// A duration for people: milliseconds below one second, tenths below ten, then whole ones.
pub fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..10 if duration.subsec_millis() >= 50 => format!("{:.1}s", duration.as_secs_f64()),
        1..10 => format!("{seconds}s"),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// The earlier of two moments, if any.
pub(super) fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
