//! A repository with a spec in it, and a stack that follows it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{stack, wait_for};

const LONG: Duration = Duration::from_secs(120);

/// A bare repository, a clone to push from, and the stack that follows it.
pub struct Followed {
    pub folder: tempfile::TempDir,
    /// Where the stack finds the repository, when not in its folder.
    pub address: Option<String>,
    /// What the stack's programs have in their environment.
    pub environment: Vec<(String, String)>,
}

impl Followed {
    pub fn new() -> Followed {
        let followed = Followed {
            folder: tempfile::tempdir().unwrap(),
            address: None,
            environment: Vec::new(),
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

    pub fn home(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// The bare repository on disk.
    pub fn bare(&self) -> PathBuf {
        self.folder.path().join("specs.git")
    }

    /// Its address, as the stack knows it.
    pub fn url(&self) -> String {
        let on_disk = || self.bare().display().to_string();
        self.address.clone().unwrap_or_else(on_disk)
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        self.git_at(None, arguments)
    }

    /// The same at another time, as far as git is told.
    pub fn git_at(&self, date: Option<&str>, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .envs(date.map(|date| ("GIT_COMMITTER_DATE", date)))
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
    pub fn write(&self, word: &str) {
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

    pub fn put(&self, path: &str, text: &str) {
        let path = self.home().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn commit(&self, subject: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", subject]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub fn push(&self, subject: &str) -> String {
        let commit = self.commit(subject);
        self.git(&["push", "--quiet", "--force", "origin", "HEAD:main"]);
        commit
    }

    pub fn hatchery(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_hatchery"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HATCHERY_STACK", stack())
            .env("HOME", self.folder.path())
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.hatchery(arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        said
    }

    /// Follows the repository, asking every second.
    pub fn up(&self, more: &[&str]) {
        let url = self.url();
        let mut arguments = vec!["up", "-d", "--wait", "--git", &url, "--path", "farm"];
        arguments.extend(["--interval", "1s"]);
        arguments.extend(more);
        self.ok(&arguments);
    }

    /// Follows it as a file says, with these lines more, asking every second.
    pub fn up_by_file(&self, lines: &str) {
        self.up_by_file_every("1s", lines);
    }

    pub fn up_by_file_every(&self, interval: &str, lines: &str) {
        let file = self.folder.path().join("source.yaml");
        let text = format!(
            "source:\n  git: {}\n  path: farm\n  interval: {interval}\n{lines}",
            self.url()
        );
        fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        self.ok(&["up", "-d", "--wait", "--source", &file]);
    }

    pub fn status(&self) -> Value {
        let said = self.ok(&["ps", "--json"]);
        serde_json::from_str(&said).unwrap()
    }

    /// Pushes, waits until that is in force, and says how long it took.
    pub fn converges(&self, over: &str, word: &str) -> String {
        self.write(word);
        let begin = Instant::now();
        let commit = self.push(word);
        until("the push", || self.in_force(&commit));
        eprintln!("in force {:?} after a push, over {over}", begin.elapsed());
        assert_eq!(self.job().1, word);
        commit
    }

    pub fn source(&self) -> Value {
        self.status()["source"].clone()
    }

    pub fn in_force(&self, commit: &str) -> bool {
        let status = self.status();
        status["converged"] == true
            && status["source"]["commit"]["id"] == commit
            && status["source"]["sync"] == "synced"
    }

    /// Waits until the head is refused, and says why.
    pub fn refusal(&self, head: &str) -> String {
        until("the head to be refused", || {
            let source = self.source();
            source["head"]["id"] == head && source["sync"] == "stalled"
        });
        self.source()["reason"].as_str().unwrap().to_owned()
    }

    /// Kills the controller; gives its number.
    pub fn kill(&self) -> Value {
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
    pub fn job(&self) -> (u64, String) {
        let status = self.status();
        let nodes = status["nodes"].as_array().unwrap();
        let job = nodes.iter().find(|node| node["node"] == "processes/job");
        let pid = job.unwrap()["pid"].as_u64();
        let pid = pid.unwrap_or_else(|| panic!("it does not run: {status}"));
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let text = String::from_utf8_lossy(&environment).into_owned();
        let word = text.split('\0').find_map(|pair| pair.strip_prefix("WORD="));
        (pid, word.unwrap().to_owned())
    }
}

/// Waits until something is so.
pub fn until(what: &str, so: impl Fn() -> bool) {
    wait_for(what, LONG, || so().then_some(()));
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.hatchery(&["down", "--purge"]);
    }
}
