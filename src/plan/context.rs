//! What one planning looks up: indexes over the four arguments, made once.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt, HashSet};

use super::firewall;
use super::lookup::{ByNode, Sight, endpoints, lives, sights, template_needs};
use super::memory::Memory;
use super::model::{Detail, ErrorKind, Gate, Item, NodeState, NodeStatus};
use super::removals::Removals;
use super::rolling::Roll;
use super::template::{self, TemplateState};
use super::world::{Life, LifeState, Observed};
use crate::graph::desired::{
    CheckNode, Desired, EndpointNode, Need, Node, ProbeNode, ReadyNode, TemplateNode, WorkloadNode,
};
use crate::graph::{Hosts, Memo};
use crate::planted::{self, Bug};
use crate::spec::model::{Condition, Firewall, Status};
use crate::spec::node::{Kind, NodeId};
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
    pub fn or(self, other: Level) -> Level {
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

/// A group's kind and name.
type Group<'a> = (Kind, &'a str);

/// Its maps are hashed: they are only looked into, and at 10,000 containers comparing long names
/// with each other would be most of the work.
pub(super) struct Context<'a> {
    pub desired: &'a Desired,
    pub observed: &'a Observed,
    pub memory: &'a Memory,
    pub now: Time,
    lives: ByNode<'a, &'a Life>,
    pub sights: Vec<Sight<'a>>,
    /// Whose turn it is to be planned, and its place among the nodes.
    pub turn: Option<(&'a NodeId, usize)>,
    endpoints: OnceCell<HashMap<&'a NodeId, Vec<&'a EndpointNode>>>,
    groups: HashMap<Group<'a>, Vec<&'a WorkloadNode>>,
    /// How groups stand of which somebody was about to leave.
    rolls: RefCell<BTreeMap<NodeId, Rc<Roll<'a>>>>,
    hosts: OnceCell<Arc<Hosts>>,
    firewall: Memo<Firewall, String>,
    holders: OnceCell<HashMap<Ipv4Addr, Vec<&'a str>>>,
    /// The addresses that instances are to have.
    due: OnceCell<HashSet<Ipv4Addr>>,
    pub removals: Removals<'a>,
    /// The templates whose reload goes to each process or group, by its id.
    reloads: HashMap<&'a NodeId, Vec<&'a TemplateNode>>,
    pub templates: BTreeMap<&'a str, TemplateState<'a>>,
    /// How far each node is, by its place among the nodes.
    levels: Vec<Level>,
    /// Upon whose levels it depends whether templates may be written.
    template_needs: Vec<bool>,
    /// The templates that have something left to write or to tell, as far as the levels say.
    unsettled: RefCell<Option<Rc<Vec<&'a str>>>>,
    /// Workloads whose endpoints are to leave the registry before they end.
    pub leaving: BTreeSet<NodeId>,
    /// Workloads of which nothing runs, as it should be.
    pub resting: BTreeSet<NodeId>,
    /// Seats that are spare.
    pub spare: BTreeSet<NodeId>,
}

