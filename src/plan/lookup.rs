//! Indexes that one planning makes of its arguments.

use std::collections::hash_map::Entry;
use std::hash::Hash;

use foldhash::{HashMap, HashMapExt};

use super::render;
use super::world::{Life, Observed};
use crate::graph::desired::Desired;
use crate::spec::node::{Kind, NodeId};

/// One or more, in order. Most often it is one, and that needs no memory of its own.
#[derive(Debug)]
pub(super) enum Few<T> {
    One(T),
    More(Vec<T>),
}

impl<T: Copy> Few<T> {
    /// All of them.
    pub fn all(&self) -> &[T] {
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

/// Adds one more to what is found under `key`.
pub(super) fn add<K: Eq + Hash, T: Copy>(to: &mut HashMap<K, Few<T>>, key: K, next: T) {
    match to.entry(key) {
        Entry::Occupied(known) => known.into_mut().push(next),
        Entry::Vacant(place) => {
            place.insert(Few::One(next));
        }
    }
}

/// Lives by their nodes, the oldest first.
pub(super) fn lives(observed: &Observed) -> HashMap<&NodeId, Few<&Life>> {
    let mut lives = HashMap::with_capacity(observed.lives.len());
    for life in &observed.lives {
        add(&mut lives, &life.id.node, life);
    }
    for of_node in lives.values_mut() {
        if let Few::More(more) = of_node {
            more.sort_by_key(|life| life.id.incarnation);
        }
    }
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
