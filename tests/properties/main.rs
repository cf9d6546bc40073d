//! What holds for the pure core whatever the spec: random specs as text, read, compiled, planned,
//! and executed on the model of a host.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod faults;
#[path = "../support/model.rs"]
mod model;
mod stack;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use hatchery::graph::desired::{Desired, Node};
use hatchery::graph::{self};
use hatchery::plan::memory::Down;
use hatchery::plan::model::{Plan, Step};
use hatchery::plan::world::Exit;
use hatchery::spec::model::Condition;
use hatchery::spec::node::{Kind, NodeId};
use proptest::prelude::*;
use proptest::sample::Index;

use model::{Model, compiled, inputs, read};
use stack::{SOURCE, Stack, stacks};

/// The template lists what it is told to list.
const LIST: &str = "{% for s in vars.listed %}{% for i in service(s) %}{{ i.address }}:{{ i.port }}\n{% endfor %}{% endfor %}";

fn templates() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([(SOURCE, LIST)])
}

/// The spec's own order.
fn straight() -> Vec<usize> {
    (0..16).collect()
}

fn any_order() -> impl Strategy<Value = Vec<usize>> {
    Just(straight()).prop_shuffle()
}

fn desired(stack: &Stack) -> Desired {
    compiled(&stack.text(&straight()), &templates())
}

/// The same spec with its entries in another order, for a world where addresses are held.
fn reordered(stack: &Stack, order: &[usize], before: &Desired) -> Desired {
    let (spec, places) = read(&stack.text(order)).unwrap();
    let mut around = inputs("t", &templates());
    around.held = addresses(before);
    graph::compile(&spec, &places, &around).unwrap()
}

fn addresses(desired: &Desired) -> BTreeMap<NodeId, Ipv4Addr> {
    let workloads = desired.nodes.values().filter_map(|node| match node {
        Node::Workload(workload) => Some(workload),
        _ => None,
    });
    workloads
        .filter_map(|workload| {
            let attachment = workload.attachment.as_ref()?;
            Some((workload.id.clone(), attachment.address))
        })
        .collect()
}

/// A world in which nothing is outstanding; it must come about within a bound.
fn converged(stack: &Stack) -> Model {
    let mut model = Model::new(desired(stack), &templates());
    settle(&mut model);
    model
}

fn settle(model: &mut Model) {
    let most = 30 + 10 * model.desired.nodes.len();
    if model.converge(most).is_none() {
        panic!(
            "something is outstanding after {most} passes: {:#?}",
            model.plan().items
        );
    }
}

/// A plan for comparison: by node what becomes of it, and everything that a reader sees of it.
fn seen(plan: &Plan) -> BTreeMap<NodeId, String> {
    let items = plan.items.iter().map(|item| {
        let words = format!(
            "{:?} {} {:?} {:?} {:?}",
            item.change, item.reason, item.gate, item.details, item.steps
        );
        (item.node.clone(), words)
    });
    items.collect()
}

/// Where in what was done each node began: started, registered, made, written.
fn begun(done: &[Step], desired: &Desired) -> BTreeMap<NodeId, usize> {
    let by_service: BTreeMap<&str, &NodeId> = desired
        .nodes
        .iter()
        .filter_map(|(id, node)| match node {
            Node::Endpoint(endpoint) => Some((endpoint.service_id.as_str(), id)),
            _ => None,
        })
        .collect();
    let mut begun = BTreeMap::new();
    for (at, step) in done.iter().enumerate() {
        let node = match step {
            Step::OpenRegistry(_) => NodeId::registry(),
            Step::CreateNetwork(network) => NodeId::new(Kind::Networks, network.name.as_str()),
            Step::Start(start) => start.id.node.clone(),
            Step::Register(endpoint) => (*by_service[endpoint.service_id.as_str()]).clone(),
            Step::Write(file) => NodeId::new(
                Kind::Templates,
                file.mark.as_ref().unwrap().template.as_str(),
            ),
            _ => continue,
        };
        begun.entry(node).or_insert(at);
    }
    begun
}

/// Every node that needs `node`, near or far.
fn dependents(desired: &Desired, node: &NodeId) -> BTreeSet<NodeId> {
    let mut found = BTreeSet::new();
    let mut next = vec![node.clone()];
    while let Some(node) = next.pop() {
        for (other, needs) in &desired.needs {
            if needs.iter().any(|need| need.on == node) && found.insert(other.clone()) {
                next.push(other.clone());
            }
        }
    }
    found
}

