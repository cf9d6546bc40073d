//! The web farm in namespaces of its own: a copy of `specs/prime`, and what tests ask of it.

#![allow(dead_code)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{cgroups_left, stack, wait_for};

/// How long anything may take on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

/// A farm in a folder of its own.
pub struct Farm {
    pub stack: String,
    pub folder: PathBuf,
    keep: tempfile::TempDir,
    controller: Option<Child>,
}

/// All of a stack that could be left on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    links: BTreeSet<String>,
    namespaces: BTreeSet<String>,
    cgroups: Vec<PathBuf>,
    mounts: BTreeSet<String>,
    files: BTreeSet<String>,
    kept: BTreeSet<String>,
    processes: BTreeSet<String>,
    tables: String,
}

fn text(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn names(folder: &str) -> BTreeSet<String> {
    fs::read_dir(folder)
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.path().display().to_string())
                .collect()
        })
        .unwrap_or_default()
}

impl Traces {
    pub fn now() -> Traces {
        let links: Value = serde_json::from_str(&text(Command::new("ip").args(["-j", "link"])))
            .expect("`ip -j link` prints JSON");
        let links = links
            .as_array()
            .expect("a list of links")
            .iter()
            .map(|link| link["ifname"].as_str().unwrap_or_default().to_owned())
            .collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .expect("mountinfo")
            .lines()
            .filter_map(|line| line.split(' ').nth(4).map(str::to_owned))
            .collect();
        let mut files = names("/etc/nginx");
        files.extend(names("/run/hatchery"));
        let kept = names("/var/lib/hatchery");
        let own = std::process::id().to_string();
        let processes = names("/proc")
            .into_iter()
            .filter_map(|path| path.strip_prefix("/proc/").map(str::to_owned))
            .filter(|pid| pid.parse::<u32>().is_ok() && *pid != own)
            .filter_map(|pid| {
                let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
                Some(format!("{pid} {}", comm.trim()))
            })
            .collect();
        Traces {
            links,
            namespaces: names("/run/netns"),
            cgroups: cgroups_left(&stack()),
            mounts,
            files,
            kept,
            processes,
            tables: text(Command::new("nft").args(["list", "tables"])),
        }
    }
}

impl Traces {
    /// All but what `down` keeps: history, which is state and logs.
    pub fn but_history(mut self) -> Traces {
        self.kept.clear();
        self
    }
}

impl Farm {
    /// Copies the spec, gives it this test's name and a small amount of work.
    pub fn new() -> Farm {
        let keep = tempfile::tempdir().expect("a temporary folder");
        let folder = keep.path().to_owned();
        let specs = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/prime");
        for entry in fs::read_dir(specs).expect("specs/prime").flatten() {
            fs::copy(entry.path(), folder.join(entry.file_name())).expect("a copy of the spec");
        }
        // nginx's folder is one for the whole machine; this namespace gets its own.
        let nginx = folder.join("etc-nginx");
        let copied = Command::new("cp")
            .args(["-a", "/etc/nginx"])
            .arg(&nginx)
            .status()
            .expect("cp runs");
        assert!(
            copied.success(),
            "nginx's configuration can be copied (package nginx-light)"
        );
        let bound = Command::new("mount")
            .arg("--bind")
            .args([nginx.as_path(), Path::new("/etc/nginx")])
            .status();
        assert!(bound.expect("mount runs").success());
        let farm = Farm {
            stack: stack(),
            folder,
            keep,
            controller: None,
        };
        farm.edit(|spec| spec.replacen("name: prime\n", &format!("name: {}\n", stack()), 1));
        farm
    }

    /// Another spec in the place of the farm's; its name is put before it.
    pub fn of(text: &str) -> Farm {
        let farm = Farm::new();
        farm.edit(|_| format!("name: {}\n{text}", farm.stack));
        farm
    }

    pub fn spec(&self) -> PathBuf {
        self.folder.join("prime.yaml")
    }

    /// Rewrites the spec as an editor does, through a new file; a change is demanded.
    pub fn edit(&self, change: impl FnOnce(&str) -> String) {
        let old = fs::read_to_string(self.spec()).expect("the spec");
        let new = change(&old);
        assert_ne!(old, new, "the edit changes the spec");
        let beside = self.folder.join(".prime.yaml.new");
        fs::write(&beside, new).expect("written");
        fs::rename(&beside, self.spec()).expect("renamed");
    }

    pub fn hatchery(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("hatchery runs")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hatchery"));
        command
            .args(["--stack", &self.stack])
            .args(arguments)
            .env("PRIME_MAX", "1000")
            .stdin(Stdio::null());
        command
    }

