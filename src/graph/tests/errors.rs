use super::*;
use crate::spec::model::RootMode;

/// A spec with one process, changed.
fn changed(change: impl FnOnce(&mut Process)) -> Spec {
    let mut spec = empty();
    let mut one = process(&[]);
    change(&mut one);
    spec.processes.insert("one".to_owned(), one);
    spec
}

#[test]
fn an_expression_is_wrong_at_its_place_and_once_for_all_copies() {
    let spec = changed(|one| {
        one.workload.replicas = Some(3);
        one.workload.command = exprs(&["sleep", "{{ prot }}"]);
        one.workload
            .environment
            .insert("A".to_owned(), expr("{{ 1 +"));
    });
    let found = errors_at(
        &spec,
        &["processes.one.command[1]", "processes.one.environment"],
    );
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(
        found[0].0,
        "cannot evaluate `{{ prot }}`: `prot` is not defined; defined here are \
         `address`, `env`, `name`, `replica`, `spec_dir`, `vars`"
    );
    assert_eq!((found[0].1, found[1].1), (Some(0), Some(1)));
}

#[test]
fn empty_commands_and_paths_are_refused() {
    let spec = changed(|one| {
        one.workload.command = Vec::new();
        one.workload.working_dir = Some(expr(""));
        one.workload.environment.insert("A=B".to_owned(), expr(""));
        one.workload.ready = Ready::Listening {
            tcp: expr("80"),
            timeout: Duration::from_secs(1),
        };
    });
    assert_eq!(
        errors(&spec),
        [
            "a command cannot be empty",
            "`A=B` is not a name for an environment variable",
            "a path cannot be empty",
            "`80` is not an address with a port",
        ]
    );
}

#[test]
fn mounts_stay_inside() {
    let mut spec = empty();
    let mut one = container(None, None);
    one.mounts = ["srv", "/srv/../etc", "/", "/b", "/b"]
        .map(|destination| mount("/a", destination, true))
        .into();
    one.tmpfs = exprs(&["/../x"]);
    spec.containers.insert("one".to_owned(), one);
    let places: Vec<String> = (0..5)
        .map(|n| format!("containers.one.mounts[{n}]"))
        .collect();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let not = |path: &str| format!("`{path}` is not an absolute path in the container");
    let taken = |path: &str| format!("cannot mount at `{path}`: something else is mounted there");
    assert_eq!(
        errors_at(&spec, &places),
        [
            (not("srv"), Some(0)),
            (not("/srv/../etc"), Some(1)),
            (taken("/"), Some(2)),
            (taken("/b"), Some(4)),
            (not("/../x"), None),
        ]
    );
}

#[test]
fn no_container_writes_into_a_commit() {
    let mut spec = empty();
    let mut one = container(None, None);
    one.mounts = vec![
        mount("./data", "/data", false),
        mount("../shared", "/shared", false),
        mount("./site", "/site", true),
        mount("/srv/data", "/srv/data", false),
    ];
    let with_root = |mode| Container {
        root: Root::Path {
            path: expr("./rootfs"),
            mode,
        },
        ..container(None, None)
    };
    spec.containers.insert("one".to_owned(), one);
    for (name, mode) in [
        ("kept", RootMode::Persistent),
        ("shared", RootMode::ReadOnly),
        ("dropped", RootMode::Ephemeral),
    ] {
        spec.containers.insert(name.to_owned(), with_root(mode));
    }
    let inside = inputs_in_tree("aa", "");
    let places = [
        "containers.one.mounts[0]",
        "containers.one.mounts[1]",
        "containers.kept.root.path",
    ];
    let found = compile_with(&spec, &Numbered(&places), &inside).unwrap_err();
    let part = |path: &str| {
        format!(
            "cannot let a container write to `{path}`: it is part of a commit, whose tree is \
             never changed"
        )
    };
    let messages: Vec<&str> = found.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(messages, ["./data", "shared", "./rootfs"].map(part));
    let numbers: Vec<usize> = found
        .iter()
        .filter_map(|error| Some(error.span.clone()?.start))
        .collect();
    assert_eq!(numbers, [0, 1, 2]);
    assert_eq!(
        found[0].help.as_deref(),
        Some("add `:ro`, or use an absolute path outside of the repository")
    );
    assert!(
        found[2]
            .help
            .as_ref()
            .unwrap()
            .contains("`ephemeral: true`")
    );

    // What is only compared may be meant for another place, and there is no tree around a file.
    let mut compared = inside;
    Arc::make_mut(compared.tree.as_mut().unwrap()).may_be_written = true;
    assert!(compile_here(&spec, &compared).is_ok());
    assert!(compile_here(&spec, &inputs()).is_ok());
}

