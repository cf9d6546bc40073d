//! A controller on what operators, disks and workloads do beside the spec.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{stack, wait_for};

const LONG: Duration = Duration::from_secs(30);

/// A stack whose spec lies in a folder of its own.
struct Stack {
    folder: tempfile::TempDir,
}

impl Stack {
    /// A controller follows this spec, which has everything but the name.
    fn up(spec: &str) -> Stack {
        let made = Stack {
            folder: tempfile::tempdir().unwrap(),
        };
        made.save(spec);
        made.ok(&["up", "-d", "spec.yaml"]);
        made
    }

    fn save(&self, spec: &str) {
        let text = format!("name: {}\n{spec}", stack());
        fs::write(self.folder.path().join("spec.yaml"), text).unwrap();
    }

    fn hatchery(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_hatchery"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HATCHERY_STACK", stack())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.hatchery(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn converged(&self) {
        wait_for("a converged world", LONG, || {
            let output = self.hatchery(&["ps", "--json"]);
            let status: Value = serde_json::from_slice(&output.stdout).ok()?;
            (status["converged"] == true).then_some(())
        });
    }

    fn log(&self, name: &str) -> PathBuf {
        PathBuf::from("/var/log/hatchery").join(stack()).join(name)
    }
}

#[test]
fn who_runs_as_another_user_says_that_it_is_ready() {
    isolate!();
    let script = "import os, socket, time; \
                  s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); \
                  s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET']); time.sleep(300)";
    let spec = format!(
        "processes:\n  job: &job\n    command: [ /usr/bin/python3, -c, \"{script}\" ]\n    \
         user: www-data\n    ready: notify\ncontainers:\n  web:\n    root: host\n    <<: *job\n"
    );
    let stack = Stack::up(&spec);
    stack.converged();
    // Nothing else in that folder is open to him.
    let run = PathBuf::from("/run/hatchery").join(support::stack());
    let look = "for f in \"$1\" \"$1\"/control.sock \"$1\"/lock; do test -r \"$f\" && exit 1; done; exit 0";
    let status = Command::new("setpriv")
        .args(["--reuid", "33", "--clear-groups", "sh", "-c", look, "sh"])
        .arg(&run)
        .status();
    assert!(status.unwrap().success());
    stack.ok(&["down"]);
}

#[test]
fn a_log_that_grows_fast_does_not_wait_for_the_next_resync() {
    isolate!();
    let begin = Instant::now();
    let stack = Stack::up(
        "processes:\n  job:\n    \
         command: [ sh, -c, 'while :; do head -c 100000 /dev/zero; sleep 0.02; done' ]\n    \
         log: { max_size: 1M, max_files: 2 }\n",
    );
    let old = stack.log("job.log.2");
    wait_for("the second rotation", Duration::from_secs(15), || {
        old.exists().then_some(())
    });
    eprintln!("rotated twice within {:?}", begin.elapsed());
    assert!(stack.log("job.log").metadata().unwrap().len() < 20_000_000);
    stack.ok(&["down"]);
}

#[test]
fn a_token_counts_until_its_file_says_otherwise() {
    isolate!();
    for line in [
        "link add there type bridge",
        "address add 10.9.9.9/32 dev there",
        "link set there up",
    ] {
        let status = Command::new("ip").args(line.split(' ')).status();
        assert!(status.unwrap().success(), "{line}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("token"), "first\n").unwrap();
    fs::write(file("other"), "third\n").unwrap();
    let spec = |name: &str| {
        format!(
            "registry: {{ embedded: {{ http: 10.9.9.9:8500, token_file: {} }} }}\n",
            file(name).display()
        )
    };
    let stack = Stack::up(&spec("token"));
    stack.converged();
    // From an address that is not loopback, for another one's address.
    let counts = |token: &str| {
        let output = Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "PUT"])
            .args(["--interface", "10.9.9.9", "-H"])
            .arg(format!("X-Consul-Token: {token}"))
            .args(["-d", r#"{"Name":"db","Port":1,"Address":"10.9.9.1"}"#])
            .arg("http://10.9.9.9:8500/v1/agent/service/register")
            .output()
            .unwrap();
        match output.stdout.as_slice() {
            b"200" => true,
            b"403" => false,
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
    };
    assert!(counts("first") && !counts("second"));
    let limit = Duration::from_secs(10);
    fs::write(file("token"), "second\n").unwrap();
    wait_for("the second token", limit, || counts("second").then_some(()));
    assert!(!counts("first"));
    stack.save(&spec("other"));
    wait_for("the third token", limit, || counts("third").then_some(()));
    assert!(!counts("second"));
    fs::remove_file(file("other")).unwrap();
    wait_for("no token", limit, || (!counts("third")).then_some(()));
    stack.ok(&["down"]);
}

#[test]
fn memory_that_cannot_be_read_is_put_aside_and_told() {
    isolate!();
    let state = PathBuf::from("/var/lib/hatchery").join(stack());
    fs::create_dir_all(&state).unwrap();
    let newer = r#"{"version":99,"content":{"stopped":["processes/job"]}}"#;
    fs::write(state.join("memory.json"), newer).unwrap();
    let stack = Stack::up("processes:\n  job: { command: [ sleep, '300' ] }\n");
    stack.converged();
    let events = stack.ok(&["events"]);
    assert!(
        events.contains("memory.json`: another version of hatchery wrote it"),
        "{events}"
    );
    let aside = fs::read_to_string(state.join("memory.json.unreadable")).unwrap();
    assert_eq!(aside, newer);
    stack.ok(&["down"]);
}

#[test]
fn the_registrys_index_does_not_go_back_with_the_clock() {
    isolate!();
    let state = PathBuf::from("/var/lib/hatchery").join(stack());
    fs::create_dir_all(&state).unwrap();
    // As if the clock had been years ahead once.
    let reached: u64 = 4_000_000_000_000_000;
    let memory = format!(r#"{{"version":1,"content":{{"index":{reached}}}}}"#);
    fs::write(state.join("memory.json"), memory).unwrap();
    let stack = Stack::up("registry: { embedded: { http: 127.0.0.1:8500 } }\n");
    stack.converged();
    let index = || {
        let output = Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%header{x-consul-index}"])
            .arg("http://127.0.0.1:8500/v1/catalog/services")
            .output()
            .unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let first = index();
    assert!(first >= reached, "{first}");
    stack.ok(&["down"]);
    stack.ok(&["up", "-d", "spec.yaml"]);
    stack.converged();
    assert!(index() > first, "it went back over `down`");
    stack.ok(&["down"]);
}
