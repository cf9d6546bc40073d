//! What is looked up only where something goes: made when the first removal asks for it.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use foldhash::{HashMap, HashSet};

use super::context::Context;
use super::memory::Memory;
use super::prune::wanted;
use super::rolling::NAMED;
use super::world::Observed;
use crate::graph::desired::Desired;
use crate::spec::node::{Kind, NodeId};

/// Indexes for removals.
#[derive(Default)]
pub(super) struct Removals<'a> {
    /// Who needs whom.
    dependents: OnceCell<HashMap<&'a NodeId, BTreeSet<&'a NodeId>>>,
    /// The first registration of each workload that has one.
    registered: OnceCell<HashMap<&'a NodeId, &'a str>>,
    /// The processes that are to go and of which nobody remembers what they need, in words.
    strangers: OnceCell<Vec<String>>,
}

impl<'a> Context<'a> {
    /// What needs this node, is to go as well, and still runs. Behind one that runs nothing is
    /// looked for: that one waits itself for what is further away.
    pub fn dependents_left(&self, node: &NodeId) -> Vec<String> {
        let mut reached: HashSet<&NodeId> = HashSet::default();
        let mut left: BTreeSet<&NodeId> = BTreeSet::new();
        let mut next = vec![node];
        let dependents = || dependents(self.desired, self.memory);
        let dependents = self.removals.dependents.get_or_init(dependents);
        while let Some(node) = next.pop() {
            for dependent in dependents.get(node).into_iter().flatten() {
                if !reached.insert(dependent) {
                    continue;
                }
                if !wanted(self, dependent) && self.current(dependent).is_some() {
                    left.insert(dependent);
                } else {
                    next.push(dependent);
                }
            }
        }
        let more = left.len().saturating_sub(NAMED);
        let named = left.into_iter().take(NAMED);
        named
            .map(|dependent| format!("{dependent} to end"))
            .chain((more > 0).then(|| format!("{more} more of them")))
            .collect()
    }

    /// The processes that are to go and of which nobody remembers what they need: proxies may be
    /// among them, so they go before any container.
    pub fn strangers(&self) -> &[String] {
        self.removals.strangers.get_or_init(|| {
            let known = |node: &NodeId| {
                self.desired.needs.contains_key(node) || self.memory.past_needs.contains_key(node)
            };
            let nodes = self.nodes_with_lives(|node| {
                node.kind == Kind::Processes && !known(node) && self.current(node).is_some()
            });
            nodes
                .into_iter()
                .map(|node| format!("{node} to end"))
                .collect()
        })
    }

    /// The id in the registry under which a workload is found.
    pub fn registered_for(&self, node: &NodeId) -> Option<&'a str> {
        let registered = self
            .removals
            .registered
            .get_or_init(|| registered(self.observed));
        registered.get(node).copied()
    }
}

/// Of what is registered, the first id of each workload.
fn registered(observed: &Observed) -> HashMap<&NodeId, &str> {
    let mut first: HashMap<&NodeId, &str> = HashMap::default();
    for (id, registered) in &observed.registered {
        if let Some(target) = &registered.target {
            let known = first.entry(target).or_insert(id);
            *known = id.as_str().min(known);
        }
    }
    first
}

/// Who needs whom, in this spec and in those before it.
fn dependents<'a>(
    desired: &'a Desired,
    memory: &'a Memory,
) -> HashMap<&'a NodeId, BTreeSet<&'a NodeId>> {
    let mut dependents: HashMap<&NodeId, BTreeSet<&NodeId>> = HashMap::default();
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
