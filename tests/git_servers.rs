//! Repositories behind real servers: how a push comes over SSH and HTTP, what a host's webhook
//! does, whose signatures count, and what is too large or comes from elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use support::followed::{Followed, until};
use support::servers::{Host, Http, Keys, SECRET, Ssh, program, run};
use support::stack;

#[test]
fn ssh_brings_a_push() {
    isolate!();
    let mut followed = Followed::new();
    let ssh = Ssh::new(&mut followed);
    let client = ssh.client("known_hosts");
    followed.environment = vec![("GIT_SSH_COMMAND".to_owned(), client)];
    followed.up(&[]);
    followed.converges("ssh", "two");
    followed.converges("ssh", "one");
}

#[test]
fn a_users_setting_says_how_ssh_is_spoken() {
    isolate!();
    let mut followed = Followed::new();
    let ssh = Ssh::new(&mut followed);
    let client = ssh.client("known_hosts");
    let settings = followed.folder.path().join(".gitconfig");
    fs::write(settings, format!("[core]\n\tsshCommand = {client}\n")).unwrap();
    followed.up(&[]);
    followed.converges("ssh as set", "two");
}

#[test]
fn an_unknown_host_is_refused_and_nobody_is_asked() {
    isolate!();
    let mut followed = Followed::new();
    let ssh = Ssh::new(&mut followed);
    let client = ssh.client("nobody");
    followed.environment = vec![("GIT_SSH_COMMAND".to_owned(), client.clone())];
    let url = followed.url();
    let arguments = ["up", "-d", "--wait", "--git", &url, "--path", "farm"];
    let output = followed.hatchery(&arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("Host key verification failed"), "{said}");
    assert!(said.contains("known_hosts"), "{said}");

    // On a terminal it could ask: for a host's key, and for the words that open a user's.
    let script = program("script", "bsdutils");
    let on_a_terminal = |client: &str| {
        let plan = format!(
            "{} plan --git {url} --path farm",
            env!("CARGO_BIN_EXE_hatchery")
        );
        let output = Command::new("timeout")
            .arg("60")
            .arg(&script)
            .args(["-qec", &plan, "/dev/null"])
            .env("GIT_SSH_COMMAND", client)
            .env("DISPLAY", ":0")
            .stdin(Stdio::piped())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = on_a_terminal(&client);
    assert!(said.contains("Host key verification failed"), "{said}");
    let key = ssh.folder.join("user").display().to_string();
    run(Command::new("ssh-keygen").args(["-q", "-p", "-N", "words", "-f", &key]));
    let said = on_a_terminal(&ssh.client("known_hosts"));
    assert!(said.contains("Permission denied (publickey"), "{said}");
    assert!(!ssh.folder.join("nobody").exists());
}

#[test]
fn http_brings_a_push() {
    isolate!();
    let mut followed = Followed::new();
    let http = Http::new(&mut followed);
    followed.up(&[]);
    let second = followed.converges("http", "two");
    drop(http);
    until("the server's absence", || {
        followed.source()["sync"] == "stalled"
    });
    assert_eq!(followed.job().1, "two");
    fs::remove_dir_all(followed.folder.path().join("http")).unwrap();
    let _http = Http::new(&mut followed);
    until("the server", || followed.in_force(&second));
    followed.git(&["revert", "--no-edit", &second]);
    let reverted = followed.push("reverted");
    until("the revert", || followed.in_force(&reverted));
    assert_eq!(followed.job().1, "one");
}

/// Whether a file below a folder holds these bytes.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).into_iter().flatten().any(|entry| {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => holds(&entry.path(), bytes),
            kind if kind.is_file() => {
                let content = fs::read(entry.path()).unwrap_or_default();
                content.windows(bytes.len()).any(|part| part == bytes)
            }
            _ => false,
        }
    })
}

