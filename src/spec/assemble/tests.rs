#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::MAX_FILES;
use crate::spec::gather::{Reading, Sought, gather};
use crate::spec::model::Spec;
use crate::spec::texts::SpecText;
use crate::spec::{parse_texts, read_texts};

/// Files in memory, and an environment.
#[derive(Default)]
struct Files {
    files: BTreeMap<PathBuf, String>,
    environment: BTreeMap<String, String>,
}

impl Files {
    fn with(files: &[(&str, &str)]) -> Files {
        let files = files.iter();
        Files {
            files: files
                .map(|(name, text)| (Path::new("/s").join(name), (*text).to_owned()))
                .collect(),
            environment: BTreeMap::new(),
        }
    }

    fn set(mut self, name: &str, value: &str) -> Files {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn gather(&mut self, sought: &Sought) -> Result<SpecText, String> {
        gather(sought, self)
    }

    fn over(&mut self, overlays: &[&str]) -> SpecText {
        let sought = Sought {
            path: "/s/base.yaml".into(),
            overlays: overlays
                .iter()
                .map(|name| Path::new("/s").join(name))
                .collect(),
            ..Sought::default()
        };
        self.gather(&sought).unwrap()
    }

    fn folder(&mut self) -> SpecText {
        let sought = Sought {
            path: "/s".into(),
            folder: true,
            ..Sought::default()
        };
        self.gather(&sought).unwrap()
    }
}

impl Reading for Files {
    fn read(&mut self, path: &Path) -> Result<String, String> {
        let text = self.files.get(path).cloned();
        text.ok_or_else(|| format!("cannot read `{}`: no such file", path.display()))
    }

