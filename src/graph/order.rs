//! Start order, waves, and cycles with their path.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use indexmap::IndexSet;
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::at::Problems;
use super::desired::Nodes;
use super::edges::{Edge, Edges, Origin};
use crate::spec::node::NodeId;

/// In which order nodes start.
#[derive(Debug)]
pub(super) struct Order {
    /// One after the other.
    pub(super) sequence: Vec<NodeId>,
    /// Side by side.
    pub(super) waves: Vec<Vec<NodeId>>,
}

/// Nodes are weighted by nothing but their position: petgraph numbers them in spec order.
type Graph<'e> = DiGraph<(), &'e Edge>;

/// The start order; `None` once every cycle is noted.
pub(super) fn order(nodes: &Nodes, edges: &Edges, problems: &mut Problems<'_>) -> Option<Order> {
    let ids = ids(nodes, edges);
    let graph = graph(&ids, edges);
    let name = |index: NodeIndex| ids.get_index(index.index()).map(|id| (*id).clone());
    let mut acyclic = true;
    let mut knots = tarjan_scc(&graph);
    knots.sort_by_key(|knot| knot.iter().min().copied());
    for knot in knots {
        let members: BTreeSet<NodeIndex> = knot.into_iter().collect();
        if let Some(cycle) = shortest_cycle(&graph, &members) {
            acyclic = false;
            note_cycle(&cycle, problems);
        }
    }
    if !acyclic {
        return None;
    }
    let sequence = sequence(&graph);
    let waves = waves(&graph, &sequence)
        .into_iter()
        .map(|wave| wave.into_iter().filter_map(name).collect())
        .collect();
    Some(Order {
        sequence: sequence.into_iter().filter_map(name).collect(),
        waves,
    })
}

/// All nodes in spec order; then what could not be compiled, so that cycles through it are found.
fn ids<'n>(nodes: &'n Nodes, edges: &'n Edges) -> IndexSet<&'n NodeId> {
    let ends = edges.0.iter().flat_map(|edge| [&edge.from, &edge.need.on]);
    nodes.keys().chain(ends).collect()
}

/// Edges lead from what needs to what is needed.
fn graph<'e>(ids: &IndexSet<&NodeId>, edges: &'e Edges) -> Graph<'e> {
    let mut graph = Graph::with_capacity(ids.len(), edges.0.len());
    let indices: Vec<NodeIndex> = ids.iter().map(|_| graph.add_node(())).collect();
    let index = |id: &NodeId| ids.get_index_of(id).and_then(|at| indices.get(at));
    for edge in &edges.0 {
        if let (Some(from), Some(on)) = (index(&edge.from), index(&edge.need.on)) {
            graph.add_edge(*from, *on, edge);
        }
    }
    graph
}

/// A topological order in which nodes come as early as the spec names them.
fn sequence(graph: &Graph<'_>) -> Vec<NodeIndex> {
    use petgraph::Direction::{Incoming, Outgoing};
    let mut open: BTreeMap<NodeIndex, usize> = graph
        .node_indices()
        .map(|node| (node, graph.edges_directed(node, Outgoing).count()))
        .collect();
    let mut ready: BinaryHeap<Reverse<NodeIndex>> = open
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(node, _)| Reverse(*node))
        .collect();
    let mut sequence = Vec::with_capacity(graph.node_count());
    while let Some(Reverse(node)) = ready.pop() {
        sequence.push(node);
        for dependent in graph
            .edges_directed(node, Incoming)
            .map(|edge| edge.source())
        {
            if let Some(count) = open.get_mut(&dependent) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    ready.push(Reverse(dependent));
                }
            }
        }
    }
    sequence
}

/// Each node in the first wave after all that it needs.
fn waves(graph: &Graph<'_>, sequence: &[NodeIndex]) -> Vec<Vec<NodeIndex>> {
    let mut wave_of: BTreeMap<NodeIndex, usize> = BTreeMap::new();
    let mut waves: Vec<Vec<NodeIndex>> = Vec::new();
    for node in sequence {
        let wave = graph
            .neighbors(*node)
            .filter_map(|on| wave_of.get(&on))
            .map(|wave| wave.saturating_add(1))
            .max()
            .unwrap_or(0);
        wave_of.insert(*node, wave);
        match waves.get_mut(wave) {
            Some(members) => members.push(*node),
            None => waves.push(vec![*node]),
        }
    }
    waves
}

/// The shortest cycle inside a strongly connected component through its first node; `None` when
/// it is a single node that does not need itself.
fn shortest_cycle<'e>(graph: &Graph<'e>, knot: &BTreeSet<NodeIndex>) -> Option<Vec<&'e Edge>> {
    let start = *knot.first()?;
    let mut reached_by: BTreeMap<NodeIndex, (NodeIndex, &'e Edge)> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    'search: while let Some(node) = queue.pop_front() {
        for edge in graph
            .edges(node)
            .filter(|edge| knot.contains(&edge.target()))
        {
            let target = edge.target();
            if reached_by.contains_key(&target) {
                continue;
            }
            reached_by.insert(target, (node, *edge.weight()));
            if target == start {
                break 'search;
            }
            queue.push_back(target);
        }
    }
    let mut cycle = Vec::new();
    let mut at = start;
    while let Some((from, edge)) = reached_by.get(&at) {
        cycle.push(*edge);
        at = *from;
        if at == start {
            cycle.reverse();
            return Some(cycle);
        }
    }
    None
}

/// The path is turned so that the last of its `depends_on` closes it: that is what to change.
fn note_cycle(cycle: &[&Edge], problems: &mut Problems<'_>) {
    let closing = cycle
        .iter()
        .rposition(|edge| matches!(edge.origin, Origin::Written(_)))
        .unwrap_or(0);
    let turned: Vec<&&Edge> = cycle
        .iter()
        .cycle()
        .skip(closing.saturating_add(1))
        .take(cycle.len())
        .collect();
    let mut path: Vec<String> = turned
        .iter()
        .map(|edge| format!("`{}`", edge.from))
        .collect();
    let Some(last) = turned.last() else {
        return;
    };
    path.push(format!("`{}`", last.need.on));
    let span = match &last.origin {
        Origin::Written(span) => span.clone(),
        Origin::Reference => None,
    };
    problems.note(
        format!("dependency cycle: {}", path.join(" -> ")),
        span,
        Some("this closes the cycle".to_owned()),
        Some("each needs the next before it starts; take one of these dependencies out".to_owned()),
    );
}