#[test]
fn a_host_tells_of_a_push() {
    isolate!();
    let followed = Followed::new();
    let host = Host::new(&followed);
    let signature = host.signature();
    host.tells(
        "github",
        &format!("x-hub-signature-256: sha256={signature}"),
    );
    host.tells("gitlab", &format!("x-gitlab-token: {SECRET}"));
    host.tells("forgejo", &format!("x-forgejo-signature: {signature}"));
    host.tells("gitea", &format!("x-gitea-signature: {signature}"));

    // Nobody else begins a round.
    followed.write("rogue");
    let rogue = followed.push("rogue");
    let asked = followed.source()["asked_at_ms"].clone();
    assert!(asked.is_u64());
    let wrong = "0".repeat(64);
    for header in [
        "x-nothing: 1".to_owned(),
        format!("x-hub-signature-256: sha256={wrong}"),
        format!("x-hub-signature-256: {signature}"),
        format!("x-hub-signature: sha1={signature}"),
        format!("x-gitea-signature: {wrong}"),
        format!("x-gitlab-token: {}", &SECRET[1..]),
    ] {
        assert_eq!(host.send(&header, Host::BODY.as_bytes()), "401", "{header}");
    }
    let signed = format!("x-hub-signature-256: sha256={signature}");
    assert_eq!(host.send(&signed, b"another body"), "401");
    let large = vec![b' '; 2 << 20];
    assert_eq!(
        host.send(&format!("x-gitlab-token: {SECRET}"), &large),
        "413"
    );
    host.hears_before_a_body("x-gitlab-token: wrong");
    host.hears_before_a_body("x-nothing: 1");
    let source = followed.source();
    assert_eq!(source["asked_at_ms"], asked);
    assert_ne!(source["head"]["id"], *rogue);
    assert_eq!(followed.job().1, "gitea");

    let said = [
        followed.ok(&["ps", "--json"]),
        followed.ok(&["sync", "--json"]),
        followed.ok(&["sync"]),
    ];
    assert!(said.iter().all(|text| !text.contains(SECRET)), "{said:?}");
    for folder in ["/run/hatchery", "/var/lib/hatchery", "/var/log/hatchery"] {
        assert!(Path::new(folder).read_dir().unwrap().next().is_some());
        assert!(!holds(Path::new(folder), SECRET.as_bytes()), "{folder}");
    }
    let pid = followed.status()["controller_pid"].clone();
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!String::from_utf8_lossy(&line).contains(SECRET));
}

#[test]
fn a_webhook_that_cannot_be_opened_costs_nothing() {
    isolate!();
    let followed = Followed::new();
    let secret = followed.folder.path().join("secret");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    // An address that this machine does not have yet, as at boot.
    let line = format!(
        "  webhook: {{ listen: \"10.77.0.1:9000\", secret_file: {} }}\n",
        secret.display()
    );
    followed.up_by_file_every("1h", &line);
    let deaf = || followed.source()["deaf"].clone();
    until("it to be told", || {
        deaf()
            .as_str()
            .is_some_and(|why| why.contains("10.77.0.1:9000"))
    });
    let told = followed.ok(&["sync"]);
    assert!(told.contains("no push is heard"), "{told}");
    assert!(told.contains("synced"), "{told}");
    run(Command::new("ip").args(["address", "add", "10.77.0.1/32", "dev", "lo"]));
    until("it to be heard", || deaf().is_null());

    // Who types is told of a secret that is not there, and nothing is begun.
    followed.kill();
    fs::remove_file(&secret).unwrap();
    let file = followed.folder.path().join("source.yaml");
    let file = file.display().to_string();
    let output = followed.hatchery(&["up", "-d", "--source", &file]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("the webhook's secret"), "{said}");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    followed.ok(&["up", "-d", "--wait", "--source", &file]);
}

#[test]
fn only_keys_of_the_ring_that_are_good_today_count() {
    isolate!();
    let followed = Followed::new();
    let keys = Keys::new(&followed);
    let ada = keys.make("Ada <ada@example.org>", "never");
    let old = keys.make("Old <old@example.org>", "1m");
    let gone = keys.make("Gone <gone@example.org>", "never");
    let other = keys.make("Other <other@example.org>", "never");
    let ring = followed.folder.path().join("ring");
    let export = |form: &[&str]| {
        let place = ring.display().to_string();
        let mut arguments = vec!["--yes", "--output", &place];
        arguments.extend(form);
        arguments.extend(["--export", &ada, &old, &gone]);
        keys.gpg(&arguments);
    };
    export(&[]);
    let good = keys.push("signed", &ada);
    followed.up_by_file(&format!(
        "  verify: {{ gpg_keyring: {} }}\n",
        ring.display()
    ));
    assert!(followed.in_force(&good));

    let refused = |bad: &str, good: &str, why: &str| {
        let reason = followed.refusal(bad);
        eprintln!("{reason}");
        assert!(reason.contains(why), "{why}: {reason}");
        assert_eq!(followed.job().1, "signed");
        followed.git(&["reset", "--quiet", "--hard", good]);
        followed.git(&["push", "--quiet", "--force", "origin", "HEAD:main"]);
        until("the good one again", || followed.in_force(good));
    };
    followed.write("unsigned");
    refused(&followed.push("unsigned"), &good, "is not signed");
    refused(&keys.push("other", &other), &good, "its key is not there");
    refused(&keys.push("old", &old), &good, "its key has expired");
    followed.ok(&["suspend"]);
    let by_revoked = keys.push("gone", &gone);
    keys.revoke(&gone);
    export(&[]);
    followed.ok(&["resume"]);
    refused(&by_revoked, &good, "its key was revoked");

    // A ring in armour counts as well.
    export(&["--armor"]);
    let armour = keys.push("armour", &ada);
    until("a key of the armoured ring", || followed.in_force(&armour));
}

