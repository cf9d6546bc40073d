use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[test]
fn the_farm_starts_in_waves() {
    let mut spec = farm();
    let mut late = process(&["containers/prime"]);
    late.workload.depends_on[0].condition = Condition::Healthy;
    spec.processes.insert("late".to_owned(), late);
    insta::assert_snapshot!(waves_text(&compiled(&spec)), @r"
    wave 1
      registry
      networks/prime0

    wave 2
      containers/prime1      needs networks/prime0
      containers/prime2      needs networks/prime0
      containers/prime3      needs networks/prime0
      containers/prime4      needs networks/prime0

    wave 3
      services/prime/prime1  needs registry, containers/prime1
      services/prime/prime2  needs registry, containers/prime2
      services/prime/prime3  needs registry, containers/prime3
      services/prime/prime4  needs registry, containers/prime4

    wave 4
      processes/late         needs containers/prime (all 4) healthy, services/prime (all 4) healthy
      checks/answers         needs services/prime (all 4)
      templates/upstream     needs registry, services/prime (all 4)

    wave 5
      processes/nginx        needs templates/upstream
    ");
}

#[test]
fn references_are_edges() {
    let desired = compiled(&farm());
    assert_eq!(needs(&desired, "containers/prime1"), ["networks/prime0"]);
    assert_eq!(
        needs(&desired, "services/prime/prime2"),
        ["registry", "containers/prime2"]
    );
    assert_eq!(needs(&desired, "checks/answers").len(), 4);
    assert_eq!(needs(&desired, "templates/upstream").len(), 5);
    assert_eq!(needs(&desired, "processes/nginx"), ["templates/upstream"]);
}

#[test]
fn a_group_stands_for_its_instances_and_an_instance_for_itself() {
    let mut spec = farm();
    spec.processes.insert(
        "all".to_owned(),
        process(&["containers/prime", "services/prime"]),
    );
    spec.processes.insert(
        "one".to_owned(),
        process(&["containers/prime2", "services/prime/prime3"]),
    );
    let desired = compiled(&spec);
    assert_eq!(needs(&desired, "processes/all").len(), 8);
    assert_eq!(
        needs(&desired, "processes/one"),
        ["containers/prime2", "services/prime/prime3"]
    );
}

#[test]
fn healthy_is_by_the_checks_of_what_it_serves() {
    let mut spec = farm();
    let mut late = process(&["containers/prime1"]);
    late.workload.depends_on[0].condition = Condition::Healthy;
    late.workload.depends_on.extend(on(&["containers/prime1"]));
    spec.processes.insert("late".to_owned(), late);
    let desired = compiled(&spec);
    let id: NodeId = "processes/late".parse().unwrap();
    let needs: Vec<(String, Condition)> = desired.needs[&id]
        .iter()
        .map(|need| (need.on.to_string(), need.condition))
        .collect();
    assert_eq!(
        needs,
        [
            ("containers/prime1".to_owned(), Condition::Healthy),
            ("services/prime/prime1".to_owned(), Condition::Healthy),
        ]
    );
}

#[test]
fn a_cycle_is_said_with_its_path_where_it_closes() {
    let mut spec = empty();
    for (name, needed) in [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")] {
        let needed = format!("processes/{needed}");
        spec.processes
            .insert(name.to_owned(), process(&[needed.as_str()]));
    }
    spec.processes
        .insert("e".to_owned(), process(&["processes/e"]));
    assert_eq!(
        errors_at(
            &spec,
            &["processes.c.depends_on[0]", "processes.e.depends_on[0]"]
        ),
        [
            (
                "dependency cycle: `processes/a` -> `processes/b` -> `processes/c` -> \
                 `processes/a`"
                    .to_owned(),
                Some(0)
            ),
            (
                "dependency cycle: `processes/e` -> `processes/e`".to_owned(),
                Some(1)
            ),
        ]
    );
}

#[test]
fn a_cycle_through_references_is_placed_at_what_was_written() {
    let mut spec = farm();
    let prime = spec.containers.get_mut("prime").unwrap();
    prime.workload.depends_on = on(&["processes/nginx"]);
    assert_eq!(
        errors_at(
            &spec,
            &[
                "processes.nginx.depends_on",
                "containers.prime.depends_on[0]"
            ]
        ),
        [(
            "dependency cycle: `templates/upstream` -> `services/prime/prime1` -> \
             `containers/prime1` -> `processes/nginx` -> `templates/upstream`"
                .to_owned(),
            Some(0)
        )]
    );
}

/// Processes `p0`, `p1`, … with edges between them.
fn processes(count: usize, edges: &[(usize, usize)], order: &[usize]) -> Spec {
    let mut spec = empty();
    for at in order {
        let needed: Vec<String> = edges
            .iter()
            .filter(|(from, to)| from == at && *to < count)
            .map(|(_, to)| format!("processes/p{to}"))
            .collect();
        let needed: Vec<&str> = needed.iter().map(String::as_str).collect();
        spec.processes.insert(format!("p{at}"), process(&needed));
    }
    spec
}

/// Whether following edges leads back to where one was.
fn has_cycle(count: usize, edges: &[(usize, usize)]) -> bool {
    let mut left: BTreeSet<usize> = (0..count).collect();
    loop {
        let free: Vec<usize> = left
            .iter()
            .copied()
            .filter(|node| {
                !edges
                    .iter()
                    .any(|(from, to)| from == node && left.contains(to))
            })
            .collect();
        if free.is_empty() {
            return !left.is_empty();
        }
        left.retain(|node| !free.contains(node));
    }
}

fn graphs() -> impl Strategy<Value = (usize, Vec<(usize, usize)>, Vec<usize>)> {
    (2..9_usize).prop_flat_map(|count| {
        let order: Vec<usize> = (0..count).collect();
        (
            Just(count),
            prop::collection::vec((0..count, 0..count), 0..12),
            Just(order).prop_shuffle(),
        )
    })
}

proptest! {
    #[test]
    fn an_order_keeps_every_edge_and_a_cycle_has_none((count, edges, order) in graphs()) {
        let spec = processes(count, &edges, &order);
        match compile_here(&spec, &inputs()) {
            Ok(desired) => {
                prop_assert!(!has_cycle(count, &edges));
                prop_assert_eq!(desired.nodes.len(), count + 1);
                let wave_of = |id: &NodeId| desired.waves.iter().position(|wave| wave.contains(id));
                for (id, needs) in &desired.needs {
                    for need in needs {
                        prop_assert!(desired.nodes.get_index_of(&need.on) < desired.nodes.get_index_of(id));
                        prop_assert!(wave_of(&need.on).unwrap() < wave_of(id).unwrap());
                    }
                }
            }
            Err(errors) => {
                prop_assert!(has_cycle(count, &edges));
                for error in errors {
                    let path = error.message.strip_prefix("dependency cycle: ").unwrap();
                    let steps: Vec<usize> = path
                        .split(" -> ")
                        .map(|step| step.trim_matches('`').strip_prefix("processes/p").unwrap())
                        .map(|number| number.parse().unwrap())
                        .collect();
                    prop_assert_eq!(steps.first(), steps.last());
                    for pair in steps.windows(2) {
                        prop_assert!(edges.contains(&(pair[0], pair[1])), "{}", path);
                    }
                }
            }
        }
    }

    #[test]
    fn the_order_of_keys_changes_no_need_and_no_wave((count, edges, order) in graphs()) {
        let sorted: Vec<usize> = (0..count).collect();
        let one = compile_here(&processes(count, &edges, &sorted), &inputs());
        let other = compile_here(&processes(count, &edges, &order), &inputs());
        prop_assert_eq!(one.is_ok(), other.is_ok());
        if let (Ok(one), Ok(other)) = (one, other) {
            prop_assert_eq!(&one.needs, &other.needs);
            let sets = |desired: &Desired| -> Vec<BTreeSet<NodeId>> {
                desired.waves.iter().map(|wave| wave.iter().cloned().collect()).collect()
            };
            prop_assert_eq!(sets(&one), sets(&other));
        }
    }

    #[test]
    fn silent_edges_leave_the_order_of_the_spec(order in Just((0..8_usize).collect::<Vec<_>>()).prop_shuffle()) {
        let desired = compiled(&processes(8, &[], &order));
        let names: Vec<String> = desired.nodes.keys().skip(1).map(|id| id.name.clone()).collect();
        let wanted: Vec<String> = order.iter().map(|at| format!("p{at}")).collect();
        prop_assert_eq!(names, wanted);
    }
}
