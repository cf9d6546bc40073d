//! Containers on the real kernel, with the real systemd-nspawn.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hatchery::driver::workloads::{Asker, exec_command};
use hatchery::driver::{ErrorKind, Event, Workloads};
use hatchery::graph::desired::{MountRun, NetworkRun, RootRun};
use hatchery::plan::model::Note;
use hatchery::plan::world::{Exit, LifeState};
use hatchery::spec::model::{RootMode, Signal};
use hatchery::spec::node::Kind;

use support::bench::{Bench, LIMIT, kill, start, unwritable};
use support::clients::{self, SERVER};

#[test]
fn a_container_lives_and_dies() {
    isolate!();
    let mut bench = Bench::new();
    let start = start(Kind::Containers, "web1", &["sleep", "300"]);
    let begin = Instant::now();
    bench.workloads.start(&start).unwrap();
    eprintln!("started within {:?}", begin.elapsed());
    let life = bench.life(&start.id).unwrap();
    assert_eq!(life.state, LifeState::Up);
    assert_eq!(life.identity, start.identity);
    assert_eq!(life.applied, start.applied);
    assert!(!life.notified);
    assert!(life.cgroup.to_string_lossy().contains("c-web1"));
    // The kernel shows the program a moment before its arguments.
    let line = support::wait_for("its arguments", LIMIT, || {
        let line = fs::read_to_string(format!("/proc/{}/cmdline", life.main_pid)).ok()?;
        (!line.is_empty()).then_some(line)
    });
    assert_eq!(line, "sleep\x00300\x00");
    let status = fs::read_to_string(format!("/proc/{}/status", life.leader_pid)).unwrap();
    assert!(status.contains(&format!("NSpid:\t{}\t1\n", life.leader_pid)));

    kill(life.main_pid, nix::sys::signal::Signal::SIGKILL);
    bench.event(&Event::Ended(start.id.clone()));
    assert_eq!(bench.ended(&start.id), Exit::Signal(9));
    bench.clear(&start.id);
}

#[test]
fn an_exit_code_of_a_container_is_seen() {
    isolate!();
    let bench = Bench::new();
    let start = start(
        Kind::Containers,
        "once",
        &["sh", "-c", "echo $COLOUR; exit 33"],
    );
    bench.workloads.start(&start).unwrap();
    assert_eq!(bench.ended(&start.id), Exit::Code(33));
    assert_eq!(bench.log(&start.id), "deep blue\n");
    bench.clear(&start.id);
}

#[test]
fn a_container_stops_by_its_signal() {
    isolate!();
    let bench = Bench::new();
    let start = start(
        Kind::Containers,
        "web1",
        &["python3", "-m", "http.server", "8080"],
    );
    bench.workloads.start(&start).unwrap();
    let begin = Instant::now();
    bench
        .workloads
        .signal(&start.id, Signal(15), false)
        .unwrap();
    assert_eq!(bench.ended(&start.id), Exit::Signal(15));
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    let gone = bench
        .workloads
        .signal(&start.id, Signal(15), false)
        .unwrap_err();
    assert_eq!(gone.kind, ErrorKind::Gone);
    bench.clear(&start.id);
}

#[test]
fn what_is_left_of_a_container_that_nobody_sees_is_swept() {
    isolate!();
    let bench = Bench::new();
    let start = start(Kind::Containers, "web1", &["sleep", "300"]);
    bench.workloads.start(&start).unwrap();
    let roots = bench.folder.path().join("run/roots");
    let (lives, left) = (roots.join("c-web1.7"), roots.join("c-web1.6"));
    fs::create_dir(&left).unwrap();
    fs::write(left.join("hostname"), "web1\n").unwrap();
    let bench = bench.succeed();
    assert!(bench.life(&start.id).is_some());
    assert!(lives.exists() && !left.exists());
    bench.workloads.kill(&start.id).unwrap();
    bench.ended(&start.id);
    bench.clear(&start.id);
}