/// What a folder takes on disk, in KiB.
fn taken(folder: &Path) -> u64 {
    let said = run(Command::new("du").arg("-sk").arg(folder));
    said.split_whitespace().next().unwrap().parse().unwrap()
}

/// A mirror of the followed stack, and what it took at first.
struct Mirror {
    folder: PathBuf,
    small: u64,
}

impl Mirror {
    fn new() -> Mirror {
        let folder = Path::new("/var/lib/hatchery").join(stack()).join("git");
        let small = taken(&folder);
        Mirror { folder, small }
    }

    /// It took little more, in KiB, and nothing lies about that a fetch began.
    fn is_small(&self) {
        let now = taken(&self.folder);
        assert!(now < self.small + (16 << 10), "{now} KiB");
        let packs = fs::read_dir(self.folder.join("mirror.git/objects/pack"));
        for entry in packs.into_iter().flatten() {
            let name = entry.unwrap().file_name();
            assert!(!name.to_string_lossy().starts_with("tmp_"), "{name:?}");
        }
    }
}

/// Commits everything right in the bare repository, where large files need not be pushed.
fn commit_in_place(followed: &Followed) -> String {
    let bare = followed.bare().display().to_string();
    let git = |arguments: &[&str]| {
        let place = ["--git-dir", &bare, "--work-tree", "."];
        followed.git(&[&place[..], arguments].concat())
    };
    git(&["config", "core.compression", "1"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "-m", "large"]);
    git(&["rev-parse", "HEAD"])
}

#[test]
fn a_file_of_two_gibibytes_is_refused_and_takes_no_room() {
    isolate!();
    let followed = Followed::new();
    let good = followed.git(&["rev-parse", "HEAD"]);
    followed.up(&[]);
    let (pid, _) = followed.job();
    let mirror = Mirror::new();
    let large = fs::File::create(followed.home().join("farm/large")).unwrap();
    large.set_len(2 << 30).unwrap();
    let bare = followed.bare().display().to_string();
    // A server that cannot leave large files out. Two GiB of nothing are packed in a few MiB.
    let begin = Instant::now();
    let first = commit_in_place(&followed);
    eprintln!("made in {:?}", begin.elapsed());
    // The same for one that can.
    let tree = format!("{first}^{{tree}}");
    let again = ["-C", &bare, "commit-tree", "-p", &good, "-m", "x", &tree];
    let second = followed.git(&again);
    for (filters, bad) in [("false", first), ("true", second)] {
        let begin = Instant::now();
        followed.git(&["-C", &bare, "config", "uploadpack.allowFilter", filters]);
        followed.git(&["-C", &bare, "update-ref", "refs/heads/main", &bad]);
        let reason = followed.refusal(&bad);
        let kib = taken(&mirror.folder);
        eprintln!("{reason} after {:?}, {kib} KiB", begin.elapsed());
        assert!(reason.contains("farm/large"), "{reason}");
        assert!(reason.contains("16 MiB"), "{reason}");
        assert_eq!(followed.source()["commit"]["id"], *good);
        assert_eq!(followed.job(), (pid, "one".to_owned()));
        mirror.is_small();
        followed.git(&["push", "--quiet", "--force", "origin", "HEAD:main"]);
        until("the good one again", || followed.in_force(&good));
    }
}

