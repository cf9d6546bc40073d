//! Plans that are kept in files, on the real thing: applied, refused, and no more than applied.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;
#[path = "support/farm.rs"]
mod farm;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use farm::{Farm, LONG};
use serde_json::Value;
use support::wait_for;

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

/// The folder's spec, with a file that it watches, and where a plan goes.
fn farm() -> (Farm, String) {
    let farm = Farm::of(SPEC);
    fs::write(farm.folder.join("one.txt"), "one").unwrap();
    let plan = farm.folder.join("saved.plan").display().to_string();
    (farm, plan)
}

fn spec(farm: &Farm) -> String {
    farm.spec().display().to_string()
}

fn plan(farm: &Farm, out: &str) -> String {
    farm.ok(&["plan", &spec(farm), "--out", out])
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Applies a plan that must be refused; what it says.
fn refused(farm: &Farm, plan: &str) -> String {
    let output = farm.hatchery(&["apply", plan]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    said(&output)
}

fn kill(pid: i32) {
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
}

#[test]
fn a_kept_plan_is_applied_and_nothing_else_is() {
    isolate!();
    let (farm, file) = farm();
    let shown = plan(&farm, &file);
    assert!(shown.contains("2 to add"), "{shown}");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(farm.try_status().is_none(), "planning began something");
    farm.ok(&["apply", &file]);
    let (one, two) = (
        farm.demand_pid("processes/one"),
        farm.demand_pid("processes/two"),
    );

    // From the controller's own memory this time.
    farm.edit(|spec| format!("{spec}{THREE}"));
    let shown = plan(&farm, &file);
    assert!(
        shown.contains("1 to add, 0 to change, 0 to destroy"),
        "{shown}"
    );
    farm.ok(&["apply", &file]);
    farm.demand_pid("processes/three");
    assert_eq!(farm.status()["withheld"], 0);
    assert_eq!(farm.demand_pid("processes/one"), one);

    // What the plan did not have waits, and what ran goes on.
    fs::write(farm.folder.join("one.txt"), "two").unwrap();
    let status = farm.wait("the edit to be withheld", |status| status["withheld"] == 1);
    assert_eq!(status["converged"], false);
    let held = farm.node("processes/one").unwrap();
    assert_eq!(held["detail"], "not in the applied plan");
    assert_eq!(farm.demand_pid("processes/one"), one);
    let story = farm.ok(&["plan", "--explain", "one"]);
    assert!(story.contains("watch:./one.txt differs"), "{story}");
    assert!(story.contains("not in the applied plan"), "{story}");

    // The next generation lifts it.
    farm.ok(&["apply", &spec(&farm)]);
    assert_ne!(farm.demand_pid("processes/one"), one);
    assert_eq!(farm.demand_pid("processes/two"), two);
    assert_eq!(farm.status()["withheld"], Value::Null);
    farm.ok(&["down"]);
}

#[test]
fn what_the_plan_started_is_restarted() {
    isolate!();
    let (farm, file) = farm();
    plan(&farm, &file);
    farm.ok(&["apply", &file]);
    let one = farm.demand_pid("processes/one");
    kill(one);
    wait_for("another life", LONG, || {
        farm.pid("processes/one").filter(|pid| *pid != one)
    });
    farm.wait_converged();
    farm.ok(&["down"]);
}

#[test]
fn a_plan_of_another_world_is_refused_by_name() {
    isolate!();
    let (farm, file) = farm();
    // Without a controller.
    plan(&farm, &file);
    fs::write(farm.folder.join("one.txt"), "two").unwrap();
    let words = refused(&farm, &file);
    assert!(words.contains("one.txt changed"), "{words}");
    assert!(words.contains("--out"), "{words}");
    assert!(
        farm.try_status().is_none(),
        "a refused plan left a controller"
    );

    // With one.
    farm.ok(&["apply", &spec(&farm)]);
    farm.edit(|spec| format!("{spec}{THREE}"));
    plan(&farm, &file);
    fs::write(farm.folder.join("one.txt"), "three").unwrap();
    let words = refused(&farm, &file);
    assert!(words.contains("one.txt changed"), "{words}");
    farm.wait_converged();

    plan(&farm, &file);
    kill(farm.demand_pid("processes/two"));
    let words = wait_for("the death to be seen", LONG, || {
        Some(refused(&farm, &file)).filter(|words| words.contains("killed by SIGKILL"))
    });
    assert!(
        words.contains("processes/two: killed by SIGKILL"),
        "{words}"
    );
    assert!(farm.node("processes/three").is_none(), "it was applied");

    plan(&farm, &file);
    farm.edit(|spec| spec.replace("delay: 50ms", "delay: 60ms"));
    let words = refused(&farm, &file);
    assert!(words.contains("prime.yaml changed"), "{words}");

    plan(&farm, &file);
    farm.ok(&["stop", "one"]);
    let words = refused(&farm, &file);
    assert!(words.contains("processes/one: "), "{words}");
    assert!(words.contains("was stopped by an operator"), "{words}");
    farm.ok(&["down"]);
}

#[test]
fn a_crash_loop_is_quoted_and_a_restart_clears_it() {
    isolate!();
    let farm = Farm::of(
        "processes:\n  sick:\n    command: [ sh, -c, \"echo no luck; test -e ./well && exec sleep \
         infinity; exit 7\" ]\n    working_dir: \"{{ spec_dir }}\"\n    restart: { policy: \
         on-failure, delay: 10ms, max_delay: 10ms, max_attempts: 2 }\n",
    );
    farm.ok(&["up", "-d", &spec(&farm)]);
    let any_failed = |status: &Value| {
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().any(|node| node["state"] == "failed")
    };
    farm.wait("it to give up", any_failed);
    let shown = farm.ok(&["ps"]);
    assert!(
        shown.contains("gave up after 3 failures in a row"),
        "{shown}"
    );
    assert!(shown.contains("| no luck"), "{shown}");
    let story = farm.ok(&["plan", "--explain", "sick"]);
    assert!(story.contains("exited 7"), "{story}");
    assert!(story.contains("| no luck"), "{story}");
    let json: Value =
        serde_json::from_str(&farm.ok(&["plan", "--explain", "sick", "--json"])).unwrap();
    assert_eq!(json["format_version"], 1);
    assert_eq!(json["nodes"][0]["past"]["failures"], 3);
    fs::write(farm.folder.join("well"), "").unwrap();
    farm.ok(&["restart", "sick"]);
    farm.wait_converged();
    farm.ok(&["down"]);
}
