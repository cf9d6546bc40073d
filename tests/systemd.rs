//! The farm on a host that systemd runs: a booted copy of this machine's own root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::wait_for;

/// Where the booted machine has the program, with the spec beside it.
const HATCHERY: &str = "/opt/hatchery-test/hatchery";
const SPEC: &str = "/opt/hatchery-test/prime.yaml";

const LONG: Duration = Duration::from_secs(90);

/// A machine that was booted from an overlay over `/`.
struct Machine {
    nspawn: Child,
    init: i32,
}

fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn must(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn child_of(parent: i32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

impl Machine {
    fn boot() -> Machine {
        let folder = Path::new("/mnt");
        must(
            Command::new("mount")
                .args(["-t", "tmpfs", "tmpfs"])
                .arg(folder),
        );
        for name in ["upper", "work", "root"] {
            fs::create_dir(folder.join(name)).expect("a folder");
        }
        must(Command::new("mount").args([
            "-t",
            "overlay",
            "overlay",
            "-o",
            "lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work",
            "/mnt/root",
        ]));
        // A booted system has a /tmp of its own; this tree may lie under ours.
        let inside = Path::new("/mnt/root").join(&HATCHERY[1..]);
        let folder = inside.parent().expect("a folder");
        fs::create_dir_all(folder).expect("a folder for the program");
        fs::copy(env!("CARGO_BIN_EXE_hatchery"), &inside).expect("a copy of the program");
        let specs = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/prime");
        for entry in fs::read_dir(specs).expect("specs/prime").flatten() {
            fs::copy(entry.path(), folder.join(entry.file_name())).expect("a copy of the spec");
        }
        fs::remove_file("/mnt/root/etc/machine-id").ok();
        fs::write("/mnt/root/etc/machine-id", "uninitialized\n").expect("a machine id");
        let cgroup = support::cgroup_roots()[0]
            .join("hatchery")
            .join(support::stack());
        fs::create_dir_all(&cgroup).expect("a cgroup");
        fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).expect("entered");
        let nspawn = Command::new("systemd-nspawn")
            .args(["--quiet", "--register=no", "--keep-unit", "--settings=no"])
            .args([
                "--link-journal=no",
                "--machine=hatchery-test",
                "-D",
                "/mnt/root",
            ])
            .args([
                "--capability=all",
                "--private-network",
                "--console=pipe",
                "--boot",
            ])
            .args(["systemd.firstboot=off", "systemd.unit=multi-user.target"])
            .arg("systemd.mask=systemd-networkd-wait-online.service")
            // Packages that are installed here would hold the ports.
            .args(["systemd.mask=nginx.service", "systemd.mask=consul.service"])
            .env("SYSTEMD_SECCOMP", "0")
            .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`systemd-nspawn` runs (package systemd-container)");
        let parent = i32::try_from(nspawn.id()).expect("a pid");
        let mut machine = Machine { nspawn, init: 0 };
        // The first child of nspawn is not yet the machine's init.
        wait_for("the machine to have booted", LONG, || {
            machine.init = child_of(parent)?;
            let state = run(machine.inside(&["/bin/systemctl", "is-system-running"]));
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            ["running", "degraded"]
                .contains(&state.as_str())
                .then_some(())
        });
        machine
    }

    fn inside(&self, command: &[&str]) -> &mut Command {
        let init = self.init.to_string();
        let mut all = Command::new("nsenter");
        all.args(["-t", &init, "-a"])
            .args(command)
            .stdin(Stdio::null());
        Box::leak(Box::new(all))
    }

    fn machines(&self) -> Vec<String> {
        let list = must(self.inside(&["machinectl", "list", "--no-legend"]));
        let mut names: Vec<String> = list
            .lines()
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect();
        names.sort();
        names
    }

    fn status(&self) -> Option<Value> {
        let output = run(self.inside(&[HATCHERY, "--stack", "prime", "ps", "--json"]));
        serde_json::from_slice(&output.stdout).ok()
    }

    fn pids(&self) -> Vec<(String, Value)> {
        let status = self.status().expect("a status");
        status["nodes"]
            .as_array()
            .expect("nodes")
            .iter()
            .filter(|node| !node["pid"].is_null())
            .map(|node| (node["node"].to_string(), node["pid"].clone()))
            .collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
    }
}

#[test]
fn machines_are_registered_and_a_terminated_one_comes_back_alone() {
    isolate!();
    let machine = Machine::boot();
    must(machine.inside(&["/sbin/ip", "link", "set", "lo", "up"]));
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
