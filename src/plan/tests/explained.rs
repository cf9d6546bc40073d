//! The story of one node.

use std::path::Path;
use std::time::Duration;

use anstream::adapter::strip_str;

use super::farm::farm;
use super::world::{World, put};
use crate::graph::desired::{CheckNode, Node, ProbeNode};
use crate::plan::explain::{Answers, Explanation, explain, text};
use crate::plan::memory::Attempt;
use crate::plan::model::ErrorKind;
use crate::plan::world::Exit;
use crate::spec::model::Status;
use crate::spec::node::NodeId;

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// The farm with a check of `prime1`, a watched file, and a secret in the environment.
fn world() -> World {
    let mut world = World::new(farm(2, "python3"));
    put(&mut world.observed, Path::new("/spec/work.py"), "one", None);
    for node in world.desired.nodes.values_mut() {
        match node {
            Node::Workload(workload) if workload.group == "prime" => {
                workload.watch.push("/spec/work.py".into());
                let environment = &mut workload.run.environment;
                environment.insert("TOKEN".to_owned(), "hunter2".to_owned());
            }
            Node::Endpoint(endpoint) => endpoint.checks.push(CheckNode {
                id: format!("{}:answers", endpoint.service_id),
                name: "answers".to_owned(),
                probe: ProbeNode::Http {
                    url: "http://admin:hunter2@10.50.0.2/".to_owned(),
                    method: "GET".to_owned(),
                    headers: Default::default(),
                    status: Vec::new(),
                    body: None,
                },
                interval: Duration::from_secs(5),
                timeout: Duration::from_secs(1),
                retries: 1,
                start_period: Duration::ZERO,
                start_interval: Duration::from_secs(5),
            }),
            _ => {}
        }
    }
    world
}

fn told(world: &mut World, name: &str) -> Result<Explanation, String> {
    world.plan();
    let said = (Status::Critical, "connection\x1b[2J refused".to_owned());
    let answers: Answers = [("t-prime-prime1:answers".to_owned(), said)].into();
    let World {
        desired,
        observed,
        memory,
        now,
        ..
    } = world;
    explain(desired, observed, memory, *now, &answers, name)
}

/// Incarnations are milliseconds since boot, and what is read is to be short.
fn shown(world: &mut World, name: &str) -> String {
    let story = text(&told(world, name).unwrap());
    strip_str(&story).to_string()
}

#[test]
fn a_container_that_runs_another_command_and_one_that_does_not_come_up() {
    let mut world = world();
    world.converge();
    world.now = world.now + Duration::from_secs(90);
    put(&mut world.observed, Path::new("/spec/work.py"), "two", None);
    insta::assert_snapshot!(shown(&mut world, "prime1"), @"");

    let prime1 = id("containers/prime1");
    world.exit(&prime1, Exit::Code(137));
    put(&mut world.observed, Path::new("/spec/work.py"), "one", None);
    world.memory.attempts.insert(
        prime1,
        Attempt {
            running: false,
            failures: 3,
            error: Some((
                ErrorKind::Failed,
                "cannot start it:\nno such file".to_owned(),
            )),
            retry_at: world.now + Duration::from_secs(4),
        },
    );
    world.plan();
    world.now = world.now + Duration::from_secs(2);
    insta::assert_snapshot!(shown(&mut world, "containers/prime1"), @"");
}

#[test]
fn what_is_not_there_yet_says_what_it_waits_for_and_since_when() {
    let mut world = world();
    world.plan();
    world.now = world.now + Duration::from_secs(3);
    insta::assert_snapshot!(shown(&mut world, "templates/upstream"), @"");
    insta::assert_snapshot!(shown(&mut world, "t-prime-prime1"), @"");
    insta::assert_snapshot!(shown(&mut world, "registry"), @"");
    insta::assert_snapshot!(shown(&mut world, "prime0"), @"");
}

#[test]
fn a_name_may_be_a_node_a_group_or_an_endpoint() {
    let mut world = world();
    let mut names = |name: &str| -> Vec<String> {
        let explanation = told(&mut world, name).unwrap();
        let stories = explanation.nodes.iter();
        stories.map(|story| story.status.node.to_string()).collect()
    };
    let containers = ["containers/prime1", "containers/prime2"];
    let endpoints = ["services/prime/prime1", "services/prime/prime2"];
    assert_eq!(names("containers/prime"), containers);
    assert_eq!(names("services/prime"), endpoints);
    assert_eq!(names("prime"), [containers, endpoints].concat());
    assert_eq!(names("services/prime/prime1"), endpoints[..1]);
    assert_eq!(names("nginx"), ["processes/nginx"]);
    assert_eq!(names("upstream"), ["templates/upstream"]);
    let error = told(&mut world, "nginz").unwrap_err();
    insta::assert_snapshot!(error, @"stack `t` has nothing called `nginz`; did you mean `nginx`?");
}

#[test]
fn what_left_the_spec_has_a_story_too() {
    let mut world = world();
    world.converge();
    world.edit(farm(1, "python3"));
    let story = shown(&mut world, "containers/prime2");
    assert!(story.contains("nothing: it is not in the spec"), "{story}");
    assert!(story.contains("remove: "), "{story}");
}

#[test]
fn no_secret_and_no_escape_sequence_is_told() {
    let mut world = world();
    world.converge();
    for name in ["prime", "upstream", "nginx"] {
        let json = serde_json::to_string(&told(&mut world, name).unwrap()).unwrap();
        assert!(!json.contains("hunter2"), "{json}");
        assert!(!shown(&mut world, name).contains('\x1b'));
    }
}
