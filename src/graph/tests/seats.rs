//! Instances that are replaced start-first have two seats.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::spec::model::UpdateOrder;

fn start_first(mut spec: Spec, group: &str) -> Spec {
    let container = spec.containers.get_mut(group).unwrap();
    container.workload.update.order = UpdateOrder::StartFirst;
    spec
}

fn rolling() -> Spec {
    start_first(farm(), "prime")
}

fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

fn endpoint<'d>(desired: &'d Desired, id: &str) -> &'d desired::EndpointNode {
    match node(desired, id) {
        Node::Endpoint(endpoint) => endpoint,
        other => panic!("{id} is {other:?}"),
    }
}

#[test]
fn each_instance_has_two_seats_of_one_name() {
    let mut spec = rolling();
    let prime = spec.containers.get_mut("prime").unwrap();
    prime.workload.environment.insert(
        "ME".to_owned(),
        expr("{{ name }} {{ replica }} {{ address }}"),
    );
    prime.workload.ready = Ready::Listening {
        tcp: expr("{{ address }}:8080"),
        timeout: Duration::from_secs(1),
    };
    let desired = compiled(&spec);
    let seats = ["containers/prime2", "containers/prime2.b"].map(|id| run_of(&desired, id));
    for seat in seats {
        let container = seat.run.container.as_ref().unwrap();
        assert_eq!((seat.group.as_str(), seat.replica), ("prime", 2));
        assert_eq!(container.hostname, "prime2");
        assert_eq!(instance_of(&seat.id.name), "prime2");
        let attachment = seat.attachment.as_ref().unwrap();
        assert_eq!(
            container_of("prime", &attachment.namespace),
            Some(seat.id.clone())
        );
        assert_eq!(seat.ports, BTreeSet::from([8080]));
    }
    let told = seats.map(|seat| seat.run.environment["ME"].clone());
    assert_eq!(told, ["prime2 2 10.50.0.3", "prime2 2 10.50.0.7"]);
    let own = seats.map(|seat| {
        let container = seat.run.container.as_ref().unwrap();
        let attachment = seat.attachment.as_ref().unwrap();
        let ReadyNode::Check { check, .. } = &seat.ready else {
            panic!("it has no check");
        };
        (
            container.machine.clone(),
            container.hosts.display().to_string(),
            attachment.link.clone(),
            attachment.namespace.clone(),
            check.id.clone(),
        )
    });
    assert_eq!(
        own[1],
        (
            "prime-prime2.b".to_owned(),
            "/run/hatchery/prime/hosts/prime2.b".to_owned(),
            format!("prime2.b-{}", own[0].2.rsplit_once('-').unwrap().1),
            "hatchery-prime-prime2.b".to_owned(),
            "ready:prime2.b".to_owned(),
        )
    );
    assert_eq!(own[0].0, "prime-prime2");
    assert_eq!(own[0].4, "ready:prime2");
}

#[test]
fn an_instance_without_a_number_has_them_too() {
    let mut spec = empty();
    let mut one = process(&[]);
    one.workload.update.order = UpdateOrder::StartFirst;
    spec.processes.insert("one".to_owned(), one);
    spec.processes
        .insert("after".to_owned(), process(&["processes/one"]));
    let desired = compiled(&spec);
    assert_eq!(
        needs(&desired, "processes/after"),
        ["processes/one", "processes/one.b"]
    );
    assert_eq!(
        desired.pairs,
        BTreeMap::from([
            (id("processes/one"), id("processes/one.b")),
            (id("processes/one.b"), id("processes/one")),
        ])
    );
}

#[test]
fn each_seat_has_endpoints_of_its_own() {
    let desired = compiled(&rolling());
    let second = endpoint(&desired, "services/prime/prime1.b");
    assert_eq!(second.service, "prime");
    assert_eq!(second.service_id, "prime-prime-prime1.b");
    assert_eq!(second.target, Some(id("containers/prime1.b")));
    assert_eq!(second.address, "10.50.0.6");
    assert_eq!(second.checks[0].id, "prime-prime-prime1.b:answers");
    assert_eq!(
        second.checks[0].probe,
        match &endpoint(&desired, "services/prime/prime1").checks[0].probe {
            desired::ProbeNode::Http {
                method,
                headers,
                status,
                body,
                ..
            } => desired::ProbeNode::Http {
                url: "http://10.50.0.6:8080/healthz".to_owned(),
                method: method.clone(),
                headers: headers.clone(),
                status: status.clone(),
                body: body.clone(),
            },
            other => panic!("{other:?}"),
        }
    );
    assert_eq!(
        needs(&desired, "services/prime/prime1.b"),
        ["registry", "containers/prime1.b"]
    );
    assert_eq!(desired.pairs.len(), 16);
    assert_eq!(
        desired.pairs[&id("services/prime/prime1.b")],
        id("services/prime/prime1")
    );
}

