//! The story of one node.

use std::path::Path;
use std::time::Duration;

use anstream::adapter::strip_str;

use super::farm::farm;
use super::world::{World, put};
use crate::graph::desired::{CheckNode, Node, ProbeNode};
use crate::plan::explain::{Answers, Explanation, explain, text};
use crate::plan::memory::{Attempt, LastExit};
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
fn a_container_whose_file_changed() {
    let mut world = world();
    world.converge();
    world.now = world.now + Duration::from_secs(90);
    put(&mut world.observed, Path::new("/spec/work.py"), "two", None);
    insta::assert_snapshot!(shown(&mut world, "prime1"), @r"
    containers/prime1  stopping, passing: ./work.py changed; waiting on `t-prime-prime1` to leave the registry
      wanted     command: python3
                 root: host
                 address: 10.50.0.2/24
                 environment: TOKEN
                 watch: /spec/work.py
                 ready: once it runs
      there      life 1000001: running, pid 1, began 1m30s ago
                   watch:./work.py differs: 8c1f3a6e8eb4a7b9 runs, 61e46a5aa1415701 is wanted
                 namespace: `hatchery-t-prime1`
                 link: `prime1` in bridge `prime0`
                 address: 10.50.0.2/24
                 firewall: none
                 hosts file: `/run/hatchery/t/hosts/prime1` is there (60a22c5983886cf8)
                 watched file: `/spec/work.py` is there (dc770fff53f50835)
      checks     t-prime-prime1:answers (http GET `answers`): critical: connection\u{1b}[2J refused
      needs      networks/prime0 started: yes
      needed by  services/prime/prime1
      next       replace: ./work.py changed
                 waits for `t-prime-prime1` to leave the registry
    ");
}

#[test]
fn a_container_that_does_not_come_up() {
    let mut world = world();
    world.converge();
    world.now = world.now + Duration::from_secs(90);
    let prime1 = id("containers/prime1");
    world.exit(&prime1, Exit::Code(137));
    world.memory.attempts.insert(
        prime1,
        Attempt {
            running: false,
            attaches: None,
            life: None,
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
    insta::assert_snapshot!(shown(&mut world, "containers/prime1"), @r"
    containers/prime1  failed: cannot start it: no such file
      wanted     command: python3
                 root: host
                 address: 10.50.0.2/24
                 environment: TOKEN
                 watch: /spec/work.py
                 ready: once it runs
      there      life 1000001: exited 137, began 1m32s ago
                 namespace: `hatchery-t-prime1`
                 link: `prime1` in bridge `prime0`
                 address: 10.50.0.2/24
                 firewall: none
                 hosts file: `/run/hatchery/t/hosts/prime1` is there (60a22c5983886cf8)
                 watched file: `/spec/work.py` is there (d33fb48ab5adff26)
      checks     t-prime-prime1:answers (http GET `answers`): critical: connection\u{1b}[2J refused
      needs      networks/prime0 started: yes
      needed by  services/prime/prime1
      before     exited 137 2s ago
                 failures in a row: 1; restarts: 0
                 failed attempts in a row: 3
                   cannot start it:
                   no such file
      next       add: exited 137 2s ago
                 it has waited for 2s
                 next try in 2s
    ");
}

#[test]
fn the_ends_before_the_last_are_told_newest_first() {
    let mut world = world();
    world.converge();
    let prime1 = id("containers/prime1");
    let begin = world.now;
    for (incarnation, exit, asked) in [
        (1, Exit::Code(3), false),
        (2, Exit::Signal(15), true),
        (3, Exit::Code(0), false),
    ] {
        world.now = begin + Duration::from_secs(60 * incarnation);
        let memory = world.memory.workloads.entry(prime1.clone()).or_default();
        let last = LastExit {
            exit,
            at: world.now,
            incarnation: 1_000_001 + incarnation,
            asked,
            late: false,
        };
        memory.note_exit(last, None, None);
    }
    let shown = shown(&mut world, "prime1");
    let earlier =
        "before that: killed by SIGTERM 1m00s ago, as it was asked to; exited 3 2m00s ago\n";
    assert!(shown.contains(earlier), "{shown}");
}

#[test]
fn what_is_not_there_yet_says_what_it_waits_for_and_since_when() {
    let mut world = world();
    world.plan();
    world.now = world.now + Duration::from_secs(3);
    insta::assert_snapshot!(shown(&mut world, "templates/upstream"), @r"
    templates/upstream  waiting: waiting on an instance of `prime` that passes
      wanted     source: /spec/upstream.j2
                 destination: /etc/upstream.conf
                 reads: prime
                 validate: nginx -t
      there      file: `/etc/upstream.conf` is not there
      needs      registry started: not yet
                 services/prime/prime1 started: not yet
                 services/prime/prime2 started: not yet
      needed by  processes/nginx
      next       add: not rendered
                 waits for an instance of `prime` that passes
                 it has waited for 3s
    ");
    insta::assert_snapshot!(shown(&mut world, "t-prime-prime1"), @r"
    services/prime/prime1  waiting: waiting on registry, containers/prime1
      wanted     service: prime
                 address: 10.50.0.2:8080
                 target: containers/prime1
      there      registered: no
      checks     t-prime-prime1:answers (http GET `answers`): critical: connection\u{1b}[2J refused
      needs      registry started: not yet
                 containers/prime1 started: not yet
      needed by  templates/upstream
      next       add: not registered
                 waits for registry, containers/prime1
                 it has waited for 3s
    ");
    insta::assert_snapshot!(shown(&mut world, "registry"), @r"
    registry  waiting: not running
      wanted     listens: in process only
      needed by  services/prime/prime1, services/prime/prime2, templates/upstream
      next       add: not running
                 it can be done now
    ");
    insta::assert_snapshot!(shown(&mut world, "prime0"), @r"
    networks/prime0  waiting: not there
      wanted     bridge: prime0
                 subnet: 10.50.0.0/24
                 gateway: 10.50.0.1
      there      bridge: `prime0` is not there
      needed by  containers/prime1, containers/prime2
      next       add: not there
                 it can be done now
    ");
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
