//! Indexes that one planning makes of its arguments.

use std::collections::hash_map::Entry;

use foldhash::HashMap;

use super::render;
use super::world::{Life, Observed};
use crate::graph::desired::Desired;
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

    /// All that a node has.
    pub fn of(&self, node: &NodeId) -> &[T] {
        let few = match self.desired.nodes.get_index_of(node) {
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
