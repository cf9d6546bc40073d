//! What a controller that has just begun may do, and what it must ask first.

use std::time::Duration;

use super::world::{World, farm};
use crate::graph::desired::{CheckNode, Node, ProbeNode, ReadyNode};
use crate::plan::memory::Memory;
use crate::plan::model::{Gate, Step};
use crate::spec::node::{Kind, NodeId};

/// A ready check that a workload has to pass within a minute.
fn demand_ready(world: &mut World) {
    for node in world.desired.nodes.values_mut() {
        if let Node::Workload(workload) = node
            && workload.id.name == "nginx"
        {
            workload.ready = ReadyNode::Check {
                check: tcp_check("ready:nginx"),
                timeout: Duration::from_secs(60),
            };
        }
    }
}

fn tcp_check(id: &str) -> CheckNode {
    CheckNode {
        id: id.to_owned(),
        name: "ready".to_owned(),
        probe: ProbeNode::Tcp("x:1".to_owned()),
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
        retries: 1,
        start_period: Duration::ZERO,
        start_interval: Duration::from_secs(5),
    }
}

#[test]
fn an_adopted_process_is_asked_before_it_is_called_late() {
    let mut world = World::new(farm(1, "python3"));
    world.converge();
    let before = world.lives();
    demand_ready(&mut world);
    world.now = world.now + Duration::from_secs(3600);
    world.memory = Memory::default();
    world.pass();
    assert_eq!(
        before,
        world.lives(),
        "an old process was ended before it was asked"
    );
}

#[test]
fn one_that_never_becomes_ready_is_ended_and_counts_as_a_failure() {
    let mut world = World::new(farm(1, "python3"));
    demand_ready(&mut world);
    let nginx = NodeId::new(Kind::Processes, "nginx");
    let late = loop {
        let plan = world.pass();
        let item = plan.items.into_iter().find(|item| item.node == nginx);
        if let Some(item) = item.filter(|item| item.reason.starts_with("not ready")) {
            break item;
        }
        for life in &world.observed.lives {
            let now = world.now;
            world.memory.seen.entry(life.id.clone()).or_insert(now);
        }
    };
    assert_eq!(late.reason, "not ready after 1m00s");
    assert_eq!(world.memory.workloads[&nginx].failures, 1);
    let plan = world.plan();
    let item = plan.items.iter().find(|item| item.node == nginx).unwrap();
    assert!(matches!(&item.gate, Gate::Waiting(on) if on[0].starts_with("its restart delay")));
}

#[test]
fn nothing_is_rendered_before_adopted_checks_answered() {
    let mut world = World::new(farm(2, "python3"));
    for node in world.desired.nodes.values_mut() {
        if let Node::Endpoint(endpoint) = node {
            let id = format!("{}:answers", endpoint.service_id);
            endpoint.checks.push(tcp_check(&id));
        }
    }
    world.converge();
    world.memory = Memory::default();
    world.memory.unchecked = ["t-prime-prime1:answers".to_owned()].into();
    world.sick = ["prime1".to_owned()].into();
    for _ in 0..5 {
        assert!(
            world.pass().is_empty(),
            "something was planned on unknown health"
        );
    }
    world.memory.unchecked.clear();
    assert!(!world.pass().is_empty());
}

#[test]
fn the_registry_opens_once_the_adopted_were_asked() {
    let mut world = World::new(farm(1, "python3"));
    let id = "t-prime-prime1:answers";
    for node in world.desired.nodes.values_mut() {
        match node {
            Node::Endpoint(endpoint) => endpoint.checks.push(tcp_check(id)),
            Node::Registry(registry) => registry.http = Some("127.0.0.1:8500".parse().unwrap()),
            _ => {}
        }
    }
    world.converge();
    world.observed.registry.http = None;
    world.memory.unchecked = [id.to_owned()].into();
    let gate = |world: &mut World| {
        let plan = world.plan();
        let item = plan.items.iter().find(|i| i.node == NodeId::registry());
        item.unwrap().gate.clone()
    };
    let on = vec!["the first answers after the adoption".to_owned()];
    assert_eq!(gate(&mut world), Gate::Waiting(on));
    world.memory.unchecked.clear();
    assert_eq!(gate(&mut world), Gate::Ready);
    world.converge();
}

#[test]
fn an_adopted_instance_that_leaves_is_not_waited_for() {
    let mut world = World::new(farm(1, "python3"));
    world.converge();
    let mut edited = farm(1, "python4");
    for node in edited.nodes.values_mut() {
        if let Node::Endpoint(endpoint) = node {
            endpoint.checks.push(tcp_check("c"));
        }
    }
    world.memory = Memory::default();
    world.memory.unchecked = ["c".to_owned()].into();
    world.observed.registered.clear();
    world.edit(edited);
    let began = world.now;
    while !world
        .done
        .iter()
        .any(|step| matches!(step, Step::Signal { .. }))
    {
        world.pass();
    }
    assert!(world.now.since(began) < Duration::from_secs(1));
}
