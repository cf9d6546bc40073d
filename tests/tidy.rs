//! Holds the shape of the code: who may name whom, what the core must not touch, who prints,
//! how long things get. The rules stand in tables at the top; the last tests plant a
//! violation of each kind and look whether it is found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/source.rs"]
mod source;

use source::{Code, paths, test_only_files};

/// Which paths of this crate the product code of a module may name. A module may name itself.
/// `driver::*` stands for the types and traits of `driver/mod.rs`, not for the host's drivers
/// in its submodules.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("spec", &[]),
    ("template", &["spec"]),
    ("registry", &["spec", "template"]),
    ("graph", &["spec", "template"]),
    ("health", &["spec", "graph::desired"]),
    ("plan", &["spec", "graph", "template", "registry", "health"]),
    ("driver", CORE),
    (
        "store",
        &[
            "spec",
            "graph",
            "template",
            "registry",
            "health",
            "plan",
            "driver::*",
            "driver::because",
        ],
    ),
    (
        "source",
        &[
            "spec",
            "graph",
            "template",
            "registry",
            "health",
            "plan",
            "driver::*",
            "driver::because",
        ],
    ),
    (
        "reconcile",
        &[
            "spec",
            "graph",
            "template",
            "registry",
            "health",
            "plan",
            "driver::*",
        ],
    ),
    (
        "api",
        &[
            "spec",
            "graph",
            "template",
            "registry",
            "health",
            "plan",
            "driver::*",
            "reconcile",
        ],
    ),
    (
        "cli",
        &[
            "spec",
            "graph",
            "template",
            "registry",
            "health",
            "plan",
            "driver",
            "store",
            "source",
            "reconcile",
            "api",
        ],
    ),
];

/// The functional core.
const CORE: &[&str] = &["spec", "graph", "template", "registry", "health", "plan"];

/// What the core must not name, and what it is to do instead.
const NOT_IN_CORE: &[(&str, &str)] = &[
    ("tokio", "the core does not wait"),
    ("tokio_util", "the core does not wait"),
    ("futures_util", "the core does not wait"),
    ("tracing", "return what is worth telling"),
    ("nix", "the host is the drivers' concern"),
    ("rustix", "the host is the drivers' concern"),
    ("libc", "the host is the drivers' concern"),
    ("std::fs", "files come in as arguments"),
    ("std::process", "processes are the drivers' concern"),
    ("std::thread", "the core has no threads"),
    ("std::env", "the environment comes in as an argument"),
    ("std::os", "the host is the drivers' concern"),
    ("std::time::Instant", "time comes in as an argument"),
    ("std::time::SystemTime", "time comes in as an argument"),
];

/// The parts of `std::net` that are plain values.
const ADDRESS_TYPES: &[&str] = &[
    "IpAddr",
    "Ipv4Addr",
    "Ipv6Addr",
    "SocketAddr",
    "SocketAddrV4",
    "SocketAddrV6",
    "AddrParseError",
];

/// Crates that one module alone uses.
const ONE_USER: &[(&str, &str)] = &[
    ("serde_yaml", "spec"),
    ("granit_parser", "spec"),
    ("petgraph", "graph"),
    ("minijinja", "template"),
    ("clap", "cli"),
];

/// Files beside `cli` and `main.rs` that print: they run in a process of their own, whose
/// standard error is a workload's log or the terminal of whoever entered a container.
const PRINTING: &[&str] = &[
    "driver/inner.rs",
    "driver/workloads/enter.rs",
    "driver/workloads/spawned.rs",
];

/// Macros that print.
const PRINTS: &[&str] = &["print", "println", "eprint", "eprintln"];

/// Words that name nothing: not for files, modules and types.
const EMPTY_WORDS: &[&str] = &[
    "manager", "handler", "helper", "util", "utils", "data", "info",
];

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

/// What may stand nowhere. Written in halves, so that this file passes too.
const NOWHERE: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("/wo", "rk/"),
    concat!("crates", ".io"),
    concat!("deb.debian", ".org"),
    concat!("registry.npm", "js.org"),
    concat!("pypi", ".org"),
];

/// A file under `src`, and whether it holds product code.
struct File {
    /// Relative to `src`.
    path: PathBuf,
    text: String,
    test_only: bool,
}

