//! A stack that follows a git repository: what it takes, what it refuses, and what it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{stack, wait_for};

const LONG: Duration = Duration::from_secs(60);

/// A bare repository, a clone to push from, and the stack that follows it.
struct Followed {
    folder: tempfile::TempDir,
}

impl Followed {
    fn new() -> Followed {
        let followed = Followed {
            folder: tempfile::tempdir().unwrap(),
        };
        let home = followed.home();
        fs::create_dir_all(&home).unwrap();
        followed.git(&["init", "--quiet", "--bare", "-b", "main", "../specs.git"]);
        followed.git(&["init", "--quiet", "-b", "main"]);
        followed.git(&["remote", "add", "origin", "../specs.git"]);
        followed.write("one");
        followed.push("first");
        followed
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn url(&self) -> String {
        self.folder.path().join("specs.git").display().to_string()
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"])
            .args(arguments)
            .current_dir(self.home())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// One process that has this word in its environment, and a file that it reads.
    fn write(&self, word: &str) {
        self.put(
            "farm/hatchery.yaml",
            &format!(
                "name: {}\nprocesses:\n  job:\n    command: [ tail, -f, \"{{{{ spec_dir \
                 }}}}/note\" ]\n    environment: {{ WORD: {word} }}\n    watch: [ ./note ]\n    \
                 restart: {{ policy: always, delay: 10ms }}\n",
                stack()
            ),
        );
        if !self.home().join("farm/note").exists() {
            self.put("farm/note", "a note\n");
        }
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.home().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn commit(&self, subject: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", subject]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn push(&self, subject: &str) -> String {
        let commit = self.commit(subject);
        self.git(&["push", "--quiet", "--force", "origin", "HEAD:main"]);
        commit
    }

    fn hatchery(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_hatchery"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HATCHERY_STACK", stack())
            .env("HOME", self.folder.path())
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

    /// Follows the repository, asking every second.
    fn up(&self, more: &[&str]) {
        let url = self.url();
        let mut arguments = vec!["up", "-d", "--wait", "--git", &url, "--path", "farm"];
        arguments.extend(["--interval", "1s"]);
        arguments.extend(more);
        self.ok(&arguments);
    }

    /// Follows it as a file says, with these lines more.
    fn up_by_file(&self, lines: &str) {
        let file = self.folder.path().join("source.yaml");
        let text = format!(
            "source:\n  git: {}\n  path: farm\n  interval: 1s\n{lines}",
            self.url()
        );
        fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        self.ok(&["up", "-d", "--wait", "--source", &file]);
    }

    fn status(&self) -> Value {
        let said = self.ok(&["ps", "--json"]);
        serde_json::from_str(&said).unwrap()
    }

    fn source(&self) -> Value {
        self.status()["source"].clone()
    }

    fn in_force(&self, commit: &str) -> bool {
        let status = self.status();
        status["converged"] == true
            && status["source"]["commit"]["id"] == commit
            && status["source"]["sync"] == "synced"
    }

    /// Waits until the head is refused, and says why.
    fn refusal(&self, head: &str) -> String {
        until("the head to be refused", || {
            let source = self.source();
            source["head"]["id"] == head && source["sync"] == "stalled"
        });
        self.source()["reason"].as_str().unwrap().to_owned()
    }

    /// Kills the controller; gives its number.
    fn kill(&self) -> Value {
        let number = self.status()["controller_pid"].clone();
        let controller = i32::try_from(number.as_i64().unwrap()).unwrap();
        let controller = nix::unistd::Pid::from_raw(controller);
        nix::sys::signal::kill(controller, nix::sys::signal::Signal::SIGKILL).unwrap();
        until("its end", || {
            !Path::new(&format!("/proc/{controller}")).exists()
        });
        number
    }

    /// The pid of the process and what it has in its environment.
    fn job(&self) -> (u64, String) {
        let status = self.status();
        let nodes = status["nodes"].as_array().unwrap();
        let job = nodes.iter().find(|node| node["node"] == "processes/job");
        let pid = job.unwrap()["pid"].as_u64().unwrap();
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let text = String::from_utf8_lossy(&environment).into_owned();
        let word = text.split('\0').find_map(|pair| pair.strip_prefix("WORD="));
        (pid, word.unwrap().to_owned())
    }
}

/// Waits until something is so.
fn until(what: &str, so: impl Fn() -> bool) {
    wait_for(what, LONG, || so().then_some(()));
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.hatchery(&["down", "--purge"]);
    }
}

#[test]
fn a_push_converges_and_a_revert_brings_it_back() {
    isolate!();
    let followed = Followed::new();
    followed.up(&[]);
    let (first, word) = followed.job();
    assert_eq!(word, "one");
    followed.write("two");
    let second = followed.push("second");
    until("the push", || followed.in_force(&second));
    let (changed, word) = followed.job();
    assert_eq!(word, "two");
    assert_ne!(first, changed);

    // What a commit does not change goes on, though its tree is another one.
    followed.put("README", "words\n");
    let words = followed.push("words");
    until("the words", || followed.in_force(&words));
    assert_eq!(followed.job().0, changed);

    followed.git(&["revert", "--no-edit", &second]);
    let reverted = followed.push("reverted");
    until("the revert", || followed.in_force(&reverted));
    assert_eq!(followed.job().1, "one");
    let told = followed.ok(&["sync"]);
    assert!(told.contains("synced, healthy"), "{told}");
    assert!(told.contains("(Ada: reverted)"), "{told}");
}

#[test]
fn what_is_broken_is_refused_and_changes_nothing() {
    isolate!();
    let followed = Followed::new();
    followed.up(&[]);
    let (pid, _) = followed.job();
    let good = followed.git(&["rev-parse", "HEAD"]);
    type Break = fn(&Followed);
    let ways: [(&str, Break); 4] = [
        ("hatchery.yaml:2", |followed| {
            let text = format!("name: {}\nprocesses: [ 7 ]\n", stack());
            followed.put("farm/hatchery.yaml", &text);
        }),
        ("leads out of the tree", |followed| {
            symlink("../../../etc/shadow", followed.home().join("farm/link")).unwrap();
        }),
        ("is larger than the 16 MiB", |followed| {
            let file = fs::File::create(followed.home().join("large")).unwrap();
            file.set_len(17 << 20).unwrap();
        }),
        ("submodule", |followed| {
            let commit = followed.git(&["rev-parse", "HEAD"]);
            followed.put(
                ".gitmodules",
                "[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c id\n",
            );
            fs::create_dir(followed.home().join("x")).unwrap();
            followed.git(&[
                "update-index",
                "--add",
                "--cacheinfo",
                "160000",
                &commit,
                "x",
            ]);
        }),
    ];
    for (why, breaks) in ways {
        breaks(&followed);
        let bad = followed.push("bad");
        let reason = followed.refusal(&bad);
        assert!(reason.contains(why), "{why}: {reason}");
        assert!(reason.contains(&bad[..10]), "{reason}");
        assert_eq!(followed.source()["commit"]["id"], *good);
        assert_eq!(followed.job().0, pid);
        followed.git(&["reset", "--quiet", "--hard", &good]);
        followed.git(&["push", "--quiet", "--force", "origin", "HEAD:main"]);
        until("the good one again", || followed.in_force(&good));
    }
}

#[test]
fn a_rewritten_branch_is_refused_unless_it_is_allowed() {
    isolate!();
    let followed = Followed::new();
    followed.up(&[]);
    followed.write("two");
    let second = followed.push("second");
    until("the push", || followed.in_force(&second));
    followed.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    followed.write("three");
    let rewritten = followed.push("rewritten");
    let reason = followed.refusal(&rewritten);
    assert!(reason.contains("does not descend from"), "{reason}");
    assert_eq!(followed.job().1, "two");
    followed.ok(&["down"]);
    followed.up(&["--allow-rewrite"]);
    until("the rewritten one", || followed.in_force(&rewritten));
    assert_eq!(followed.job().1, "three");
}

#[test]
fn only_signed_commits_are_applied() {
    isolate!();
    let followed = Followed::new();
    let key = followed.folder.path().join("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "ada", "-f"])
        .arg(&key)
        .status()
        .unwrap();
    assert!(made.success());
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    let signers = followed.folder.path().join("signers");
    fs::write(&signers, format!("ada@example.org {public}")).unwrap();
    let sign = |subject: &str| {
        followed.git(&["add", "--all"]);
        let key = format!("user.signingKey={}", key.display());
        followed.git(&[
            "-c",
            "gpg.format=ssh",
            "-c",
            &key,
            "commit",
            "--quiet",
            "-S",
            "-m",
            subject,
        ]);
        followed.git(&["push", "--quiet", "--force", "origin", "HEAD:main"]);
        followed.git(&["rev-parse", "HEAD"])
    };
    followed.write("signed");
    let signed = sign("signed");
    followed.up_by_file(&format!(
        "  verify: {{ ssh_allowed_signers: {} }}\n",
        signers.display()
    ));
    assert!(followed.in_force(&signed));
    followed.write("unsigned");
    let unsigned = followed.push("unsigned");
    let reason = followed.refusal(&unsigned);
    assert!(reason.contains("is not signed"), "{reason}");
    assert_eq!(followed.job().1, "signed");
    followed.write("again");
    let again = sign("again");
    until("the signed one", || followed.in_force(&again));
}

#[test]
fn one_that_is_suspended_waits_for_resume() {
    isolate!();
    let followed = Followed::new();
    followed.up(&[]);
    followed.ok(&["suspend"]);
    followed.write("two");
    let second = followed.push("second");
    assert!(followed.ok(&["sync"]).contains("suspended"));
    // Nor does the next controller ask, and a second one is not let near the repository.
    let url = followed.url();
    let second_one = followed.hatchery(&["up", "-d", "--git", &url]);
    let said = String::from_utf8_lossy(&second_one.stderr).into_owned();
    assert!(said.contains("has a controller already"), "{said}");
    let controller = followed.kill();
    followed.up(&[]);
    assert_ne!(followed.status()["controller_pid"], controller);
    assert_eq!(followed.job().1, "one");
    assert!(followed.ok(&["sync"]).contains("suspended"));
    followed.ok(&["resume"]);
    until("the push", || followed.in_force(&second));
}

#[test]
fn another_path_of_the_same_commit_is_another_spec() {
    isolate!();
    let followed = Followed::new();
    followed.write("two");
    let text = fs::read_to_string(followed.home().join("farm/hatchery.yaml")).unwrap();
    followed.put("other/hatchery.yaml", &text.replace("two", "other"));
    fs::copy(
        followed.home().join("farm/note"),
        followed.home().join("other/note"),
    )
    .unwrap();
    let commit = followed.push("two of them");
    followed.up(&[]);
    assert_eq!(followed.job().1, "two");
    followed.kill();
    let url = followed.url();
    let other = ["up", "-d", "--wait", "--git", &url, "--path", "other"];
    followed.ok(&other);
    assert!(followed.in_force(&commit));
    assert_eq!(followed.job().1, "other");
}

#[test]
fn a_commit_that_would_end_everything_is_not_begun_with() {
    isolate!();
    let followed = Followed::new();
    followed.up(&[]);
    let (pid, _) = followed.job();
    let text = fs::read_to_string(followed.home().join("farm/hatchery.yaml")).unwrap();
    followed.put("farm/hatchery.yaml", &text.replace("job:", "other:"));
    let bad = followed.push("bad");
    assert!(followed.refusal(&bad).contains("would remove every"));
    followed.kill();
    followed.up(&[]);
    assert_eq!(followed.job().0, pid);
    assert!(followed.refusal(&bad).contains("would remove every"));
}

#[test]
fn a_plan_of_a_branch_is_read_before_it_is_merged() {
    isolate!();
    let followed = Followed::new();
    followed.up(&[]);
    followed.write("two");
    followed.commit("proposed");
    followed.git(&["push", "--quiet", "origin", "HEAD:proposal"]);
    let url = followed.url();
    let plan = |more: &[&str]| {
        let mut arguments = vec!["plan", "--git", &url, "--path", "farm"];
        arguments.extend(more);
        followed.hatchery(&arguments)
    };
    let output = plan(&["--ref", "proposal", "--detailed-exitcode"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("environment changed"), "{said}");
    let output = plan(&["--ref", "proposal", "--format", "markdown"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("| replace | `processes/job` |"), "{said}");
    let output = plan(&["--detailed-exitcode"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_controller_that_was_killed_goes_on_where_it_was() {
    isolate!();
    let followed = Followed::new();
    followed.up(&[]);
    let (pid, _) = followed.job();
    followed.kill();
    // Nobody answers now: it begins with what it has.
    let away = followed.folder.path().join("away.git");
    fs::rename(followed.url(), &away).unwrap();
    followed.up(&[]);
    assert_eq!(followed.job().0, pid);
    assert_eq!(followed.source()["sync"], "stalled");
    fs::rename(away, followed.url()).unwrap();
    until("the repository", || followed.source()["sync"] == "synced");
}

#[test]
fn what_left_the_spec_is_kept_where_nothing_is_pruned() {
    isolate!();
    let followed = Followed::new();
    let more = |followed: &Followed, word: &str| {
        followed.write(word);
        let path = followed.home().join("farm/hatchery.yaml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text + "  other: { command: [ sleep, infinity ] }\n").unwrap();
    };
    more(&followed, "one");
    followed.push("two processes");
    followed.up_by_file("  prune: false\n");
    let pid_of_other = || {
        let status = followed.status();
        let nodes = status["nodes"].as_array().unwrap();
        let other = nodes.iter().find(|node| node["node"] == "processes/other");
        other.map(|node| node["pid"].as_u64().unwrap_or(0))
    };
    let pid = pid_of_other().unwrap();
    followed.write("two");
    let second = followed.push("one process");
    until("the push", || followed.in_force(&second));
    assert_eq!(followed.job().1, "two");
    assert_eq!(followed.source()["kept"][0], "processes/other");
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    let told = followed.ok(&["sync"]);
    assert!(
        told.contains("processes/other left the spec and is kept"),
        "{told}"
    );
    more(&followed, "two");
    let third = followed.push("two again");
    until("the push", || followed.in_force(&third));
    assert_eq!(pid_of_other(), Some(pid));
    assert!(followed.source().get("kept").is_none());
}
