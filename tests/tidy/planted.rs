//! Each rule finds a planted violation, and lets pass what only looks like one.

use super::*;

fn file(path: &str, text: &str) -> File {
    File {
        path: PathBuf::from(path),
        text: text.to_owned(),
        test_only: false,
    }
}

fn found(rule: fn(&File) -> Vec<String>, path: &str, text: &str) -> usize {
    rule(&file(path, text)).len()
}

#[test]
fn a_wrong_direction_is_found() {
    for (path, text) in [
        ("spec/model.rs", "use crate::graph::desired::Node;"),
        (
            "spec/model.rs",
            "use crate::{\n    spec::node, plan::{model, world}};",
        ),
        (
            "spec/parse/tree.rs",
            "fn f() { super::super::super::graph::compile() }",
        ),
        ("graph/mod.rs", "use crate::driver::Event;"),
        ("health/mod.rs", "use crate::graph::compile;"),
        (
            "driver/files.rs",
            "fn f(h: crate::reconcile::handle::Handle) {}",
        ),
        ("reconcile/run.rs", "use crate::driver::files::HostFiles;"),
        ("reconcile/run.rs", "use crate::driver::{self, Clock};"),
        ("reconcile/run.rs", "use crate::api;"),
        ("api/mod.rs", "use crate::cli::Up;"),
        ("cellar/mod.rs", ""),
    ] {
        let expected = if text.contains("plan::{") { 2 } else { 1 };
        assert_eq!(found(direction, path, text), expected, "{path}: {text}");
    }
    for (path, text) in [
        (
            "plan/mod.rs",
            "use crate::graph::desired::Node; use super::graph::X;",
        ),
        (
            "spec/model.rs",
            "use super::node::NodeId; // crate::graph\n/* crate::plan */",
        ),
        (
            "spec/model.rs",
            "/// [`f`](crate::graph::f)\nconst S: &str = \"crate::graph::x\";",
        ),
        (
            "spec/model.rs",
            "const S: &str = r#\"\"crate::graph\"\"#; const C: char = '\"';",
        ),
        ("health/mod.rs", "use crate::graph::desired::CheckNode;"),
        ("reconcile/run.rs", "use crate::driver::{Clock, Probes};"),
        (
            "spec/model.rs",
            "#[cfg(test)]\nmod tests { use crate::graph::x; }",
        ),
        (
            "cli/up.rs",
            "use crate::{api, driver::files::HostFiles, reconcile};",
        ),
    ] {
        assert_eq!(found(direction, path, text), 0, "{path}: {text}");
    }
}

#[test]
fn a_core_that_reaches_out_is_found() {
    for text in [
        "use tokio::sync::mpsc;",
        "fn f() { std::fs::read(\"x\"); }",
        "use std::{fs, collections::BTreeMap};",
        "use std::net::{Ipv4Addr, TcpStream};",
        "use std::process::Command;",
        "use std::time::{Duration, Instant};",
        "fn f() { tracing::info!(\"x\"); }",
        "fn f(c: &dyn C) { c.now(); }",
        "fn f<'a>(x: &'a str) { Stamp::now() }",
    ] {
        assert_eq!(found(purity, "plan/mod.rs", text), 1, "{text}");
        assert_eq!(found(purity, "driver/mod.rs", text), 0, "{text}");
    }
    for text in [
        "use std::net::{IpAddr, SocketAddr};",
        "fn f(now: Time) -> Time { now }",
        "#[cfg(test)]\nmod tests { use std::fs; }\n",
        "#[cfg(test)]\nuse std::fs;\nuse std::time::Duration;",
        "fn f(x: Life) { x.fs.process }",
    ] {
        assert_eq!(found(purity, "plan/mod.rs", text), 0, "{text}");
    }
    let after = "#[cfg(test)]\nmod tests { const B: char = '}'; }\nuse std::fs;";
    assert_eq!(found(purity, "plan/mod.rs", after), 1);
}

#[test]
fn a_second_user_of_a_crate_is_found() {
    assert_eq!(found(one_user, "plan/mod.rs", "use petgraph::Graph;"), 1);
    assert_eq!(found(one_user, "graph/mod.rs", "use petgraph::Graph;"), 0);
    assert_eq!(
        found(one_user, "cli/up.rs", "fn f() { serde_yaml::from_str(x) }"),
        1
    );
    assert_eq!(
        found(one_user, "driver/mod.rs", "use minijinja::{Value};"),
        1
    );
}

#[test]
fn printing_elsewhere_is_found() {
    let text = "fn f() { println!(\"x\"); eprint!(\"y\"); }";
    assert_eq!(found(printing, "plan/text.rs", text), 2);
    assert_eq!(found(printing, "cli/plan.rs", text), 0);
    assert_eq!(found(printing, "main.rs", text), 0);
    assert_eq!(
        found(printing, "plan/text.rs", "fn print() { print(1) }"),
        0
    );
}

#[test]
fn what_is_too_long_is_found() {
    let body = "    let x = [0; 3];\n".repeat(FUNCTION_LINES - 2);
    let fits = format!("fn f(a: [u8; 3]) -> u8\n{{\n{}}}\n", &body[20..]);
    let long = format!("{fits}impl X {{\nfn g() {{\n{body}    1\n}}\n}}\n");
    assert_eq!(found(lengths, "a/b.rs", &fits), 0);
    assert_eq!(found(lengths, "a/b.rs", &long), 1);
    assert_eq!(found(lengths, "a/b.rs", &"\n".repeat(FILE_LINES)), 0);
    assert_eq!(found(lengths, "a/b.rs", &"\n".repeat(FILE_LINES + 1)), 1);
    assert_eq!(found(lengths, "a/b.rs", "trait T { fn f(&self); }"), 0);
}

#[test]
fn empty_words_are_found() {
    assert_eq!(found(naming, "driver/mod.rs", "struct CheckManager;"), 1);
    assert_eq!(found(naming, "driver/util.rs", ""), 1);
    assert_eq!(
        found(naming, "driver/mod.rs", "mod host_info { enum Data {} }"),
        2
    );
    assert_eq!(
        found(naming, "driver/mod.rs", "struct Metadata; struct Database;"),
        0
    );
}

#[test]
fn words_for_nowhere_are_found() {
    for word in NOWHERE {
        assert_eq!(nowhere(&format!("fine\n// {word}: later\n")).len(), 1);
    }
    assert!(nowhere("mounts: [ \"./work.py:/srv/work.py:ro\" ]").is_empty());
}

#[test]
fn modules_declared_for_tests_are_known() {
    let all = [
        ("a/mod.rs", "#[cfg(test)]\nmod tests;\nmod b;"),
        ("a/b.rs", "#[cfg(test)]\nmod cases;"),
    ]
    .map(|(path, text)| (PathBuf::from(path), text.to_owned()));
    let tests = test_only_files(&all);
    for path in ["a/tests.rs", "a/tests/more.rs", "a/b/cases.rs"] {
        assert!(
            tests.iter().any(|test| Path::new(path).starts_with(test)),
            "{path}"
        );
    }
    assert!(
        !tests
            .iter()
            .any(|test| Path::new("a/b.rs").starts_with(test))
    );
}