impl File {
    /// The module at the top that it belongs to; `None` for `lib.rs` and `main.rs`.
    fn module(&self) -> Option<String> {
        let mut parts = self.path.iter();
        let first = parts.next()?.to_str()?;
        parts.next().map(|_| first.to_owned())
    }

    /// Its place in the tree of modules, from the top.
    fn module_path(&self) -> Vec<String> {
        let stem = self.path.with_extension("");
        stem.iter()
            .filter_map(|part| part.to_str())
            .filter(|part| !["mod", "lib", "main"].contains(part))
            .map(str::to_owned)
            .collect()
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `dir` that `wanted` takes, with its text.
fn read_all(dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if wanted(&path) {
                // What is not text has no words.
                if let Ok(text) = fs::read_to_string(&path) {
                    found.push((path, text));
                }
            }
        }
    }
    found.sort();
    found
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "rs")
}

fn sources() -> Vec<File> {
    let src = root().join("src");
    let all: Vec<(PathBuf, String)> = read_all(&src, &is_rust)
        .into_iter()
        .map(|(path, text)| (path.strip_prefix(&src).unwrap().to_owned(), text))
        .collect();
    assert!(all.len() > 10, "found only {} files under src", all.len());
    let test_only = test_only_files(&all);
    all.into_iter()
        .map(|(path, text)| File {
            test_only: test_only.iter().any(|test| path.starts_with(test)),
            path,
            text,
        })
        .collect()
}

/// Whether `path` is `prefix` or lies below it.
fn below(path: &[String], prefix: &str) -> bool {
    let prefix: Vec<&str> = prefix.split("::").collect();
    path.len() >= prefix.len() && path.iter().zip(&prefix).all(|(a, b)| a == b)
}

fn allowed(path: &[String], rule: &str) -> bool {
    match rule.strip_suffix("::*") {
        // Types and traits are written with a capital letter, submodules are not.
        Some(module) => {
            let is_type = |name: &String| name.starts_with(char::is_uppercase);
            below(path, module) && path.get(1).is_some_and(is_type)
        }
        None => below(path, rule),
    }
}

/// `crate::a::b` and `super::…` as paths from the top of this crate; `None` for other crates'.
fn in_crate(path: &[String], module_path: &[String]) -> Option<Vec<String>> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    match path.first().map(String::as_str) {
        Some("crate" | "hatchery") => Some(path[1..].to_vec()),
        Some("super") => {
            let kept = module_path.len().saturating_sub(supers);
            Some([&module_path[..kept], &path[supers..]].concat())
        }
        _ => None,
    }
}

fn direction(file: &File) -> Vec<String> {
    let Some(module) = file.module() else {
        return Vec::new();
    };
    let Some((_, rules)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
        return vec![format!(
            "module `{module}` stands in no rule; add it to `MAY_NAME`"
        )];
    };
    let code = Code::product(&file.text);
    let modules: BTreeSet<&str> = MAY_NAME.iter().map(|(name, _)| *name).collect();
    paths(&code)
        .into_iter()
        .filter_map(|(line, path)| Some((line, in_crate(&path, &file.module_path())?)))
        .filter(|(_, path)| {
            path.first()
                .is_some_and(|top| modules.contains(top.as_str()))
        })
        .filter(|(_, path)| path[0] != module && !rules.iter().any(|rule| allowed(path, rule)))
        .map(|(line, path)| {
            format!(
                "line {line}: `{module}` must not name `crate::{}`",
                path.join("::")
            )
        })
        .collect()
}

fn purity(file: &File) -> Vec<String> {
    if !file
        .module()
        .is_some_and(|module| CORE.contains(&module.as_str()))
    {
        return Vec::new();
    }
    let code = Code::product(&file.text);
    let mut wrong = Vec::new();
    for (line, path) in paths(&code) {
        let shown = path.join("::");
        for (banned, instead) in NOT_IN_CORE {
            if below(&path, banned) {
                wrong.push(format!("line {line}: the core names `{shown}`; {instead}"));
            }
        }
        let addresses = path
            .get(2)
            .is_some_and(|name| ADDRESS_TYPES.contains(&name.as_str()));
        if below(&path, "std::net") && !addresses {
            wrong.push(format!(
                "line {line}: the core names `{shown}`, which is no address type"
            ));
        }
    }
    for line in code.calls_of("now") {
        wrong.push(format!(
            "line {line}: the core reads a clock; time comes in as an argument"
        ));
    }
    wrong
}