impl<'a> Context<'a> {
    pub fn new(
        desired: &'a Desired,
        observed: &'a Observed,
        memory: &'a Memory,
        now: Time,
    ) -> Self {
        let mut groups: HashMap<Group<'_>, Vec<&WorkloadNode>> = HashMap::new();
        let mut reloads: HashMap<&NodeId, Vec<&TemplateNode>> = HashMap::new();
        for node in desired.nodes.values() {
            match node {
                Node::Workload(workload) => {
                    let group = (workload.id.kind, workload.group.as_str());
                    groups.entry(group).or_default().push(workload);
                }
                Node::Template(template) => {
                    let told = template.reload.as_ref();
                    if let Some(process) = told.and_then(template::reload_process) {
                        reloads.entry(process).or_default().push(template);
                    }
                }
                _ => {}
            }
        }
        let mut context = Context {
            desired,
            observed,
            memory,
            now,
            lives: lives(desired, observed),
            sights: sights(desired, observed),
            turn: None,
            endpoints: OnceCell::new(),
            groups,
            rolls: RefCell::default(),
            hosts: OnceCell::new(),
            holders: OnceCell::new(),
            due: OnceCell::new(),
            firewall: Memo::default(),
            removals: Removals::default(),
            reloads,
            templates: BTreeMap::new(),
            levels: vec![Level::default(); desired.nodes.len()],
            template_needs: template_needs(desired),
            unsettled: RefCell::default(),
            leaving: BTreeSet::new(),
            resting: BTreeSet::new(),
            spare: BTreeSet::new(),
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

    /// The place of a node among those of the spec.
    fn place(&self, node: &NodeId) -> Option<usize> {
        match self.turn {
            Some((own, place)) if std::ptr::eq(own, node) => Some(place),
            _ => self.desired.nodes.get_index_of(node),
        }
    }

    /// What there is to see of a node of the spec.
    pub fn sight(&self, node: &NodeId) -> Sight<'a> {
        let sight = self.place(node).and_then(|place| self.sights.get(place));
        sight.copied().unwrap_or_default()
    }

    /// All lives of a node, the oldest first.
    pub fn lives(&self, node: &NodeId) -> &[&'a Life] {
        self.lives.of(node, self.place(node))
    }

    /// Whether an action on a node is under way.
    pub fn is_busy(&self, node: &NodeId) -> bool {
        let attempt = self.memory.attempts.get(node);
        attempt.is_some_and(|attempt| attempt.running)
    }

    /// The newest life of which something still runs.
    pub fn current(&self, node: &NodeId) -> Option<&'a Life> {
        self.lives(node)
            .iter()
            .rev()
            .find(|life| !matches!(life.state, LifeState::Ended { .. }))
            .copied()
    }

