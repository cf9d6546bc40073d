#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use proptest::prelude::*;

use super::model::{
    CheckRef, Condition, Confirm, Drain, Expr, FailureAction, NetworkMode, Probe, Ready, Reload,
    Restart, RestartPolicy, Root, RootMode, Signal, Spec, Update, UpdateOrder, WhenEmpty,
};
use super::node::{Kind, NodeId};
use super::{Diagnostic, Path, Places, parse, position, read, report};

const PRIME: &str = include_str!("../../specs/prime/prime.yaml");
const EVERY_FORM: &str = include_str!("../../fixtures/specs/good/every-form.yaml");

fn good(text: &str) -> (Spec, Places) {
    read("t.yaml", text)
        .unwrap_or_else(|errors| panic!("{}", report("t.yaml", text, &errors, false)))
}

fn messages(text: &str) -> Vec<String> {
    let errors = read("t.yaml", text).expect_err("errors");
    errors.into_iter().map(|error| error.message).collect()
}

fn exprs(words: &[&str]) -> Vec<Expr> {
    words.iter().map(|word| Expr((*word).to_owned())).collect()
}

#[test]
fn the_prime_farm_is_read_with_its_defaults() {
    let (spec, _) = good(PRIME);
    assert_eq!(spec.name, "prime");
    assert_eq!(spec.requires.len(), 4);
    assert_eq!(spec.registry.http, Some("127.0.0.1:8500".parse().unwrap()));
    let prime = &spec.containers["prime"];
    assert_eq!(prime.workload.replicas, Some(4));
    assert_eq!(prime.root, Root::Host);
    assert_eq!(prime.network, NetworkMode::Bridge("prime0".to_owned()));
    assert!(prime.mounts[0].read_only);
    assert_eq!(prime.workload.stop_signal, Signal::TERM);
    assert_eq!(prime.workload.stop_grace_period, Duration::from_secs(10));
    assert_eq!(prime.workload.log.max_size, 10_000_000);
    let answers = &spec.checks["answers"];
    assert!(
        matches!(&answers.probe, Probe::Http(http) if http.method == "GET" && http.status.is_empty())
    );
    assert_eq!((answers.retries, answers.start_period), (1, Duration::ZERO));
    let upstream = &spec.templates["upstream"];
    assert_eq!(upstream.mode, 0o644);
    assert_eq!(upstream.wait.min * 4, upstream.wait.max);
    assert_eq!(upstream.when_empty, WhenEmpty::Keep);
    assert_eq!(
        upstream.reload,
        Some(Reload::Signal {
            process: "nginx".to_owned(),
            signal: Signal::HUP,
            confirm: Confirm::NewChild,
        })
    );
    let nginx = &spec.processes["nginx"].workload;
    assert_eq!(
        nginx.ready,
        Ready::Listening {
            tcp: Expr("127.0.0.1:80".to_owned()),
            timeout: Duration::from_secs(60),
        }
    );
    assert_eq!(
        nginx.depends_on[0].on,
        NodeId::new(Kind::Templates, "upstream")
    );
}

#[test]
fn containers_are_read_in_every_form() {
    let (spec, _) = good(EVERY_FORM);
    let host = &spec.containers["host"];
    assert_eq!(host.workload.command, exprs(&["sleep", "5"]));
    assert_eq!(host.workload.restart.policy, RestartPolicy::No);
    assert_eq!(host.workload.user.as_deref(), Some("nobody"));
    assert_eq!(host.workload.environment["A"], Expr("1".to_owned()));
    assert_eq!(host.tmpfs, exprs(&["/scratch"]));
    let lonely = &spec.containers["lonely"];
    assert_eq!(lonely.network, NetworkMode::None);
    assert_eq!(lonely.workload.user.as_deref(), Some("root"));
    let fixed = &spec.containers["fixed"];
    assert_eq!(
        fixed.workload.command,
        exprs(&["sh", "-c", "echo {{ name }} of {{ vars.zone }}; sleep 5"])
    );
    assert!(matches!(
        fixed.root,
        Root::Path {
            mode: RootMode::ReadOnly,
            ..
        }
    ));
    let mounts: Vec<(&str, &str, bool)> = fixed
        .mounts
        .iter()
        .map(|m| (m.source.0.as_str(), m.destination.0.as_str(), m.read_only))
        .collect();
    assert_eq!(
        mounts,
        [
            ("./a", "/a", false),
            ("{{ spec_dir }}/b", "/b", true),
            ("./c", "/c/{{ name }}", true),
        ]
    );
    let environment: Vec<(&str, &str)> = fixed
        .workload
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.0.as_str()))
        .collect();
    assert_eq!(environment, [("A", "1"), ("B", ""), ("C", "x=y")]);
    let firewall = fixed.firewall.as_ref().unwrap();
    assert_eq!(
        (firewall.allow_udp.as_slice(), firewall.allow_ping),
        (&[53][..], false)
    );
    assert_eq!(firewall.allow_from[1], "192.168.1.1/32".parse().unwrap());
    assert!(matches!(
        &fixed.workload.ready,
        Ready::Check { check: CheckRef::Inline(check), timeout }
            if check.start_interval == Some(Duration::from_millis(100)) && timeout.as_secs() == 5
    ));
    let conditions: Vec<(String, Condition)> = spec.containers["many"]
        .workload
        .depends_on
        .iter()
        .map(|dependency| (dependency.on.to_string(), dependency.condition))
        .collect();
    assert_eq!(
        conditions,
        [
            ("containers/fixed".to_owned(), Condition::Healthy),
            ("containers/lonely".to_owned(), Condition::Started),
            ("registry".to_owned(), Condition::Started),
        ]
    );
}

