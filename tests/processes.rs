//! Host processes on the real kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hatchery::driver::{ErrorKind, Event, Workloads, log};
use hatchery::plan::world::{Exit, LifeState};
use hatchery::spec::model::{Confirm, LogLimit, Signal};
use hatchery::spec::node::Kind;

use support::bench::{Bench, LIMIT, drive, kill, start};
use support::clients::{self, SERVER};

#[test]
fn a_process_lives_and_dies() {
    isolate!();
    let mut bench = Bench::new();
    let mut start = start(
        Kind::Processes,
        "job",
        &["sh", "-c", "id -un; echo $COLOUR; umask; exec sleep 300"],
    );
    start.run.user = Some("www-data".into());
    start.run.working_dir = Some("/var".into());
    let begin = Instant::now();
    bench.workloads.start(&start).unwrap();
    eprintln!("started within {:?}", begin.elapsed());
    let life = bench.life(&start.id).unwrap();
    assert_eq!(life.state, LifeState::Up);
    assert_eq!(life.main_pid, life.leader_pid);
    support::wait_for("its words", LIMIT, || {
        (bench.log(&start.id) == "www-data\ndeep blue\n0022\n").then_some(())
    });
    let proc = PathBuf::from(format!("/proc/{}", life.main_pid));
    assert_eq!(fs::read_link(proc.join("cwd")).unwrap(), Path::new("/var"));
    let stat = fs::read_to_string(proc.join("stat")).unwrap();
    let session = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(3)
        .unwrap()
        .to_owned();
    assert_eq!(session, life.main_pid.to_string());
    let open = fs::read_dir(proc.join("fd")).unwrap().count();
    assert_eq!(open, 3);
    kill(life.main_pid, nix::sys::signal::Signal::SIGTERM);
    bench.event(&Event::Ended(start.id.clone()));
    assert_eq!(bench.ended(&start.id), Exit::Signal(15));
    assert!(!proc.exists(), "it is reaped");
    bench.clear(&start.id);
}

#[test]
fn what_a_process_leaves_behind_keeps_its_life_ending() {
    isolate!();
    let bench = Bench::new();
    let start = start(
        Kind::Processes,
        "job",
        &["sh", "-c", "sleep 300 & sleep 300 & exit 4"],
    );
    bench.workloads.start(&start).unwrap();
    support::wait_for("its main process to end", LIMIT, || {
        (bench.life(&start.id)?.state == LifeState::Ending).then_some(())
    });
    assert!(bench.workloads.remove(&start.id).is_err());
    bench.workloads.kill(&start.id).unwrap();
    assert_eq!(bench.ended(&start.id), Exit::Code(4));
    bench.clear(&start.id);
}

#[test]
fn an_exit_that_nobody_saw_is_unknown() {
    isolate!();
    let bench = Bench::new();
    let start = start(Kind::Processes, "job", &["sleep", "300"]);
    bench.workloads.start(&start).unwrap();
    let pid = bench.life(&start.id).unwrap().main_pid;
    let Bench {
        workloads, folder, ..
    } = bench;
    drop(workloads);
    kill(pid, nix::sys::signal::Signal::SIGTERM);
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
    let (workloads, events) = drive(folder.path());
    let bench = Bench {
        workloads,
        events,
        folder,
    };
    assert_eq!(bench.ended(&start.id), Exit::Unknown);
    bench.clear(&start.id);
}