#[test]
fn who_needs_an_instance_needs_both_seats() {
    let mut spec = rolling();
    let mut late = process(&["containers/prime1", "services/prime/prime3"]);
    late.workload.depends_on.push(Dependency {
        on: id("containers/prime2"),
        condition: Condition::Healthy,
    });
    spec.processes.insert("late".to_owned(), late);
    let desired = compiled(&spec);
    assert_eq!(
        needs(&desired, "processes/late"),
        [
            "containers/prime1",
            "containers/prime1.b",
            "containers/prime2",
            "containers/prime2.b",
            "services/prime/prime2",
            "services/prime/prime2.b",
            "services/prime/prime3",
            "services/prime/prime3.b",
        ]
    );
    assert_eq!(needs(&desired, "templates/upstream").len(), 9);
    // A service of one instance has both its seats.
    spec.processes.shift_remove("late");
    spec.services["prime"].target = Some(id("containers/prime2"));
    let endpoints: Vec<NodeId> = compiled(&spec)
        .nodes
        .keys()
        .filter(|id| id.kind == Kind::Services)
        .cloned()
        .collect();
    assert_eq!(
        endpoints,
        [id("services/prime/prime2"), id("services/prime/prime2.b")]
    );
}

#[test]
fn second_seats_take_the_addresses_after_all_first_ones() {
    let mut spec = rolling();
    spec.containers
        .insert("other".to_owned(), container(Some("prime0"), None));
    let first = compiled(&spec);
    let address = |desired: &Desired, seat: &str| addresses(desired)[&id(seat)].to_string();
    assert_eq!(address(&first, "containers/other"), "10.50.0.6");
    assert_eq!(address(&first, "containers/prime1.b"), "10.50.0.7");
    // What is held stays, whichever seat holds it.
    let held = CompileInputs {
        held: BTreeMap::from([(id("containers/prime3.b"), "10.50.0.2".parse().unwrap())]),
        ..inputs()
    };
    let again = compile_here(&spec, &held).unwrap();
    assert_eq!(address(&again, "containers/prime3.b"), "10.50.0.2");
    assert_eq!(address(&again, "containers/prime1"), "10.50.0.3");
    let all: BTreeSet<Ipv4Addr> = addresses(&again).into_values().collect();
    assert_eq!(all.len(), 9);
}

#[test]
fn a_network_that_is_too_small_for_both_seats_is_an_error() {
    let mut spec = rolling();
    spec.networks
        .insert("prime0".to_owned(), network("10.50.0.0/29"));
    let found = compile_with(&spec, &Numbered(&["containers.prime.replicas"]), &inputs());
    let [error] = &found.unwrap_err()[..] else {
        panic!("one error");
    };
    assert_eq!(error.span, Some(0..1));
    assert!(error.message.contains("no address left in `10.50.0.0/29`"));
    let help = error.help.as_ref().unwrap();
    assert!(help.starts_with("start-first takes two addresses for each instance"));
}

#[test]
fn no_other_instance_has_the_name_of_a_seat() {
    let mut spec = rolling();
    spec.containers
        .insert("prime1.b".to_owned(), container(None, None));
    assert_eq!(
        errors_at(&spec, &["containers.prime1.b"]),
        [(
            "`containers/prime1.b` and `containers/prime` both have an instance called `prime1.b`"
                .to_owned(),
            Some(0)
        )]
    );
}

