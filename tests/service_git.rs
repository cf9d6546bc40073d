//! The farm as a service that follows a git repository, on a machine of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use support::host::{
    FOUR, Host, Pids, UNIT, a_hung_controller_is_replaced, an_upgrade_is_not_noticed,
};
use support::machine::{HATCHERY, SPEC, must};

/// The bare repository on that machine.
const REPOSITORY: &str = "/srv/specs.git";
/// Where it is while it is away.
const AWAY: &str = "/srv/away.git";
/// An address that only the settings of root's own git lead to it.
const URL: &str = "https://specs.invalid/farm.git";
/// What the spec of the repository has beside the farm: nothing of it depends on where it lies.
const STEADY: &str = "  steady:\n    command: [ sleep, infinity ]\n";

/// The repository, and a clone to push from.
struct Specs<'a> {
    host: &'a Host,
}

impl Specs<'_> {
    fn new(host: &Host) -> Specs<'_> {
        let specs = Specs { host };
        fs::create_dir_all(specs.clone()).unwrap();
        specs.git(&["init", "--quiet", "--bare", "-b", "main", "../specs.git"]);
        specs.git(&["init", "--quiet", "-b", "main"]);
        specs.git(&["remote", "add", "origin", "../specs.git"]);
        let from = host.machine.path(SPEC);
        let mut text = fs::read_to_string(&from).unwrap();
        text.push_str(STEADY);
        fs::write(&from, text).unwrap();
        let farm = specs.clone().join("farm");
        fs::create_dir(&farm).unwrap();
        for name in ["prime.yaml", "prime.conf.j2", "nginx.conf", "work.py"] {
            fs::copy(from.with_file_name(name), farm.join(name)).unwrap();
        }
        fs::rename(farm.join("prime.yaml"), farm.join("hatchery.yaml")).unwrap();
        specs.push("first");
        let settings = format!("[url \"{REPOSITORY}\"]\n\tinsteadOf = {URL}\n");
        fs::write(host.machine.path("/root/.gitconfig"), settings).unwrap();
        specs
    }

    fn clone(&self) -> PathBuf {
        self.host.machine.path("/srv/work")
    }

    fn git(&self, arguments: &[&str]) -> String {
        let git = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"];
        let mut command = Command::new("git");
        let said = must(command.args(git).args(arguments).current_dir(self.clone()));
        said.trim().to_owned()
    }

    fn edit(&self, from: &str, to: &str) {
        let file = self.clone().join("farm/hatchery.yaml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from}: {text}");
        fs::write(&file, text.replace(from, to)).unwrap();
    }

    fn push(&self, subject: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "-m", subject]);
        self.git(&["push", "--quiet", "origin", "HEAD:main"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn rename(&self, from: &str, to: &str) {
        let path = |inside| self.host.machine.path(inside);
        fs::rename(path(from), path(to)).unwrap();
    }

    fn source(&self) -> Value {
        self.host.machine.status().unwrap_or_default()["source"].clone()
    }

    /// Waits until systemd was told so of this commit, and gives all that it was told.
    fn said(&self, commit: &str, what: &str) -> String {
        let begin = format!("commit {}, {what}; converged, ", &commit[..10]);
        self.host.wait(&begin, |_| {
            let said = self.host.show("StatusText", UNIT);
            said.starts_with(&begin).then_some(said)
        })
    }

    fn install(&self, more: &[&str]) -> String {
        let install = [HATCHERY, "service", "install", "--git", URL];
        let path = ["--path", "farm"];
        self.host.must(&[&install[..], &path, more].concat())
    }
}

fn steady(pids: &Pids) -> Value {
    let (_, pid) = pids
        .iter()
        .find(|(node, _)| node.contains("steady"))
        .unwrap();
    pid.clone()
}

#[test]
fn a_service_follows_a_repository() {
    isolate!();
    let mut host = Host::boot();
    host.set("farm.conf", "Environment=PRIME_MAX=1000");
    Specs::new(&host);
    let specs = Specs { host: &host };
    what_cannot_be_followed_is_refused(&specs);
    a_stack_of_a_file_is_taken_over_and_given_back(&specs);
    let pids = host.pids();
    a_push_converges_and_is_told(&specs, &pids);
    a_reload_asks_now(&specs, &pids);
    a_rollback_outlives_the_controller(&specs, &pids);
    what_the_machine_lacks_costs_no_controller(&specs, &pids);
    one_that_hangs_holds_up_nothing(&specs, &pids);
    an_upgrade_is_not_noticed(&host, &pids);
    a_hung_controller_is_replaced(&host, &pids);
    assert_eq!(host.machine.machines(), FOUR);
    let specs = Specs { host: &host };
    specs.rename(REPOSITORY, AWAY);
    host.machine.reboot();
    let specs = Specs { host: &host };
    it_begins_with_the_last_commit(&specs);
    the_file_that_names_it_may_change(&specs);
    the_first_start_is_tried_until_the_repository_answers(&specs);
}

fn what_cannot_be_followed_is_refused(specs: &Specs<'_>) {
    let host = specs.host;
    let install = |url: &str| host.fails(&[HATCHERY, "service", "install", "--git", url]);
    let said = install("https://ada:hunter2@specs.invalid/farm.git");
    assert!(said.contains("credential"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    specs.rename(REPOSITORY, AWAY);
    let said = install(URL);
    assert!(said.contains("cannot fetch from"), "{said}");
    assert!(
        said.contains("the first start needs the repository"),
        "{said}"
    );
    specs.rename(AWAY, REPOSITORY);
    assert!(!host.machine.path("/etc/systemd/system").join(UNIT).exists());
}

/// From a controller in the background to a service, from there to a repository, and back.
fn a_stack_of_a_file_is_taken_over_and_given_back(specs: &Specs<'_>) {
    let host = specs.host;
    let unit = ["systemd-run", "--quiet", "--wait", "-p", "KillMode=process"];
    let up = ["--setenv=PRIME_MAX=1000", HATCHERY, "up", "-d", SPEC];
    host.must(&[&unit[..], &up].concat());
    let before = steady(&host.pids());
    let said = specs.install(&[]);
    assert!(said.contains("ran outside of the service"), "{said}");
    assert!(said.contains("synced"), "{said}");
    let commit = specs.git(&["rev-parse", "HEAD"]);
    specs.said(&commit, "synced");
    let status = host.must(&[HATCHERY, "service", "status"]);
    assert!(status.contains("(Ada: first)"), "{status}");
    assert_eq!(steady(&host.pids()), before, "what ran was touched");
    let written = host.machine.path("/etc/systemd/system").join(UNIT);
    let written = fs::read_to_string(written).unwrap();
    assert!(
        written.contains(&format!("--service --git={URL} ")),
        "{written}"
    );
    let environment = host.must(&["cat", &format!("/proc/{}/environ", host.controller())]);
    assert!(!environment.contains("HOME="), "{environment}");

    host.must(&[HATCHERY, "service", "install", SPEC]);
    assert!(host.converged()["source"].is_null());
    assert_eq!(steady(&host.pids()), before, "what ran was touched");
    // The same of one that follows the repository in the background.
    host.must(&[HATCHERY, "service", "uninstall"]);
    let up = [
        "--setenv=PRIME_MAX=1000",
        HATCHERY,
        "up",
        "-d",
        "--git",
        URL,
    ];
    host.must(&[&unit[..], &up, &["--path", "farm"]].concat());
    host.converged();
    specs.install(&["--interval", "1s"]);
    specs.said(&commit, "synced");
    assert_eq!(steady(&host.pids()), before, "what ran was touched");
    let controller = host.controller();
    let again = specs.install(&["--interval", "1s"]);
    assert!(again.contains("runs already"), "{again}");
    assert_eq!(host.controller(), controller);
}

fn a_push_converges_and_is_told(specs: &Specs<'_>, pids: &Pids) {
    specs.edit("interval: 5s", "interval: 4s");
    let commit = specs.push("second");
    specs.said(&commit, "synced");
    assert_eq!(specs.host.pids(), *pids, "what ran was touched");
    let told = specs.host.wait("the journal to tell of it", |_| {
        let journal = specs.host.journal().into_iter();
        let mut about = journal.filter(|entry| entry["HATCHERY_COMMIT"] == commit.as_str());
        about.find(|entry| entry["HATCHERY_KIND"] == "converged")
    });
    assert_eq!(told["HATCHERY_STACK"], "prime");
    specs.edit("replicas: 4", "replica: 4");
    let bad = specs.push("bad");
    specs.said(&commit, "stalled");
    let refused = specs.host.journal().into_iter();
    let mut refused = refused.filter(|entry| entry["HATCHERY_KIND"] == "refused");
    assert!(
        refused.any(|entry| entry["HATCHERY_COMMIT"] == bad.as_str()),
        "no refusal of {bad}"
    );
    specs.edit("replica: 4", "replicas: 4");
    let mended = specs.push("mended");
    specs.said(&mended, "synced");
}

/// With an interval that is never over.
fn a_reload_asks_now(specs: &Specs<'_>, pids: &Pids) {
    let host = specs.host;
    specs.install(&["--interval", "1h"]);
    let in_force = specs.git(&["rev-parse", "HEAD"]);
    specs.said(&in_force, "synced");
    specs.edit("interval: 4s", "interval: 3s");
    let commit = specs.push("third");
    host.must(&["systemctl", "reload", UNIT]);
    assert_eq!(specs.source()["commit"]["id"], *commit);
    let said = host.must(&[HATCHERY, "reload"]);
    assert!(said.contains("(Ada: third)"), "{said}");
    specs.rename(REPOSITORY, AWAY);
    host.fails(&["systemctl", "reload", UNIT]);
    let said = host.fails(&[HATCHERY, "reload"]);
    assert!(said.contains("cannot ask the repository"), "{said}");
    assert_eq!(
        host.must(&["systemctl", "is-active", UNIT]).trim(),
        "active"
    );
    specs.said(&commit, "stalled");
    // Which stack it is nobody can say now, so it is to be named.
    let install = ["service", "install", "--git", URL, "--path", "farm"];
    let named = [HATCHERY, "--stack", "prime"];
    let said = host.must(&[&named[..], &install, &["--interval", "1s"]].concat());
    assert!(said.contains("stalled"), "{said}");
    specs.rename(AWAY, REPOSITORY);
    specs.said(&commit, "synced");
    assert_eq!(host.pids(), *pids, "what ran was touched");
}

fn a_rollback_outlives_the_controller(specs: &Specs<'_>, pids: &Pids) {
    let host = specs.host;
    host.must(&[HATCHERY, "--stack", "prime", "rollback"]);
    let back = specs.source()["commit"]["id"].as_str().unwrap().to_owned();
    let commit = specs.git(&["rev-parse", "HEAD"]);
    assert_ne!(back, commit);
    specs.said(&back, "stalled");
    host.must(&["systemctl", "restart", UNIT]);
    let said = specs.said(&back, "stalled");
    assert!(said.contains("was rolled back"), "{said}");
    host.must(&["systemctl", "reload", UNIT]);
    specs.said(&commit, "synced");
    assert_eq!(host.pids(), *pids, "what ran was touched");
}

fn what_the_machine_lacks_costs_no_controller(specs: &Specs<'_>, pids: &Pids) {
    let host = specs.host;
    let tool = host.machine.path("/srv/tool");
    fs::copy(host.machine.path("/bin/true"), &tool).unwrap();
    let first = "  - { command: nginx, debian: nginx-light }\n";
    let more = format!("{first}  - {{ command: /srv/tool, debian: the-tool }}\n");
    specs.edit(first, &more);
    let commit = specs.push("a tool");
    specs.said(&commit, "synced");
    fs::remove_file(&tool).unwrap();
    host.must(&["systemctl", "restart", UNIT]);
    specs.said(&commit, "synced");
    assert_eq!(host.show("ActiveState", UNIT), "active");
    let told = host.journal().into_iter().any(|entry| {
        let message = entry["MESSAGE"].as_str().unwrap_or_default();
        entry["HATCHERY_KIND"] == "warning" && message.contains("the-tool")
    });
    assert!(told, "the journal does not say what is missing");
    specs.edit(&more, first);
    let commit = specs.push("no tool");
    specs.said(&commit, "synced");
    assert_eq!(host.pids(), *pids, "what ran was touched");
}

/// Somebody takes what git says, and never answers.
fn one_that_hangs_holds_up_nothing(specs: &Specs<'_>, pids: &Pids) {
    let host = specs.host;
    let listen = "import socket, time; s = socket.create_server(('127.0.0.1', 7711)); \
                  open('/run/listens', 'w'); time.sleep(3600)";
    let unit = ["systemd-run", "--quiet", "--unit=silence", "python3", "-c"];
    host.must(&[&unit[..], &[listen]].concat());
    host.wait("silence", |machine| {
        let listens = machine.inside(&["test", "-e", "/run/listens"]);
        listens.status().unwrap().success().then_some(())
    });
    let settings = host.machine.path("/root/.gitconfig");
    let good = fs::read_to_string(&settings).unwrap();
    fs::write(
        &settings,
        good.replace(REPOSITORY, "http://127.0.0.1:7711/"),
    )
    .unwrap();
    let commit = specs.git(&["rev-parse", "HEAD"]);
    for _ in 0..2 {
        // The second time a fetch is under way, which ends with its controller.
        host.must(&["systemctl", "restart", UNIT]);
        specs.said(&commit, "the repository was not asked yet");
    }
    assert_eq!(host.pids(), *pids, "what ran was touched");
    fs::write(&settings, good).unwrap();
    host.must(&["systemctl", "stop", "silence"]);
    specs.said(&commit, "synced");
}

/// The machine was booted while the repository was away.
fn it_begins_with_the_last_commit(specs: &Specs<'_>) {
    let host = specs.host;
    host.wait("the service", |_| {
        (host.show("ActiveState", UNIT) == "active").then_some(())
    });
    assert_eq!(host.show("NRestarts", UNIT), "0");
    host.converged();
    assert_eq!(host.machine.machines(), FOUR);
    assert!(host.get(), "it does not serve");
    let commit = specs.git(&["rev-parse", "HEAD"]);
    let said = specs.said(&commit, "stalled");
    assert!(said.contains("cannot ask the repository"), "{said}");
    specs.rename(AWAY, REPOSITORY);
    specs.said(&commit, "synced");
}

fn the_file_that_names_it_may_change(specs: &Specs<'_>) {
    let host = specs.host;
    let pids = host.pids();
    let file = host.machine.path("/srv/source.yaml");
    let write = |more: &str| {
        let text = format!("source:\n  git: {REPOSITORY}\n  path: farm\n  interval: 1s\n{more}");
        fs::write(&file, text).unwrap();
    };
    write("");
    let install = [
        HATCHERY,
        "service",
        "install",
        "--source",
        "/srv/source.yaml",
    ];
    host.must(&install);
    let commit = specs.git(&["rev-parse", "HEAD"]);
    specs.said(&commit, "synced");
    write("  prune: treu\n");
    let said = host.fails(&[HATCHERY, "reload"]);
    assert!(said.contains("started anew"), "{said}");
    // Nor does that cost the stack its controller.
    let broken = fs::read_to_string(&file).unwrap();
    for bad in [
        broken.as_str(),
        "source: { git: \"https://t0ken@host/x\" }\n",
    ] {
        fs::write(&file, bad).unwrap();
        host.fails(&install);
        host.must(&["systemctl", "restart", UNIT]);
        let said = specs.said(&commit, "synced");
        assert!(said.contains("was edited"), "{said}");
    }
    write("  allow_rewrite: true\n");
    let controller = host.controller();
    host.must(&install);
    assert_ne!(host.controller(), controller);
    let said = specs.said(&commit, "synced");
    assert!(!said.contains("was edited"), "{said}");
    host.must(&["systemctl", "reload", UNIT]);
    // Neither the address nor the secret is there, as at a boot that is not over yet.
    write("  webhook: { listen: \"10.77.0.1:9000\", secret_file: /srv/secret }\n");
    host.must(&["systemctl", "restart", UNIT]);
    let said = specs.said(&commit, "synced");
    assert!(said.contains("no push is heard"), "{said}");
    assert_eq!(host.show("NRestarts", UNIT), "0");
    write("");
    host.must(&["systemctl", "restart", UNIT]);
    assert_eq!(host.pids(), pids, "what ran was touched");
}

/// Nothing is left of the stack that it could begin with.
fn the_first_start_is_tried_until_the_repository_answers(specs: &Specs<'_>) {
    let host = specs.host;
    host.must(&[HATCHERY, "--stack", "prime", "down", "--purge"]);
    host.wait("the unit to rest", |_| {
        (host.show("ActiveState", UNIT) == "inactive").then_some(())
    });
    host.set("pause.conf", "RestartSec=1s");
    specs.rename(REPOSITORY, AWAY);
    let said = host.fails(&["systemctl", "start", UNIT]);
    assert!(said.contains(UNIT), "{said}");
    host.wait("further tries", |_| {
        let tries: u32 = host.show("NRestarts", UNIT).parse().unwrap();
        (tries > 2).then_some(())
    });
    assert_eq!(host.show("ActiveState", UNIT), "activating");
    let why = host.journal().into_iter().any(|entry| {
        let message = entry["MESSAGE"].as_str().unwrap_or_default();
        message.contains("cannot begin with `/srv/specs.git`")
    });
    assert!(why, "the journal does not say why");
    specs.rename(AWAY, REPOSITORY);
    let commit = specs.git(&["rev-parse", "HEAD"]);
    specs.said(&commit, "synced");
    assert_eq!(host.machine.machines(), FOUR);
    host.must(&[HATCHERY, "--stack", "prime", "down"]);
}
