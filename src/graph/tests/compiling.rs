use super::desired::{NetworkRun, ProbeNode, ReadyNode, ReloadNode, RootRun};
use super::*;
use crate::graph::desired::EndpointNode;
use crate::spec::model::{Firewall, Mount, Ready, RootMode, Workload};

fn endpoint<'d>(desired: &'d Desired, id: &str) -> &'d EndpointNode {
    match node(desired, id) {
        Node::Endpoint(endpoint) => endpoint,
        other => panic!("{id} is {other:?}"),
    }
}

#[test]
fn replicas_are_numbered_when_they_are_written() {
    let mut spec = empty();
    for (name, replicas) in [("one", Some(1)), ("none", Some(0)), ("plain", None)] {
        spec.containers
            .insert(name.to_owned(), container(None, replicas));
    }
    let names: Vec<String> = compiled(&spec)
        .nodes
        .keys()
        .map(NodeId::to_string)
        .collect();
    assert_eq!(names, ["registry", "containers/one1", "containers/plain"]);
}

#[test]
fn what_merely_runs_has_to_do_so_for_a_moment() {
    let mut spec = farm();
    let least = |spec: &Spec| {
        let desired = compiled(spec);
        run_of(&desired, "containers/prime3").min_healthy_time
    };
    assert_eq!(least(&spec), Duration::ZERO, "a check tells");
    let checks = std::mem::take(&mut spec.services["prime"].checks);
    assert_eq!(least(&spec), Duration::from_millis(500));
    let workload = |spec: &mut Spec, change: &dyn Fn(&mut Workload)| {
        change(&mut spec.containers["prime"].workload);
    };
    workload(&mut spec, &|one| {
        one.update.healthy_deadline = Duration::from_millis(200);
    });
    assert_eq!(least(&spec), Duration::from_millis(100), "it can be met");
    workload(&mut spec, &|one| {
        one.ready = Ready::Notify {
            timeout: Duration::from_secs(1),
        };
    });
    assert_eq!(least(&spec), Duration::ZERO, "it tells itself");
    spec.services["prime"].checks = checks;
    workload(&mut spec, &|one| {
        one.update.min_healthy_time = Some(Duration::from_millis(7));
    });
    assert_eq!(least(&spec), Duration::from_millis(7), "it was asked for");
}

#[test]
fn the_farm_is_evaluated_for_each_instance() {
    let desired = compiled(&farm());
    let third = endpoint(&desired, "services/prime/prime3");
    assert_eq!(third.service_id, "prime-prime-prime3");
    assert_eq!((third.address.as_str(), third.port), ("10.50.0.4", 8080));
    let check = &third.checks[0];
    assert_eq!(check.id, "prime-prime-prime3:answers");
    assert_eq!(check.start_interval, Duration::from_secs(5));
    let ProbeNode::Http { url, .. } = &check.probe else {
        panic!("it is no http check");
    };
    assert_eq!(url, "http://10.50.0.4:8080/healthz");

    let workload = run_of(&desired, "containers/prime3");
    assert_eq!((workload.group.as_str(), workload.replica), ("prime", 3));
    assert_eq!(workload.watch, [PathBuf::from("/srv/spec/work.py")]);
    let attachment = workload.attachment.as_ref().unwrap();
    assert_eq!(attachment.namespace, "hatchery-prime-prime3");
    assert_eq!(attachment.bridge, "prime0");
    assert!(attachment.link.starts_with("prime3-") && attachment.link.len() <= 15);
    let run = workload.run.container.as_ref().unwrap();
    assert_eq!(
        (run.hostname.as_str(), run.machine.as_str()),
        ("prime3", "prime-prime3")
    );
    assert_eq!(
        run.network,
        NetworkRun::Namespace("hatchery-prime-prime3".to_owned())
    );
    assert_eq!(run.hosts, PathBuf::from("/run/hatchery/prime/hosts/prime3"));
    assert_eq!(run.root, RootRun::Host);
}

