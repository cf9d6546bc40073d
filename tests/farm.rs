//! The web farm on the real parts: systemd-nspawn, nginx, the embedded registry.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;
#[path = "support/farm.rs"]
mod farm;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use farm::{Farm, LONG, Traces, ask};
use support::wait_for;

const FOUR: [&str; 4] = [
    "containers/prime1",
    "containers/prime2",
    "containers/prime3",
    "containers/prime4",
];
const ADDRESSES: [&str; 4] = ["10.50.0.2", "10.50.0.3", "10.50.0.4", "10.50.0.5"];

fn is_prime(text: &str) -> bool {
    let number: u64 = text.parse().unwrap_or(0);
    number >= 2
        && (2..)
            .take_while(|d| d * d <= number)
            .all(|d| !number.is_multiple_of(d))
}

fn signal(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("signalled");
}

#[test]
fn the_plan_touches_nothing_and_the_farm_serves() {
    isolate!();
    let farm = Farm::new();
    let before = Traces::now();
    let spec = farm.spec().display().to_string();
    let planned = farm.ok(&["plan", &spec]);
    assert!(
        planned.contains("Plan: 12 to add, 0 to change, 0 to destroy."),
        "{planned}"
    );
    assert!(planned.contains("known after"), "{planned}");
    let detailed = farm.hatchery(&["plan", "--detailed-exitcode", &spec]);
    assert_eq!(detailed.status.code(), Some(2));
    assert_eq!(before, Traces::now(), "planning made something");

    farm.up();
    let mut served: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..100 {
        let (code, by, body) = farm.ask("/");
        assert_eq!(code, 200, "{}", farm.logs());
        assert!(is_prime(&body), "`{body}` is no prime number");
        *served.entry(by).or_default() += 1;
    }
    let who: Vec<&str> = served.keys().map(String::as_str).collect();
    assert_eq!(who, ["prime1", "prime2", "prime3", "prime4"], "{served:?}");

    let again = farm.hatchery(&["plan", "--detailed-exitcode", &spec]);
    let text = String::from_utf8_lossy(&again.stdout).into_owned();
    assert_eq!(again.status.code(), Some(0), "{text}");
    assert!(text.contains("No changes."), "{text}");

    farm.ok(&["down"]);
    assert_eq!(before, Traces::now().but_history(), "`down` left something");
}

#[test]
fn the_firewall_is_real_and_a_read_only_mount_stays_so() {
    isolate!();
    let farm = Farm::new();
    farm.up();
    let other = "import socket,time; s=socket.socket(); s.bind(('0.0.0.0',9999)); s.listen(); \
                 time.sleep(600)";
    let mut listener = Command::new(env!("CARGO_BIN_EXE_hatchery"))
        .args([
            "--stack",
            &farm.stack,
            "exec",
            "prime1",
            "--",
            "/usr/bin/python3",
            "-c",
            other,
        ])
        .spawn()
        .expect("exec runs");
    wait_for("the other port to listen", LONG, || {
        let sockets = farm.hatchery(&[
            "exec",
            "prime1",
            "--",
            "/usr/bin/python3",
            "-c",
            "print(open('/proc/net/tcp').read())",
        ]);
        String::from_utf8_lossy(&sockets.stdout)
            .contains(":270F")
            .then_some(())
    });
    assert_eq!(ask("10.50.0.2:8080", "/healthz").0, 200);
    assert_eq!(
        ask("10.50.0.2:9999", "/").0,
        0,
        "a port that is not allowed answered"
    );
    let ping = Command::new("ping")
        .args(["-c1", "-W2", "10.50.0.2"])
        .output();
    if let Ok(ping) = ping {
        assert!(ping.status.success(), "allow_ping lets echo requests in");
    }
    let remount = farm.hatchery(&[
        "exec",
        "prime1",
        "--",
        "/bin/mount",
        "-o",
        "remount,rw,bind",
        "/srv/work.py",
    ]);
    assert!(
        !remount.status.success(),
        "a remount of a read-only mount succeeded"
    );
    let write = farm.hatchery(&[
        "exec",
        "prime1",
        "--",
        "/usr/bin/python3",
        "-c",
        "open('/srv/work.py','a').write('#')",
    ]);
    assert!(!write.status.success(), "a read-only mount was written to");
    listener.kill().expect("killed");
    listener.wait().expect("waited");
    farm.ok(&["down"]);
}

