//! The farm on a host that systemd runs: a booted copy of this machine's own root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

use std::fs;
use std::time::Duration;

use support::machine::{HATCHERY, LONG, Machine, SPEC, must, run};

/// Waits for a condition, and fails by its name.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    support::wait_for(what, LONG, || holds().then_some(()));
}

#[test]
fn machines_are_registered_and_a_terminated_one_comes_back_alone() {
    isolate!();
    let machine = Machine::boot();
    must(machine.inside(&["/sbin/ip", "link", "set", "lo", "up"]));
    // Somebody else's machine has the name of one of ours.
    must(machine.inside(&[
        "systemd-run",
        "--quiet",
        "--unit=lab",
        "systemd-nspawn",
        "--quiet",
        "--keep-unit",
        "--machine=prime-prime4",
        "--directory=/",
        "--volatile=yes",
        "--private-network",
        "sleep",
        "infinity",
    ]));
    eventually("somebody's machine to run", || {
        machine.machines() == ["prime-prime4"]
    });
    must(machine.inside(&[
        "systemd-run",
        "--quiet",
        "--unit=hatchery-test",
        "-p",
        "KillMode=process",
        "--setenv=PRIME_MAX=1000",
        HATCHERY,
        "up",
        SPEC,
    ]));
    let journal = || must(machine.inside(&["journalctl", "-u", "hatchery-test", "-n", "40"]));
    let detail = |name: &str| {
        let status = machine.status()?;
        let nodes = status["nodes"].as_array()?;
        let node = nodes.iter().find(|node| node["node"] == name)?;
        Some(format!("{} {}", node["state"], node["detail"]))
    };
    eventually("the conflict to be named, and the others to run", || {
        let held = "the machine name `prime-prime4` is held by";
        let blocked = detail("containers/prime4");
        blocked.is_some_and(|said| said.contains(held) && said.contains("unit `lab.service`"))
            && machine.pids().len() == 4
    });
    assert!(machine.machines().contains(&"prime-prime4".to_owned()));
    must(machine.inside(&["systemctl", "stop", "lab"]));
    let deadline = std::time::Instant::now() + LONG;
    while machine
        .status()
        .is_none_or(|status| status["converged"] != true)
    {
        assert!(
            std::time::Instant::now() < deadline,
            "not converged:\n{}",
            journal()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let four = [
        "prime-prime1",
        "prime-prime2",
        "prime-prime3",
        "prime-prime4",
    ];
    assert_eq!(machine.machines(), four);
    let slice = must(machine.inside(&["systemctl", "list-units", "--no-legend", "*.scope"]));
    assert!(slice.contains("hatchery-prime-c-prime1"), "{slice}");

    let before = machine.pids();
    assert_eq!(before.len(), 5, "four containers and nginx: {before:?}");
    must(machine.inside(&["machinectl", "terminate", "prime-prime2"]));
    let deadline = std::time::Instant::now() + LONG;
    let after = loop {
        let converged = machine
            .status()
            .is_some_and(|status| status["converged"] == true);
        let pids = machine.pids();
        let back = pids
            .iter()
            .any(|(node, pid)| node.contains("prime2") && before.iter().all(|(_, old)| old != pid));
        if converged && back {
            break pids;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "prime2 is not back: {pids:?}\n{}\n{:?}",
            journal(),
            machine.status()
        );
        std::thread::sleep(Duration::from_millis(100));
    };
    let same = before.iter().filter(|entry| after.contains(entry)).count();
    assert_eq!(same, 4, "somebody else was touched: {before:?} {after:?}");
    assert_eq!(machine.machines(), four);
    must(machine.inside(&[HATCHERY, "--stack", "prime", "down"]));
    assert_eq!(machine.machines(), Vec::<String>::new());
}

/// What runs once: one ends well, one is still at it when its controller dies, one goes on.
const ONCE: &str = r#"
name: once
processes:
  quick:
    command: [ sh, -c, "echo quick >> /root/ran" ]
    restart: { policy: on-failure }
  slow:
    command: [ sh, -c, "echo slow >> /root/ran; while [ ! -e /root/go ]; do sleep 0.1; done" ]
    restart: { policy: "no" }
  goes-on:
    command: [ sh, -c, "echo goes-on >> /root/ran; exec sleep infinity" ]
"#;

#[test]
fn what_ran_once_does_not_run_again_under_the_next_controller() {
    isolate!();
    let machine = Machine::boot();
    fs::write(machine.path("/root/once.yaml"), ONCE).unwrap();
    let ran = || {
        let text = fs::read_to_string(machine.path("/root/ran")).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let hatchery = [HATCHERY, "--stack", "once"];
    let state = |name: &str| {
        let said = must(machine.inside(&[&hatchery[..], &["ps", "--json"]].concat()));
        let status: serde_json::Value = serde_json::from_str(&said).unwrap();
        let nodes = status["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|node| node["node"] == name).unwrap();
        node["state"].as_str().unwrap().to_owned()
    };
    let begin = |unit: &str| {
        let unit = format!("--unit={unit}");
        let kept = ["systemd-run", "--quiet", "-p", "KillMode=process", &unit];
        must(machine.inside(&[&kept[..], &[HATCHERY, "up", "/root/once.yaml"]].concat()));
        eventually("it to answer", || {
            let asked = run(machine.inside(&[&hatchery[..], &["ps"]].concat()));
            asked.status.success()
        });
    };
    let end = |unit: &str| {
        must(machine.inside(&["systemctl", "kill", "--kill-whom=main", "-s", "KILL", unit]));
        eventually("its end", || {
            let active = run(machine.inside(&["systemctl", "is-active", unit]));
            !active.status.success()
        });
    };
    begin("first");
    eventually("all to be as far as they can", || {
        ran().len() == 3 && state("processes/quick") == "completed"
    });
    let scope = must(machine.inside(&["systemctl", "list-units", "--plain", "*.scope"]));
    assert!(!scope.contains("p-quick"), "{scope}");
    end("first");
    fs::write(machine.path("/root/go"), "").unwrap();
    eventually("the slow one to end unseen", || {
        let left = must(machine.inside(&["systemctl", "list-units", "--plain", "*.scope"]));
        !left.contains("p-slow")
    });
    begin("second");
    eventually("how they ended to be known", || {
        state("processes/slow") == "exited" && state("processes/quick") == "completed"
    });
    assert_eq!(state("processes/goes-on"), "running");
    assert_eq!(ran(), ["goes-on", "quick", "slow"]);
    must(machine.inside(&[&hatchery[..], &["down"]].concat()));
    let group = ["sh", "-c", "find /sys/fs/cgroup -path '*/hatchery/once*'"];
    assert_eq!(must(machine.inside(&group)), "");
}