#[test]
fn readiness_is_told_by_the_workload_alone() {
    isolate!();
    let mut bench = Bench::new();
    let script = "import os,socket,time\n\
        while not os.path.exists('/tmp/go-' + os.environ['NAME']): time.sleep(0.01)\n\
        s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\n\
        s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])\n\
        time.sleep(300)";
    for (kind, name) in [(Kind::Processes, "told"), (Kind::Containers, "ctold")] {
        let mut start = start(kind, name, &["python3", "-c", script]);
        start.run.notify = true;
        start
            .run
            .environment
            .insert("NAME".to_owned(), name.to_owned());
        bench.workloads.start(&start).unwrap();
        assert!(!bench.life(&start.id).unwrap().notified);
        let socket = bench.folder.path().join("run/notify/socket");
        let stranger = std::os::unix::net::UnixDatagram::unbound().unwrap();
        stranger.send_to(b"READY=1", socket).unwrap();
        assert!(!bench.life(&start.id).unwrap().notified);
        let (code, text) = bench.run_inside(&start.id, &["touch", &format!("/tmp/go-{name}")]);
        assert_eq!(code, Some(0), "{text}");
        bench.event(&Event::Notified(start.id.clone()));
        assert!(bench.life(&start.id).unwrap().notified);
        bench = bench.succeed();
        assert!(bench.life(&start.id).unwrap().notified);
        bench.workloads.kill(&start.id).unwrap();
        bench.ended(&start.id);
        bench.clear(&start.id);
        bench = bench.succeed();
    }
}

#[test]
fn a_reload_is_confirmed_by_a_new_child() {
    isolate!();
    let bench = Bench::new();
    let script = "sleep 300 & trap 'sleep 301 &' HUP; echo set; while :; do wait; done";
    let start = start(Kind::Processes, "job", &["bash", "-c", script]);
    bench.workloads.start(&start).unwrap();
    support::wait_for("its traps", LIMIT, || {
        (bench.log(&start.id) == "set\n").then_some(())
    });
    let begin = Instant::now();
    let limit = Duration::from_secs(5);
    bench
        .workloads
        .reload(&start.id, Signal(1), Confirm::NewChild, limit)
        .unwrap();
    eprintln!("confirmed within {:?}", begin.elapsed());
    bench
        .workloads
        .reload(&start.id, Signal(0), Confirm::None, limit)
        .unwrap();
    let error = bench
        .workloads
        .reload(
            &start.id,
            Signal(0),
            Confirm::NewChild,
            Duration::from_millis(50),
        )
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
    bench.workloads.kill(&start.id).unwrap();
    bench.ended(&start.id);
    let error = bench
        .workloads
        .reload(&start.id, Signal(1), Confirm::NewChild, limit)
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gone);
    bench.clear(&start.id);
}

#[test]
fn logs_are_rotated_while_they_are_written() {
    isolate!();
    let bench = Bench::new();
    let mut start = start(
        Kind::Processes,
        "job",
        &["sh", "-c", "while :; do echo line; sleep 0.002; done"],
    );
    start.log = LogLimit {
        max_size: 50,
        max_files: 1,
    };
    bench.workloads.start(&start).unwrap();
    let old = bench.folder.path().join("log/job.log.1");
    support::wait_for("a rotated log", LIMIT, || {
        bench.workloads.rotate_logs().unwrap();
        old.exists().then_some(())
    });
    support::wait_for("a fresh log", LIMIT, || {
        bench.log(&start.id).starts_with("line\n").then_some(())
    });
    bench.workloads.kill(&start.id).unwrap();
    bench.ended(&start.id);
    bench.clear(&start.id);
}