#[test]
fn a_killed_process_leaves_the_proxy_and_comes_back() {
    isolate!();
    let farm = Farm::new();
    farm.up();
    let others = farm.pids(&[
        "containers/prime1",
        "containers/prime3",
        "containers/prime4",
    ]);
    let pid = farm.demand_pid("containers/prime2");
    signal(pid, nix::sys::signal::Signal::SIGKILL);
    farm.wait_listed(&["10.50.0.2", "10.50.0.4", "10.50.0.5"]);
    farm.wait("prime2 to be back", |_| {
        farm.pid("containers/prime2").is_some_and(|p| p != pid)
    });
    farm.wait_listed(&ADDRESSES);
    assert_eq!(
        others,
        farm.pids(&[
            "containers/prime1",
            "containers/prime3",
            "containers/prime4"
        ])
    );
    let node = farm.node("containers/prime2").expect("prime2");
    assert_eq!(node["restarts"], 1, "{node}");

    let pid = farm.demand_pid("containers/prime3");
    signal(pid, nix::sys::signal::Signal::SIGSTOP);
    farm.wait_listed(&["10.50.0.2", "10.50.0.3", "10.50.0.5"]);
    signal(pid, nix::sys::signal::Signal::SIGCONT);
    farm.wait_listed(&ADDRESSES);
    assert_eq!(
        pid,
        farm.demand_pid("containers/prime3"),
        "it was not restarted"
    );
    farm.ok(&["down"]);
}

#[test]
fn no_request_fails_once_the_reload_is_confirmed() {
    isolate!();
    let farm = Farm::new();
    farm.up();
    for _ in 0..5 {
        let before = farm.reloads();
        let pid = farm.demand_pid("containers/prime2");
        signal(pid, nix::sys::signal::Signal::SIGKILL);
        wait_for("the reload to be confirmed", LONG, || {
            (farm.reloads() > before).then_some(())
        });
        for _ in 0..40 {
            let (code, by, _) = farm.ask("/");
            assert_eq!(code, 200, "{}", farm.logs());
            assert_ne!(by, "");
        }
        farm.wait_converged();
        farm.wait_listed(&ADDRESSES);
    }
    farm.ok(&["down"]);
}

#[test]
fn an_edit_touches_only_what_it_changes() {
    isolate!();
    let farm = Farm::new();
    farm.up();
    let four = farm.pids(&FOUR);
    let nginx = farm.demand_pid("processes/nginx");

    farm.edit(|spec| spec.replace("replicas: 4", "replicas: 6"));
    farm.wait("six", |s| {
        s["converged"] == true
            && farm
                .node("containers/prime6")
                .is_some_and(|n| n["pid"].is_i64())
    });
    assert_eq!(farm.listed().len(), 6);
    assert_eq!(four, farm.pids(&FOUR), "scaling up restarted somebody");

    farm.edit(|spec| spec.replace("replicas: 6", "replicas: 2"));
    farm.wait("two", |s| {
        s["converged"] == true && farm.node("containers/prime3").is_none()
    });
    assert_eq!(
        farm.listed(),
        ["10.50.0.2", "10.50.0.3"].map(str::to_owned).into()
    );
    assert_eq!(
        four[..2],
        farm.pids(&FOUR[..2]),
        "scaling down restarted somebody"
    );

    farm.edit(|spec| spec.replace("tags: [ nginx ]", "tags: [ nginx, more ]"));
    farm.wait("the tag", |s| {
        s["generation"] == 4 && s["converged"] == true
    });
    farm.edit(|spec| spec.replace("interval: 5s", "interval: 4s"));
    farm.wait("the check", |s| {
        s["generation"] == 5 && s["converged"] == true
    });
    assert_eq!(
        four[..2],
        farm.pids(&FOUR[..2]),
        "a tag or a check restarted somebody"
    );

    let work = farm.folder.join("work.py");
    let mut text = fs::read_to_string(&work).expect("work.py");
    text.push_str("\n# an edit\n");
    fs::write(&work, text).expect("written");
    farm.wait("the new work.py", |s| {
        let now: Vec<_> = FOUR[..2].iter().map(|node| farm.pid(node)).collect();
        s["converged"] == true
            && now.iter().all(Option::is_some)
            && !now.contains(&Some(four[0]))
            && !now.contains(&Some(four[1]))
    });
    let two = farm.pids(&FOUR[..2]);
    farm.edit(|spec| spec.replace("python3, /srv", "python3, -u, /srv"));
    farm.wait("the new command", |s| {
        let now: Vec<_> = FOUR[..2].iter().map(|node| farm.pid(node)).collect();
        s["converged"] == true
            && now.iter().all(Option::is_some)
            && !now.contains(&Some(two[0]))
            && !now.contains(&Some(two[1]))
    });
    assert_eq!(
        nginx,
        farm.demand_pid("processes/nginx"),
        "nginx was restarted"
    );
    farm.ok(&["down"]);
}

