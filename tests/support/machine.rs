//! A machine that systemd runs: a copy of this machine's own root, booted from an overlay.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::wait_for;

/// Where the booted machine has the program, with the spec beside it.
pub const HATCHERY: &str = "/opt/hatchery-test/hatchery";
/// The farm's spec there.
pub const SPEC: &str = "/opt/hatchery-test/prime.yaml";
/// Its root, as it is seen from outside.
const ROOT: &str = "/mnt/root";

/// How long anything may take.
pub const LONG: Duration = Duration::from_secs(90);

/// A machine that was booted from an overlay over `/`.
pub struct Machine {
    nspawn: Child,
    init: i32,
}

/// Runs it.
pub fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs what must succeed; gives what it said.
pub fn must(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn child_of(parent: i32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

impl Machine {
    /// Boots it.
    pub fn boot() -> Machine {
        lay_out();
        let cgroup = super::cgroup_roots()[0]
            .join("hatchery")
            .join(super::stack());
        fs::create_dir_all(&cgroup).expect("a cgroup");
        fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).expect("entered");
        let mut machine = Machine {
            nspawn: nspawn(),
            init: 0,
        };
        machine.await_boot();
        machine
    }

    /// Boots it again, with the disk that it has, and nothing else.
    pub fn reboot(&mut self) {
        must(self.inside(&["/bin/systemctl", "reboot"]));
        let ended = wait_for("the machine to have ended", LONG, || {
            self.nspawn.try_wait().expect("a status")
        });
        // What nspawn says of a machine that asked to be started again.
        assert_eq!(ended.code(), Some(133));
        self.nspawn = nspawn();
        self.await_boot();
    }

    fn await_boot(&mut self) {
        let parent = i32::try_from(self.nspawn.id()).expect("a pid");
        // The first child of nspawn is not yet the machine's init.
        wait_for("the machine to have booted", LONG, || {
            self.init = child_of(parent)?;
            let state = run(self.inside(&["/bin/systemctl", "is-system-running"]));
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            ["running", "degraded"]
                .contains(&state.as_str())
                .then_some(())
        });
    }

    /// A path of the machine, as it is seen from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        Path::new(ROOT).join(inside.trim_start_matches('/'))
    }

    /// A command inside.
    pub fn inside(&self, command: &[&str]) -> &mut Command {
        let init = self.init.to_string();
        let mut all = Command::new("nsenter");
        all.args(["-t", &init, "-a"])
            .args(command)
            .stdin(Stdio::null());
        Box::leak(Box::new(all))
    }

    /// The names that `machinectl` lists.
    pub fn machines(&self) -> Vec<String> {
        let list = must(self.inside(&["machinectl", "list", "--no-legend"]));
        let mut names: Vec<String> = list
            .lines()
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect();
        names.sort();
        names
    }

    /// What `ps` says of the farm.
    pub fn status(&self) -> Option<Value> {
        let output = run(self.inside(&[HATCHERY, "--stack", "prime", "ps", "--json"]));
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Every workload that runs, and its process.
    pub fn pids(&self) -> Vec<(String, Value)> {
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

/// An overlay over this machine's root, with the program and the farm's spec in it.
fn lay_out() {
    must(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/mnt"]));
    for name in ["upper", "work", "root"] {
        fs::create_dir(Path::new("/mnt").join(name)).expect("a folder");
    }
    let folders = "lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work";
    must(Command::new("mount").args(["-t", "overlay", "overlay", "-o", folders, ROOT]));
    // A booted system has a /tmp of its own; this tree may lie under ours.
    let inside = Path::new(ROOT).join(&HATCHERY[1..]);
    let folder = inside.parent().expect("a folder");
    fs::create_dir_all(folder).expect("a folder for the program");
    fs::copy(env!("CARGO_BIN_EXE_hatchery"), &inside).expect("a copy of the program");
    let specs = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/prime");
    for entry in fs::read_dir(specs).expect("specs/prime").flatten() {
        fs::copy(entry.path(), folder.join(entry.file_name())).expect("a copy of the spec");
    }
    let id = Path::new(ROOT).join("etc/machine-id");
    fs::remove_file(&id).ok();
    fs::write(&id, "uninitialized\n").expect("a machine id");
}

fn nspawn() -> Child {
    Command::new("systemd-nspawn")
        .args(["--quiet", "--register=no", "--keep-unit", "--settings=no"])
        .args(["--link-journal=no", "--machine=hatchery-test", "-D", ROOT])
        .args(["--capability=all", "--private-network", "--console=pipe"])
        .args(["--boot", "systemd.firstboot=off"])
        .arg("systemd.unit=multi-user.target")
        .arg("systemd.mask=systemd-networkd-wait-online.service")
        // Packages that are installed here would hold the ports.
        .args(["systemd.mask=nginx.service", "systemd.mask=consul.service"])
        .env("SYSTEMD_SECCOMP", "0")
        .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("`systemd-nspawn` runs (package systemd-container)")
}