#[test]
fn the_rest_is_read_in_every_form() {
    let (spec, _) = good(EVERY_FORM);
    assert_eq!(spec.vars["sizes"][2], 16);
    assert_eq!(spec.vars["sizes"][5]["deep"], "5");
    let web = &spec.processes["web"];
    assert_eq!(web.pre_start[1], exprs(&["touch", "/run/x/y"]));
    assert_eq!(web.workload.stop_signal, Signal(3));
    assert_eq!(web.workload.stop_grace_period, Duration::ZERO);
    assert_eq!(
        (web.workload.log.max_size, web.workload.log.max_files),
        (65536, 0)
    );
    assert_eq!(
        web.workload.restart,
        Restart {
            policy: RestartPolicy::Always,
            delay: Duration::from_millis(250),
            max_delay: Duration::from_secs(10),
            max_attempts: Some(5),
            window: Some(Duration::from_secs(120)),
            reset_after: Duration::from_secs(60),
        }
    );
    let service = &spec.services["web"];
    assert_eq!(service.tags, ["nginx"]);
    assert_eq!(service.meta["version"], Expr("1.10".to_owned()));
    assert_eq!(service.checks[0], CheckRef::Named("shared".to_owned()));
    let CheckRef::Inline(http) = &service.checks[1] else {
        panic!("a check in place");
    };
    assert!(matches!(&http.probe, Probe::Http(h) if h.method == "HEAD" && h.status == [200, 301]));
    let file = &spec.templates["one_file"];
    assert_eq!(file.mode, 0o640);
    assert_eq!(
        file.validate.as_deref(),
        Some(&exprs(&["nginx", "-t", "-c", "{{ spec_dir }}/nginx.conf"])[..])
    );
    assert_eq!(file.when_empty, WhenEmpty::Render);
}

#[test]
fn replacing_and_draining_are_read_with_their_defaults() {
    let (spec, _) = good(EVERY_FORM);
    let web = &spec.processes["web"].workload;
    assert_eq!(
        web.update,
        Update {
            max_unavailable: 2,
            order: UpdateOrder::StopFirst,
            min_healthy_time: Some(Duration::from_secs(5)),
            healthy_deadline: Duration::from_secs(120),
            failure_action: FailureAction::Continue,
        }
    );
    assert_eq!(
        (web.drain.quiet, web.drain.timeout),
        (Duration::from_secs(1), Duration::ZERO)
    );
    let rolling = &spec.containers["rolling"].workload;
    assert_eq!(
        rolling.update,
        Update {
            order: UpdateOrder::StartFirst,
            failure_action: FailureAction::Rollback,
            ..Update::default()
        }
    );
    // A quiet that was not written fits into the timeout that was.
    assert_eq!(rolling.drain.quiet, Duration::from_millis(100));
    let other = &spec.containers["host"].workload;
    assert_eq!(
        (other.update, other.drain),
        (Update::default(), Drain::default())
    );
    assert_eq!(other.update.max_unavailable, 1);
}

#[test]
fn places_lead_to_what_is_written() {
    let (_, places) = good(PRIME);
    let written = |range: Option<std::ops::Range<usize>>| &PRIME[range.expect("a place")];
    let prime = Path::of(["containers", "prime"]);
    assert_eq!(written(places.value(&prime.key("network"))), "prime0");
    assert_eq!(written(places.key(&prime.key("network"))), "network");
    let command = prime.key("command").index(1);
    assert_eq!(command.to_string(), "containers.prime.command[1]");
    assert_eq!(written(places.value(&command)), "/srv/work.py");
    assert_eq!(
        written(places.at(&["containers", "prime", "command", "1"])),
        "/srv/work.py"
    );
    assert_eq!(places.value(&prime.key("user")), None);
    assert_eq!(written(places.nearest(&prime.key("user"))), "prime");
    let url = Path::of(["checks", "answers", "http"]);
    assert_eq!(written(places.inside(&url, 7..20)), "{{ address }}");
    let needed = Path::of(["processes", "nginx", "depends_on"]);
    assert_eq!(
        written(places.saying(&needed, "templates/upstream")),
        "templates/upstream"
    );
    assert_eq!(places.keys(&Path::of(["checks"])), ["answers"]);
    assert_eq!(places.at(&["containers", "prime", "command", "x"]), None);
}