#[test]
fn a_broken_edit_changes_nothing_and_the_next_good_one_converges() {
    isolate!();
    let farm = Farm::new();
    farm.up();
    let four = farm.pids(&FOUR);
    farm.edit(|spec| spec.replace("replicas: 4", "replica: 5"));
    let status = farm.wait("the error to be known", |s| s["spec_error"].is_string());
    let error = status["spec_error"].as_str().expect("a text").to_owned();
    assert!(
        error.contains("prime.yaml:") && error.contains("replicas"),
        "{error}"
    );
    let line = fs::read_to_string(farm.spec())
        .expect("the spec")
        .lines()
        .position(|line| line.contains("replica: 5"))
        .expect("the line")
        + 1;
    assert!(error.contains(&format!("prime.yaml:{line}:5")), "{error}");
    assert_eq!(farm.ask("/").0, 200);
    assert_eq!(four, farm.pids(&FOUR));

    // What would remove everything is held.
    let good = fs::read_to_string(farm.spec())
        .expect("the spec")
        .replace("replica: 5", "replicas: 5");
    farm.edit(|_| format!("name: {}\n", farm.stack));
    let status = farm.wait("the guard", |s| {
        s["spec_error"]
            .as_str()
            .is_some_and(|e| e.contains("--allow-empty"))
    });
    assert_eq!(status["generation"], 1);
    assert_eq!(four, farm.pids(&FOUR));

    farm.edit(|_| good.clone());
    farm.wait("five", |s| {
        s["converged"] == true && s["spec_error"].is_null() && farm.listed().len() == 5
    });
    assert_eq!(four, farm.pids(&FOUR));
    farm.ok(&["down"]);
}

#[test]
fn a_text_that_nginx_rejects_never_goes_live() {
    isolate!();
    let farm = Farm::new();
    farm.up();
    let live = fs::read_to_string("/etc/nginx/prime.conf").expect("the rendered file");
    let template = farm.folder.join("prime.conf.j2");
    let good = fs::read_to_string(&template).expect("the template");
    fs::write(&template, format!("{good}\nnonsense here;\n")).expect("written");
    let status = farm.wait("the refusal", |s| {
        s["nodes"].as_array().is_some_and(|nodes| {
            nodes.iter().any(|node| {
                node["node"] == "templates/upstream"
                    && node["state"] == "failed"
                    && node["detail"]
                        .as_str()
                        .is_some_and(|d| d.contains("nonsense"))
            })
        })
    });
    assert_eq!(status["converged"], false);
    assert_eq!(
        live,
        fs::read_to_string("/etc/nginx/prime.conf").expect("the file")
    );
    assert_eq!(farm.ask("/").0, 200);
    let plan = farm.hatchery(&[
        "plan",
        "--detailed-exitcode",
        &farm.spec().display().to_string(),
    ]);
    assert_eq!(plan.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&plan.stdout).contains("nonsense"));
    fs::write(&template, &good).expect("written");
    farm.wait_converged();
    farm.ok(&["down"]);
}

#[test]
fn the_next_controller_adopts_everything() {
    isolate!();
    let mut farm = Farm::new();
    let before = Traces::now();
    farm.up_foreground();
    farm.wait_converged();
    let mut all = FOUR.to_vec();
    all.push("processes/nginx");
    let pids = farm.pids(&all);
    farm.kill_controller();
    assert_eq!(farm.ask("/").0, 200, "nginx serves without a controller");
    farm.up();
    assert_eq!(pids, farm.pids(&all), "adoption restarted somebody");

    farm.kill_controller();
    fs::remove_dir_all(format!("/var/lib/hatchery/{}", farm.stack)).expect("state is there");
    fs::remove_dir_all(format!("/run/hatchery/{}/hosts", farm.stack)).expect("run is there");
    farm.up();
    assert_eq!(
        pids,
        farm.pids(&all),
        "adoption without state restarted somebody"
    );
    farm.ok(&["down"]);
    assert_eq!(before, Traces::now().but_history(), "`down` left something");
}