#[test]
fn what_the_registry_refuses_is_refused_here() {
    let mut spec = farm();
    let served = spec.services.get_mut("prime").unwrap();
    served.tags = vec!["fine".to_owned(), "; } server {".to_owned()];
    served.address = Some(expr("a b"));
    assert_eq!(
        errors_at(&spec, &["services.prime.tags[1]", "services.prime.address"]),
        [
            ("`; } server {` cannot be a tag".to_owned(), Some(0)),
            (
                "`a b` is neither an IP address nor a hostname".to_owned(),
                Some(1)
            ),
        ]
    );
    let mut spec = empty();
    let mut outside = service(None, 1);
    spec.services.insert("none".to_owned(), outside.clone());
    outside.address = Some(expr("fd00::1"));
    spec.services.insert("six".to_owned(), outside);
    assert_eq!(
        errors(&spec),
        ["service `none` has neither a `target` nor an `address`"]
    );
}

#[test]
fn what_nobody_can_reach_cannot_serve() {
    let mut spec = empty();
    let mut apart = container(None, None);
    apart.network = NetworkMode::None;
    spec.containers.insert("apart".to_owned(), apart);
    spec.services
        .insert("x".to_owned(), service(Some("containers/apart"), 1));
    assert_eq!(
        errors(&spec),
        ["service `x` cannot be reached: its target has no network"]
    );
}

#[test]
fn names_of_nothing_are_errors_and_what_is_broken_is_not_nothing() {
    let mut spec = changed(|one| {
        one.workload.command = Vec::new();
        one.workload.depends_on = on(&["templates/gone", "registry"]);
    });
    spec.processes
        .insert("two".to_owned(), process(&["processes/one"]));
    let mut served = service(Some("processes/gone"), 1);
    served.checks = vec![CheckRef::Named("gone".to_owned())];
    spec.services.insert("a".to_owned(), served.clone());
    served.target = Some("processes/two".parse().unwrap());
    spec.services.insert("b".to_owned(), served);
    spec.containers
        .insert("c".to_owned(), container(Some("gone"), None));
    let mut found = errors(&spec);
    found.sort();
    assert_eq!(
        found,
        [
            "`checks/gone` does not exist",
            "`processes/gone` does not exist",
            "`templates/gone` does not exist",
            "a command cannot be empty",
            "network `gone` does not exist",
        ]
    );
}

#[test]
fn instances_do_not_share_a_name() {
    let mut spec = empty();
    spec.containers
        .insert("prime".to_owned(), container(None, Some(2)));
    spec.processes.insert("prime2".to_owned(), process(&[]));
    assert_eq!(
        errors_at(&spec, &["processes.prime2"]),
        [(
            "`processes/prime2` and `containers/prime` both have an instance called `prime2`"
                .to_owned(),
            Some(0)
        )]
    );
}

#[test]
fn endpoints_do_not_share_an_id() {
    let mut spec = empty();
    spec.processes.insert("b-c".to_owned(), process(&[]));
    spec.processes.insert("c".to_owned(), process(&[]));
    spec.services
        .insert("a".to_owned(), service(Some("processes/b-c"), 1));
    spec.services
        .insert("a-b".to_owned(), service(Some("processes/c"), 2));
    assert_eq!(
        errors(&spec),
        ["`services/a-b/c` and `services/a/b-c` both get the id `prime-a-b-c` in the registry"]
    );
}

#[test]
fn replicas_have_a_bound() {
    let spec = changed(|one| one.workload.replicas = Some(u32::MAX));
    assert_eq!(
        errors_at(&spec, &["processes.one.replicas"]),
        [(
            "`processes/one` has 4294967295 replicas, more than 1000".to_owned(),
            Some(0)
        )]
    );
}

#[test]
fn templates_are_tried() {
    let mut spec = farm();
    let broken = CompileInputs {
        template_sources: BTreeMap::from([(
            "/srv/spec/prime.conf.j2".into(),
            Ok("fine\n{% for i in %}".to_owned()),
        )]),
        ..inputs()
    };
    let places = Numbered(&["templates.upstream.source"]);
    let found = compile_with(&spec, &places, &broken).unwrap_err();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].span, Some(0..1));
    assert!(
        found[0]
            .message
            .starts_with("cannot render `./prime.conf.j2` line 2: syntax error"),
        "{}",
        found[0].message
    );
    let missing = CompileInputs {
        template_sources: BTreeMap::from([(
            "/srv/spec/prime.conf.j2".into(),
            Err("no such file".to_owned()),
        )]),
        ..inputs()
    };
    let found = compile_with(&spec, &places, &missing).unwrap_err();
    assert_eq!(
        found[0].message,
        "cannot read `./prime.conf.j2`: no such file"
    );
    spec.templates.get_mut("upstream").unwrap().destination = expr("prime.conf");
    assert_eq!(
        errors(&spec),
        ["`prime.conf` is not the absolute path of a file"]
    );
}

#[test]
fn only_what_runs_completes() {
    let mut spec = farm();
    let nginx = spec.processes.get_mut("nginx").unwrap();
    nginx.workload.depends_on[0].condition = Condition::Completed;
    assert_eq!(errors(&spec), ["`templates/upstream` never completes"]);
}