fn one_user(file: &File) -> Vec<String> {
    let module = file.module().unwrap_or_default();
    paths(&Code::whole(&file.text))
        .into_iter()
        .flat_map(|(line, path)| {
            ONE_USER
                .iter()
                .filter(|(name, user)| below(&path, name) && *user != module)
                .map(|(name, user)| format!("line {line}: only `{user}` uses `{name}`"))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn printing(file: &File) -> Vec<String> {
    let listed = PRINTING.iter().any(|path| file.path == Path::new(path));
    let on_top = file.path == Path::new("main.rs");
    if listed || on_top || file.module().as_deref() == Some("cli") {
        return Vec::new();
    }
    let code = Code::product(&file.text);
    PRINTS
        .iter()
        .flat_map(|name| {
            code.macros_of(name)
                .into_iter()
                .map(move |line| (line, name))
        })
        .map(|(line, name)| format!("line {line}: `{name}!` outside of `cli`"))
        .collect()
}

fn lengths(file: &File) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = file.text.lines().count();
    if lines > FILE_LINES {
        wrong.push(format!(
            "has {lines} lines, more than {FILE_LINES}: split it"
        ));
    }
    for (name, line, length) in Code::whole(&file.text).functions() {
        if length > FUNCTION_LINES {
            wrong.push(format!(
                "line {line}: `{name}` has {length} lines, more than {FUNCTION_LINES}"
            ));
        }
    }
    wrong
}

fn naming(file: &File) -> Vec<String> {
    let code = Code::whole(&file.text);
    let declared = code.declared(&["mod", "struct", "enum", "trait", "type"]);
    let place = file.module_path().into_iter().map(|name| (1, name));
    place
        .chain(declared)
        .filter(|(_, name)| {
            source::words(name)
                .iter()
                .any(|word| EMPTY_WORDS.contains(&word.as_str()))
        })
        .map(|(line, name)| format!("line {line}: `{name}` is named by a word that says nothing"))
        .collect()
}

fn nowhere(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for word in NOWHERE.iter().filter(|word| line.contains(**word)) {
            wrong.push(format!("line {}: holds `{word}`", number + 1));
        }
    }
    wrong
}

fn complain(all: Vec<(PathBuf, Vec<String>)>) {
    let lines: Vec<String> = all
        .into_iter()
        .flat_map(|(path, wrong)| {
            wrong
                .into_iter()
                .map(move |w| format!("{}: {w}", path.display()))
        })
        .collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

fn hold(rule: fn(&File) -> Vec<String>, tests_too: bool) {
    let files = sources()
        .into_iter()
        .filter(|file| tests_too || !file.test_only);
    complain(files.map(|file| (file.path.clone(), rule(&file))).collect());
}

#[test]
fn modules_name_only_what_lies_below_them() {
    hold(direction, false);
}

#[test]
fn the_core_touches_nothing_outside() {
    hold(purity, false);
}

#[test]
fn some_crates_have_one_user() {
    hold(one_user, true);
}

#[test]
fn only_the_command_line_prints() {
    hold(printing, false);
}

#[test]
fn files_and_functions_are_short() {
    hold(lengths, true);
}

#[test]
fn names_say_something() {
    hold(naming, true);
}

#[test]
fn nothing_is_left_open_and_nothing_tells_of_this_machine() {
    let top = root();
    let mut all = Vec::new();
    for dir in ["src", "tests", "benches", "fixtures", "specs", ".ci"] {
        all.extend(read_all(&top.join(dir), &|_| true));
    }
    for file in ["README.md", "Cargo.toml"] {
        let path = top.join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
        all.push((path, text));
    }
    let relative = |path: &Path| path.strip_prefix(&top).unwrap().to_owned();
    complain(
        all.into_iter()
            .map(|(path, text)| (relative(&path), nowhere(&text)))
            .collect(),
    );
}

#[path = "tidy/planted.rs"]
mod planted;