#[test]
fn a_repository_that_is_too_large_leaves_nothing_behind() {
    isolate!();
    let followed = Followed::new();
    let good = followed.git(&["rev-parse", "HEAD"]);
    followed.up(&[]);
    let (pid, _) = followed.job();
    let mirror = Mirror::new();
    let mut noise = fs::File::open("/dev/urandom").unwrap().take(600 << 20);
    let mut large = fs::File::create(followed.home().join("large")).unwrap();
    std::io::copy(&mut noise, &mut large).unwrap();
    let begin = Instant::now();
    commit_in_place(&followed);
    eprintln!("made in {:?}", begin.elapsed());
    until("the fetch to be refused", || {
        let reason = followed.source()["reason"].clone();
        reason.as_str().unwrap_or_default().contains("512 MiB")
    });
    eprintln!(
        "{} after {:?}",
        followed.source()["reason"],
        begin.elapsed()
    );
    assert_eq!(followed.source()["commit"]["id"], *good);
    followed.git(&["push", "--quiet", "--force", "origin", "HEAD:main"]);
    until("the good one again", || followed.in_force(&good));
    assert_eq!(followed.job().0, pid);
    mirror.is_small();
}

/// Another repository beside the followed one, with one file.
fn beside(followed: &Followed, note: &str) -> String {
    let root = followed.folder.path();
    let lib = root.join("lib");
    let home = lib.display().to_string();
    let bare = root.join("lib.git").display().to_string();
    if !lib.exists() {
        followed.git(&["init", "--quiet", "--bare", "-b", "main", &bare]);
        followed.git(&["init", "--quiet", "-b", "main", &home]);
    }
    fs::write(lib.join("note"), note).unwrap();
    followed.git(&["-C", &home, "add", "--all"]);
    followed.git(&["-C", &home, "commit", "--quiet", "-m", "note"]);
    followed.git(&["-C", &home, "push", "--quiet", &bare, "HEAD:main"]);
    followed.git(&["-C", &home, "rev-parse", "HEAD"])
}

/// The followed repository has this commit as a submodule.
fn include(followed: &Followed, url: &str, commit: &str) -> String {
    followed.put(
        ".gitmodules",
        &format!("[submodule \"lib\"]\n\tpath = farm/lib\n\turl = {url}\n"),
    );
    let _ = fs::create_dir(followed.home().join("farm/lib"));
    let place = format!("160000,{commit},farm/lib");
    followed.git(&["update-index", "--add", "--cacheinfo", &place]);
    followed.push("a submodule")
}

#[test]
fn a_submodule_comes_along_and_none_runs_a_program() {
    isolate!();
    let followed = Followed::new();
    let text = fs::read_to_string(followed.home().join("farm/hatchery.yaml")).unwrap();
    let text = text
        .replace("}}/note", "}}/lib/note")
        .replace("./note", "./lib/note");
    followed.put("farm/hatchery.yaml", &text);
    let first = include(&followed, "../lib.git", &beside(&followed, "first\n"));
    followed.up_by_file("  submodules: true\n");
    assert!(followed.in_force(&first));
    let read = || {
        let line = fs::read(format!("/proc/{}/cmdline", followed.job().0)).unwrap();
        let line = String::from_utf8(line).unwrap();
        let file = line.split('\0').find(|word| word.ends_with("lib/note"));
        fs::read_to_string(file.unwrap()).unwrap()
    };
    assert_eq!(read(), "first\n");
    let second = include(&followed, "../lib.git", &beside(&followed, "second\n"));
    until("the second", || followed.in_force(&second));
    assert_eq!(read(), "second\n");

    let ran = followed.folder.path().join("ran");
    let commit = beside(&followed, "third\n");
    for url in [
        format!("ext::sh -c touch% {}", ran.display()),
        "git://127.0.0.1/lib.git".to_owned(),
    ] {
        let bad = include(&followed, &url, &commit);
        let reason = followed.refusal(&bad);
        eprintln!("{reason}");
        assert!(reason.contains("farm/lib"), "{reason}");
        assert!(!ran.exists());
        assert_eq!(read(), "second\n");
    }
    let gone = include(&followed, "../lib.git", &"1".repeat(40));
    let reason = followed.refusal(&gone);
    eprintln!("{reason}");
    assert!(reason.contains("`farm/lib` is not there"), "{reason}");
    assert!(reason.contains("does not have commit 1111"), "{reason}");
    let third = include(&followed, "../lib.git", &commit);
    until("the third", || followed.in_force(&third));
    assert_eq!(read(), "third\n");

    // What git itself takes for an attack does not even reach the mirror.
    include(&followed, "--upload-pack=id", &commit);
    until("the fetch to be refused", || {
        let reason = followed.source()["reason"].clone();
        let said = reason.as_str().unwrap_or_default();
        said.contains("disallowed submodule url")
    });
    assert_eq!(followed.source()["sync"], "stalled");
    assert_eq!(followed.source()["commit"]["id"], *third);
    assert_eq!(read(), "third\n");
}