/// The nodes that belong to an entry: its instances, and the endpoints that they serve.
fn nodes_of(desired: &Desired, reference: &str) -> BTreeSet<NodeId> {
    let group: NodeId = reference.parse().unwrap();
    let of_group = |id: &NodeId| match desired.nodes.get(id) {
        Some(Node::Workload(workload)) => id.kind == group.kind && workload.group == group.name,
        _ => false,
    };
    let nodes = desired.nodes.iter().filter(|(id, node)| match node {
        Node::Workload(_) => of_group(id),
        Node::Endpoint(endpoint) => endpoint.target.as_ref().is_some_and(of_group),
        _ => false,
    });
    nodes.map(|(id, _)| id.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// From nothing, through an edit, deaths and another edit, everything comes to rest, and
    /// exactly what is wanted runs.
    #[test]
    fn every_history_comes_to_rest(
        stack in stacks(),
        edits in prop::collection::vec((any::<Index>(), 0_u8..3), 0..4),
        deaths in prop::collection::vec((any::<Index>(), 0_usize..3), 0..4),
    ) {
        let mut model = converged(&stack);
        let mut edited = stack;
        for (which, how) in edits {
            let at = which.index(edited.entries.len());
            match how {
                0 => edited.entries[at].version += 1,
                1 if edited.entries.len() > 1 => { edited.entries.pop(); }
                _ => edited.template_at = at,
            }
            model.edit(desired(&edited));
            model.pass();
        }
        for (which, passes) in deaths {
            let lives: Vec<_> = model.observed.lives.iter().map(|life| life.id.clone()).collect();
            if !lives.is_empty() {
                model.exit(&lives[which.index(lives.len())], Exit::Code(1));
            }
            for _ in 0..passes {
                model.pass();
            }
        }
        settle(&mut model);
        prop_assert!(model.plan().is_empty());
        let running: BTreeSet<NodeId> = model.lives().into_keys().collect();
        for (id, node) in &model.desired.nodes {
            if let Node::Workload(workload) = node {
                let once = workload.run.command[0] == model::ONCE;
                prop_assert_eq!(running.contains(id), !once, "{}", id);
            }
        }
        prop_assert!(running.iter().all(|id| model.desired.nodes.contains_key(id)));
    }

    /// Nothing begins before what it needs has begun; and when all is taken down, nothing is
    /// asked to end while something that needs it runs.
    #[test]
    fn every_edge_is_kept(stack in stacks()) {
        let mut model = converged(&stack);
        let begun = begun(&model.done, &model.desired);
        for (id, needs) in &model.desired.needs {
            // What a template lists may come after it: it is written again then.
            let lists = |on: &NodeId| id.kind == Kind::Templates && on.kind == Kind::Services;
            let Some(at) = begun.get(id) else {
                prop_assert!(id.kind == Kind::Checks, "{} never began", id);
                continue;
            };
            for need in needs.iter().filter(|need| need.on.kind != Kind::Checks && !lists(&need.on)) {
                prop_assert!(begun[&need.on] < *at, "{} began before {}", id, need.on);
                if need.condition == Condition::Completed {
                    prop_assert!(!model.lives().contains_key(&need.on));
                }
            }
        }

        let ran = model.lives();
        let spec = model.desired.clone();
        model.done.clear();
        model.memory.down = Some(Down { kill: false });
        settle(&mut model);
        let asked = |id: &NodeId| model.done.iter().position(
            |step| matches!(step, Step::Signal { life, .. } if life.node == *id));
        for id in ran.keys() {
            let own = asked(id);
            prop_assert!(own.is_some(), "{} was not asked to end", id);
            for other in dependents(&spec, id).iter().filter(|other| ran.contains_key(other)) {
                prop_assert!(asked(other) < own, "{} was asked to end before {}", id, other);
            }
        }
        prop_assert!(model.observed.lives.is_empty());
        prop_assert!(model.observed.registered.is_empty());
        prop_assert!(model.observed.network.attachments.is_empty());
        prop_assert!(model.observed.network.bridges.is_empty());
    }

    /// The same spec with its entries in another order is planned the same from nothing, and
    /// changes nothing where it runs.
    #[test]
    fn the_order_of_keys_does_not_matter(stack in stacks(), order in any_order()) {
        let mut model = converged(&stack);
        let other = reordered(&stack, &order, &model.desired);
        let one = Model::new(model.desired.clone(), &templates()).plan();
        let two = Model::new(other.clone(), &templates()).plan();
        prop_assert_eq!(seen(&one), seen(&two));
        model.edit(other);
        model.look();
        let plan = model.plan();
        prop_assert!(plan.is_empty(), "{:#?}", plan.items);
    }

    /// One entry gets another command: its own instances are replaced, its own endpoints move,
    /// what lists them is told, and nothing else is touched.
    #[test]
    fn what_did_not_change_is_not_touched(stack in stacks(), which in any::<Index>()) {
        let mut model = converged(&stack);
        let before = model.lives();
        let at = which.index(stack.entries.len());
        let own = nodes_of(&model.desired, &stack.reference(at));
        let mut edited = stack.clone();
        edited.entries[at].version += 1;
        model.edit(desired(&edited));
        let list = NodeId::new(Kind::Templates, "list");
        let most = 30 + 10 * model.desired.nodes.len();
        for _ in 0..most {
            let plan = model.pass();
            for item in &plan.items {
                prop_assert!(own.contains(&item.node) || item.node == list, "{:#?}", item);
            }
            if plan.is_empty() {
                break;
            }
        }
        prop_assert!(model.plan().is_empty());
        let after = model.lives();
        for (id, incarnation) in before {
            prop_assert_eq!(after[&id] == incarnation, !own.contains(&id), "{}", id);
        }
    }
}
