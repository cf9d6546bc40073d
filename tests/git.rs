//! A stack that follows a git repository: what it takes, what it refuses, and what it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use support::followed::{Followed, until};
use support::stack;

#[test]
fn a_push_converges_and_a_revert_brings_it_back() {
    isolate!();
    let followed = Followed::new();
    followed.up(&[]);
    let (first, word) = followed.job();
    assert_eq!(word, "one");
    let second = followed.converges("a file", "two");
    let (changed, _) = followed.job();
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
    let sign_at = |subject: &str, date: Option<&str>| {
        followed.git(&["add", "--all"]);
        let key = format!("user.signingKey={}", key.display());
        let commit = [
            "-c",
            "gpg.format=ssh",
            "-c",
            &key,
            "commit",
            "--quiet",
            "-S",
            "-m",
            subject,
        ];
        followed.git_at(date, &commit);
        followed.git(&["push", "--quiet", "--force", "origin", "HEAD:main"]);
        followed.git(&["rev-parse", "HEAD"])
    };
    let sign = |subject: &str| sign_at(subject, None);
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

    // A signer may say of a commit that it was made when the key was good yet.
    let until_2020 = format!("ada@example.org valid-before=\"20200101\" {public}");
    fs::write(&signers, until_2020).unwrap();
    followed.write("of old");
    let old = sign_at("of old", Some("2019-06-01T00:00:00Z"));
    let reason = followed.refusal(&old);
    assert!(reason.contains("that is good today"), "{reason}");
    assert_eq!(followed.job().1, "again");
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

    // One that is kept would name a tree that is gone.
    let kept = followed.folder.path().join("next.plan");
    let output = plan(&["--out", &kept.display().to_string()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("'--git <URL>' cannot be used with '--out <FILE>'"),
        "{said}"
    );
    assert!(!output.status.success() && !kept.exists());
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
fn a_bad_commit_that_is_begun_with_is_left_too() {
    isolate!();
    let followed = Followed::new();
    followed.up_by_file("  health_timeout: 2s\n");
    let good = followed.git(&["rev-parse", "HEAD"]);
    followed.kill();
    followed.write("two");
    let path = followed.home().join("farm/hatchery.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("tail, -f", "tail, --no-such-option")).unwrap();
    let bad = followed.push("no such option");
    let file = followed.folder.path().join("source.yaml");
    followed.ok(&["up", "-d", "--source", &file.display().to_string()]);
    let reason = followed.refusal(&bad);
    assert!(reason.contains("did not converge within 2s"), "{reason}");
    until("the good one", || {
        let status = followed.status();
        status["converged"] == true && status["source"]["commit"]["id"] == *good
    });
    assert_eq!(followed.job().1, "one");
    followed.write("three");
    let next = followed.push("mended");
    until("the next one", || followed.in_force(&next));
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

#[test]
fn what_an_operator_puts_in_its_place_stays_until_the_next_commit() {
    isolate!();
    let followed = Followed::new();
    followed.up(&[]);
    let first = followed.git(&["rev-parse", "HEAD"]);
    let second = followed.converges("a file", "two");
    let third = followed.converges("a file", "three");
    let stays = |word: &str| {
        for _ in 0..2 {
            let asked = followed.source()["asked_at_ms"].as_u64().unwrap();
            until("another round", || {
                followed.source()["asked_at_ms"].as_u64() > Some(asked + 1000)
            });
        }
        let reason = followed.refusal(&third);
        assert!(reason.contains("`hatchery sync --now`"), "{reason}");
        until("the word", || followed.status()["converged"] == true);
        assert_eq!(followed.job().1, word);
    };
    let runs = |commit: &str| {
        let status = followed.status();
        status["converged"] == true && status["source"]["commit"]["id"] == *commit
    };
    followed.ok(&["rollback"]);
    until("one back", || runs(&second));
    followed.ok(&["rollback", "1"]);
    until("two back", || runs(&first));
    stays("one");
    followed.kill();
    followed.up(&[]);
    stays("one");

    let own = followed.folder.path().join("own.yaml");
    let text = fs::read_to_string(followed.home().join("farm/hatchery.yaml")).unwrap();
    let text = text
        .replace("three", "own")
        .replace("{{ spec_dir }}/note", "/dev/null");
    fs::write(&own, text.replace("    watch: [ ./note ]\n", "")).unwrap();
    followed.ok(&["apply", &own.display().to_string()]);
    stays("own");
    followed.kill();
    followed.up(&[]);
    stays("own");

    followed.ok(&["sync", "--now"]);
    until("the third again", || followed.in_force(&third));
    followed.converges("a file", "four");
}