#[test]
fn a_controller_killed_on_its_way_up_leaves_nothing_behind_after_down() {
    isolate!();
    let mut farm = Farm::new();
    let before = Traces::now();
    for millis in [60, 100, 150, 180, 300, 700] {
        farm.up_foreground();
        let end = Instant::now() + Duration::from_millis(millis);
        wait_for("the moment", LONG, || (Instant::now() >= end).then_some(()));
        farm.kill_controller();
        // A signal that a container half started would miss costs its whole grace period.
        let said = farm.ok(&["down"]);
        assert!(!said.contains("killed what was left"), "{said}");
        assert_eq!(
            before,
            Traces::now().but_history(),
            "something is left of a start killed at {millis}ms"
        );
    }
}

#[test]
fn a_real_consul_reads_the_registry() {
    isolate!();
    let farm = Farm::new();
    farm.up();
    let consul = |arguments: &[&str]| {
        let output = Command::new("consul")
            .args(arguments)
            .output()
            .expect("`consul` is installed (1.8.7 from Debian 11)");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        text
    };
    let services = consul(&["catalog", "services"]);
    assert!(
        services.lines().any(|line| line.trim() == "prime"),
        "{services}"
    );
    let nodes = consul(&["catalog", "nodes", "-service=prime"]);
    let host = nix::unistd::gethostname().expect("a hostname");
    assert!(nodes.contains(&*host.to_string_lossy()), "{nodes}");
    farm.ok(&["down"]);
}

#[test]
fn operators_stop_start_and_restart() {
    isolate!();
    let farm = Farm::new();
    farm.up();
    let pids = farm.pids(&FOUR);
    farm.ok(&["stop", "prime4"]);
    farm.wait("prime4 to be stopped", |_| {
        farm.node("containers/prime4")
            .is_some_and(|node| node["state"] == "stopped")
    });
    farm.wait_listed(&ADDRESSES[..3]);
    farm.ok(&["start", "prime4"]);
    farm.wait_listed(&ADDRESSES);
    farm.ok(&["restart", "prime1"]);
    farm.wait("prime1 to be another", |s| {
        s["converged"] == true
            && farm
                .pid("containers/prime1")
                .is_some_and(|pid| pid != pids[0])
    });
    assert_eq!(
        pids[1..3],
        farm.pids(&FOUR[1..3]),
        "the others were left alone"
    );
    let tail = farm.ok(&["logs", "--tail", "5", "prime"]);
    let names: BTreeSet<&str> = tail
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.iter().any(|name| name.contains("prime1")), "{tail}");
    farm.ok(&["down", "--purge"]);
    assert!(!fs::exists(format!("/var/log/hatchery/{}", farm.stack)).unwrap_or(true));
}

#[test]
fn a_port_that_is_taken_names_its_holder() {
    isolate!();
    let farm = Farm::new();
    let holder = std::net::TcpListener::bind("127.0.0.1:80").expect("port 80 is free here");
    let spec = farm.spec().display().to_string();
    farm.ok(&["up", "-d", &spec]);
    let pid = std::process::id().to_string();
    farm.wait("the error", |s| {
        s["nodes"].as_array().is_some_and(|nodes| {
            nodes.iter().any(|node| {
                node["node"] == "processes/nginx"
                    && node["detail"]
                        .as_str()
                        .is_some_and(|d| d.contains(&format!("pid {pid}")))
            })
        })
    });
    drop(holder);
    farm.wait_converged();
    farm.ok(&["down"]);
}

#[test]
fn a_one_shot_stays_completed_under_the_next_controller() {
    isolate!();
    let mut farm = Farm::of(
        "processes:\n\
         \x20 once: { command: [ \"true\" ], restart: \"no\" }\n\
         \x20 app:\n\
         \x20   command: [ sleep, \"1000\" ]\n\
         \x20   depends_on: { processes/once: { condition: completed } }\n",
    );
    farm.up();
    assert_eq!(farm.node("processes/once").expect("once")["restarts"], 0);
    let app = farm.demand_pid("processes/app");
    farm.kill_controller();
    farm.up();
    assert_eq!(app, farm.demand_pid("processes/app"));
    assert_eq!(
        farm.node("processes/once").expect("once")["state"],
        "completed"
    );
    signal(app, nix::sys::signal::Signal::SIGKILL);
    farm.wait("app to be back", |_| {
        farm.pid("processes/app").is_some_and(|pid| pid != app)
    });
    farm.ok(&["down"]);
}

