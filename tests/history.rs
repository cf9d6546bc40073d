//! What is kept of a stack's life, and the way back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal::{SIGKILL, SIGTERM};
use serde_json::Value;
use support::{bench::kill, stack, wait_for};

const LONG: Duration = Duration::from_secs(60);

/// A stack with one process, kept by a controller in the foreground.
struct Stack {
    folder: tempfile::TempDir,
    controller: Option<Child>,
}

impl Stack {
    fn new() -> Stack {
        let stack = Stack {
            folder: tempfile::tempdir().unwrap(),
            controller: None,
        };
        fs::write(stack.folder.path().join("note.j2"), "first").unwrap();
        stack.write("one");
        stack
    }

    fn note(&self) -> PathBuf {
        self.folder.path().join("note")
    }

    fn spec(&self) -> PathBuf {
        self.folder.path().join("job.yaml")
    }

    fn state(&self) -> PathBuf {
        Path::new("/var/lib/hatchery").join(stack())
    }

    /// Saves the spec as an editor does; the process has this word in its environment.
    fn write(&self, word: &str) {
        let text = format!(
            "name: {}\nprocesses:\n  job:\n    command: [ sleep, infinity ]\n    \
             environment: {{ WORD: {word} }}\n    restart: {{ policy: always, delay: 10ms }}\n\
             templates:\n  note: {{ source: ./note.j2, destination: {} }}\n",
            stack(),
            self.note().display()
        );
        self.write_text(&text);
    }

