//! The web farm that follows a git repository, under load.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;
#[path = "support/farm.rs"]
mod farm;

use std::fs;
use std::process::{Command, Stdio};

use farm::Farm;
use serde_json::Value;

/// Seconds for which wrk asks; the bad commit is left after eight.
const ASKED: &str = "-d25s";

fn git(farm: &Farm, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"])
        .args(arguments)
        .current_dir(&farm.folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn push(farm: &Farm, subject: &str) -> String {
    git(farm, &["add", "--all", ":!etc-nginx", ":!specs.git"]);
    git(farm, &["commit", "--quiet", "-m", subject]);
    git(farm, &["push", "--quiet", "specs.git", "HEAD:main"]);
    git(farm, &["rev-parse", "HEAD"])
}

fn is_in_force(status: &Value, commit: &str) -> bool {
    status["converged"] == true && status["source"]["commit"]["id"] == commit
}

/// How many requests wrk made.
fn requests(printed: &str) -> u64 {
    let mut lines = printed.lines();
    let line = lines.find(|line| line.contains(" requests in ")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_commit_that_is_not_well_is_left_and_no_request_fails() {
    isolate!();
    let farm = Farm::new();
    farm.edit(|spec| spec.replace("interval: 5s", "interval: 500ms"));
    git(&farm, &["init", "--quiet", "-b", "main"]);
    git(
        &farm,
        &["init", "--quiet", "--bare", "-b", "main", "specs.git"],
    );
    let good = push(&farm, "good");
    let source = farm.folder.join("etc-nginx/source.yaml");
    let text = format!(
        "source: {{ git: {}, path: prime.yaml, interval: 1s, health_timeout: 8s }}\n",
        farm.folder.join("specs.git").display()
    );
    fs::write(&source, text).unwrap();
    farm.ok(&[
        "up",
        "-d",
        "--wait",
        "--source",
        &source.display().to_string(),
    ]);
    farm.wait("the first commit", |status| is_in_force(status, &good));

    let wrk = Command::new("wrk")
        .args([
            "-t1",
            "-c4",
            ASKED,
            "--timeout",
            "5s",
            "-H",
            "Connection: close",
        ])
        .arg("http://127.0.0.1/")
        .stdout(Stdio::piped())
        .spawn()
        .expect("wrk runs (package wrk)");
    let work = farm.folder.join("work.py");
    let answers = fs::read_to_string(&work).unwrap();
    let ill = answers.replace("Response(\"ok\\n\"", "Response(\"ill\\n\", status=500");
    assert_ne!(answers, ill);
    fs::write(&work, ill).unwrap();
    let bad = push(&farm, "bad");
    farm.wait("the bad commit", |status| {
        status["source"]["commit"]["id"] == *bad
    });
    let left = farm.wait("the good one again", |status| is_in_force(status, &good));
    assert_eq!(left["source"]["sync"], "stalled", "{left}");
    assert_eq!(left["source"]["health"], "healthy", "{left}");
    let reason = left["source"]["reason"].as_str().unwrap();
    assert!(reason.contains("did not converge within 8s"), "{reason}");
    let generation = left["generation"].clone();

    let asked = wrk.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&asked.stdout).into_owned();
    assert!(requests(&printed) > 100, "{printed}");
    for failure in ["Socket errors", "Non-2xx"] {
        assert!(!printed.contains(failure), "{printed}");
    }
    // It asked the repository many times meanwhile, and did not try the bad one again.
    let after = farm.status();
    assert_eq!(after["generation"], generation, "{after}");
    assert!(is_in_force(&after, &good), "{after}");

    fs::write(&work, answers + "# mended\n").unwrap();
    let mended = push(&farm, "mended");
    farm.wait("the mended commit", |status| {
        is_in_force(status, &mended) && status["source"]["sync"] == "synced"
    });
}
