#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Specs built by hand, and what is asked of them.

mod addresses;
mod compiling;
mod errors;
mod ordering;
mod reading;
mod real;
mod seats;

use std::time::Duration;

use indexmap::IndexMap;

use super::desired::{ReadyNode, WorkloadNode};
use super::*;
use crate::spec::model::{
    Check, CheckRef, Condition, Confirm, Container, Dependency, Expr, LogLimit, Mount, Network,
    NetworkMode, Objects, Probe, Process, Ready, Registry, Reload, Restart, RestartPolicy, Root,
    Service, Signal, Template, Wait, WhenEmpty, Workload,
};
use crate::spec::places as spec_places;

fn expr(text: &str) -> Expr {
    Expr(text.to_owned())
}

fn exprs(texts: &[&str]) -> Vec<Expr> {
    texts.iter().map(|text| expr(text)).collect()
}

fn on(references: &[&str]) -> Vec<Dependency> {
    references
        .iter()
        .map(|reference| Dependency {
            on: reference.parse().unwrap(),
            condition: Condition::Started,
        })
        .collect()
}

fn workload(command: &[&str]) -> Workload {
    Workload {
        command: exprs(command),
        environment: IndexMap::new(),
        user: None,
        working_dir: None,
        watch: Vec::new(),
        replicas: None,
        restart: Restart {
            policy: RestartPolicy::OnFailure,
            delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
            max_attempts: None,
            window: None,
            reset_after: Duration::from_secs(10),
        },
        stop_signal: Signal(15),
        stop_grace_period: Duration::from_secs(10),
        depends_on: Vec::new(),
        ready: Ready::Started,
        update: Default::default(),
        drain: Default::default(),
        log: LogLimit {
            max_size: 10_000_000,
            max_files: 3,
        },
    }
}

fn container(network: Option<&str>, replicas: Option<u32>) -> Container {
    Container {
        workload: Workload {
            replicas,
            ..workload(&["/usr/bin/python3", "/srv/work.py"])
        },
        root: Root::Host,
        network: network.map_or(NetworkMode::Host, |name| {
            NetworkMode::Bridge(name.to_owned())
        }),
        address: None,
        mounts: Vec::new(),
        tmpfs: Vec::new(),
        firewall: None,
    }
}

fn process(depends_on: &[&str]) -> Process {
    Process {
        workload: Workload {
            depends_on: on(depends_on),
            ..workload(&["sleep", "1"])
        },
        pre_start: Vec::new(),
    }
}

fn network(subnet: &str) -> Network {
    Network {
        subnet: subnet.parse().unwrap(),
        forward: false,
        depends_on: Vec::new(),
    }
}

fn service(target: Option<&str>, port: u16) -> Service {
    Service {
        target: target.map(|target| target.parse().unwrap()),
        address: None,
        port,
        tags: vec!["nginx".to_owned()],
        meta: IndexMap::new(),
        checks: Vec::new(),
        depends_on: Vec::new(),
    }
}

fn check(probe: Probe) -> Check {
    Check {
        probe,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(3),
        retries: 1,
        start_period: Duration::ZERO,
        start_interval: None,
    }
}

fn template(source: &str, destination: &str) -> Template {
    Template {
        source: source.into(),
        destination: expr(destination),
        mode: 0o644,
        owner: None,
        validate: None,
        reload: None,
        wait: Wait {
            min: Duration::from_millis(5),
            max: Duration::from_millis(20),
        },
        when_empty: WhenEmpty::Keep,
        depends_on: Vec::new(),
    }
}

fn empty() -> Spec {
    Spec {
        name: "prime".to_owned(),
        vars: IndexMap::new(),
        requires: Vec::new(),
        registry: Registry::default(),
        networks: IndexMap::new(),
        containers: IndexMap::new(),
        processes: IndexMap::new(),
        services: IndexMap::new(),
        checks: IndexMap::new(),
        templates: IndexMap::new(),
    }
}

/// The article's farm.
fn farm() -> Spec {
    let mut spec = empty();
    spec.networks
        .insert("prime0".to_owned(), network("10.50.0.0/24"));
    let mut prime = container(Some("prime0"), Some(4));
    prime.workload.watch = exprs(&["./work.py"]);
    spec.containers.insert("prime".to_owned(), prime);
    let mut served = service(Some("containers/prime"), 8080);
    served.checks = vec![CheckRef::Named("answers".to_owned())];
    spec.services.insert("prime".to_owned(), served);
    let probe = Probe::Http(crate::spec::model::HttpProbe {
        url: expr("http://{{ address }}:{{ port }}/healthz"),
        method: "GET".to_owned(),
        headers: IndexMap::new(),
        status: Vec::new(),
        body: None,
    });
    spec.checks.insert("answers".to_owned(), check(probe));
    let mut upstream = template("./prime.conf.j2", "/etc/nginx/prime.conf");
    upstream.validate = Some(exprs(&["nginx", "-t", "-c", "{{ spec_dir }}/nginx.conf"]));
    upstream.reload = Some(Reload::Signal {
        process: "nginx".to_owned(),
        signal: Signal(1),
        confirm: Confirm::NewChild,
    });
    spec.templates.insert("upstream".to_owned(), upstream);
    let mut nginx = process(&["templates/upstream"]);
    nginx.workload.ready = Ready::Listening {
        tcp: expr("127.0.0.1:80"),
        timeout: Duration::from_secs(60),
    };
    spec.processes.insert("nginx".to_owned(), nginx);
    spec
}

