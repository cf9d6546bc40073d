//! What a commit's tree has to do with what runs, and what of it is shown to whom.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use support::followed::{Followed, until};
use support::stack;

#[test]
fn a_plan_of_a_stranger_shows_no_file_and_leaves_nothing_behind() {
    isolate!();
    let followed = Followed::new();
    let secret = followed.folder.path().join("shadow");
    fs::write(&secret, "hunter2\nhunter3\n").unwrap();
    let of = |template: &str| {
        let text = format!(
            "name: {}\ntemplates:\n  stolen: {{ source: ./stolen.j2, destination: /tmp/stolen \
             }}\n",
            stack()
        );
        followed.put("farm/hatchery.yaml", &text);
        followed.put("farm/stolen.j2", template);
        followed.push("a proposal");
        let url = followed.url();
        let plan = ["plan", "--git", &url, "--path", "farm"];
        let published = followed.ok(&[&plan[..], &["--format", "markdown"]].concat());
        (published, followed.ok(&plan))
    };
    let file = secret.display();
    let (published, own) = of(&format!("{{{{ file('{file}') }}}}"));
    assert!(own.contains("+hunter2"), "{own}");
    assert!(!published.contains("hunter"), "{published}");
    assert!(
        published.contains("content = 2 lines added, 0 removed"),
        "{published}"
    );
    for template in [
        format!("{{{{ file(file('{file}')) }}}}"),
        format!("{{% for i in service(file('{file}')) %}}{{% endfor %}}"),
        format!("{{{{ file('{file}').x.y }}}}"),
    ] {
        let (published, _) = of(&template);
        assert!(!published.contains("hunter"), "{published}");
    }

    // One who was killed meanwhile left a folder, and the next one sweeps it.
    let left = Path::new("/var/lib/hatchery/.git-left");
    fs::create_dir_all(left.join("mirror.git")).unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::File::open(left).unwrap().set_modified(old).unwrap();
    of("plain");
    let names = fs::read_dir("/var/lib/hatchery").unwrap();
    let names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(".git-"))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

/// A container that shows what is mounted into it.
fn put_container(followed: &Followed, mount: &str) {
    let text = format!(
        "name: {}\ncontainers:\n  shown:\n    root: host\n    network: none\n    mounts: [ \
         \"{mount}\" ]\n    command: [ /usr/bin/tail, -f, /srv/shown ]\n",
        stack()
    );
    followed.put("farm/hatchery.yaml", &text);
}

#[test]
fn what_a_link_leads_to_is_part_of_what_runs() {
    isolate!();
    let followed = Followed::new();
    followed.put("releases/1/page", "first\n");
    symlink("../releases/1", followed.home().join("farm/current")).unwrap();
    symlink("current/page", followed.home().join("farm/page")).unwrap();
    put_container(&followed, "./page:/srv/shown:ro");
    followed.push("a link");
    followed.up(&[]);
    let pid = || {
        let status = followed.status();
        let nodes = status["nodes"].as_array().unwrap();
        let shown = nodes.iter().find(|node| node["node"] == "containers/shown");
        shown.unwrap()["pid"].as_u64().unwrap()
    };
    let shown = || fs::read_to_string(format!("/proc/{}/root/srv/shown", pid())).unwrap();
    let first = pid();
    assert_eq!(shown(), "first\n");
    followed.put("releases/2/page", "second\n");
    let beside = followed.push("beside it");
    until("the push", || followed.in_force(&beside));
    assert_eq!(pid(), first, "what is mounted is the same");
    followed.put("releases/1/page", "edited\n");
    let edited = followed.push("what the link leads to");
    until("the push", || followed.in_force(&edited));
    assert_eq!(shown(), "edited\n");
    fs::remove_file(followed.home().join("farm/current")).unwrap();
    symlink("../releases/2", followed.home().join("farm/current")).unwrap();
    let led = followed.push("where a link on the way leads");
    until("the push", || followed.in_force(&led));
    assert_eq!(shown(), "second\n");
}