#[test]
fn the_next_controller_adopts_a_container_and_sees_its_end() {
    isolate!();
    let bench = Bench::new();
    let start = start(
        Kind::Containers,
        "web1",
        &["sh", "-c", "trap 'exit 5' TERM; sleep 300 & wait"],
    );
    bench.workloads.start(&start).unwrap();
    let before = bench.life(&start.id).unwrap();
    let mut bench = bench.succeed();
    let after = bench.life(&start.id).unwrap();
    assert_eq!(before, after);
    let applied = BTreeMap::from([("upstream".to_owned(), "h2".to_owned())]);
    let note = Note::Applied(applied.clone());
    bench.workloads.note(&start.id, &note).unwrap();
    let bench2 = bench.succeed();
    bench = bench2;
    assert_eq!(bench.life(&start.id).unwrap().applied, applied);
    support::wait_for("the trap", LIMIT, || {
        let (_, text) = bench.run_inside(&start.id, &["cat", "/proc/2/status"]);
        text.contains("SigCgt:\t0000000000014002").then_some(())
    });
    bench.workloads.signal(&start.id, Signal(15), true).unwrap();
    bench.event(&Event::Ended(start.id.clone()));
    assert_eq!(bench.ended(&start.id), Exit::Code(5));
    let bench = bench.succeed();
    assert_eq!(bench.ended(&start.id), Exit::Code(5));
    let ended = bench.life(&start.id).unwrap();
    assert!(ended.asked && ended.late, "{ended:?}");
    bench.clear(&start.id);
}

#[test]
fn one_that_was_only_meant_to_be_asked_is_asked_by_the_next_controller() {
    isolate!();
    let bench = Bench::new();
    let command = "trap '' TERM; while :; do sleep 1; done";
    let start = start(Kind::Containers, "web1", &["sh", "-c", command]);
    bench.workloads.start(&start).unwrap();
    // Its controller is killed between the note and the signal.
    let cgroup = bench.life(&start.id).unwrap().cgroup;
    let mut text = vec![0; 1 << 16];
    let length = rustix::fs::getxattr(&cgroup, "trusted.hatchery", text.as_mut_slice()).unwrap();
    let mut mark: serde_json::Value = serde_json::from_slice(&text[..length]).unwrap();
    assert_eq!(mark["asked"], false);
    mark["asked"] = true.into();
    let text = serde_json::to_vec(&mark).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&cgroup, "trusted.hatchery", &text, flags).unwrap();
    let bench = bench.succeed();
    assert!(!bench.life(&start.id).unwrap().asked);
    bench
        .workloads
        .signal(&start.id, Signal(15), false)
        .unwrap();
    let bench = bench.succeed();
    assert!(bench.life(&start.id).unwrap().asked);
    bench.workloads.kill(&start.id).unwrap();
    bench.ended(&start.id);
    bench.clear(&start.id);
}

#[test]
fn a_container_outlives_its_nspawn() {
    isolate!();
    let bench = Bench::new();
    let start = start(Kind::Containers, "web1", &["sleep", "300"]);
    bench.workloads.start(&start).unwrap();
    let life = bench.life(&start.id).unwrap();
    let group = life.cgroup.join("supervisor/cgroup.procs");
    let nspawn: i32 = fs::read_to_string(group).unwrap().trim().parse().unwrap();
    kill(nspawn, nix::sys::signal::Signal::SIGKILL);
    support::wait_for("nspawn's end", LIMIT, || {
        (!Path::new(&format!("/proc/{nspawn}")).exists()).then_some(())
    });
    assert_eq!(bench.life(&start.id).unwrap().state, LifeState::Up);
    assert!(bench.workloads.remove(&start.id).is_err());
    let bench = bench.succeed();
    assert_eq!(bench.life(&start.id).unwrap(), life);
    bench.workloads.kill(&start.id).unwrap();
    assert_eq!(bench.ended(&start.id), Exit::Signal(9));
    bench.clear(&start.id);
}

#[test]
fn a_read_only_mount_stays_so() {
    isolate!();
    let bench = Bench::new();
    let mounted = bench.folder.path().join("a:b");
    fs::create_dir(&mounted).unwrap();
    fs::write(mounted.join("file"), "host").unwrap();
    let mut start = start(Kind::Containers, "web1", &["sleep", "300"]);
    let container = start.run.container.as_mut().unwrap();
    container.mounts.push(MountRun {
        source: mounted.clone(),
        destination: "/srv/in".into(),
        read_only: true,
    });
    bench.workloads.start(&start).unwrap();
    for script in [
        "mount -o remount,rw,bind /srv/in",
        "mount -o remount,rw,bind /usr",
        "echo x > /srv/in/file",
        "touch /usr/x",
        "mknod /tmp/disk b 8 0",
        "unshare --mount true",
        "ip link set lo down",
        "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 768)'",
        "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)'",
    ] {
        let (code, text) = bench.run_inside(&start.id, &["sh", "-c", script]);
        assert!(code.unwrap() != 0, "`{script}` was allowed: {text}");
    }
    let (code, text) = bench.run_inside(&start.id, &["cat", "/srv/in/file"]);
    assert_eq!((code, text.as_str()), (Some(0), "host"));
    bench.workloads.kill(&start.id).unwrap();
    bench.ended(&start.id);
    bench.clear(&start.id);
}

