use super::*;
use crate::graph::identity::{Identity, identity};
use crate::spec::model::{Firewall, RootMode};

fn of(spec: &Spec, watched: &[(&str, &str)]) -> Identity {
    let watched = watched
        .iter()
        .map(|(path, hash)| (PathBuf::from(path), (*hash).to_owned()))
        .collect();
    let desired = compiled(spec);
    identity(
        run_of(&desired, "containers/prime1"),
        &watched,
        desired.origin(),
    )
}

fn edited(edit: impl FnOnce(&mut Container)) -> Spec {
    let mut spec = farm();
    edit(spec.containers.get_mut("prime").unwrap());
    spec
}

/// The fields in which a farm with this edit differs from the farm.
fn changes(edit: impl FnOnce(&mut Container)) -> Vec<String> {
    let (before, after) = (of(&farm(), &[]), of(&edited(edit), &[]));
    before
        .differences(&after)
        .into_iter()
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_runs_is_its_identity() {
    assert_eq!(
        changes(|prime| prime.workload.command.push(expr("-v"))),
        ["command"]
    );
    assert_eq!(
        changes(|prime| {
            prime.workload.environment.insert("A".to_owned(), expr("1"));
            prime.tmpfs = exprs(&["/tmp"]);
        }),
        ["environment", "tmpfs"]
    );
    assert_eq!(
        changes(|prime| {
            prime.root = Root::Path {
                path: expr("/x"),
                mode: RootMode::ReadOnly,
            };
        }),
        ["root"]
    );
    assert_eq!(
        changes(|prime| prime.network = NetworkMode::Host),
        ["network"]
    );
}

#[test]
fn what_changes_in_place_is_not() {
    let none: [&str; 0] = [];
    assert_eq!(
        changes(|prime| {
            prime.workload.replicas = Some(9);
            prime.workload.stop_signal = Signal(2);
            prime.workload.stop_grace_period = Duration::from_secs(99);
            prime.workload.restart.policy = RestartPolicy::No;
            prime.workload.log.max_files = 9;
            prime.firewall = Some(Firewall::default());
            prime.workload.ready = Ready::Listening {
                tcp: expr("{{ address }}:80"),
                timeout: Duration::from_secs(1),
            };
        }),
        none
    );
}

#[test]
fn an_edit_of_a_watched_file_is_named_by_its_file() {
    let spec = farm();
    let (one, other) = (
        of(&spec, &[("/srv/spec/work.py", "aa")]),
        of(&spec, &[("/srv/spec/work.py", "bb")]),
    );
    assert_eq!(one.differences(&other), ["watch:./work.py"]);
    assert_eq!(one.differences(&of(&spec, &[])), ["watch:./work.py"]);
    assert!(one.fields().values().all(|hash| hash.len() == 16));
    let elsewhere = edited(|prime| prime.workload.watch = exprs(&["/etc/x"]));
    assert!(of(&elsewhere, &[]).fields().contains_key("watch:/etc/x"));
}

#[test]
fn what_a_container_has_of_a_commit_is_part_of_what_runs() {
    let mut spec = empty();
    let mut one = container(None, None);
    one.root = Root::Path {
        path: expr("./rootfs"),
        mode: RootMode::ReadOnly,
    };
    one.mounts = vec![
        mount("./link", "/a", true),
        mount("./current/x", "/b", true),
        mount("../plain", "/c", true),
        mount("/etc/x", "/d", true),
    ];
    spec.containers.insert("one".to_owned(), one);
    let of = |commit: &str, objects: &str| {
        let desired = compile_here(&spec, &inputs_in_tree(commit, objects)).unwrap();
        let node = run_of(&desired, "containers/one");
        identity(node, &BTreeMap::new(), desired.origin())
    };
    let before = "11 plain\n22 spec/link\t../far/real\n33 far/real\n44 spec/current\tv1\n55 \
                  spec/v1/x\n66 spec/rootfs\n77 README\n";
    let running = of("aa", before);
    let names: Vec<&str> = running
        .fields()
        .keys()
        .filter_map(|name| name.strip_prefix("watch:"))
        .collect();
    assert_eq!(names, ["./current/x", "./link", "./rootfs", "plain"]);
    assert_eq!(running, of("bb", &before.replace("77", "88")));
    for (from, to, field) in [
        ("33 far", "34 far", "watch:./link"),
        ("55 spec", "56 spec", "watch:./current/x"),
        ("66 ", "67 ", "watch:./rootfs"),
        ("11 ", "12 ", "watch:plain"),
    ] {
        let edited = of("bb", &before.replace(from, to));
        assert_eq!(running.differences(&edited), [field]);
    }
    // The link itself leads elsewhere, where the same lies.
    let moved = before.replace("../far/real", "../far/same") + "33 far/same\n";
    assert_eq!(running, of("bb", &moved));
}

#[test]
fn a_hosts_file_names_everybody() {
    let mut spec = farm();
    spec.containers
        .insert("alone".to_owned(), container(None, None));
    let desired = compiled(&spec);
    let text = Hosts::of(&desired, &|_| false).text(run_of(&desired, "containers/prime1"));
    assert_eq!(
        &*text,
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n\
         10.50.0.2 prime1 prime\n10.50.0.3 prime2 prime\n\
         10.50.0.4 prime3 prime\n10.50.0.5 prime4 prime\n"
    );
    let text = Hosts::of(&desired, &|_| false).text(run_of(&desired, "containers/alone"));
    assert!(text.contains("127.0.1.1 alone\n") && text.contains("10.50.0.2 prime1 prime\n"));
}

#[test]
fn dot_has_every_node_and_edge() {
    let desired = compiled(&farm());
    let text = dot(&desired);
    assert!(text.starts_with("digraph \"prime\" {\n") && text.ends_with("}\n"));
    assert!(text.contains("  \"processes/nginx\" -> \"templates/upstream\";\n"));
    let edges: usize = desired.needs.values().map(Vec::len).sum();
    assert_eq!(text.matches(" -> ").count(), edges);
}