#[test]
fn a_full_disk_costs_the_oldest_log_and_no_more() {
    isolate!();
    let folder = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(folder.path())
        .status();
    assert!(mounted.unwrap().success());
    let path = folder.path().join("a.log");
    let old = |number: u32| folder.path().join(format!("a.log.{number}"));
    fs::write(old(1), [b'1'; 90_000]).unwrap();
    fs::write(old(2), [b'2'; 60_000]).unwrap();
    fs::write(&path, [b'0'; 80_000]).unwrap();
    let limit = |max_size| LogLimit {
        max_size,
        max_files: 2,
    };
    assert!(log::rotate(&path, limit(70_000)).unwrap());
    let begins = |number| fs::read(old(number)).unwrap()[0];
    assert_eq!((begins(1), begins(2)), (b'0', b'1'));
    assert_eq!(path.metadata().unwrap().len(), 0);
    // Where nothing makes enough room, the log is emptied all the same.
    fs::remove_file(old(2)).unwrap();
    fs::remove_file(old(1)).unwrap();
    fs::write(&path, [b'0'; 200_000]).unwrap();
    assert!(log::rotate(&path, limit(150_000)).is_err());
    assert_eq!(path.metadata().unwrap().len(), 0);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// The first controller is this very test in another process, which kills itself.
#[test]
fn a_killed_controller_leaves_its_processes_to_the_next() {
    const FOLDER: &str = "HATCHERY_TEST_FOLDER";
    isolate!();
    let start = start(
        Kind::Processes,
        "job",
        &["sh", "-c", "trap 'exit 6' TERM; echo set; sleep 300 & wait"],
    );
    if let Some(folder) = std::env::var_os(FOLDER) {
        let (workloads, _events) = drive(Path::new(&folder));
        workloads.start(&start).unwrap();
        let own = nix::unistd::Pid::this();
        nix::sys::signal::kill(own, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    let mut bench = Bench::new();
    let name = "a_killed_controller_leaves_its_processes_to_the_next";
    let ended = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact"])
        .env(FOLDER, bench.folder.path())
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), None, "{ended:?}");
    let life = bench.life(&start.id).unwrap();
    assert_eq!((&life.state, &life.id), (&LifeState::Up, &start.id));
    assert_eq!(life.identity, start.identity);
    support::wait_for("its trap", LIMIT, || {
        (bench.log(&start.id) == "set\n").then_some(())
    });
    bench
        .workloads
        .signal(&start.id, Signal(15), false)
        .unwrap();
    bench.event(&Event::Ended(start.id.clone()));
    bench.workloads.kill(&start.id).unwrap();
    assert_eq!(bench.ended(&start.id), Exit::Code(6));
    bench.clear(&start.id);
}

#[test]
fn who_still_talks_to_a_process_is_counted_on_the_host() {
    isolate!();
    let bench = Bench::new();
    let start = start(Kind::Processes, "web", &["python3", "-c", SERVER]);
    bench.workloads.start(&start).unwrap();
    support::wait_for("the server", LIMIT, || {
        bench.log(&start.id).contains("listening").then_some(())
    });
    clients::follow(&bench, &start.id, &[], "127.0.0.1");
    bench.workloads.kill(&start.id).unwrap();
    bench.ended(&start.id);
    bench.clear(&start.id);
}

#[test]
fn what_another_version_marked_is_never_taken_for_nothing() {
    isolate!();
    const MARK: &str = "trusted.hatchery";
    let bench = Bench::new();
    let start = start(Kind::Processes, "job", &["sleep", "300"]);
    bench.workloads.start(&start).unwrap();
    let group = bench.life(&start.id).unwrap().cgroup;
    let mut mark = vec![0; 4096];
    let length = rustix::fs::getxattr(&group, MARK, mark.as_mut_slice()).unwrap();
    mark.truncate(length);
    let write = |text: &str| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&group, MARK, text.as_bytes(), flags).unwrap();
    };
    let text = String::from_utf8(mark).unwrap();
    // Of the future, with more than we know.
    let more = text.replacen('{', r#"{"seal":{"by":1},"#, 1);
    write(&more.replace(r#""exit":null"#, r#""exit":{"frozen":1}"#));
    let bench = bench.succeed();
    assert_eq!(bench.life(&start.id).unwrap().state, LifeState::Up);
    // With less than we need.
    write(&text.replace("\"identity\"", "\"who\""));
    let bench = bench.succeed();
    let error = bench.workloads.observe().unwrap_err();
    assert!(
        error.message.contains(&group.display().to_string()),
        "{error}"
    );
    assert!(error.message.contains("identity"), "{error}");
    assert!(hatchery::driver::workloads::look(&support::stack()).is_err());
    // Once nothing runs there it is removed as anything half made is.
    fs::write(group.join("cgroup.kill"), "1").unwrap();
    support::wait_for("its end", LIMIT, || bench.workloads.observe().ok());
    bench.ended(&start.id);
    bench.clear(&start.id);
}

/// How many clock ticks the thread that watches had of a processor.
fn watching() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let ticks = tasks.filter_map(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let (_, fields) = stat.split_once("(hatchery-watch) ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        Some(fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?)
    });
    ticks.sum()
}

#[test]
fn who_floods_the_socket_holds_up_nobody() {
    isolate!();
    let bench = Bench::new();
    let script = "import os, socket\n\
                  s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
                  s.connect(os.environ['NOTIFY_SOCKET'])\n\
                  while True: s.send(b'READY=1')";
    let mut flood = start(
        Kind::Processes,
        "flood",
        &["/usr/bin/python3", "-c", script],
    );
    flood.run.notify = true;
    bench.workloads.start(&flood).unwrap();
    support::wait_for("the flood", LIMIT, || {
        bench.life(&flood.id)?.notified.then_some(())
    });
    let (before, begin) = (watching(), Instant::now());
    // Their ends are found by the clock or by messages: nothing else tells of them.
    for name in ["one", "two", "three"] {
        let mut quick = start(Kind::Containers, name, &["sh", "-c", "exit 3"]);
        quick.id.incarnation = 1;
        let asked = Instant::now();
        bench.workloads.start(&quick).unwrap();
        assert_eq!(bench.ended(&quick.id), Exit::Code(3));
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "{:?}",
            asked.elapsed()
        );
        bench.workloads.remove(&quick.id).unwrap();
    }
    std::thread::sleep(Duration::from_secs(2).saturating_sub(begin.elapsed()));
    let ticks = watching() - before;
    let share = ticks as f64 / 100.0 / begin.elapsed().as_secs_f64();
    eprintln!("the flood cost {share:.2} of a processor");
    assert!(share < 0.5, "{share}");
    bench.workloads.kill(&flood.id).unwrap();
    bench.ended(&flood.id);
    bench.clear(&flood.id);
}

