//! How the graph reads: as numbered waves, and in Graphviz's language.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::desired::{Desired, Need, Node};
use super::names::is_second_seat;
use crate::spec::model::Condition;
use crate::spec::node::NodeId;

/// The start waves, each node with what it needs behind it. The two seats of an instance are one
/// to the reader: of each pair the first is shown.
pub fn waves_text(desired: &Desired) -> String {
    let width = desired
        .nodes
        .keys()
        .filter(|id| !is_second_seat(&id.name))
        .map(|id| id.to_string().chars().count())
        .max()
        .unwrap_or(0);
    let families = families(desired);
    let mut text = String::new();
    for (number, wave) in (1..).zip(desired.waves.iter()) {
        if number > 1 {
            text.push('\n');
        }
        let _ = writeln!(text, "wave {number}");
        for id in wave.iter().filter(|id| !is_second_seat(&id.name)) {
            let needs = needs_text(desired, &families, id);
            let name = id.to_string();
            if needs.is_empty() {
                let _ = writeln!(text, "  {name}");
            } else {
                let _ = writeln!(text, "  {name:width$}  needs {needs}");
            }
        }
    }
    text
}

/// How many nodes each group and service has.
type Families = BTreeMap<NodeId, usize>;

fn families(desired: &Desired) -> Families {
    let mut families = Families::new();
    let firsts = desired.nodes.keys().filter(|id| !is_second_seat(&id.name));
    for id in firsts.filter_map(|id| family(desired, id)) {
        *families.entry(id).or_default() += 1;
    }
    families
}

/// The group of an instance, or the service of an endpoint.
fn family(desired: &Desired, id: &NodeId) -> Option<NodeId> {
    match desired.nodes.get(id)? {
        Node::Workload(workload) => Some(NodeId::new(id.kind, workload.group.as_str())),
        Node::Endpoint(endpoint) => Some(NodeId::new(id.kind, endpoint.service.as_str())),
        Node::Registry(_) | Node::Network(_) | Node::Check | Node::Template(_) => None,
    }
}

/// What a node needs, in order. Where it needs all of several members, the family stands for
/// them.
fn needs_text(desired: &Desired, families: &Families, id: &NodeId) -> String {
    let needs = desired.needs.get(id).map_or(&[][..], Vec::as_slice).iter();
    let needs = needs.filter(|need| !is_second_seat(&need.on.name));
    let family_of = |need: &Need| family(desired, &need.on).map(|family| (family, need.condition));
    let mut needed: BTreeMap<(NodeId, Condition), usize> = BTreeMap::new();
    for key in needs.clone().filter_map(family_of) {
        *needed.entry(key).or_default() += 1;
    }
    let mut texts: Vec<String> = Vec::new();
    for need in needs {
        let whole = family_of(need).filter(|key| {
            let count = families.get(&key.0).copied().unwrap_or_default();
            count > 1 && needed.get(key) == Some(&count)
        });
        let name = whole.map_or_else(
            || need.on.to_string(),
            |(family, _)| format!("{family} (all {})", families.get(&family).unwrap_or(&0)),
        );
        let text = match condition_word(need.condition) {
            Some(word) => format!("{name} {word}"),
            None => name,
        };
        if texts.last() != Some(&text) {
            texts.push(text);
        }
    }
    texts.join(", ")
}

/// The word for a condition; none for the one that goes without saying.
fn condition_word(condition: Condition) -> Option<&'static str> {
    match condition {
        Condition::Started => None,
        Condition::Healthy => Some("healthy"),
        Condition::Completed => Some("completed"),
    }
}

/// The graph in the DOT language; arrows lead from what needs to what is needed.
pub fn dot(desired: &Desired) -> String {
    let mut text = format!("digraph {} {{\n  rankdir=RL;\n", quoted(&desired.stack));
    for id in desired.nodes.keys() {
        let _ = writeln!(text, "  {};", quoted(&id.to_string()));
    }
    for (id, needs) in &desired.needs {
        for need in needs {
            let label = condition_word(need.condition)
                .map_or_else(String::new, |word| format!(" [label={}]", quoted(word)));
            let from = quoted(&id.to_string());
            let _ = writeln!(text, "  {from} -> {}{label};", quoted(&need.on.to_string()));
        }
    }
    text.push_str("}\n");
    text
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