#[test]
fn checks_and_commands_end_with_their_controller() {
    isolate!();
    let mut farm = Farm::of(
        "processes:\n\
         \x20 app: { command: [ sleep, \"1000\" ] }\n\
         \x20 hangs:\n\
         \x20   command: [ sleep, \"1000\" ]\n\
         \x20   pre_start: [ [ sh, -c, \"sleep 2001 & sleep 2002\" ] ]\n\
         services:\n\
         \x20 app:\n\
         \x20   target: processes/app\n\
         \x20   port: 9\n\
         \x20   checks: [ { exec: [ sh, -c, \"sleep 2003; true\" ], interval: 1s, timeout: 50s } ]\n",
    );
    let running = || {
        let all = fs::read_dir("/proc").expect("/proc").flatten();
        let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        let held = |line: &Vec<u8>| line.starts_with(b"sleep\x00200");
        lines.filter(held).count()
    };
    farm.up_foreground();
    wait_for("a check and a command with its child", LONG, || {
        (running() == 3).then_some(())
    });
    farm.kill_controller();
    wait_for("all of them to end", LONG, || {
        (running() == 0).then_some(())
    });
    // Where nobody attends to them they run all the same.
    let parent = format!("PPid:\t{}\n", farm.up_foreground());
    let attendant = wait_for("the attendant", LONG, || {
        let all = fs::read_dir("/proc").expect("/proc").flatten();
        let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.find(|pid: &i32| {
            let read = |name| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
            read("cmdline") == "hatchery\0__inner\0attend\0" && read("status").contains(&parent)
        })
    });
    signal(attendant, nix::sys::signal::Signal::SIGKILL);
    farm.edit(|text| {
        let more = "  later: { command: [ sleep, \"1000\" ], pre_start: [ \"sleep 2004\" ] }\n";
        text.replace("processes:\n", &format!("processes:\n{more}"))
    });
    wait_for("another command", LONG, || (running() == 4).then_some(()));
    farm.kill_controller();
    farm.ok(&["down"]);
}

#[test]
fn heartbeats_reach_an_adopted_stack_and_stops_end_with_it() {
    isolate!();
    let mut farm = Farm::of(
        "registry: { embedded: { http: 127.0.0.1:8500 } }\n\
         processes:\n\
         \x20 app: { command: [ sleep, \"1000\" ] }\n\
         services:\n\
         \x20 app: { target: processes/app, port: 9, checks: [ { ttl: 300s } ] }\n",
    );
    let spec = farm.spec().display().to_string();
    farm.ok(&["up", "-d", &spec]);
    let beat = || {
        let checks = ask("127.0.0.1:8500", "/v1/agent/checks").2;
        let checks: serde_json::Value = serde_json::from_str(&checks).ok()?;
        let id = checks
            .as_object()?
            .keys()
            .find(|id| !id.ends_with(":life"))?
            .clone();
        put(&format!("/v1/agent/check/pass/{id}"))
    };
    wait_for("the heartbeat to be taken", LONG, beat);
    farm.wait_converged();
    farm.kill_controller();
    farm.ok(&["up", "-d", &spec]);
    wait_for(
        "the heartbeat to be taken again",
        Duration::from_secs(10),
        beat,
    );
    farm.wait_converged();

    farm.ok(&["stop", "app"]);
    farm.wait("app to be stopped", |s| {
        s["converged"] == true
            && farm
                .node("processes/app")
                .is_some_and(|node| node["state"] == "stopped")
    });
    farm.ok(&["down"]);
    farm.ok(&["up", "-d", &spec]);
    farm.wait("app to run again", |_| farm.pid("processes/app").is_some());

    farm.edit(|text| text.replace(&format!("name: {}", farm.stack), "name: other"));
    let status = farm.wait("the refusal", |s| s["spec_error"].is_string());
    assert!(
        status["spec_error"]
            .as_str()
            .is_some_and(|error| error.contains("`other`"))
    );
    farm.ok(&["down"]);
}

/// A PUT to the registry; whether it was taken.
fn put(path: &str) -> Option<()> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect("127.0.0.1:8500").ok()?;
    write!(
        stream,
        "PUT {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer
        .split(' ')
        .nth(1)
        .filter(|code| *code == "200")
        .map(|_| ())
}