#[test]
fn the_payload_itself_cannot_remount() {
    isolate!();
    let bench = Bench::new();
    let script = "mount -o remount,rw,bind /usr; echo remount $?; \
                  grep -E 'CapBnd|NoNewPrivs' /proc/self/status; awk 'BEGIN{print \"awk\"}'; \
                  getent hosts localhost; getent passwd www-data | cut -d: -f3; hostname; pwd";
    let mut start = start(Kind::Containers, "web1", &["sh", "-c", script]);
    start.run.working_dir = Some("/var".into());
    bench.workloads.start(&start).unwrap();
    assert_eq!(bench.ended(&start.id), Exit::Code(0));
    let log = bench.log(&start.id);
    assert!(
        log.contains("remount 32") || log.contains("remount 1\n"),
        "{log}"
    );
    assert!(log.contains("NoNewPrivs:\t1"), "{log}");
    assert!(log.contains("CapBnd:\t00000000a00405fb"), "{log}");
    assert!(log.contains("awk\n") && log.contains("localhost"), "{log}");
    assert!(
        log.contains("\n33\n") && log.contains("\nweb1\n") && log.ends_with("/var\n"),
        "{log}"
    );
    bench.clear(&start.id);
}

#[test]
fn exec_runs_inside() {
    isolate!();
    let bench = Bench::new();
    let mut start = start(Kind::Containers, "web1", &["sleep", "300"]);
    start.run.user = Some("www-data:adm".into());
    bench.workloads.start(&start).unwrap();
    let script = "hostname; id -u; id -g; echo $COLOUR; cat /proc/self/cgroup | tail -1; \
                  grep NoNewPrivs /proc/self/status; exit 9";
    let (code, text) = bench.run_inside(&start.id, &["sh", "-c", script]);
    assert_eq!(code, Some(9), "{text}");
    assert!(text.starts_with("web1\n33\n4\ndeep blue\n"), "{text}");
    assert!(text.ends_with("NoNewPrivs:\t1\n"), "{text}");
    let (code, _) = bench.run_inside(&start.id, &["sh", "-c", "kill -9 $$"]);
    assert_eq!(code, Some(137));
    let (code, text) = bench.run_inside(&start.id, &["no-such-command"]);
    assert_eq!(code, Some(126));
    assert!(text.contains("cannot run `no-such-command`"), "{text}");
    let own = i32::try_from(std::process::id()).unwrap();
    let output = exec_command(unwritable(), own, &["true".to_owned()], Asker::Check)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(126));
    bench.workloads.kill(&start.id).unwrap();
    bench.ended(&start.id);
    bench.clear(&start.id);
}

#[test]
fn a_failed_start_says_why_and_leaves_nothing() {
    isolate!();
    let bench = Bench::new();
    let mut lost = start(Kind::Containers, "web1", &["sleep", "300"]);
    lost.run.container.as_mut().unwrap().mounts.push(MountRun {
        source: "/no/such/folder".into(),
        destination: "/srv".into(),
        read_only: true,
    });
    let error = bench.workloads.start(&lost).unwrap_err();
    assert!(error.message.contains("/no/such/folder"), "{error}");
    assert!(
        error
            .message
            .starts_with("cannot start `containers/web1`: "),
        "{error}"
    );

    let missing = start(Kind::Processes, "web", &["no-such-command"]);
    let error = bench.workloads.start(&missing).unwrap_err();
    assert_eq!(
        error.message,
        "cannot start `processes/web`: cannot run `no-such-command`: no such file or directory"
    );
    let mut nobody = start(Kind::Processes, "web", &["true"]);
    nobody.run.user = Some("no-such-user".into());
    let error = bench.workloads.start(&nobody).unwrap_err();
    assert!(error.message.contains("`no-such-user`"), "{error}");
    assert_eq!(bench.workloads.observe().unwrap(), []);
    bench.workloads.remove_stack_root().unwrap();
    assert_eq!(
        support::cgroups_left(&support::stack()),
        Vec::<PathBuf>::new()
    );
}

#[test]
fn a_directory_root_in_each_of_its_modes() {
    isolate!();
    let bench = Bench::new();
    let root = bench.folder.path().join("root");
    make_root(&root);
    for (mode, stays, code) in [
        (RootMode::ReadOnly, false, 1),
        (RootMode::Ephemeral, false, 0),
        (RootMode::Persistent, true, 0),
    ] {
        let script = "read name < /etc/hostname; echo $name; echo x > /written";
        let mut start = start(Kind::Containers, "dir", &["/bin/sh", "-c", script]);
        start.run.container.as_mut().unwrap().root = RootRun::Path {
            path: root.clone(),
            mode,
        };
        bench.workloads.start(&start).unwrap();
        let exit = bench.ended(&start.id);
        let log = bench.log(&start.id);
        assert!(log.starts_with("inside\n"), "{mode:?}: {log}");
        assert_eq!(exit == Exit::Code(0), code == 0, "{mode:?}: {log}");
        assert_eq!(root.join("written").exists(), stays, "{mode:?}");
        bench.clear(&start.id);
        fs::remove_file(bench.folder.path().join("log/dir.log")).unwrap();
    }
}

