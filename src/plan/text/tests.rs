#![allow(clippy::unwrap_used)]

use anstream::adapter::strip_str;

use super::*;

fn node(text: &str) -> NodeId {
    text.parse().unwrap()
}

fn detail(name: &str, old: Option<&str>, new: Option<&str>) -> Detail {
    Detail {
        name: name.to_owned(),
        old: old.map(str::to_owned),
        new: new.map(str::to_owned),
    }
}

fn item(name: &str, change: Change, reason: &str, gate: Gate) -> ItemView {
    ItemView {
        node: node(name),
        change,
        reason: reason.to_owned(),
        gate,
        details: Vec::new(),
        diff: None,
    }
}

fn plan(items: Vec<ItemView>, waves: &[&[&str]]) -> PlanView {
    let count = |kinds: &[Change]| items.iter().filter(|i| kinds.contains(&i.change)).count();
    PlanView {
        format_version: 1,
        stack: "prime".to_owned(),
        waves: waves
            .iter()
            .map(|wave| wave.iter().map(|name| node(name)).collect())
            .collect(),
        add: count(&[Change::Add, Change::Replace]),
        change: count(&[Change::Change]),
        destroy: count(&[Change::Remove, Change::Replace]),
        items,
    }
}

fn shown(view: &PlanView) -> String {
    strip_str(&text(view)).to_string()
}

