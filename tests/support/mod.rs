//! What integration tests share: every test runs alone, in namespaces of its own.
//!
//! A test that touches the network, mounts, processes or cgroups begins with
//!
//! ```ignore
//! #[macro_use]
//! mod support;
//!
//! #[test]
//! fn something_real() {
//!     isolate!();
//!     // from here on in namespaces of its own, as root, with an empty /run/systemd
//! }
//! ```
//!
//! It works with the usual test harness and plain `cargo test`: in the process that cargo
//! started, `isolate!` runs the same test executable again, for this one test, under
//! `unshare`, and passes or fails as that run does. In there it only returns. So tests may
//! run side by side: ports, bridges, mounts and process ids never collide, and a killed test
//! leaves no process behind. Cgroups are not a namespace that helps here, so each test gets a
//! stack name of its own, see [`stack`]; whatever is left of it is removed after the test.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod bench;
pub mod clients;
pub mod followed;
pub mod host;
pub mod machine;
pub mod servers;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const INSIDE: &str = "HATCHERY_ISOLATED";
const STACK: &str = "HATCHERY_TEST_STACK";

/// The shell stays process 1 of the namespace, so that orphans are reaped as on a real host.
const SETUP: &str = r#"
set -e
ip link set lo up
for folder in /run/netns /run/systemd /run/hatchery /var/lib/hatchery /var/log/hatchery; do
    mkdir -p "$folder"
    mount -t tmpfs tmpfs "$folder"
done
set +e
"$@"
exit $?
"#;

/// Runs the rest of the test in namespaces of its own; see the module's text.
#[macro_export]
macro_rules! isolate {
    () => {{
        fn here() {}
        if $crate::support::outside(std::any::type_name_of_val(&here)) {
            return;
        }
    }};
}

/// Whether this is the outer process, for which the test is done. Panics if the inner failed.
pub fn outside(here: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test needs root: namespaces, cgroups, systemd-nspawn"
    );
    let test = test_name(here);
    let stack = format!("t{}-{}", std::process::id(), short(&test));
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child"])
        .args(["--mount-proc", "bash", "-c", SETUP, "bash"])
        .arg(std::env::current_exe().expect("the test's own path"))
        .args([&test, "--exact", "--nocapture", "--include-ignored"])
        .env(INSIDE, "1")
        .env(STACK, &stack)
        .stdin(Stdio::null())
        .output()
        .expect("`unshare` of util-linux runs");
    sweep(&stack);
    let text = String::from_utf8_lossy(&output.stdout);
    let ran = text.contains("1 passed");
    assert!(
        output.status.success() && ran,
        "`{test}` failed in its namespaces ({}):\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    // What it measured is seen with `--nocapture`.
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    true
}

/// `crate::module::test::here` (or with a closure's part, in async tests) as libtest calls it.
fn test_name(here: &str) -> String {
    let path: Vec<&str> = here
        .split("::")
        .filter(|part| *part != "{{closure}}")
        .collect();
    path[1..path.len() - 1].join("::")
}

fn short(test: &str) -> String {
    let name = test.rsplit("::").next().unwrap_or(test).replace('_', "-");
    // A stack's name has at most 24 characters.
    let short: String = name.chars().take(10).collect();
    let hash = blake3::hash(test.as_bytes()).to_hex();
    format!("{}-{}", short.trim_end_matches('-'), &hash[..3])
}

/// The stack's name for this test: no other test has it.
pub fn stack() -> String {
    std::env::var(STACK).expect("`isolate!()` comes first")
}

/// The cgroup mounts in which a stack may leave something: v2 first, then v1's `name=systemd`.
pub fn cgroup_roots() -> Vec<PathBuf> {
    let unified = Path::new("/sys/fs/cgroup/unified");
    let v2 = match unified.is_dir() {
        true => unified,
        false => Path::new("/sys/fs/cgroup"),
    };
    let mut roots = vec![v2.to_owned()];
    let v1 = Path::new("/sys/fs/cgroup/systemd");
    if v1.is_dir() {
        roots.push(v1.to_owned());
    }
    roots
}

/// Every cgroup that is left of `stack`, deepest first.
pub fn cgroups_left(stack: &str) -> Vec<PathBuf> {
    let mut left = Vec::new();
    for root in cgroup_roots() {
        collect(&root.join("hatchery").join(stack), &mut left);
    }
    left
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), into);
        }
    }
    into.push(folder.to_owned());
}

/// Removes what a failed test left. Its processes died with their namespace; the kernel may
/// need a moment until their cgroups are empty.
fn sweep(stack: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let left = cgroups_left(stack);
        if left.is_empty() || Instant::now() > deadline {
            break;
        }
        for folder in left {
            let _ = std::fs::write(folder.join("cgroup.kill"), "1");
            let _ = std::fs::remove_dir(&folder);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    for root in cgroup_roots() {
        let _ = std::fs::remove_dir(root.join("hatchery"));
    }
}

/// Looks again every few milliseconds until `look` finds something; panics after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