    fn write_text(&self, text: &str) {
        let beside = self.folder.path().join(".job.yaml.new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, self.spec()).unwrap();
    }

    fn hatchery(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_hatchery"))
            .args(["--stack", &stack()])
            .args(arguments)
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

    fn up(&mut self) {
        let child = Command::new(env!("CARGO_BIN_EXE_hatchery"))
            .arg("up")
            .arg(self.spec())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.controller = Some(child);
    }

    /// Ends the controller in this way, and waits for it.
    fn end(&mut self, signal: nix::sys::signal::Signal) {
        let mut controller = self.controller.take().unwrap();
        kill(i32::try_from(controller.id()).unwrap(), signal);
        controller.wait().unwrap();
    }

    fn status(&self) -> Option<Value> {
        let output = self.hatchery(&["ps", "--json"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// The process, as its controller shows it.
    fn pid(&self) -> Option<i32> {
        let status = self.status()?;
        let nodes = status["nodes"].as_array()?;
        let job = nodes.iter().find(|node| node["node"] == "processes/job")?;
        i32::try_from(job["pid"].as_i64()?).ok()
    }

    /// Waits until this generation converged with a process of this word.
    fn converged(&self, generation: u64, word: &str) {
        let what = format!("generation {generation} to converge with {word}");
        wait_for(&what, LONG, || {
            let status = self.status()?;
            let is = status["generation"] == generation && status["converged"] == true;
            (is && self.word()? == word).then_some(())
        });
    }

    /// What the process that runs has in its environment.
    fn word(&self) -> Option<String> {
        let pid = self.pid()?;
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).ok()?;
        let word = environment
            .split('\0')
            .find_map(|one| one.strip_prefix("WORD="))?;
        Some(word.to_owned())
    }

    fn history(&self) -> Vec<Value> {
        serde_json::from_str(&self.ok(&["history", "--json"])).unwrap()
    }

    /// How each generation came, and what became of it.
    fn told(&self) -> Vec<String> {
        self.history()
            .iter()
            .map(|one| {
                let cause = one["cause"]["kind"].as_str().unwrap();
                let outcome = one["outcome"]["state"].as_str().unwrap();
                format!("{} {cause} {outcome}", one["number"])
            })
            .collect()
    }

    fn events(&self, of: &[&str]) -> Vec<Value> {
        let arguments = [&["events", "--json"], of].concat();
        let said = self.ok(&arguments);
        said.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The ends of the process, as its exits and incarnations.
    fn exits(&self) -> Vec<Value> {
        let mut events = self.events(&["job"]);
        events.retain(|event| event["kind"] == "exited");
        events
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Some(controller) = &mut self.controller {
            let _ = controller.kill();
            let _ = controller.wait();
        }
    }
}

#[test]
fn what_happened_is_told_once_and_an_edit_can_be_taken_back() {
    isolate!();
    let mut stack = Stack::new();
    stack.up();
    stack.converged(1, "one");
    stack.write("two");
    stack.converged(2, "two");

    let killed = stack.pid().unwrap();
    kill(killed, SIGKILL);
    wait_for("another life", LONG, || {
        let is_well = stack.status()?["converged"] == true;
        (is_well && stack.pid()? != killed).then_some(())
    });
    let by_signal = |stack: &Stack| {
        let exits = stack.exits();
        exits
            .iter()
            .filter(|exit| exit["exit"]["signal"] == 9)
            .count()
    };
    assert_eq!(by_signal(&stack), 1, "{:#?}", stack.exits());

    let said = stack.ok(&["rollback"]);
    assert!(said.contains("generation 1 of stack"), "{said}");
    stack.converged(3, "one");
    assert_eq!(
        stack.told(),
        [
            "1 begin converged",
            "2 file_edit rolled_back",
            "3 rollback converged"
        ]
    );
    let last = stack.history().pop().unwrap();
    assert_eq!(last["cause"]["to"], 1);
    assert_eq!(last["cause"]["by"]["name"], "root");
    assert_eq!(last["boot"].as_str().unwrap().len(), 36);
    let shown = stack.ok(&["history", "--show", "2"]);
    assert_eq!(shown, fs::read_to_string(stack.spec()).unwrap());
    assert!(stack.ok(&["ps"]).contains("rolled back to generation 1"));

    let exits = stack.exits();
    let signals: Vec<_> = exits.iter().map(|exit| &exit["exit"]["signal"]).collect();
    assert_eq!(signals, [15, 9, 15], "{exits:#?}");
    let lives: std::collections::BTreeSet<u64> = exits
        .iter()
        .map(|exit| exit["incarnation"].as_u64().unwrap())
        .collect();
    assert_eq!(lives.len(), 3, "{exits:#?}");
    let operator = stack.events(&[]);
    let taken: Vec<_> = operator
        .iter()
        .filter(|event| {
            event["text"]
                .as_str()
                .unwrap()
                .starts_with("took generation")
        })
        .map(|event| event["text"].as_str().unwrap())
        .collect();
    assert_eq!(
        taken,
        [
            "took generation 1: begin",
            "took generation 2: file edit",
            "took generation 3: rollback to 1 by root"
        ]
    );

    // The file is saved anew and holds what it held, and what it renders changes: only the
    // latter is taken. A real edit is.
    let same = fs::read_to_string(stack.spec()).unwrap();
    stack.write_text(&same);
    fs::write(stack.folder.path().join("note.j2"), "second").unwrap();
    wait_for("the note", LONG, || {
        (fs::read_to_string(stack.note()).ok()? == "second").then_some(())
    });
    stack.converged(4, "one");
    assert!(stack.ok(&["ps"]).contains("rolled back to generation 1"));
    stack.write("{{ bad");
    wait_for("the edit to be refused", LONG, || {
        (stack.told().len() == 5).then_some(())
    });
    assert_eq!(stack.told()[4], "5 file_edit refused");
    assert_eq!(stack.word().as_deref(), Some("one"));
    stack.write("three");
    stack.converged(6, "three");
    stack.ok(&["down"]);
    stack.controller.take().unwrap().wait().unwrap();
    assert_eq!(stack.told().len(), 6, "`down` keeps the history");
    let last = stack.events(&[]).pop().unwrap();
    assert_eq!(last["kind"], "down");
    let none = stack.hatchery(&["rollback", "1"]);
    let words = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(
        !none.status.success() && words.contains("hatchery up"),
        "{words}"
    );
    stack.ok(&["down", "--purge"]);
    assert!(!stack.state().exists());
}

#[test]
fn controllers_come_and_go_and_the_story_goes_on() {
    isolate!();
    let mut stack = Stack::new();
    stack.up();
    stack.converged(1, "one");
    stack.end(SIGKILL);
    // Its end is learnt by the next controller, which goes on with the same generation.
    kill(stack_pid(&stack), SIGTERM);
    wait_for("its end", LONG, || {
        (!stack.ok(&["ps"]).contains("running")).then_some(())
    });
    stack.up();
    wait_for("the end to be told", LONG, || {
        (stack.exits().len() == 1).then_some(())
    });
    stack.converged(1, "one");
    let exits = stack.exits();
    let text = exits[0]["text"].as_str().unwrap();
    assert!(text.ends_with("while no controller ran"), "{text}");
    stack.end(SIGTERM);
    assert_eq!(stack.told(), ["1 begin converged"]);
    stack.write("two");
    stack.up();
    stack.converged(2, "two");
    assert_eq!(stack.told(), ["1 begin converged", "2 begin converged"]);
    let kinds: Vec<Value> = stack.events(&[]);
    let count = |kind: &str| kinds.iter().filter(|event| event["kind"] == kind).count();
    assert_eq!((count("begin"), count("leave")), (3, 1));
    assert_eq!(count("adopted"), 1, "{kinds:#?}");
    assert_eq!(stack.exits().len(), 2, "{:#?}", stack.exits());

    // Without its history, and with rubbish in its place, the stack goes on.
    stack.end(SIGTERM);
    let folder = stack.state().join("history");
    fs::write(folder.join("000009.json"), "{\"version\":7}").unwrap();
    let log = folder.join("events.log");
    let torn = fs::read(&log).unwrap();
    fs::write(&log, &torn[..torn.len() - 9]).unwrap();
    stack.up();
    wait_for("the warning", LONG, || {
        let events = stack.events(&[]);
        let warned = |event: &&Value| {
            event["kind"] == "warning" && event["text"].as_str().unwrap().contains("000009.json")
        };
        (events.iter().filter(warned).count() == 1).then_some(())
    });
    stack.converged(2, "two");
    stack.write("three");
    stack.converged(10, "three");
    stack.end(SIGTERM);
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    stack.up();
    stack.converged(1, "three");
    fs::remove_file(&folder).unwrap();
    stack.write("four");
    stack.converged(2, "four");
    assert_eq!(stack.told(), ["2 file_edit converged"]);
    stack.ok(&["down", "--purge"]);
}

/// What is left of a one-shot stays, and each controller sees it.
#[test]
fn an_end_that_stays_visible_is_told_by_one_controller_alone() {
    isolate!();
    let mut stack = Stack::new();
    let text = format!(
        "name: {}\nprocesses:\n  job:\n    command: [ sh, -c, exit 3 ]\n    \
         restart: {{ policy: \"no\" }}\n",
        support::stack()
    );
    stack.write_text(&text);
    for _ in 0..3 {
        stack.up();
        wait_for("it to converge", LONG, || {
            (stack.status()?["converged"] == true).then_some(())
        });
        stack.end(SIGTERM);
        let exits = stack.exits();
        assert_eq!(exits.len(), 1, "{exits:#?}");
        assert_eq!(exits[0]["exit"]["code"], 3);
    }
    assert_eq!(stack.told(), ["1 begin converged"]);
    stack.ok(&["down", "--purge"]);
}

/// The process, while no controller runs.
fn stack_pid(stack: &Stack) -> i32 {
    let said = stack.ok(&["ps"]);
    let row = said.lines().find(|line| line.contains("processes/job"));
    let row = row.unwrap_or_else(|| panic!("{said}"));
    let pid = row.split_whitespace().nth(3).unwrap();
    pid.parse().unwrap_or_else(|_| panic!("{said}"))
}

#[test]
fn events_are_followed_from_what_is_kept() {
    isolate!();
    let mut stack = Stack::new();
    stack.up();
    stack.converged(1, "one");
    let follower = Command::new(env!("CARGO_BIN_EXE_hatchery"))
        .args(["--stack", &support::stack(), "events", "-f", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    stack.write("two");
    stack.converged(2, "two");
    stack.end(SIGTERM);
    let output = follower.wait_with_output().unwrap();
    assert!(output.status.success());
    let followed: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        followed,
        stack.events(&[]),
        "nothing twice, nothing missing"
    );
    let past = stack.events(&["--since", "1h"]);
    assert_eq!(past, followed);
    stack.ok(&["down", "--purge"]);
}

#[test]
fn an_edit_under_which_nothing_becomes_well_is_given_up_and_its_author_told() {
    isolate!();
    let mut stack = Stack::new();
    let good = fs::read_to_string(stack.spec()).unwrap();
    let patience = "    update: { min_healthy_time: 500ms, healthy_deadline: 2s, \
                    failure_action: rollback }\n";
    let good = good.replace("templates:", &format!("{patience}templates:"));
    stack.write_text(&good);
    stack.up();
    stack.converged(1, "one");
    let bad = good.replace("[ sleep, infinity ]", "[ sh, -c, \"exit 3\" ]");
    let path = stack.folder.path().join("bad.yaml");
    fs::write(&path, bad).unwrap();
    let output = stack.hatchery(&["apply", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("error: generation 2 failed: processes/job is not well after 2s"));
    assert!(said.contains("exited 3"), "{said}");
    stack.converged(3, "one");
    let told = [
        "1 begin converged",
        "2 apply rolled_back",
        "3 rollback converged",
    ];
    assert_eq!(stack.told(), told);
    let past = stack.ok(&["history"]);
    assert!(
        past.contains("rolled back to 1: processes/job is not well after 2s: exited 3"),
        "{past}"
    );
    stack.ok(&["down", "--purge"]);
}

#[test]
fn an_edit_without_an_action_is_what_is_gone_back_to() {
    isolate!();
    let mut stack = Stack::new();
    stack.up();
    stack.converged(1, "one");
    let commented = fs::read_to_string(stack.spec()).unwrap() + "# nothing to be done\n";
    stack.write_text(&commented);
    stack.converged(2, "one");
    stack.write("two");
    stack.converged(3, "two");
    stack.ok(&["rollback"]);
    stack.converged(4, "one");
    assert_eq!(
        stack.told(),
        [
            "1 begin converged",
            "2 file_edit converged",
            "3 file_edit rolled_back",
            "4 rollback converged"
        ]
    );
    let back = stack.history().pop().unwrap();
    assert_eq!(back["cause"]["to"], 2);
}