#[test]
fn a_fresh_stack_is_all_adds() {
    let mut container = item(
        "containers/prime1",
        Change::Add,
        "not running",
        Gate::Waiting(vec!["networks/prime0".to_owned()]),
    );
    container.details = vec![detail("address", None, Some("10.50.0.2/24"))];
    let mut template = item(
        "templates/upstream",
        Change::Add,
        "not rendered",
        Gate::Waiting(vec!["prime1 to pass".to_owned()]),
    );
    template.diff = Some(FileDiff {
        path: "/etc/nginx/prime.conf".into(),
        old: None,
        new: None,
        unknown: Some("known after prime1 passes".to_owned()),
    });
    let view = plan(
        vec![
            item("networks/prime0", Change::Add, "not there", Gate::Ready),
            container,
            template,
        ],
        &[
            &["registry", "networks/prime0"],
            &["containers/prime1"],
            &["templates/upstream"],
        ],
    );
    insta::assert_snapshot!(shown(&view), @r"
    To bring stack `prime` to what its spec says, these actions are outstanding:
      + add

    Start order:
      wave 1: registry, networks/prime0
      wave 2: containers/prime1
      wave 3: templates/upstream

    Actions:

      + networks/prime0   not there

      + containers/prime1   not running
          + address = 10.50.0.2/24
          waits for networks/prime0

      + templates/upstream   not rendered
          waits for prime1 to pass
            /etc/nginx/prime.conf (known after prime1 passes)

    Plan: 3 to add, 0 to change, 0 to destroy.
    ");
}

fn template_with_a_new_text() -> ItemView {
    let mut template = item(
        "templates/upstream",
        Change::Change,
        "has a new text",
        Gate::Ready,
    );
    template.diff = Some(FileDiff {
        path: "/etc/nginx/prime.conf".into(),
        old: Some("upstream prime {\n  server 10.50.0.2:8080;\n}\n".to_owned()),
        new: Some(
            "upstream prime {\n  server 10.50.0.2:8080;\n  server 10.50.0.3:8080;\n}".to_owned(),
        ),
        unknown: None,
    });
    template
}

#[test]
fn changes_say_what_was_and_what_will_be() {
    let mut replaced = item(
        "containers/prime1",
        Change::Replace,
        "command changed",
        Gate::Running,
    );
    replaced.details = vec![
        detail("command", Some("python3 a.py"), Some("python3 b.py")),
        detail("root", Some("host"), Some("host")),
        detail("user", Some("nobody"), None),
    ];
    let template = template_with_a_new_text();
    let broken = item(
        "processes/nginx",
        Change::Add,
        "not running",
        Gate::Blocked("cannot start `nginx`: port 80 is held by\napache2 (pid 7)\n".to_owned()),
    );
    let gone = item(
        "containers/old",
        Change::Remove,
        "not in the spec",
        Gate::Ready,
    );
    let view = plan(vec![gone, replaced, template, broken], &[]);
    insta::assert_snapshot!(shown(&view), @r"
    To bring stack `prime` to what its spec says, these actions are outstanding:
      + add
      ~ change in place
    -/+ destroy, then add anew
      - destroy

    Actions:

      - containers/old   not in the spec

    -/+ containers/prime1   command changed
          ~ command = python3 a.py -> python3 b.py
            root = host
          - user = nobody
          under way

      ~ templates/upstream   has a new text
          --- /etc/nginx/prime.conf
          +++ /etc/nginx/prime.conf
          @@ -1,3 +1,4 @@
           upstream prime {
             server 10.50.0.2:8080;
          -}
          +  server 10.50.0.3:8080;
          +}
          \ no newline at the end

      + processes/nginx   not running
          blocked: cannot start `nginx`: port 80 is held by
          apache2 (pid 7)

    Plan: 2 to add, 1 to change, 2 to destroy.
    ");
}

#[test]
fn an_empty_plan_is_one_line() {
    insta::assert_snapshot!(shown(&plan(Vec::new(), &[&["registry"]])), @r"No changes. Stack `prime` is as its spec says.");
}

#[test]
fn symbols_are_coloured() {
    let view = plan(
        vec![item(
            "networks/a",
            Change::Remove,
            "not in the spec",
            Gate::Ready,
        )],
        &[],
    );
    assert!(
        text(&view).contains("\u{1b}[31m  -\u{1b}[0m"),
        "{}",
        text(&view)
    );
}

#[test]
fn long_waves_are_folded() {
    let names: Vec<String> = (1..=12).map(|n| format!("containers/prime{n}")).collect();
    let wave: Vec<&str> = names.iter().map(String::as_str).collect();
    let view = plan(
        vec![item(
            "containers/prime1",
            Change::Add,
            "not running",
            Gate::Ready,
        )],
        &[&wave],
    );
    let text = shown(&view);
    assert!(
        text.lines().all(|line| line.chars().count() <= WIDTH),
        "{text}"
    );
    assert!(
        names.iter().all(|name| text.contains(name.as_str())),
        "{text}"
    );
}

#[test]
fn long_differences_are_cut() {
    let mut template = item("templates/a", Change::Change, "has a new text", Gate::Ready);
    template.diff = Some(FileDiff {
        path: "/a".into(),
        old: None,
        new: Some((0..5000).map(|n| format!("line {n}\n")).collect()),
        unknown: None,
    });
    let text = shown(&plan(vec![template], &[]));
    assert!(text.contains("+line 199\n      … and more\n"), "{text}");
    assert!(!text.contains("line 200"), "{text}");
}

#[test]
fn no_text_of_others_reaches_the_terminal_as_a_command() {
    let mut hostile = item(
        "containers/a",
        Change::Add,
        "\u{1b}]0;owned\u{7}",
        Gate::Blocked("\u{1b}[2J".to_owned()),
    );
    hostile.details = vec![detail("a\u{9b}b", None, Some("\rc"))];
    hostile.diff = Some(FileDiff {
        path: "/\u{1b}c".into(),
        old: None,
        new: Some("x\u{8}y\n".to_owned()),
        unknown: None,
    });
    let text = text(&plan(vec![hostile], &[]));
    let sequences = text.matches('\u{1b}').count();
    let colours = text.matches("\u{1b}[").count();
    assert_eq!(sequences, colours);
    assert!(!text.contains("\u{1b}[2J"), "{text}");
    assert!(text.contains("\\u{1b}[2J"), "{text}");
    assert!(
        text.chars()
            .all(|c| !c.is_control() || c == '\n' || c == '\u{1b}')
    );
}

#[test]
fn a_line_is_filled_to_its_end_and_not_further() {
    let networks = "networks/".len();
    // The last of two or three names ends at the width, or one column beyond it.
    for (lengths, fits) in [
        (vec![20, WIDTH - 8 - 21], true),
        (vec![20, WIDTH - 8 - 20], false),
        (vec![20, 20, WIDTH - 8 - 42], true),
        (vec![20, 20, WIDTH - 8 - 41], false),
    ] {
        let last = lengths.len() - 1;
        let names: Vec<NodeId> = lengths
            .iter()
            .enumerate()
            .map(|(position, width)| {
                let comma = usize::from(position < last);
                node(&format!(
                    "networks/{}",
                    "n".repeat(width - comma - networks)
                ))
            })
            .collect();
        let mut out = String::new();
        folded(&mut out, 8, &names);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), if fits { 1 } else { 2 }, "{out}");
        let first = 8 + lines[0].len();
        assert_eq!(first == WIDTH, fits, "{out}");
        assert!(
            lines
                .iter()
                .skip(1)
                .all(|line| line.starts_with("        n"))
        );
    }
}