#[test]
fn a_container_and_a_process_of_one_name_write_into_two_files() {
    isolate!();
    let bench = Bench::new();
    let say = |what: &str| format!("echo {what}; sleep 300");
    let begin = |bench: &Bench, kind, incarnation| {
        let script = say(if kind == Kind::Containers {
            "inside"
        } else {
            "outside"
        });
        let mut start = start(kind, "web", &["sh", "-c", &script]);
        start.id.incarnation = incarnation;
        bench.workloads.start(&start).unwrap();
        start.id
    };
    let process = begin(&bench, Kind::Processes, 1);
    let container = begin(&bench, Kind::Containers, 1);
    let file = |name: &str| bench.folder.path().join("log").join(name);
    let said = |name: &str, text: &str| {
        support::wait_for(text, LIMIT, || {
            (fs::read_to_string(file(name)).ok()? == text).then_some(())
        });
    };
    said("web.log", "outside\n");
    said("web.containers.log", "inside\n");
    // What runs keeps its file, and so does who was told apart, in whatever order they begin.
    let stop = |bench: &Bench, id| {
        bench.workloads.kill(id).unwrap();
        bench.ended(id);
        bench.workloads.remove(id).unwrap();
    };
    stop(&bench, &process);
    stop(&bench, &container);
    let container = begin(&bench, Kind::Containers, 2);
    let process = begin(&bench, Kind::Processes, 2);
    said("web.log", "outside\noutside\n");
    said("web.containers.log", "inside\ninside\n");
    stop(&bench, &container);
    bench.workloads.kill(&process).unwrap();
    bench.ended(&process);
    bench.clear(&process);
}
