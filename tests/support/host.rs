//! A machine with the farm's service, what is asked of it, and load on it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::machine::{HATCHERY, LONG, Machine, must, run};

/// The farm's service.
pub const UNIT: &str = "hatchery-prime.service";
/// Its containers, as machined knows them.
pub const FOUR: [&str; 4] = [
    "prime-prime1",
    "prime-prime2",
    "prime-prime3",
    "prime-prime4",
];

/// Workloads and their processes.
pub type Pids = Vec<(String, Value)>;

/// The machine, and what is asked of it.
pub struct Host {
    pub machine: Machine,
}

impl Host {
    pub fn boot() -> Host {
        let machine = Machine::boot();
        must(machine.inside(&["/sbin/ip", "link", "set", "lo", "up"]));
        Host { machine }
    }

    pub fn must(&self, command: &[&str]) -> String {
        must(self.machine.inside(command))
    }

    pub fn fails(&self, command: &[&str]) -> String {
        let output = run(self.machine.inside(command));
        assert!(!output.status.success(), "{command:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Looks again until it finds something; what the journal says is in the panic otherwise.
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut(&Machine) -> Option<T>) -> T {
        let deadline = Instant::now() + LONG;
        loop {
            if let Some(found) = look(&self.machine) {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "waited for {what}:\n{}",
                self.must(&["journalctl", "-n", "60", "--no-pager"])
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn converged(&self) -> Value {
        self.wait("the farm to have converged", |machine| {
            machine
                .status()
                .filter(|status| status["converged"] == true)
        })
    }

    /// The workloads of a farm that is whole.
    pub fn pids(&self) -> Pids {
        self.converged();
        let pids = self.machine.pids();
        assert!(pids.len() >= 5, "four containers and nginx: {pids:?}");
        pids
    }

    pub fn show(&self, property: &str, unit: &str) -> String {
        let shown = self.must(&["systemctl", "show", "-p", property, "--value", unit]);
        shown.trim().to_owned()
    }

    pub fn controller(&self) -> String {
        let pid = self.show("MainPID", UNIT);
        assert_ne!(pid, "0");
        pid
    }

    /// Settings as `systemctl edit` would add them.
    pub fn set(&self, file: &str, text: &str) {
        let folder = self
            .machine
            .path("/etc/systemd/system")
            .join(format!("{UNIT}.d"));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(file), format!("[Service]\n{text}\n")).expect("a setting");
        self.must(&["systemctl", "daemon-reload"]);
    }

    /// What the service wrote into the journal.
    pub fn journal(&self) -> Vec<Value> {
        let text = self.must(&["journalctl", "-u", UNIT, "-o", "json", "--no-pager"]);
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    pub fn get(&self) -> bool {
        let url = "http://127.0.0.1/";
        let curl = ["curl", "-fsS", "-o", "/dev/null", "-m", "10", url];
        run(self.machine.inside(&curl)).status.success()
    }
}

/// Four clients that ask one request after the other, until they are told to stop.
pub struct Load<'a> {
    host: &'a Host,
    shell: Child,
}

impl Load<'_> {
    pub fn begin(host: &Host) -> Load<'_> {
        let script = "mkdir /run/asked
            client() { while [ ! -e /run/enough ]; do
                curl -fsS -o /dev/null -m 10 http://127.0.0.1/ || echo failed
                echo >> /run/asked/$1; done; }
            for n in 1 2 3 4; do client $n & done; wait";
        let command = host.machine.inside(&["bash", "-c", script]);
        let shell = command.stdout(Stdio::piped()).spawn().expect("a shell");
        let load = Load { host, shell };
        load.more(20);
        load
    }

    /// Returns once so many more requests were answered.
    pub fn more(&self, count: usize) {
        let asked = |machine: &Machine| {
            let output = run(machine.inside(&["bash", "-c", "cat /run/asked/*"]));
            output.stdout.len()
        };
        let before = asked(&self.host.machine);
        self.host.wait("more requests", |machine| {
            (asked(machine) >= before + count).then_some(())
        });
    }

    /// What the clients said: nothing, if no request failed.
    pub fn end(self) -> String {
        self.host.must(&["touch", "/run/enough"]);
        let output = self.shell.wait_with_output().expect("its words");
        self.host.must(&["rm", "-r", "/run/enough", "/run/asked"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// The program is replaced under load, and the unit restarted.
pub fn an_upgrade_is_not_noticed(host: &Host, pids: &Pids) {
    let file = host.machine.path(HATCHERY);
    let new = file.with_extension("new");
    let before = host.controller();
    let load = Load::begin(host);
    fs::copy(&file, &new).expect("a new program");
    fs::rename(&new, &file).expect("an upgrade");
    host.must(&["systemctl", "restart", UNIT]);
    load.more(50);
    host.converged();
    load.more(50);
    assert_eq!(load.end(), "", "requests failed");
    let after = host.controller();
    assert_ne!(before, after);
    let inode = host.must(&["stat", "-L", "-c", "%i", &format!("/proc/{after}/exe")]);
    assert_eq!(inode.trim(), file.metadata().unwrap().ino().to_string());
    assert_eq!(host.pids(), *pids, "what ran was touched");
}

/// The controller is stopped, and systemd's watchdog ends it.
pub fn a_hung_controller_is_replaced(host: &Host, pids: &Pids) {
    host.set("watchdog.conf", "WatchdogSec=3s");
    host.must(&["systemctl", "restart", UNIT]);
    host.converged();
    let hung = host.controller();
    host.must(&["kill", "-STOP", &hung]);
    host.wait("the watchdog to replace it", |_| {
        let pid = host.show("MainPID", UNIT);
        (pid != "0" && pid != hung && host.show("ActiveState", UNIT) == "active").then_some(())
    });
    assert_eq!(host.show("NRestarts", UNIT), "1");
    assert!(host.get(), "it serves no more");
    assert_eq!(host.pids(), *pids, "what ran was touched");
    host.set("watchdog.conf", "");
}
