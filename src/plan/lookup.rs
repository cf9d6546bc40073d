//! Indexes that one planning makes of its arguments.

use std::collections::hash_map::Entry;

use foldhash::{HashMap, HashMapExt};

use super::render;
use super::world::{AttachmentView, Life, Observed, Registered};
use crate::graph::desired::{Desired, EndpointNode, Node};
use crate::spec::model::Status;
use crate::spec::node::{Kind, NodeId};

/// One or more, in order. Most often it is one, and that needs no memory of its own.
#[derive(Debug)]
enum Few<T> {
    One(T),
    More(Vec<T>),
}

impl<T: Copy> Few<T> {
    /// All of them.
    fn all(&self) -> &[T] {
        match self {
            Few::One(one) => std::slice::from_ref(one),
            Few::More(more) => more,
        }
    }

    fn push(&mut self, next: T) {
        match self {
            Few::One(one) => *self = Few::More(vec![*one, next]),
            Few::More(more) => more.push(next),
        }
    }
}

/// What belongs to each node. That of nodes of the spec is found by their place among them, so
/// that a name is compared with nothing but itself.
pub(super) struct ByNode<'a, T> {
    desired: &'a Desired,
    inside: Vec<Option<Few<T>>>,
    outside: HashMap<&'a NodeId, Few<T>>,
}

impl<'a, T: Copy> ByNode<'a, T> {
    /// Nothing yet.
    pub fn new(desired: &'a Desired) -> Self {
        ByNode {
            desired,
            inside: desired.nodes.iter().map(|_| None).collect(),
            outside: HashMap::default(),
        }
    }

    /// Adds one more to what a node has.
    pub fn add(&mut self, node: &'a NodeId, next: T) {
        let place = self.desired.nodes.get_index_of(node);
        if let Some(own) = place.and_then(|place| self.inside.get_mut(place)) {
            match own {
                Some(few) => few.push(next),
                None => *own = Some(Few::One(next)),
            }
            return;
        }
        match self.outside.entry(node) {
            Entry::Occupied(known) => known.into_mut().push(next),
            Entry::Vacant(place) => {
                place.insert(Few::One(next));
            }
        }
    }

    /// All that the node at `place` has, which is `None` for one that is not of the spec.
    pub fn of(&self, node: &NodeId, place: Option<usize>) -> &[T] {
        let few = match place {
            Some(place) => self.inside.get(place).and_then(Option::as_ref),
            None => self.outside.get(node),
        };
        few.map_or(&[], Few::all)
    }

    /// The nodes that have something, in no order: those of the spec and the others.
    pub fn nodes(
        &self,
    ) -> (
        impl Iterator<Item = &'a NodeId>,
        impl Iterator<Item = &'a NodeId>,
    ) {
        let inside = self.desired.nodes.keys().zip(&self.inside);
        let inside = inside.filter_map(|(node, few)| few.as_ref().map(|_| node));
        (inside, self.outside.keys().copied())
    }

    fn sort_by_key<K: Ord>(&mut self, key: impl Fn(&T) -> K) {
        let inside = self.inside.iter_mut().flatten();
        for few in inside.chain(self.outside.values_mut()) {
            if let Few::More(more) = few {
                more.sort_by_key(&key);
            }
        }
    }
}

/// Lives by their nodes, the oldest first.
pub(super) fn lives<'a>(desired: &'a Desired, observed: &'a Observed) -> ByNode<'a, &'a Life> {
    let mut lives = ByNode::new(desired);
    for life in &observed.lives {
        lives.add(&life.id.node, life);
    }
    lives.sort_by_key(|life| life.id.incarnation);
    lives
}

/// For each node, by its place: whether templates wait for it before they are written.
pub(super) fn template_needs(desired: &Desired) -> Vec<bool> {
    let mut needed = vec![false; desired.nodes.len()];
    // No kind comes after that of templates.
    let templates = desired.needs.range(NodeId::new(Kind::Templates, "")..);
    let needs = templates.flat_map(|(_, needs)| needs);
    for need in needs.filter(|need| !render::is_listing(need)) {
        let place = desired.nodes.get_index_of(&need.on);
        if let Some(needed) = place.and_then(|place| needed.get_mut(place)) {
            *needed = true;
        }
    }
    needed
}

/// What else there is to see of one node of the spec.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sight<'a> {
    /// How it stands, as the registry has it; endpoints only.
    pub status: Option<Status>,
    /// What is registered for it; endpoints only.
    pub registered: Option<&'a Registered>,
    /// The worst status of all that leads to it.
    pub health: Option<Status>,
    /// Its namespace and link.
    pub attachment: Option<&'a AttachmentView>,
}

/// What there is to see of each node, by its place. All are looked up in one go: that is much
/// faster than one after the other between all else.
pub(super) fn sights<'a>(desired: &Desired, observed: &'a Observed) -> Vec<Sight<'a>> {
    let mut statuses = HashMap::with_capacity(observed.registered.len());
    let instances = observed.catalog.services.values().flatten();
    statuses.extend(instances.map(|instance| (instance.id.as_str(), instance.status)));
    let mut sights = vec![Sight::default(); desired.nodes.len()];
    for (place, node) in desired.nodes.values().enumerate() {
        let Some(own) = sights.get_mut(place) else {
            continue;
        };
        match node {
            Node::Workload(workload) => {
                let attachment = workload.attachment.as_ref();
                let seen = &observed.network.attachments;
                own.attachment = attachment.and_then(|wanted| seen.get(&wanted.namespace));
            }
            Node::Endpoint(endpoint) => {
                own.status = statuses.get(endpoint.service_id.as_str()).copied();
                own.registered = observed.registered.get(&endpoint.service_id);
                let status = own.status.unwrap_or(Status::Critical);
                let target = endpoint.target.as_ref();
                let target = target.and_then(|target| desired.nodes.get_index_of(target));
                if let Some(target) = target.and_then(|place| sights.get_mut(place)) {
                    target.health = target.health.max(Some(status));
                }
            }
            _ => {}
        }
    }
    sights
}

/// The endpoints that lead to each workload.
pub(super) fn endpoints(desired: &Desired) -> HashMap<&NodeId, Vec<&EndpointNode>> {
    let mut endpoints: HashMap<&NodeId, Vec<&EndpointNode>> = HashMap::new();
    for node in desired.nodes.values() {
        if let Node::Endpoint(endpoint) = node
            && let Some(target) = &endpoint.target
        {
            endpoints.entry(target).or_default().push(endpoint);
        }
    }
    endpoints
}