#[test]
fn places_hold_in_the_other_forms_too() {
    let (_, places) = good(EVERY_FORM);
    let written = |range: Option<std::ops::Range<usize>>| &EVERY_FORM[range.expect("a place")];
    let many = Path::of(["containers", "many", "depends_on"]);
    assert_eq!(
        written(places.saying(&many, "containers/lonely")),
        "containers/lonely"
    );
    let host = Path::of(["containers", "host"]);
    // A command in one line has no items, a list of one may be written without brackets.
    assert_eq!(
        written(places.nearest(&host.key("command").index(1))),
        "sleep 5"
    );
    assert_eq!(
        written(places.value(&host.key("tmpfs").index(0))),
        "/scratch"
    );
    // An alias leads to what it stands for.
    assert_eq!(written(places.value(&host.key("user"))), "nobody");
}

#[test]
fn the_order_of_sections_changes_nothing() {
    let sections: Vec<String> = {
        let mut sections: Vec<String> = Vec::new();
        for line in PRIME.lines() {
            if !line.starts_with([' ', '#']) && !line.is_empty() {
                sections.push(String::new());
            }
            if let Some(section) = sections.last_mut() {
                section.push_str(line);
                section.push('\n');
            }
        }
        sections
    };
    let reversed: String = sections.iter().rev().map(String::as_str).collect();
    assert_eq!(good(&reversed).0, good(PRIME).0);
}

#[test]
fn json_is_yaml() {
    let text = "{\"name\":\"t\",\n\t\"processes\":{\"a\":{\"command\":[\"x\",\"\\u0041\"]}}}";
    let (spec, _) = good(text);
    assert_eq!(spec.processes["a"].workload.command, exprs(&["x", "A"]));
}

#[test]
fn what_aliases_share_is_reported_once() {
    let text =
        "name: t\nx-a: &a { command: x, user: yes, stop_signal: SIGX }\nprocesses:\n  a: *a\n";
    assert_eq!(
        messages(text),
        ["unknown signal `SIGX` in `stop_signal` of process `a`"]
    );
}

#[test]
fn too_many_entries_are_refused() {
    let mut text = String::from("name: t\nprocesses:\n");
    for n in 0..1001 {
        text.push_str(&format!("  p{n}: {{ command: x }}\n"));
    }
    assert_eq!(
        messages(&text),
        ["`processes` of the spec has more than 1000 entries"]
    );
}

#[test]
fn a_report_is_sorted_and_bounded() {
    let text = "a\n".repeat(100);
    let errors: Vec<Diagnostic> = (0..60)
        .rev()
        .map(|n| Diagnostic::at(n * 2..n * 2 + 1, format!("number {n}")))
        .collect();
    let shown = report("t.yaml", &text, &errors, false);
    assert!(shown.starts_with("error: number 0\n"));
    assert!(shown.ends_with("\n… and 10 more\n"));
    assert_eq!(shown.matches("error: ").count(), 50);
}

#[test]
fn long_lines_are_cut_and_keep_their_column() {
    let text = format!(
        "{{\"a\":\"{}\",\"ö\":\"{}\"}}",
        "x".repeat(5000),
        "y".repeat(5000)
    );
    let at = text.find('ö').unwrap();
    let error = Diagnostic::at(at..at + 2, "unknown").did_you_mean(Some("o"));
    let shown = report("t.json", &text, &[error], false);
    assert!(shown.contains("t.json:1:5010"), "{shown}");
    assert!(shown.contains("\"ö\""), "{shown}");
    assert!(
        shown.lines().all(|line| line.chars().count() < 300),
        "{shown}"
    );
    assert_eq!(position(&text, at), (1, 5010));
}

#[test]
fn a_report_survives_odd_places() {
    let text = "ä: ö\r\n";
    for (start, end) in [(0, 0), (1, 1), (1, 4), (3, 900), (7, 8), (900, 901)] {
        let error = Diagnostic::at(start..end, "odd").replace("x").help("help");
        assert!(report("t.yaml", text, &[error], true).contains("odd"));
    }
    let whole = Diagnostic::whole("empty").help("fill it");
    assert!(report("t.yaml", "", &[whole], false).contains("fill it"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever the text, it is read or refused, and the refusal can be shown.
    #[test]
    fn no_text_is_too_odd(text in "([a-z:\\-\\[\\]{}&*<>!|'\"%# \\t\\r\\n,0-9.~ä]|\\{\\{|<<: ){0,80}") {
        if let Err(errors) = parse("t.yaml", &text) {
            prop_assert!(!errors.is_empty());
            report("t.yaml", &text, &errors, false);
        }
    }

    /// The same for the prime farm with a piece of it replaced.
    #[test]
    fn no_damage_is_too_odd(at in 0..PRIME.len(), length in 0_usize..60, piece in "[a-z:\\-\\[\\]{}&* \\n\"0-9.~]{0,6}") {
        let from = (0..=at).rev().find(|at| PRIME.is_char_boundary(*at)).unwrap_or(0);
        let to = (from + length..=PRIME.len())
            .find(|at| PRIME.is_char_boundary(*at))
            .unwrap_or(PRIME.len());
        let text = format!("{}{piece}{}", &PRIME[..from], &PRIME[to..]);
        if let Err(errors) = read("t.yaml", &text) {
            prop_assert!(!errors.is_empty());
            report("t.yaml", &text, &errors, false);
        }
    }
}
