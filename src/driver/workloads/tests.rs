#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::nspawn::{self, Around};
use super::*;
use crate::graph::desired::{ContainerRun, MountRun, NetworkRun, RootRun, Run};
use crate::spec::model::RootMode;

fn container(root: RootRun) -> ContainerRun {
    ContainerRun {
        hostname: "prime1".into(),
        machine: "farm-prime1".into(),
        root,
        mounts: vec![MountRun {
            source: "/a:b".into(),
            destination: "/srv/x\\y".into(),
            read_only: false,
        }],
        tmpfs: vec!["/var/tmp".into()],
        network: NetworkRun::None,
        hosts: "/run/hosts".into(),
    }
}

fn line(root: RootRun) -> Vec<String> {
    let run = Run {
        command: vec!["--odd".into(), "x y".into()],
        environment: BTreeMap::from([
            ("SECRET".to_owned(), "s3".to_owned()),
            ("PATH".to_owned(), "/bin".to_owned()),
        ]),
        user: Some("web".into()),
        working_dir: Some("/srv".into()),
        notify: true,
        container: None,
    };
    let around = Around {
        binds: Vec::new(),
        user: Some("web"),
        machine_id: "0123",
        register: false,
        notify: Some(Path::new("/run/n")),
    };
    nspawn::command(&run, &container(root), &around)
}

#[test]
fn a_container_becomes_a_command_line() {
    let line = line(RootRun::Host);
    let has = |argument: &str| assert!(line.iter().any(|a| a == argument), "{argument}: {line:?}");
    has("--directory=/");
    has("--volatile=yes");
    has("--private-network");
    has("--bind=/a\\:b:/srv/x\\\\y");
    has("--tmpfs=/var/tmp");
    has("--setenv=SECRET");
    has("--setenv=PATH=/bin");
    has("--user=web");
    has("--chdir=/srv");
    has("--register=no");
    has("--bind-ro=/run/n:/run/hatchery-notify");
    let end = line.iter().position(|a| a == "--").unwrap();
    assert_eq!(line[end + 1..], ["--odd", "x y"]);
    assert!(!line.iter().any(|a| a.contains("s3")));
    let dropped = line
        .iter()
        .find_map(|a| a.strip_prefix("--drop-capability="))
        .unwrap();
    for capability in ["CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_NET_ADMIN"] {
        assert!(dropped.split(',').any(|c| c == capability), "{capability}");
    }
    assert!(!dropped.contains("CAP_CHOWN"));
}

#[test]
fn directories_are_used_as_the_spec_says() {
    let root = |mode| RootRun::Path {
        path: "/nowhere".into(),
        mode,
    };
    let has = |mode, argument: &str| line(root(mode)).iter().any(|a| a == argument);
    assert!(has(RootMode::ReadOnly, "--read-only"));
    assert!(has(RootMode::Ephemeral, "--volatile=overlay"));
    assert!(has(RootMode::Persistent, "--directory=/nowhere"));
    assert!(!has(RootMode::Persistent, "--read-only"));
}

#[test]
fn what_steers_the_loader_never_reaches_nspawn() {
    for name in ["LD_PRELOAD", "SYSTEMD_SECCOMP", "NOTIFY_SOCKET", "PATH"] {
        assert!(!nspawn::handed(name), "{name}");
    }
    assert!(nspawn::handed("PRIME_MAX"));
}

#[test]
fn a_cgroup_names_its_life() {
    for kind in [Kind::Containers, Kind::Processes] {
        let life = LifeId {
            node: NodeId::new(kind, "a.b-c.1"),
            incarnation: 42,
        };
        assert_eq!(life_of(&key(&life)), Some(life));
    }
    assert_eq!(life_of("x-prime1.3"), None);
    assert_eq!(life_of("c-prime1"), None);
    assert_eq!(life_of("c-prime1.x"), None);
}

#[test]
fn names_stay_inside_their_folders() {
    assert!(fit_for_a_path("prime1"));
    for name in ["", ".", "..", "a/b", ".a", "a b", "ä", &"x".repeat(200)] {
        assert!(!fit_for_a_path(name), "{name}");
    }
    let dirs = Dirs {
        run: PathBuf::from("/nowhere/run"),
        state: PathBuf::from("/nowhere/state"),
        log: PathBuf::from("/nowhere/log"),
    };
    let (events, _receiver) = tokio::sync::mpsc::unbounded_channel();
    assert!(HostWorkloads::new("../x", dirs, events).is_err());
}
