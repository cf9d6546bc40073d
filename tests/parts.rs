//! Specs of many files: what a controller makes of them, and of their edits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{stack, wait_for};

const LONG: Duration = Duration::from_secs(60);

/// A folder with the files of a spec.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(files: &[(&str, &str)]) -> Files {
        let folder = tempfile::tempdir().unwrap();
        let made = Files { folder };
        for (name, text) in files {
            made.save(name, text);
        }
        made
    }

    /// Saves as an editor does.
    fn save(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let beside = path.with_extension("new");
        fs::write(&beside, text.replace("STACK", &stack())).unwrap();
        fs::rename(&beside, path).unwrap();
    }

    fn hatchery(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_hatchery"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HATCHERY_STACK", stack())
            .env("GIVEN", "by-the-environment")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.hatchery(arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        said
    }

    fn status(&self) -> Option<Value> {
        let output = self.hatchery(&["ps", "--json"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// What a process has in its environment under this name.
    fn word(&self, status: &Value, process: &str, name: &str) -> Option<String> {
        let nodes = status["nodes"].as_array()?;
        let of = format!("processes/{process}");
        let node = nodes.iter().find(|node| node["node"] == *of)?;
        let path = format!("/proc/{}/environ", node["pid"].as_i64()?);
        let environment = fs::read_to_string(path).ok()?;
        let mut words = environment
            .split('\0')
            .filter_map(|one| one.split_once('='));
        words
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    }

    /// Waits until this generation converged with this in a process's environment.
    fn converged(&self, generation: u64, process: &str, (name, value): (&str, &str)) {
        let what = format!("generation {generation} to converge with {name}={value}");
        wait_for(&what, LONG, || {
            let status = self.status()?;
            let is = status["generation"] == generation && status["converged"] == true;
            (is && self.word(&status, process, name)? == value).then_some(())
        });
    }

    /// Waits until an edit is refused for this.
    fn refused(&self, why: &str) {
        wait_for(&format!("a refusal with `{why}`"), LONG, || {
            let status = self.status()?;
            status["spec_error"].as_str()?.contains(why).then_some(())
        });
    }
}

const BASE: &str = "\
name: STACK
include: parts/job.yaml
x-none: of this
";
const JOB: &str = "\
processes:
  job:
    command: [ sleep, infinity ]
    environment:
      WORD: ${WORD:-default}
      GIVEN: ${GIVEN}
    restart: { policy: always, delay: 10ms }
";

#[test]
fn every_file_of_a_spec_is_followed_and_kept() {
    isolate!();
    let files = Files::new(&[
        ("base.yaml", BASE),
        ("parts/job.yaml", JOB),
        (
            "prod.yaml",
            "processes:\n  job: { environment: { LAID: one } }\n",
        ),
        ("words", "WORD=first # of all\n"),
    ]);
    let spec = ["base.yaml", "-f", "prod.yaml", "--vars", "words"];
    let with = |verb: &[&'static str]| [verb, &spec[..]].concat();
    let config = files.ok(&with(&["config", "--origins"]));
    assert!(
        config.contains("WORD: first  # parts/job.yaml:5\n"),
        "{config}"
    );
    assert!(config.contains("LAID: one  # prod.yaml:2\n"), "{config}");
    assert!(files.ok(&with(&["validate"])).contains("is valid"));

    files.ok(&with(&["up", "-d", "--wait"]));
    files.converged(1, "job", ("WORD", "first"));
    files.converged(1, "job", ("GIVEN", "by-the-environment"));
    files.save(
        "prod.yaml",
        "processes:\n  job: { environment: { LAID: two } }\n",
    );
    files.converged(2, "job", ("LAID", "two"));
    files.save("words", "WORD=second\n");
    files.converged(3, "job", ("WORD", "second"));

    // A broken file of them changes nothing.
    files.save("parts/job.yaml", "processes: [\n");
    files.refused("parts/job.yaml:1");
    fs::remove_file(files.folder.path().join("prod.yaml")).unwrap();
    files.refused("prod.yaml");
    let status = files.status().unwrap();
    assert_eq!(status["generation"].as_u64().map(|n| n >= 3), Some(true));
    assert_eq!(files.word(&status, "job", "LAID").as_deref(), Some("two"));

    // What was kept needs no file.
    let newest = |files: &Files| {
        let all: Vec<Value> = serde_json::from_str(&files.ok(&["history", "--json"])).unwrap();
        all.last().unwrap()["number"].as_u64().unwrap()
    };
    let refused = newest(&files);
    files.ok(&["rollback", "1"]);
    files.converged(refused + 1, "job", ("WORD", "first"));
    let shown = files.ok(&["history", "--show", "1"]);
    assert!(
        shown.contains("include: parts/job.yaml") && shown.contains("LAID: one"),
        "{shown}"
    );

    // Whole again, it is taken again.
    files.save(
        "prod.yaml",
        "processes:\n  job: { environment: { LAID: three } }\n",
    );
    files.save("parts/job.yaml", JOB);
    wait_for("the edit", LONG, || {
        let status = files.status()?;
        (files.word(&status, "job", "LAID")? == "three").then_some(())
    });
    files.ok(&["down"]);
}

#[test]
fn parts_come_into_a_folder_and_leave_it() {
    isolate!();
    let job = "processes:\n  one: { command: [ sleep, infinity ], environment: { WORD: a } }\n";
    let files = Files::new(&[("spec/1.yaml", "name: STACK\n"), ("spec/2.yaml", job)]);
    files.ok(&["up", "-d", "--wait", "spec"]);
    files.converged(1, "one", ("WORD", "a"));
    files.save(
        "spec/3.yaml",
        &job.replace("one", "two").replace("WORD: a", "WORD: b"),
    );
    files.converged(2, "two", ("WORD", "b"));
    files.save("spec/4.yaml", job);
    files.refused("`processes.one` is set in two parts");
    fs::remove_file(files.folder.path().join("spec/4.yaml")).unwrap();
    wait_for("the refusal to go", LONG, || {
        files.status()?["spec_error"].is_null().then_some(())
    });
    files.ok(&["plan", "spec", "--out", "kept.plan"]);
    files.ok(&["apply", "kept.plan"]);
    files.ok(&["down"]);
}