/// Every name below a folder.
fn names_in(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .flat_map(|entry| {
            let path = entry.path();
            let below = match entry.file_type().unwrap().is_dir() {
                true => names_in(&path),
                false => BTreeSet::new(),
            };
            below.into_iter().chain([path])
        })
        .collect()
}

#[test]
fn a_root_that_is_not_to_change_gets_nothing_but_places_to_mount_at() {
    isolate!();
    let bench = Bench::new();
    let root = bench.folder.path().join("root");
    for mode in [RootMode::Ephemeral, RootMode::ReadOnly] {
        make_root(&root);
        // git keeps no empty folders; without `/run` and `/tmp` nspawn starts no read-only root.
        for folder in ["proc", "sys", "dev", "var"] {
            let _ = fs::remove_dir(root.join(folder));
        }
        let before = names_in(&root);
        let script = "echo x > /x; echo x >> /etc/hostname; mkdir /etc/x";
        let mut start = start(Kind::Containers, "dir", &["/bin/sh", "-c", script]);
        let container = start.run.container.as_mut().unwrap();
        container.root = RootRun::Path {
            path: root.clone(),
            mode,
        };
        bench.workloads.start(&start).unwrap();
        bench.ended(&start.id);
        let log = bench.log(&start.id);
        assert!(
            mode == RootMode::Ephemeral || log.contains("Read-only"),
            "{log}"
        );
        let after = names_in(&root);
        let made: Vec<&PathBuf> = after.difference(&before).collect();
        match mode {
            RootMode::Ephemeral => assert!(made.is_empty(), "{made:?}"),
            // nspawn's own, and empty: before it makes the root read-only.
            _ => assert!(
                made.iter().all(|path| fs::remove_dir(path).is_ok()),
                "{made:?}"
            ),
        }
        let name = fs::read_to_string(root.join("etc/hostname")).unwrap();
        assert_eq!(name, "inside\n");
        bench.clear(&start.id);
        fs::remove_file(bench.folder.path().join("log/dir.log")).unwrap();
    }
}

/// Just enough for a shell: its file, and the libraries that it names.
fn make_root(root: &Path) {
    for folder in [
        "bin", "etc", "usr/lib", "proc", "sys", "dev", "run", "tmp", "var",
    ] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("etc/hostname"), "inside\n").unwrap();
    fs::write(root.join("etc/hosts"), "").unwrap();
    fs::write(root.join("usr/lib/os-release"), "ID=test\n").unwrap();
    fs::copy("/bin/sh", root.join("bin/sh")).unwrap();
    let libraries = std::process::Command::new("ldd")
        .arg("/bin/sh")
        .output()
        .unwrap();
    let text = String::from_utf8(libraries.stdout).unwrap();
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(library, to).unwrap();
    }
}

#[test]
fn who_still_talks_to_a_container_is_counted_in_its_own_network() {
    isolate!();
    let bench = Bench::new();
    for line in [
        &["netns", "add", "inside"][..],
        &["-n", "inside", "link", "set", "lo", "up"],
    ] {
        let status = std::process::Command::new("ip").args(line).status();
        assert!(status.unwrap().success(), "{line:?}");
    }
    let mut start = start(Kind::Containers, "web1", &["python3", "-c", SERVER]);
    let container = start.run.container.as_mut().unwrap();
    container.network = NetworkRun::Namespace("inside".to_owned());
    bench.workloads.start(&start).unwrap();
    support::wait_for("the server", LIMIT, || {
        bench.log(&start.id).contains("listening").then_some(())
    });
    // The same port of the host is another matter.
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:8080").unwrap();
    let _client = std::net::TcpStream::connect("127.0.0.1:8080").unwrap();
    let _served = elsewhere.accept().unwrap();
    let enter = ["ip", "netns", "exec", "inside"];
    for there in ["127.0.0.1", "::1"] {
        clients::follow(&bench, &start.id, &enter, there);
    }
    bench.workloads.kill(&start.id).unwrap();
    bench.ended(&start.id);
    let ports = BTreeSet::from([8080]);
    assert_eq!(bench.workloads.connections(&start.id, &ports), Ok(0));
    bench.clear(&start.id);
    assert_eq!(bench.workloads.connections(&start.id, &ports), Ok(0));
}