    /// Runs and demands success.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.hatchery(arguments);
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "`hatchery {}` gave {}:\n{stdout}\n{}\ncontroller's log:\n{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.logs(),
        );
        stdout
    }

    /// The controller's and the workloads' own words, for the reader of a failure.
    pub fn logs(&self) -> String {
        let folder = Path::new("/var/log/hatchery").join(&self.stack);
        let mut all = String::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let content = fs::read_to_string(entry.path()).unwrap_or_default();
            let tail: Vec<&str> = content.lines().rev().take(40).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            all += &format!("--- {}\n{}\n", entry.path().display(), tail.join("\n"));
        }
        all
    }

    /// `up -d --wait`.
    pub fn up(&self) {
        let spec = self.spec().display().to_string();
        self.ok(&["up", "-d", "--wait", &spec]);
    }

    /// A controller in the foreground, whose end is ours to choose.
    pub fn up_foreground(&mut self) -> u32 {
        let spec = self.spec().display().to_string();
        let child = self
            .command(&["up", &spec])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("hatchery runs");
        let pid = child.id();
        self.controller = Some(child);
        pid
    }

    /// Kills the controller at once and waits until it is gone.
    pub fn kill_controller(&mut self) {
        let pid = match &mut self.controller {
            Some(child) => {
                child.kill().expect("killed");
                let status = child.wait().expect("waited");
                assert_eq!(status.signal(), Some(9));
                self.controller = None;
                return;
            }
            None => self.status()["controller_pid"].as_i64().expect("a pid"),
        };
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("killed");
        wait_for("the controller's end", LONG, || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
            (stat.map_or(true, |stat| stat.contains(") Z "))).then_some(())
        });
    }

    /// Waits for a controller in the foreground that ends by itself.
    pub fn wait_controller(&mut self) {
        if let Some(mut child) = self.controller.take() {
            child.wait().expect("waited");
        }
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["ps", "--json"])).expect("`ps --json` prints JSON")
    }

    pub fn try_status(&self) -> Option<Value> {
        let output = self.hatchery(&["ps", "--json"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// How many reloads the controller in the background has confirmed.
    pub fn reloads(&self) -> usize {
        let log = Path::new("/var/log/hatchery")
            .join(&self.stack)
            .join("controller.log");
        let text = fs::read_to_string(log).unwrap_or_default();
        text.matches("reloaded by SIGHUP, confirmed").count()
    }

    /// One node of `ps`.
    pub fn node(&self, name: &str) -> Option<Value> {
        let status = self.try_status()?;
        status["nodes"]
            .as_array()?
            .iter()
            .find(|node| node["node"] == name)
            .cloned()
    }

    pub fn pid(&self, node: &str) -> Option<i32> {
        self.node(node)?["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok())
    }

    pub fn demand_pid(&self, node: &str) -> i32 {
        self.pid(node)
            .unwrap_or_else(|| panic!("{node} runs: {:?}", self.node(node)))
    }

    /// The processes of these containers.
    pub fn pids(&self, nodes: &[&str]) -> Vec<i32> {
        nodes.iter().map(|node| self.demand_pid(node)).collect()
    }

    pub fn wait_converged(&self) {
        self.wait("the farm to converge", |status| status["converged"] == true);
    }

    pub fn wait(&self, what: &str, mut done: impl FnMut(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LONG;
        loop {
            let status = self.try_status();
            if let Some(status) = status.filter(|status| done(status)) {
                return status;
            }
            if Instant::now() > deadline {
                panic!(
                    "waited for {what}:\n{}\n{}",
                    String::from_utf8_lossy(&self.hatchery(&["ps"]).stdout),
                    self.logs()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The addresses that nginx's file lists now.
    pub fn listed(&self) -> BTreeSet<String> {
        let file = fs::read_to_string("/etc/nginx/prime.conf").unwrap_or_default();
        file.split("server ")
            .skip(1)
            .filter_map(|rest| rest.split([':', ';', ' ']).next().map(str::to_owned))
            .filter(|address| address.starts_with("10."))
            .collect()
    }

    pub fn wait_listed(&self, addresses: &[&str]) {
        let wanted: BTreeSet<String> = addresses.iter().map(|a| (*a).to_owned()).collect();
        self.wait(&format!("nginx to list {wanted:?}"), |_| {
            self.listed() == wanted
        });
    }

    /// Asks nginx; the status code, who answered, and the body.
    pub fn ask(&self, path: &str) -> (u16, String, String) {
        ask("127.0.0.1:80", path)
    }
}

/// One HTTP/1.0 request on a connection of its own. Code 0 stands for no answer.
pub fn ask(address: &str, path: &str) -> (u16, String, String) {
    use std::io::{Read, Write};
    let answer = (|| {
        let address: std::net::SocketAddr = address.parse().ok()?;
        let mut stream =
            std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let code = head.split(' ').nth(1)?.parse().ok()?;
        let by = head
            .lines()
            .find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("x-served-by")
                    .then(|| value.trim().to_owned())
            })
            .unwrap_or_default();
        Some((code, by, body.trim().to_owned()))
    })();
    answer.unwrap_or((0, String::new(), String::new()))
}

impl Drop for Farm {
    fn drop(&mut self) {
        if let Some(child) = &mut self.controller {
            let _ = child.kill();
            let _ = child.wait();
        }
        // The mount over nginx's folder ends with the namespace, and not before a controller that
        // was left running: that one would write into the machine's own.
        let _ = &self.keep;
    }
}