fn inputs() -> CompileInputs {
    let source = "{% for i in service('prime') %}server {{ i.address }};{% endfor %}";
    CompileInputs {
        spec_dir: "/srv/spec".into(),
        tree: None,
        dirs: Dirs {
            run: "/run/hatchery/prime".into(),
            state: "/var/lib/hatchery/prime".into(),
            log: "/var/log/hatchery/prime".into(),
        },
        env: Env::new(),
        template_sources: BTreeMap::from([(
            "/srv/spec/prime.conf.j2".into(),
            Ok(source.to_owned()),
        )]),
        held: BTreeMap::new(),
    }
}

/// Stands for a file: where each of these paths is, is its number.
struct Numbered<'p>(&'p [&'p str]);

impl Numbered<'_> {
    fn number(&self, path: &spec_places::Path) -> Option<usize> {
        let path = path.to_string();
        self.0.iter().position(|place| *place == path)
    }
}

impl Locate for Numbered<'_> {
    fn has(&self, path: &spec_places::Path) -> bool {
        self.number(path).is_some()
    }

    fn nearest(&self, path: &spec_places::Path) -> Option<std::ops::Range<usize>> {
        let steps = path.steps();
        (1..=steps.len()).rev().find_map(|length| {
            let mut prefix = spec_places::Path::default();
            for step in &steps[..length] {
                prefix = match step {
                    spec_places::Step::Key(key) => prefix.key(key.as_str()),
                    spec_places::Step::Index(index) => prefix.index(*index),
                };
            }
            let number = self.number(&prefix)?;
            Some(number..number + 1)
        })
    }

    fn inside(
        &self,
        path: &spec_places::Path,
        _: std::ops::Range<usize>,
    ) -> Option<std::ops::Range<usize>> {
        self.nearest(path)
    }
}

/// The same, where the spec lies in the folder `spec` of a commit's tree that holds this.
fn inputs_in_tree(commit: &str, objects: &str) -> CompileInputs {
    let root = PathBuf::from(format!("/trees/{commit}"));
    CompileInputs {
        spec_dir: root.join("spec"),
        tree: Some(Arc::new(Tree {
            commit: commit.to_owned(),
            root,
            objects: Objects::read(objects),
            may_be_written: false,
        })),
        ..inputs()
    }
}

fn mount(source: &str, destination: &str, read_only: bool) -> Mount {
    Mount {
        source: expr(source),
        destination: expr(destination),
        read_only,
    }
}

fn compile_here(spec: &Spec, inputs: &CompileInputs) -> Result<Desired, Vec<Diagnostic>> {
    compile_with(spec, &Numbered(&[]), inputs)
}

fn compiled(spec: &Spec) -> Desired {
    compile_here(spec, &inputs()).unwrap()
}

/// The errors of a spec whose every path of this form has a place: its number in `places`.
fn errors_at(spec: &Spec, places: &[&str]) -> Vec<(String, Option<usize>)> {
    compile_with(spec, &Numbered(places), &inputs())
        .unwrap_err()
        .into_iter()
        .map(|error| (error.message, error.span.map(|span| span.start)))
        .collect()
}

fn errors(spec: &Spec) -> Vec<String> {
    errors_at(spec, &[])
        .into_iter()
        .map(|(message, _)| message)
        .collect()
}

fn node<'d>(desired: &'d Desired, id: &str) -> &'d Node {
    let id: NodeId = id.parse().unwrap();
    desired.nodes.get(&id).unwrap()
}

fn run_of<'d>(desired: &'d Desired, id: &str) -> &'d WorkloadNode {
    match node(desired, id) {
        Node::Workload(workload) => workload,
        other => panic!("{id} is {other:?}"),
    }
}

fn needs(desired: &Desired, id: &str) -> Vec<String> {
    let id: NodeId = id.parse().unwrap();
    let list = desired.needs.get(&id).unwrap();
    list.iter().map(|need| need.on.to_string()).collect()
}

fn addresses(desired: &Desired) -> BTreeMap<NodeId, Ipv4Addr> {
    let of = |node: &Node| match node {
        Node::Workload(workload) => workload.attachment.as_ref().map(|one| one.address),
        _ => None,
    };
    desired
        .nodes
        .iter()
        .filter_map(|(id, node)| Some((id.clone(), of(node)?)))
        .collect()
}
