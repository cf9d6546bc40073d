//! Specs that are compared on a pull request: with no host, no controller and no root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Somebody who may do nothing here.
const NOBODY: u32 = 65_534;

/// A work tree in which a stack's spec is.
struct WorkTree {
    folder: tempfile::TempDir,
}

impl WorkTree {
    /// The article's web farm, committed on `main`.
    fn new() -> WorkTree {
        let tree = WorkTree {
            folder: tempfile::tempdir().unwrap(),
        };
        let specs = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/prime");
        fs::create_dir_all(tree.path("specs/prime")).unwrap();
        for entry in fs::read_dir(specs).unwrap() {
            let entry = entry.unwrap();
            let to = tree.path("specs/prime").join(entry.file_name());
            fs::copy(entry.path(), to).unwrap();
        }
        tree.git(&["init", "--quiet", "-b", "main"]);
        tree.commit();
        tree
    }

    fn path(&self, inner: &str) -> PathBuf {
        self.folder.path().join(inner)
    }

    fn git(&self, arguments: &[&str]) {
        let output = Command::new("git")
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"])
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "-m", "specs"]);
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.path(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "`{from}` in {file}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    fn plan(&self, arguments: &[&str]) -> Output {
        self.plan_as(None, arguments)
    }

    fn plan_as(&self, user: Option<u32>, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hatchery"));
        command
            .arg("plan")
            .args(arguments)
            .arg("--detailed-exitcode")
            .current_dir(self.folder.path());
        if let Some(user) = user {
            command.uid(user).gid(user).env("HOME", "/nonexistent");
        }
        command.output().unwrap()
    }

    /// What becomes of which node, and why.
    fn changes(&self, arguments: &[&str]) -> Vec<(String, String, String)> {
        let json = [arguments, &["--json"]].concat();
        let output = self.plan(&json);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        let items = plan["items"].as_array().unwrap().iter();
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        items
            .map(|item| {
                let (node, change) = (word(&item["node"]), word(&item["change"]));
                (node, change, word(&item["reason"]))
            })
            .collect()
    }
}

const SPEC: &str = "specs/prime/prime.yaml";

#[test]
fn the_work_tree_against_a_revision() {
    let tree = WorkTree::new();
    let same = tree.plan(&[SPEC, "--against", "main"]);
    assert_eq!(same.status.code(), Some(0), "{same:?}");

    tree.edit(SPEC, "replicas: 4", "replicas: 5");
    tree.edit(
        "specs/prime/work.py",
        "import os\n",
        "import os\n# An edit.\n",
    );
    let changes = tree.changes(&[SPEC, "--against", "main"]);
    let of = |node: &str| {
        let found = changes.iter().find(|(name, ..)| name == node);
        let (_, change, reason) = found.unwrap_or_else(|| panic!("{node}: {changes:?}"));
        (change.as_str(), reason.as_str())
    };
    let (change, reason) = of("containers/prime1");
    assert_eq!(change, "replace");
    assert!(reason.contains("./work.py changed"), "{reason}");
    assert_eq!(of("containers/prime5").0, "add");
    assert_eq!(of("services/prime/prime5").0, "add");

    // What is committed is compared as what is not.
    tree.git(&["checkout", "--quiet", "-b", "proposal"]);
    tree.commit();
    assert_eq!(tree.changes(&[SPEC, "--against", "main"]), changes);
    let here = tree.folder.path().display().to_string();
    let between = [
        "--git",
        &here,
        "--ref",
        "proposal",
        "--path",
        SPEC,
        "--against",
        "main",
    ];
    assert_eq!(tree.changes(&between), changes);
}

#[test]
fn markdown_says_what_becomes_of_what_and_nothing_of_this_machine() {
    let tree = WorkTree::new();
    tree.edit(SPEC, "replicas: 4", "replicas: 5");
    let output = tree.plan(&[SPEC, "--against", "main", "--format", "markdown"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("| add | `containers/prime5` | not running |"),
        "{said}"
    );
    assert!(
        said.contains("./specs/prime/work.py:/srv/work.py:ro"),
        "{said}"
    );
    assert!(!said.contains("/trees/"), "{said}");
}

#[test]
fn nobody_may_compare_too_and_a_first_spec_adds_everything() {
    let tree = WorkTree::new();
    for path in [tree.folder.path(), &tree.path(".git")] {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(path, open).unwrap();
    }
    fs::create_dir_all(tree.path("new")).unwrap();
    fs::copy(tree.path(SPEC), tree.path("new/prime.yaml")).unwrap();
    for file in ["work.py", "prime.conf.j2", "nginx.conf"] {
        let from = tree.path("specs/prime").join(file);
        fs::copy(from, tree.path("new").join(file)).unwrap();
    }
    let output = tree.plan_as(Some(NOBODY), &["new/prime.yaml", "--against", "main"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        said.contains("Plan: 12 to add, 0 to change, 0 to destroy."),
        "{said}"
    );
}

#[test]
fn two_files_and_what_is_no_revision() {
    let tree = WorkTree::new();
    fs::copy(tree.path(SPEC), tree.path("specs/prime/next.yaml")).unwrap();
    let next = "specs/prime/next.yaml";
    let same = tree.plan(&[next, "--against", SPEC]);
    assert_eq!(same.status.code(), Some(0), "{same:?}");
    tree.edit(next, "tags: [ nginx ]", "tags: [ nginx, web ]");
    let changes = tree.changes(&[next, "--against", SPEC]);
    let endpoints = changes.iter().all(|(node, change, reason)| {
        node.starts_with("services/prime/") && change == "change" && !reason.is_empty()
    });
    assert!(endpoints && changes.len() == 4, "{changes:?}");

    for (against, why) in [
        ("nothing", "is neither a file nor a revision"),
        ("--upload-pack=x", "unexpected argument"),
    ] {
        let refused = tree.plan(&[SPEC, "--against", against]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains(why), "{said}");
        assert_ne!(refused.status.code(), Some(0));
    }
    let text = fs::read_to_string(tree.path(next)).unwrap();
    fs::write(
        tree.path(next),
        text.replace("name: prime\n", "name: other\n"),
    )
    .unwrap();
    let refused = tree.plan(&[next, "--against", SPEC]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("of stack `other`, the other of `prime`"),
        "{said}"
    );
    assert_eq!(refused.status.code(), Some(1));
}
