//! The ground that the other integration tests stand on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

#[test]
fn a_test_has_namespaces_of_its_own() {
    isolate!();
    let links = std::fs::read_to_string("/proc/net/dev").unwrap();
    let names: Vec<&str> = links
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next())
        .map(str::trim)
        .collect();
    assert_eq!(names, ["lo"]);
    assert!(std::process::id() < 100, "not a fresh pid namespace");
    assert_eq!(std::fs::read_dir("/run/systemd").unwrap().count(), 0);
    assert!(support::stack().contains("a-test-has"));
    assert!(support::cgroups_left(&support::stack()).is_empty());
}