#[test]
fn the_farms_template_knows_what_it_reads_and_whom_it_tells() {
    let desired = compiled(&farm());
    let Node::Template(upstream) = node(&desired, "templates/upstream") else {
        panic!("it is no template");
    };
    assert_eq!(upstream.source, PathBuf::from("/srv/spec/prime.conf.j2"));
    assert_eq!(upstream.reads, ["prime"]);
    let validate = upstream.validate.as_ref().unwrap();
    assert_eq!(validate.last().unwrap(), "/srv/spec/nginx.conf");
    assert_eq!(
        upstream.reload,
        Some(ReloadNode::Signal {
            process: "processes/nginx".parse().unwrap(),
            signal: Signal(1),
            confirm: Confirm::NewChild,
        })
    );
    let ReadyNode::Check { check, .. } = &run_of(&desired, "processes/nginx").ready else {
        panic!("it has no check");
    };
    assert_eq!(check.id, "ready:nginx");
    assert_eq!(check.probe, ProbeNode::Tcp("127.0.0.1:80".to_owned()));
}

#[test]
fn template_files_are_absolute_and_once() {
    let mut spec = farm();
    spec.templates
        .insert("b".to_owned(), template("../spec/./prime.conf.j2", "/b"));
    assert_eq!(
        template_files(&spec, Path::new("/srv/spec")),
        [PathBuf::from("/srv/spec/prime.conf.j2")]
    );
}

#[test]
fn the_environment_is_small_and_the_specs_word_wins() {
    let mut spec = empty();
    let mut one = process(&[]);
    one.workload.environment = indexmap::IndexMap::from([
        ("LANG".to_owned(), expr("de_DE.UTF-8")),
        (
            "ME".to_owned(),
            expr("{{ name }}/{{ replica }}@{{ address }}:{{ port }}"),
        ),
    ]);
    one.workload.replicas = Some(2);
    let mut other = process(&[]);
    other.workload.user = Some("www-data:www-data".to_owned());
    spec.processes.insert("one".to_owned(), one);
    spec.processes.insert("other".to_owned(), other);
    spec.services
        .insert("one".to_owned(), service(Some("processes/one"), 99));
    let desired = compiled(&spec);
    let environment = &run_of(&desired, "processes/one2").run.environment;
    assert_eq!(environment["LANG"], "de_DE.UTF-8");
    assert_eq!(environment["HOME"], "/root");
    assert_eq!(environment["ME"], "one2/2@127.0.0.1:99");
    assert!(environment["PATH"].contains("/usr/sbin"));
    let environment = &run_of(&desired, "processes/other").run.environment;
    assert!(!environment.contains_key("HOME"));
}

#[test]
fn paths_are_absolute_on_the_side_that_they_are_meant_on() {
    let mut spec = empty();
    let mut one = container(None, None);
    one.workload.command = exprs(&["./inside"]);
    one.workload.working_dir = Some(expr("/srv/./x"));
    one.root = Root::Path {
        path: expr("../roots/{{ name }}"),
        mode: RootMode::Persistent,
    };
    one.mounts = vec![Mount {
        source: expr("./work.py"),
        destination: expr("/srv//work.py"),
        read_only: true,
    }];
    one.tmpfs = exprs(&["/tmp"]);
    spec.containers.insert("one".to_owned(), one);
    let mut two = process(&[]);
    two.workload.command = exprs(&["./run.sh", "./argument"]);
    two.workload.working_dir = Some(expr("sub"));
    two.pre_start = vec![exprs(&["../prepare"])];
    spec.processes.insert("two".to_owned(), two);
    let desired = compiled(&spec);

    let run = &run_of(&desired, "containers/one").run;
    assert_eq!(run.command, ["./inside"]);
    assert_eq!(run.working_dir, Some("/srv/x".into()));
    let container = run.container.as_ref().unwrap();
    assert_eq!(
        container.root,
        RootRun::Path {
            path: "/srv/roots/one".into(),
            mode: RootMode::Persistent
        }
    );
    assert_eq!(
        container.mounts[0].source,
        PathBuf::from("/srv/spec/work.py")
    );
    assert_eq!(
        container.mounts[0].destination,
        PathBuf::from("/srv/work.py")
    );
    let two = run_of(&desired, "processes/two");
    assert_eq!(two.run.command, ["/srv/spec/run.sh", "./argument"]);
    assert_eq!(two.run.working_dir, Some("/srv/spec/sub".into()));
    assert_eq!(two.pre_start, [["/srv/prepare"]]);
}