#[test]
fn a_commit_that_containers_could_write_into_is_refused() {
    isolate!();
    let followed = Followed::new();
    put_container(&followed, "./note:/srv/shown:ro");
    let good = followed.push("read-only");
    followed.up(&[]);
    put_container(&followed, "./note:/srv/shown");
    let bad = followed.push("writable");
    let reason = followed.refusal(&bad);
    assert!(
        reason.contains("cannot let a container write to `./note`"),
        "{reason}"
    );
    assert!(reason.contains("add `:ro`"), "{reason}");
    assert_eq!(followed.source()["commit"]["id"], *good);
    let (url, head) = (followed.url(), ["--ref", "main"]);
    let plan = [&["plan", "--git", &url, "--path", "farm"][..], &head].concat();
    let output = followed.hatchery(&[&plan[..], &["--against", "main"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("cannot let a container write"), "{said}");
    // A work tree may be meant for a stack that follows no repository.
    put_container(&followed, "./other:/srv/shown");
    let spec = followed.home().join("farm/hatchery.yaml");
    let spec = spec.display().to_string();
    let output = followed.hatchery(&["plan", &spec, "--against", "HEAD"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("containers/shown"), "{output:?}");
    // What mends it is compared with what was refused.
    put_container(&followed, "./note:/srv/shown:ro");
    followed.commit("mended");
    followed.git(&["push", "--quiet", "origin", "HEAD:mend"]);
    let mend = ["--path", "farm", "--ref", "mend", "--against", "main"];
    let told = followed.ok(&[&["plan", "--git", &url][..], &mend].concat());
    assert!(told.contains("mounts changed"), "{told}");
}

#[test]
fn an_environment_is_followed_with_its_overlay_and_variables() {
    isolate!();
    let followed = Followed::new();
    let base = fs::read_to_string(followed.home().join("farm/hatchery.yaml")).unwrap();
    let base = base.replace("WORD: one", "WORD: \"${WORD:?of an environment}\"");
    followed.put("farm/hatchery.yaml", &base);
    let overlay =
        |word: &str| format!("processes:\n  job: {{ environment: {{ LAID: {word} }} }}\n");
    for (name, word) in [("prod", "live"), ("stage", "tried")] {
        followed.put(&format!("env/{name}.yaml"), &overlay(word));
        followed.put(&format!("env/{name}.env"), &format!("WORD={name}\n"));
    }
    let first = followed.push("two environments");
    let of = |name: &str| {
        let (yaml, env) = (format!("env/{name}.yaml"), format!("--vars=env/{name}.env"));
        ["-f".to_owned(), yaml, env]
    };
    let up = |name: &str| {
        let over = of(name);
        followed.up(&over.each_ref().map(String::as_str));
    };
    let laid = || {
        let environment = fs::read(format!("/proc/{}/environ", followed.job().0)).unwrap();
        let text = String::from_utf8_lossy(&environment).into_owned();
        let laid = text.split('\0').find_map(|pair| pair.strip_prefix("LAID="));
        (followed.job().1, laid.unwrap().to_owned())
    };
    let is = |word: &str, value: &str| (word.to_owned(), value.to_owned());
    up("prod");
    assert_eq!(laid(), is("prod", "live"));
    assert_eq!(followed.source()["overlays"][0], "env/prod.yaml");
    assert_eq!(followed.source()["vars"][0], "env/prod.env");

    followed.put("env/prod.yaml", &overlay("better"));
    let second = followed.push("an edit of the overlay");
    until("the push", || followed.in_force(&second));
    assert_eq!(laid(), is("prod", "better"));
    followed.put("env/prod.env", "WORD=changed\n");
    let third = followed.push("an edit of the variables");
    until("the push", || followed.in_force(&third));
    assert_eq!(laid(), is("changed", "better"));
    let (pid, _) = followed.job();

    // Another controller goes on with it, and knows what was gone back to.
    followed.kill();
    up("prod");
    assert_eq!(followed.job().0, pid);
    followed.ok(&["rollback", "1"]);
    until("the first", || {
        let status = followed.status();
        status["converged"] == true && status["source"]["commit"]["id"] == *first
    });
    assert_eq!(laid(), is("prod", "live"));
    followed.kill();
    up("prod");
    assert_eq!(laid(), is("prod", "live"));

    // Other files of the same commit are another spec, whoever names them.
    followed.kill();
    followed.up_by_file("  overlays: [ env/stage.yaml ]\n  vars: [ env/stage.env ]\n");
    assert!(followed.in_force(&third));
    assert_eq!(laid(), is("stage", "tried"));

    fs::remove_file(followed.home().join("env/stage.yaml")).unwrap();
    let without = followed.push("no overlay");
    let reason = followed.refusal(&without);
    assert!(reason.contains("env/stage.yaml"), "{reason}");
    assert_eq!(laid(), is("stage", "tried"));
}

#[test]
fn an_environment_is_planned_compared_and_installed_with_its_overlay() {
    isolate!();
    let followed = Followed::new();
    let overlay =
        |word: &str| format!("processes:\n  job: {{ environment: {{ WORD: {word} }} }}\n");
    followed.put("prod.yaml", &overlay("live"));
    followed.push("an overlay");
    followed.up(&["-f", "prod.yaml"]);
    followed.put("prod.yaml", &overlay("better"));
    followed.commit("proposed");
    followed.git(&["push", "--quiet", "origin", "HEAD:proposal"]);
    let url = followed.url();
    let plan = |more: &[&str]| {
        let spec = ["--git", &url, "--path", "farm", "-f", "prod.yaml"];
        let arguments = [&["plan", "--detailed-exitcode"][..], &spec, more].concat();
        let output = followed.hatchery(&arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said)
    };
    assert_eq!(plan(&[]).0, Some(0));
    for more in [
        &["--ref", "proposal"][..],
        &["--ref", "proposal", "--against", "main"],
    ] {
        let (code, said) = plan(more);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("environment changed"), "{said}");
    }
    // In the revision before there was no such environment.
    let (code, said) = plan(&["--against", &followed.git(&["rev-parse", "main~2"])]);
    assert_eq!(code, Some(1), "a commit's hash is no branch: {said}");
    followed.git(&["push", "--quiet", "origin", "main~2:refs/heads/before"]);
    let (code, said) = plan(&["--against", "before"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("+ processes/job"), "{said}");

    let unit = [
        "service",
        "install",
        "--print",
        "--git",
        &url,
        "--path=farm",
        "-f",
        "prod.yaml",
    ];
    let unit = followed.ok(&unit);
    assert!(unit.contains("--file=prod.yaml"), "{unit}");
}