    /// The nodes with a life that `takes` takes, in order.
    pub fn nodes_with_lives(&self, takes: impl Fn(&NodeId) -> bool) -> Vec<&'a NodeId> {
        let (inside, outside) = self.lives.nodes();
        let mut nodes: Vec<&NodeId> = inside.chain(outside).collect();
        nodes.retain(|node| takes(node));
        nodes.sort_unstable();
        nodes
    }

    /// The nodes with a life that are not wanted, in order.
    pub fn left(&self) -> Vec<&'a NodeId> {
        if self.memory.down.is_some() {
            return self.nodes_with_lives(|_| true);
        }
        let mut nodes: Vec<&NodeId> = self.lives.nodes().1.collect();
        nodes.sort_unstable();
        nodes
    }

    /// The endpoints that a workload serves.
    pub fn endpoints(&self, node: &NodeId) -> &[&'a EndpointNode] {
        let all = self.endpoints.get_or_init(|| endpoints(self.desired));
        all.get(node).map_or(&[], Vec::as_slice)
    }

    /// How the group of a workload stands, for the next of it that is to leave.
    pub fn roll(&self, node: &WorkloadNode) -> Rc<Roll<'a>> {
        let group = NodeId::new(node.id.kind, node.group.clone());
        if let Some(roll) = self.rolls.borrow().get(&group) {
            return Rc::clone(roll);
        }
        let members = self
            .groups
            .get(&(group.kind, &group.name))
            .map_or(&[][..], Vec::as_slice);
        let roll = Rc::new(Roll::of(self, members));
        self.rolls.borrow_mut().insert(group, Rc::clone(&roll));
        roll
    }

    /// Every workload of the group of this name.
    pub fn group_named(&self, group: &NodeId) -> Vec<&'a WorkloadNode> {
        self.groups
            .get(&(group.kind, &group.name))
            .cloned()
            .unwrap_or_else(|| match self.desired.nodes.get(group) {
                Some(Node::Workload(workload)) => vec![workload],
                _ => Vec::new(),
            })
    }

    /// The namespaces of this stack that have each address.
    pub fn holders(&self) -> &HashMap<Ipv4Addr, Vec<&'a str>> {
        self.holders.get_or_init(|| {
            let mut holders: HashMap<Ipv4Addr, Vec<&str>> = HashMap::new();
            for (name, view) in &self.observed.network.attachments {
                if let (Some(address), None) = (view.address, &view.foreign) {
                    holders.entry(address.addr()).or_default().push(name);
                }
            }
            for names in holders.values_mut() {
                names.sort_unstable();
            }
            for wanted in self.memory.attaching() {
                let holder = holders.entry(wanted.address).or_default();
                holder.push(&wanted.namespace);
            }
            holders
        })
    }

    /// Whether some instance of this spec is to have this address.
    pub fn is_due(&self, address: Ipv4Addr) -> bool {
        let due = self.due.get_or_init(|| {
            let nodes = self.desired.nodes.values();
            let attachments = nodes.filter_map(|node| match node {
                Node::Workload(workload) => workload.attachment.as_ref(),
                _ => None,
            });
            attachments.map(|attachment| attachment.address).collect()
        });
        due.contains(&address)
    }

    /// The hosts files, made when the first of them is looked at.
    pub fn hosts(&self) -> &Hosts {
        self.hosts.get_or_init(|| {
            let seats = self.desired.pairs.keys();
            let spare = || seats.clone().filter(|id| self.is_spare(id));
            let memo = &self.desired.hosts;
            let known = memo.known(|known| known.iter().eq(spare()));
            known.unwrap_or_else(|| {
                let hosts = Hosts::of(self.desired, &|id| self.is_spare(id));
                memo.remember(spare().cloned().collect(), hosts)
            })
        })
    }

    /// The hash of a firewall. One after the other, the members of a group have the same.
    pub fn firewall_hash(&self, firewall: &Firewall) -> Arc<String> {
        let known = self.firewall.known(|known| known == firewall);
        known.unwrap_or_else(|| self.firewall.answer(firewall.clone(), firewall::hash))
    }

    /// The worst status of all that a workload serves; `None` when it serves nothing.
    pub fn health(&self, node: &NodeId) -> Option<Status> {
        self.sight(node).health
    }

    /// How far a node is, as far as this was planned already.
    pub fn level(&self, node: &NodeId) -> Level {
        let place = self.desired.nodes.get_index_of(node);
        let level = place.and_then(|place| self.levels.get(place));
        level.copied().unwrap_or_default()
    }

    /// Notes how far the node at `place` among the nodes is, for those that come after it.
    pub fn set_level(&mut self, place: usize, level: Level) {
        if let Some(own) = self.levels.get_mut(place) {
            *own = level;
        }
        if self.template_needs.get(place) == Some(&true) {
            self.unsettled.take();
        }
    }

    /// The templates that have something left to write or to tell.
    pub fn unsettled(&self) -> Rc<Vec<&'a str>> {
        if let Some(known) = &*self.unsettled.borrow() {
            return Rc::clone(known);
        }
        let found = Rc::new(template::unsettled(self));
        self.unsettled.replace(Some(Rc::clone(&found)));
        found
    }

    /// What a node still needs before it may start, in words.
    pub fn lacking(&self, node: &NodeId) -> Vec<String> {
        self.lacking_but(node, |_| false)
    }

    /// The same, without the needs that are `left_out`.
    pub fn lacking_but(&self, node: &NodeId, left_out: fn(&Need) -> bool) -> Vec<String> {
        let needs: &[Need] = self.desired.needs.get(node).map_or(&[], Vec::as_slice);
        needs
            .iter()
            .filter(|need| !left_out(need) && !planted::has(Bug::StartBeforeNeed))
            .filter(|need| !self.level_for(node, &need.on).reaches(need.condition))
            .map(|need| match need.condition {
                Condition::Started => need.on.to_string(),
                Condition::Healthy => format!("{} to be healthy", need.on),
                Condition::Completed => format!("{} to complete", need.on),
            })
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

    /// The templates whose reload goes to this process, to itself or to all of its group.
    pub fn reloads_of(&self, process: &WorkloadNode) -> Vec<&'a TemplateNode> {
        if self.reloads.is_empty() || process.id.kind != Kind::Processes {
            return Vec::new();
        }
        let group = NodeId::new(process.id.kind, process.group.clone());
        let own = Some(&process.id).filter(|id| **id != group);
        let to = |id: &NodeId| self.reloads.get(id).into_iter().flatten().copied();
        let own = own.into_iter().flat_map(to);
        to(&group).chain(own).collect()
    }
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

/// Lets what is under way go on, and what failed wait for its next try.
pub(super) fn hold_back(context: &Context<'_>, planned: &mut Planned) {
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
    if item.gate != Gate::Ready {
        // What it waits for is something else now.
        return;
    }
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