    fn is_there(&mut self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    fn names(&mut self, folder: &Path) -> Result<Vec<String>, String> {
        let inside = self
            .files
            .keys()
            .filter(|path| path.parent() == Some(folder));
        let names = inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        Ok(names.rev().collect())
    }

    fn variable(&mut self, name: &str) -> Option<String> {
        self.environment.get(name).cloned()
    }
}

fn good(spec: &SpecText) -> Spec {
    let sources = spec.sources();
    match read_texts(spec, &sources) {
        Ok((read, _)) => read,
        Err(errors) => panic!("{}", sources.report(&errors, false)),
    }
}

fn report(spec: &SpecText) -> String {
    let sources = spec.sources();
    let errors = parse_texts(spec, &sources).expect_err("errors");
    sources.report(&errors, false).trim_end().to_owned()
}

const BASE: &str = "\
name: t
processes:
  a: { command: [ x, y ], replicas: 2, environment: { A: 1, B: 2 } }
  b: { command: z, depends_on: [ processes/a ] }
";

#[test]
fn overlays_merge_maps_and_replace_lists() {
    let prod = "processes:\n  a:\n    command: [ w ]\n    environment: { B: 3, C: 4 }\n  c: { command: v }\n";
    let last = "name: u\nprocesses:\n  a: { replicas: 5 }\n";
    let files = &mut Files::with(&[
        ("base.yaml", BASE),
        ("prod.yaml", prod),
        ("last.yaml", last),
    ]);
    let spec = good(&files.over(&["prod.yaml", "last.yaml"]));
    let a = &spec.processes["a"].workload;
    assert_eq!(spec.name, "u");
    assert_eq!(a.command.len(), 1);
    assert_eq!(a.replicas, Some(5));
    let values: Vec<&str> = a
        .environment
        .values()
        .map(|value| value.0.as_str())
        .collect();
    assert_eq!(values, ["1", "3", "4"]);
    let names: Vec<&String> = spec.processes.keys().collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn overlays_remove_and_override() {
    let prod = "processes:\n  a:\n    replicas: !reset null\n    environment: !override { D: 5 }\n  b: !reset\n  gone: !reset {}\nservices:\n";
    let files = &mut Files::with(&[("base.yaml", BASE), ("prod.yaml", prod)]);
    let spec = good(&files.over(&["prod.yaml"]));
    let a = &spec.processes["a"].workload;
    assert_eq!(
        (a.replicas, a.environment.len(), spec.processes.len()),
        (None, 1, 1)
    );
    assert_eq!(a.environment["D"].0, "5");
}

#[test]
fn tags_of_overlays_mean_nothing_elsewhere() {
    let files = &mut Files::with(&[("base.yaml", "name: t\nprocesses: !reset\n")]);
    insta::assert_snapshot!(report(&files.over(&[])), @r"
    error: the tag `!reset` has no meaning here
     --> /s/base.yaml:2:12
      |
    2 | processes: !reset
      |            ^^^^^^
      |
      = help: it stands before the value of a key, in an overlay (`-f`)
    ");
    let prod = "processes:\n  a:\n    command: [ !reset x ]\n";
    let files = &mut Files::with(&[("base.yaml", BASE), ("prod.yaml", prod)]);
    assert!(report(&files.over(&["prod.yaml"])).contains("/s/prod.yaml:3:16"));
}

#[test]
fn errors_are_told_in_the_file_that_they_are_in() {
    let prod = "processes:\n  a:\n    replica: 5\n    restart: { delay: 5 }\n";
    let files = &mut Files::with(&[("base.yaml", BASE), ("prod.yaml", prod)]);
    insta::assert_snapshot!(report(&files.over(&["prod.yaml"])), @r"
    error: unknown field `replica` in process `a`
     --> /s/prod.yaml:3:5
      |
    3 |     replica: 5
      |     ^^^^^^^
      |
      = help: its fields are `command`, `environment`, `user`, `working_dir`, `watch`, `replicas`, `restart`, `stop_signal`, `stop_grace_period`, `depends_on`, `ready`, `update`, `drain`, `log` and `pre_start`

    error: `delay` of `restart` of process `a` must be a duration like `5s` or `1m30s`, found the number `5`
     --> /s/prod.yaml:4:23
      |
    4 |     restart: { delay: 5 }
      |                       ^ the unit is missing
      |
    help: did you mean seconds?
      |
    4 |     restart: { delay: 5s }
      |                        +
    ");
    let broken = "processes: [\n";
    let files = &mut Files::with(&[("base.yaml", "name: [ a"), ("prod.yaml", broken)]);
    let shown = report(&files.over(&["prod.yaml"]));
    assert!(
        shown.contains("/s/base.yaml:1") && shown.contains("/s/prod.yaml:"),
        "{shown}"
    );
}

#[test]
fn an_anchor_ends_with_its_file() {
    let prod = "processes:\n  a: *p\n";
    let base = "name: t\nx-p: &p { command: x }\nprocesses: { a: *p }\n";
    let files = &mut Files::with(&[("base.yaml", base), ("prod.yaml", prod)]);
    let shown = report(&files.over(&["prod.yaml"]));
    assert!(shown.contains("the alias `*p` names no anchor"), "{shown}");
}

#[test]
fn parts_are_united_and_taken_once() {
    let base = "name: t\ninclude: [ parts/a.yaml, ./parts/b.yaml ]\nrequires: [ { command: a } ]\nx-l: 1\nservices:\n";
    let a = "include: common.yaml\nprocesses: { a: { command: x } }\nx-l: 2\nservices: {}\n";
    let b = "include: [ ./common.yaml ]\nprocesses: { b: { command: x } }\nrequires: [ { command: b } ]\n";
    let files = &mut Files::with(&[
        ("base.yaml", base),
        ("parts/a.yaml", a),
        ("parts/b.yaml", b),
        (
            "parts/common.yaml",
            "processes: { common: { command: x } }\n",
        ),
    ]);
    let text = files.over(&[]);
    let spec = good(&text);
    let names: Vec<&String> = spec.processes.keys().collect();
    assert_eq!(names, ["a", "common", "b"]);
    assert_eq!(spec.requires.len(), 2);
    // The environment was never asked: nothing names a variable.
    let files: Vec<PathBuf> = text.files().into_iter().collect();
    let all = [
        "base.yaml",
        "parts/a.yaml",
        "parts/b.yaml",
        "parts/common.yaml",
    ];
    assert_eq!(files, all.map(|name| Path::new("/s").join(name)));
}

#[test]
fn what_two_parts_set_is_an_error() {
    let b = "name: u\nprocesses: { a: { command: y } }\nvars: 5\n";
    let files = &mut Files::with(&[
        (
            "1.yaml",
            "name: t\nprocesses:\n  a: { command: x }\nvars: { a: 1 }\n",
        ),
        ("2.yml", b),
        (".3.yaml", "hidden: 1"),
        ("notes.txt", "more: 1"),
    ]);
    insta::assert_snapshot!(report(&files.folder()), @r"
    error: `name` is set in two parts
     --> /s/2.yml:1:1
      |
    1 | name: u
      | ^^^^ first set in /s/1.yaml:1
      |
      = help: keep one of the two; only an overlay (`-f`) replaces what another file sets

    error: `processes.a` is set in two parts
     --> /s/2.yml:2:14
      |
    2 | processes: { a: { command: y } }
      |              ^ first set in /s/1.yaml:3
      |
      = help: keep one of the two; only an overlay (`-f`) replaces what another file sets

    error: `vars` is set in two parts
     --> /s/2.yml:3:1
      |
    3 | vars: 5
      | ^^^^ first set in /s/1.yaml:4
      |
      = help: keep one of the two; only an overlay (`-f`) replaces what another file sets
    ");
    insta::assert_snapshot!(report(&Files::with(&[]).folder()), @r"
    error: `/s` holds no spec
    --> /s
     = help: put `hatchery.yaml` into it, or other files that end in `.yaml`
    ");
}

#[test]
fn includes_that_cannot_be_are_told() {
    let base = "name: t\ninclude:\n- no.yaml\n- a.yaml\n- [ x ]\n- list.yaml\n";
    let files = &mut Files::with(&[
        ("base.yaml", base),
        ("a.yaml", "include: base.yaml\n"),
        ("list.yaml", "- 1\n"),
    ]);
    insta::assert_snapshot!(report(&files.over(&[])), @r"
    error: cannot include `no.yaml`: cannot read `/s/no.yaml`: no such file
     --> /s/base.yaml:3:3
      |
    3 | - no.yaml
      |   ^^^^^^^
      |
      = help: the path is relative to the folder of the file that includes it

    error: `include` must be a list of paths, found a list
     --> /s/base.yaml:5:3
      |
    5 | - [ x ]
      |   ^^^^^

    error: `base.yaml` includes itself
     --> /s/a.yaml:1:10
      |
    1 | include: base.yaml
      |          ^^^^^^^^^
      |
      = help: a file cannot be a part of what it includes

    error: a part of a spec must be a mapping, found a list
     --> /s/list.yaml:1:1
      |
    1 | - 1
      | ^^^
    ");
}

#[test]
fn how_much_is_read_is_bounded() {
    let deep: Vec<(String, String)> = (0..20)
        .map(|n| (format!("{n}.txt"), format!("include: {}.txt\n", n + 1)))
        .collect();
    let mut all: Vec<(&str, &str)> = deep.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
    all.push(("base.yaml", "name: t\ninclude: 0.txt\n"));
    let shown = report(&Files::with(&all).over(&[]));
    assert!(
        shown.contains("files include files too deeply here"),
        "{shown}"
    );

    let many: String = (0..100).map(|n| format!("- {n}.txt\n")).collect();
    let base = format!("name: t\ninclude:\n{many}");
    let parts: Vec<(String, String)> = (0..100)
        .map(|n| (format!("{n}.txt"), "{}".to_owned()))
        .collect();
    let mut all: Vec<(&str, &str)> = parts
        .iter()
        .map(|(n, t)| (n.as_str(), t.as_str()))
        .collect();
    all.push(("base.yaml", &base));
    let text = Files::with(&all).over(&[]);
    assert!(text.further.parts.len() <= MAX_FILES);
    let shown = report(&text);
    assert!(shown.contains("a spec has at most 64 files"), "{shown}");

    let half = format!("name: t\n{}", "# long\n".repeat(90_000));
    let files = &mut Files::with(&[("base.yaml", &half), ("prod.yaml", &half)]);
    let shown = report(&files.over(&["prod.yaml"]));
    assert!(
        shown.contains("bytes long together, more than the 1048576"),
        "{shown}"
    );
}

const VARIABLES: &str = "\
name: t
include: [ \"${PART:-part}.yaml\" ]
processes:
  a:
    replicas: ${N:-4}
    command: [ sh, -c, \"echo $HOME $${HOME} ${WORD}\" ]
    user: \"${N:-4}\"
";

#[test]
fn variables_come_from_the_environment_and_then_from_files() {
    let files = &mut Files::with(&[
        ("base.yaml", VARIABLES),
        (
            "part.yaml",
            "processes: { b: { command: \"x ${WORD}\" } }\n",
        ),
        (".env", "WORD=file\nN=9\nSECRET=1\n"),
    ])
    .set("WORD", "given");
    let text = files.over(&[]);
    let spec = good(&text);
    let a = &spec.processes["a"].workload;
    assert_eq!(a.replicas, Some(9));
    assert_eq!(a.user.as_deref(), Some("9"));
    assert_eq!(a.command[2].0, "echo $HOME ${HOME} given");
    assert_eq!(spec.processes["b"].workload.command[1].0, "given");
    // Only what was used is kept, and it compiles without the disk and the environment.
    let known: Vec<&String> = text.further.values.keys().collect();
    assert_eq!(known, ["N"]);
    assert!(text.files().contains(Path::new("/s/.env")));
    // Another environment is asked about new names alone.
    files.environment.clear();
    files.environment.insert("N".to_owned(), "1".to_owned());
    assert_eq!(files.gather(&text.sought()).unwrap(), text);

    let sought = Sought {
        vars: vec!["/s/vars".into()],
        ..text.sought()
    };
    files.files.insert("/s/vars".into(), "N=2".to_owned());
    let other = files.gather(&sought).unwrap();
    assert_eq!(good(&other).processes["a"].workload.replicas, Some(2));
    files.files.insert("/s/vars".into(), "N".to_owned());
    assert_eq!(
        files.gather(&sought).unwrap_err(),
        "cannot read the variables in `/s/vars`: line 1: it is not of the form `KEY=VALUE`"
    );
}

#[test]
fn a_variable_that_is_not_set_is_told_where_it_is_used() {
    let base =
        "name: t\nprocesses:\n  a: { command: \"x ${NO} y\", user: \"${U:?who runs it}\" }\n";
    let text = Files::with(&[("base.yaml", base)]).over(&[]);
    insta::assert_snapshot!(report(&text), @r#"
    error: the variable `NO` is not set
     --> /s/base.yaml:3:20
      |
    3 |   a: { command: "x ${NO} y", user: "${U:?who runs it}" }
      |                    ^^^^^
      |
      = help: set `NO` in the environment, in `.env` or in a file that `--vars` names, or give a default, `${NO:-…}`

    error: the variable `U` is not set: who runs it
     --> /s/base.yaml:3:37
      |
    3 |   a: { command: "x ${NO} y", user: "${U:?who runs it}" }
      |                                     ^^^^^^^^^^^^^^^^^
      |
      = help: set `U` in the environment, in `.env` or in a file that `--vars` names
    "#);
}

#[test]
fn values_never_become_structure() {
    let base =
        "name: t\nprocesses:\n  a:\n    command: ${C}\n    environment:\n      ${KEY}: ${C}\n";
    let files = &mut Files::with(&[("base.yaml", base)])
        .set("C", "x\n  b: { command: y }\n# &a *a [ ${N} ]");
    let spec = good(&files.over(&[]));
    assert_eq!(spec.processes.len(), 1);
    let (name, value) = spec.processes["a"].workload.environment.first().unwrap();
    assert_eq!(name, "${KEY}");
    assert_eq!(value.0, "x\n  b: { command: y }\n# &a *a [ ${N} ]");
}

#[test]
fn a_spec_that_was_kept_reads_back_and_one_of_old_too() {
    let files = &mut Files::with(&[("base.yaml", BASE), ("prod.yaml", "name: \"${X:-y}\"\n")]);
    let text = files.over(&["prod.yaml"]);
    let kept = serde_json::to_string(&text).unwrap();
    assert_eq!(serde_json::from_str::<SpecText>(&kept).unwrap(), text);
    let old = r#"{"path":"/s.yaml","text":"name: t\n"}"#;
    let read: SpecText = serde_json::from_str(old).unwrap();
    assert_eq!(read, SpecText::of("/s.yaml", "name: t\n"));
    assert_eq!(serde_json::to_string(&read).unwrap(), old);
    assert_eq!(read.content(), "name: t\n");
}