#[test]
fn a_hosts_file_has_seats_under_their_instances_name() {
    let mut spec = rolling();
    spec.containers["prime"].workload.replicas = Some(2);
    let mut apart = container(None, None);
    apart.workload.update.order = UpdateOrder::StartFirst;
    spec.containers.insert("apart".to_owned(), apart);
    let desired = compiled(&spec);
    let prime = run_of(&desired, "containers/prime1.b");
    let both = Hosts::of(&desired, &|_| false).text(prime);
    let listed: Vec<&str> = both.lines().skip(2).collect();
    assert_eq!(
        listed,
        [
            "10.50.0.2 prime1 prime",
            "10.50.0.3 prime2 prime",
            "10.50.0.4 prime1 prime",
            "10.50.0.5 prime2 prime",
        ]
    );
    let spare = |id: &NodeId| ["prime1", "prime2.b"].contains(&id.name.as_str());
    let one = Hosts::of(&desired, &spare).text(prime);
    let listed: Vec<&str> = one.lines().skip(2).collect();
    assert_eq!(listed, ["10.50.0.3 prime2 prime", "10.50.0.4 prime1 prime"]);
    let apart = Hosts::of(&desired, &spare).text(run_of(&desired, "containers/apart.b"));
    assert!(apart.contains("127.0.1.1 apart\n"));
}

#[test]
fn a_reader_sees_instances_and_not_seats() {
    assert_eq!(
        waves_text(&compiled(&rolling())),
        waves_text(&compiled(&farm()))
    );
}

/// `desired` without second seats, and as if it had been asked for stop-first.
fn without_second_seats(desired: &Desired) -> Desired {
    let first = |id: &NodeId| !names::is_second_seat(&id.name);
    let mut rest = desired.clone();
    rest.nodes.retain(|id, _| first(id));
    for node in rest.nodes.values_mut() {
        if let Node::Workload(workload) = node {
            workload.update.order = UpdateOrder::StopFirst;
        }
    }
    rest.needs.retain(|id, _| first(id));
    for list in rest.needs.values_mut() {
        list.retain(|need| first(&need.on));
    }
    for wave in std::sync::Arc::make_mut(&mut rest.waves) {
        wave.retain(first);
    }
    rest.pairs.clear();
    rest
}

/// Of each pair the second follows the first at once, in the order of all and in its wave.
fn stand_together(desired: &Desired) {
    let follows = |list: &[&NodeId], first: &NodeId, second: &NodeId| {
        list.windows(2).any(|two| two == [first, second])
    };
    let all: Vec<&NodeId> = desired.nodes.keys().collect();
    let firsts = desired
        .pairs
        .iter()
        .filter(|(first, _)| !names::is_second_seat(&first.name));
    for (first, second) in firsts {
        assert!(follows(&all, first, second), "{first} in {all:?}");
        let wave = desired.waves.iter().find(|wave| wave.contains(first));
        let wave: Vec<&NodeId> = wave.unwrap().iter().collect();
        assert!(follows(&wave, first, second), "{first} in {wave:?}");
    }
}

/// A group in the making: replicas, what it depends on, whether it is served.
type Draft = (Option<u32>, Vec<(usize, bool)>, bool);

fn drafted(drafts: &[Draft]) -> Spec {
    let mut spec = farm();
    for (number, (replicas, depends_on, served)) in drafts.iter().enumerate() {
        let mut group = container(Some("prime0"), *replicas);
        // Only on earlier ones, so that there is no cycle.
        for (on, healthy) in depends_on.iter().filter(|(on, _)| *on < number) {
            group.workload.depends_on.push(Dependency {
                on: NodeId::new(Kind::Containers, format!("g{on}")),
                condition: if *healthy {
                    Condition::Healthy
                } else {
                    Condition::Started
                },
            });
        }
        spec.containers.insert(format!("g{number}"), group);
        if *served {
            let target = format!("containers/g{number}");
            spec.services
                .insert(format!("s{number}"), service(Some(&target), 80));
        }
    }
    spec
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Second seats come beside everything else and change nothing of it; without start-first
    /// there are none.
    #[test]
    fn the_first_seats_are_as_without_second_ones(
        drafts in prop::collection::vec(
            (
                prop::option::of(0_u32..4),
                prop::collection::vec((0_usize..5, any::<bool>()), 0..3),
                any::<bool>(),
            ),
            0..5,
        ),
        order in prop::collection::vec(any::<bool>(), 6),
    ) {
        let spec = drafted(&drafts);
        let plain = compiled(&spec);
        prop_assert!(plain.pairs.is_empty());
        prop_assert!(plain.nodes.keys().all(|id| !names::is_second_seat(&id.name)));
        let mut mixed = spec.clone();
        for (container, first) in mixed.containers.values_mut().zip(order) {
            if first {
                container.workload.update.order = UpdateOrder::StartFirst;
            }
        }
        let mixed = compiled(&mixed);
        stand_together(&mixed);
        prop_assert_eq!(without_second_seats(&mixed), plain);
    }
}
