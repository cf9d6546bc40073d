//! Plans that are kept in files, on the real thing: applied, refused, and no more than applied.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{stack, wait_for};

/// How long anything may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

const SPEC: &str = "\
processes:
  one:
    command: [ sleep, infinity ]
    watch: [ ./one.txt ]
    restart: { policy: on-failure, delay: 50ms }
  two:
    command: [ sleep, infinity ]
    restart: { policy: on-failure, delay: 10m, max_delay: 10m }
";
const THREE: &str = "  three: { command: [ sleep, infinity ] }\n";
const SICK: &str = "\
processes:
  sick:
    command: [ sh, -c, 'echo no luck; test -e ./well && exec sleep infinity; exit 7' ]
    working_dir: '{{ spec_dir }}'
    restart: { policy: on-failure, delay: 10ms, max_delay: 10ms, max_attempts: 2 }
";

/// A spec in a folder of its own, and a file for its plans.
struct Bench {
    folder: tempfile::TempDir,
    spec: String,
    plan: String,
}

impl Bench {
    fn new(text: &str) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let bench = Bench {
            spec: path("spec.yaml"),
            plan: path("saved.plan"),
            folder,
        };
        bench.write("spec.yaml", &format!("name: {}\n{text}", stack()));
        bench.write("one.txt", "one");
        bench
    }

    /// Writes a file as an editor does, through a new one.
    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        let beside = path.with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, &path).unwrap();
    }

    fn edit(&self, change: impl FnOnce(&str) -> String) {
        let old = fs::read_to_string(&self.spec).unwrap();
        let new = change(&old);
        assert_ne!(old, new);
        self.write("spec.yaml", &new);
    }

    fn hatchery(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_hatchery"))
            .args(["--stack", &stack()])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs and demands success.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.hatchery(arguments);
        let log = Path::new("/var/log/hatchery")
            .join(stack())
            .join("controller.log");
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            fs::read_to_string(log).unwrap_or_default()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn plan(&self) -> String {
        self.ok(&["plan", &self.spec, "--out", &self.plan])
    }

    fn apply(&self) {
        self.ok(&["apply", &self.plan]);
    }

    /// Applies the plan, which must be refused; what is said.
    fn refused(&self) -> String {
        let output = self.hatchery(&["apply", &self.plan]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn try_status(&self) -> Option<Value> {
        serde_json::from_slice(&self.hatchery(&["ps", "--json"]).stdout).ok()
    }

    fn wait(&self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, LONG, || self.try_status().filter(&done))
    }

    fn node(&self, name: &str) -> Option<Value> {
        let status = self.try_status()?;
        let nodes = status["nodes"].as_array()?;
        nodes.iter().find(|node| node["node"] == name).cloned()
    }

    fn pid(&self, name: &str) -> Option<i32> {
        let pid = self.node(name)?["pid"].as_i64()?;
        i32::try_from(pid).ok()
    }

    fn demand_pid(&self, name: &str) -> i32 {
        self.pid(name)
            .unwrap_or_else(|| panic!("{name} runs: {:?}", self.node(name)))
    }

    /// Kills the controller, and begins another one with the same spec.
    fn replace_controller(&self) {
        let pid = self.try_status().unwrap()["controller_pid"]
            .as_i64()
            .unwrap();
        let pid = i32::try_from(pid).unwrap();
        support::bench::kill(pid, nix::sys::signal::Signal::SIGKILL);
        wait_for("its death", LONG, || {
            self.try_status().is_none().then_some(())
        });
        self.ok(&["up", "-d", &self.spec]);
    }

    /// Kills a process, and waits until the controller has seen it.
    fn kill(&self, name: &str) {
        let pid = self.demand_pid(name);
        let signal = nix::sys::signal::Signal::SIGKILL;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
        wait_for("its death", LONG, || {
            (self.pid(name) != Some(pid)).then_some(())
        });
    }
}

#[test]
fn a_kept_plan_is_applied_and_nothing_else_is() {
    isolate!();
    let bench = Bench::new(SPEC);
    let shown = bench.plan();
    assert!(shown.contains("3 to add"), "{shown}");
    let mode = fs::metadata(&bench.plan).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(bench.try_status().is_none(), "planning began something");
    bench.apply();
    let (one, two) = (
        bench.demand_pid("processes/one"),
        bench.demand_pid("processes/two"),
    );

    // From the controller's own memory this time.
    bench.edit(|spec| format!("{spec}{THREE}"));
    let shown = bench.plan();
    assert!(
        shown.contains("1 to add, 0 to change, 0 to destroy"),
        "{shown}"
    );
    bench.apply();
    bench.demand_pid("processes/three");
    assert_eq!(bench.try_status().unwrap()["withheld"], 0);
    assert_eq!(bench.demand_pid("processes/one"), one);

    // What the plan did not have waits, and what ran goes on.
    bench.write("one.txt", "two");
    let status = bench.wait("the edit to be withheld", |status| status["withheld"] == 1);
    assert_eq!(status["converged"], false);
    let held = bench.node("processes/one").unwrap();
    assert_eq!(held["detail"], "not in the applied plan");
    assert_eq!(bench.demand_pid("processes/one"), one);
    let story = bench.ok(&["plan", "--explain", "one"]);
    assert!(story.contains("watch:./one.txt differs"), "{story}");
    assert!(story.contains("not in the applied plan"), "{story}");

    // The next controller keeps to it.
    bench.replace_controller();
    bench.wait("the edit to be withheld", |status| status["withheld"] == 1);
    assert_eq!(bench.demand_pid("processes/one"), one);

    // The next generation lifts it.
    bench.ok(&["apply", &bench.spec]);
    assert_ne!(bench.demand_pid("processes/one"), one);
    assert_eq!(bench.demand_pid("processes/two"), two);
    assert_eq!(bench.try_status().unwrap()["withheld"], Value::Null);
    bench.ok(&["down"]);
}

#[test]
fn what_the_plan_started_is_restarted() {
    isolate!();
    let bench = Bench::new(SPEC);
    bench.plan();
    bench.apply();
    bench.kill("processes/one");
    bench.wait("convergence", |status| status["converged"] == true);
    bench.demand_pid("processes/one");
    bench.ok(&["down"]);
}

#[test]
fn a_plan_of_another_world_is_refused_by_name() {
    isolate!();
    let bench = Bench::new(SPEC);
    // Without a controller.
    bench.plan();
    bench.write("one.txt", "two");
    let words = bench.refused();
    assert!(words.contains("one.txt changed"), "{words}");
    assert!(words.contains("--out"), "{words}");
    assert!(bench.try_status().is_none(), "it left a controller");

    // With one.
    bench.ok(&["apply", &bench.spec]);
    bench.edit(|spec| format!("{spec}{THREE}"));
    bench.plan();
    bench.write("one.txt", "three");
    let words = bench.refused();
    assert!(words.contains("one.txt changed"), "{words}");

    // It has rolled by then.
    bench.ok(&["apply", &bench.spec]);
    bench.edit(|spec| spec.replace(THREE, ""));
    bench.plan();
    bench.kill("processes/two");
    let words = bench.refused();
    assert!(
        words.contains("processes/two: killed by SIGKILL"),
        "{words}"
    );
    bench.demand_pid("processes/three");

    bench.plan();
    bench.edit(|spec| spec.replace("delay: 50ms", "delay: 60ms"));
    let words = bench.refused();
    assert!(words.contains("spec.yaml changed"), "{words}");

    bench.plan();
    bench.ok(&["stop", "one"]);
    let words = bench.refused();
    assert!(words.contains("was stopped by an operator"), "{words}");
    bench.ok(&["down"]);
}

#[test]
fn a_crash_loop_is_quoted_and_a_restart_clears_it() {
    isolate!();
    let bench = Bench::new(SICK);
    bench.ok(&["up", "-d", &bench.spec]);
    bench.wait("it to give up", |status| {
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().any(|node| node["state"] == "failed")
    });
    let shown = bench.ok(&["ps"]);
    assert!(
        shown.contains("gave up after 3 failures in a row"),
        "{shown}"
    );
    assert!(shown.contains("| no luck"), "{shown}");
    let story = bench.ok(&["plan", "--explain", "sick"]);
    assert!(story.contains("exited 7"), "{story}");
    assert!(story.contains("| no luck"), "{story}");
    let json = bench.ok(&["plan", "--explain", "sick", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["format_version"], 1);
    assert_eq!(json["nodes"][0]["past"]["failures"], 3);
    // The next controller begins no new row of failures.
    let exits = |bench: &Bench| {
        let events = bench.ok(&["events", "--json", "sick"]);
        events.matches("\"exited\"").count()
    };
    let before = exits(&bench);
    bench.replace_controller();
    bench.wait("it to have given up", |status| {
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().any(|node| node["state"] == "failed")
    });
    assert_eq!(exits(&bench), before, "it was started again");
    bench.write("well", "");
    bench.ok(&["restart", "sick"]);
    bench.wait("convergence", |status| status["converged"] == true);
    bench.ok(&["down"]);
}

#[test]
fn a_stop_ends_with_what_it_was_about() {
    isolate!();
    let bench = Bench::new(SPEC);
    bench.ok(&["up", "-d", "--wait", &bench.spec]);
    bench.ok(&["stop", "two"]);
    let state = |status: &Value, wanted: Option<&str>| {
        let nodes = status["nodes"].as_array().unwrap();
        let two = nodes.iter().find(|node| node["node"] == "processes/two");
        two.map(|two| two["state"].as_str().unwrap()) == wanted
    };
    bench.wait("two to stop", |status| state(status, Some("stopped")));
    bench.replace_controller();
    bench.wait("two to stay so", |status| state(status, Some("stopped")));
    let with_two = fs::read_to_string(&bench.spec).unwrap();
    bench.edit(|spec| spec.split("  two:").next().unwrap().to_owned());
    bench.wait("two to leave", |status| state(status, None));
    bench.write("spec.yaml", &with_two);
    bench.wait("two to run", |status| state(status, Some("running")));
    let pid = bench.demand_pid("processes/two");
    bench.replace_controller();
    bench.wait("convergence", |status| {
        status["converged"] == true && state(status, Some("running"))
    });
    assert_eq!(bench.demand_pid("processes/two"), pid);
    bench.ok(&["down"]);
}