#[test]
fn checks_in_place_get_names_of_their_own() {
    let mut spec = farm();
    spec.checks
        .insert("tcp".to_owned(), check(Probe::Ttl(Duration::from_secs(9))));
    let tcp = || {
        CheckRef::Inline(Box::new(check(Probe::Tcp(expr(
            "{{ address }}:{{ port }}",
        )))))
    };
    let exec = CheckRef::Inline(Box::new(check(Probe::Exec(exprs(&["true"])))));
    let served = spec.services.get_mut("prime").unwrap();
    served.checks = vec![tcp(), CheckRef::Named("tcp".to_owned()), tcp(), exec];
    let desired = compiled(&spec);
    let checks = &endpoint(&desired, "services/prime/prime1").checks;
    let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, ["tcp-2", "tcp", "tcp-3", "exec"]);
    assert_eq!(checks[0].probe, ProbeNode::Tcp("10.50.0.2:8080".to_owned()));
    assert_eq!(
        checks[3].probe,
        ProbeNode::Exec {
            command: vec!["true".to_owned()],
            target: Some("containers/prime1".parse().unwrap()),
        }
    );
}

#[test]
fn a_service_may_be_none_of_ours() {
    let mut spec = empty();
    let mut outside = service(None, 5432);
    outside.address = Some(expr("db.example.org"));
    outside
        .meta
        .insert("at".to_owned(), expr("{{ address }}:{{ port }}"));
    spec.services.insert("db".to_owned(), outside);
    let desired = compiled(&spec);
    let db = endpoint(&desired, "services/db/external");
    assert_eq!(db.service_id, "prime-db-external");
    assert_eq!(db.meta["at"], "db.example.org:5432");
    assert_eq!(needs(&desired, "services/db/external"), ["registry"]);
}

#[test]
fn names_on_the_host_fit_and_differ() {
    let mut spec = empty();
    spec.name = "a-stack-of-some-length".to_owned();
    let long = "a-network-with-a-long-name";
    spec.networks
        .insert(long.to_owned(), network("10.1.0.0/24"));
    spec.networks
        .insert("all".to_owned(), network("10.2.0.0/24"));
    let name = "a-container-with-a-rather-long-name-too";
    spec.containers
        .insert(name.to_owned(), container(Some(long), Some(20)));
    let desired = compiled(&spec);
    let mut links = std::collections::BTreeSet::new();
    for node in desired.nodes.values() {
        let link = match node {
            Node::Network(network) => &network.bridge,
            Node::Workload(workload) => {
                let run = workload.run.container.as_ref().unwrap();
                assert!(run.machine.len() <= 64 && run.machine.starts_with("a-stack"));
                &workload.attachment.as_ref().unwrap().link
            }
            _ => continue,
        };
        assert!((1..=15).contains(&link.len()) && link != "all", "{link}");
        assert!(links.insert(link.clone()), "{link} is there twice");
    }
    assert_eq!(links.len(), 22);
}

#[test]
fn a_namespace_names_its_container() {
    let name = namespace("prime", "prime1");
    assert_eq!(
        container_of("prime", &name).unwrap().to_string(),
        "containers/prime1"
    );
    assert_eq!(container_of("other", &name), None);
    assert_eq!(container_of("prime", "hatchery-prime-"), None);
}

#[test]
fn firewalls_and_readiness_are_kept() {
    let mut spec = farm();
    let prime = spec.containers.get_mut("prime").unwrap();
    let firewall = Firewall {
        allow_tcp: vec![8080],
        ..Firewall::default()
    };
    prime.firewall = Some(firewall.clone());
    prime.workload.ready = Ready::Check {
        check: CheckRef::Named("answers".to_owned()),
        timeout: Duration::from_secs(7),
    };
    let desired = compiled(&spec);
    let workload = run_of(&desired, "containers/prime2");
    assert_eq!(
        workload.attachment.as_ref().unwrap().firewall,
        Some(firewall)
    );
    let ReadyNode::Check { check, timeout } = &workload.ready else {
        panic!("it has no check");
    };
    assert_eq!((check.id.as_str(), timeout.as_secs()), ("ready:prime2", 7));
    let ProbeNode::Http { url, .. } = &check.probe else {
        panic!("it is no http check");
    };
    assert_eq!(url, "http://10.50.0.3:8080/healthz");
}
