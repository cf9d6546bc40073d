#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::expr::{Evaluator, Scope};
use super::*;
use crate::spec::model::Expr;

fn instance(id: &str, address: &str, tags: &[&str], status: Status) -> Instance {
    Instance {
        id: id.to_owned(),
        name: "prime".to_owned(),
        address: address.to_owned(),
        port: 8080,
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        meta: BTreeMap::from([("zone".to_owned(), "a \"b\"\\\n".to_owned())]),
        node: "host".to_owned(),
        status,
    }
}

fn farm() -> Arc<Snapshot> {
    Arc::new(Snapshot {
        services: BTreeMap::from([(
            "prime".to_owned(),
            vec![
                instance("a", "10.50.0.2", &["nginx"], Status::Passing),
                instance("b", "10.50.0.3", &["nginx", "blue"], Status::Warning),
                instance("c", "10.50.0.4", &[], Status::Critical),
            ],
        )]),
        nodes: vec![NodeEntry {
            name: "host".to_owned(),
            address: "127.0.0.1".to_owned(),
        }],
    })
}

fn inputs() -> Inputs {
    Inputs {
        files: BTreeMap::new(),
        env: Env::from([("HOME".to_owned(), "/root".to_owned())]),
        vars: IndexMap::from([
            ("limit".to_owned(), serde_json::json!(7)),
            ("names".to_owned(), serde_json::json!({"z": 1, "a": 2})),
        ]),
        spec_dir: "/srv/spec".into(),
    }
}

fn text(source: &str) -> String {
    match render("t", source, &farm(), &inputs()) {
        Ok(Rendered::Text { text, .. }) => text,
        other => panic!("{source}: {other:?}"),
    }
}

fn wrong(source: &str) -> TemplateError {
    match render("t", source, &farm(), &inputs()) {
        Err(error) => error,
        other => panic!("{source}: {other:?}"),
    }
}

fn ids(call: &str) -> String {
    text(&format!(
        "{{% for i in {call} %}}{{{{ i.id }}}}{{% endfor %}}"
    ))
}

#[test]
fn service_gives_the_instances_that_pass() {
    assert_eq!(ids("service('prime')"), "a");
    assert_eq!(ids("service('prime', passing=true)"), "a");
    assert_eq!(ids("service('prime', passing='warning')"), "ab");
    assert_eq!(ids("service('prime', passing=false)"), "abc");
    assert_eq!(ids("service('prime', passing='any')"), "abc");
    assert_eq!(ids("service('prime', tag='blue', passing=false)"), "b");
    assert_eq!(
        ids("service('prime', tag=['nginx', 'blue'], passing=false)"),
        "b"
    );
    assert_eq!(ids("service('prime', tag=none)"), "a");
    assert_eq!(ids("service('nobody')"), "");
}

#[test]
fn wrong_arguments_of_service_are_named() {
    assert!(
        wrong("{{ service('prime', tga='x') }}")
            .message
            .contains("tga")
    );
    assert!(
        wrong("{{ service('prime', passing='maybe') }}")
            .message
            .contains("`passing` must be")
    );
    assert!(
        wrong("{{ service('prime', tag=7) }}")
            .message
            .contains("`tag` must be")
    );
    assert!(
        wrong("{{ service() }}")
            .message
            .contains("missing argument")
    );
}

#[test]
fn the_rest_of_the_catalog_and_the_inputs_can_be_read() {
    assert_eq!(
        text("{% for s in services() %}{{ s.name }}:{{ s.tags|join(',') }}{% endfor %}"),
        "prime:blue,nginx"
    );
    assert_eq!(text("{{ nodes()[0].address }}"), "127.0.0.1");
    assert_eq!(text("{{ env.HOME }} {{ vars.limit }}"), "/root 7");
    assert_eq!(text("{{ env.NONE | default('none') }}"), "none");
    assert_eq!(text("{{ vars.names|tojson }}\n"), "{\"a\": 2, \"z\": 1}\n");
    assert_eq!(text("{{ service('prime')[0].status }}"), "passing");
}

#[test]
fn text_is_given_as_it_is() {
    assert_eq!(text("a < b & \"c\"\n\n"), "a < b & \"c\"\n\n");
    assert_eq!(text("{{ '<a>' }}"), "<a>");
}

#[test]
fn quote_escapes_what_would_end_the_word() {
    assert_eq!(
        text("{{ service('prime')[0].meta.zone|quote }}"),
        r#""a \"b\"\\\n""#
    );
    assert!(wrong("{{ '\\u0007'|quote }}").message.contains("U+0007"));
}

#[test]
fn what_was_read_is_noted() {
    let source = "{% for i in service('prime', passing=false) %}{% endfor %}\
                  {{ service('prime', tag='blue')|length }}{{ service('gone')|length }}";
    let Ok(Rendered::Text { reads, .. }) = render("t", source, &farm(), &inputs()) else {
        panic!("it does not render");
    };
    assert_eq!(
        reads.services,
        BTreeMap::from([("prime".to_owned(), 0), ("gone".to_owned(), 0)])
    );
    assert!(!reads.catalog);
    let Ok(Rendered::Text { reads, .. }) = render("t", "{{ nodes()|length }}", &farm(), &inputs())
    else {
        panic!("it does not render");
    };
    assert!(reads.catalog);
}

#[test]
fn files_are_asked_for_all_at_once_and_then_read() {
    let source = "{{ file('a') }}{{ file('../b') }}{{ file('/c/./d') }}";
    let wanted: BTreeSet<PathBuf> = ["/srv/spec/a", "/srv/b", "/c/d"].map(PathBuf::from).into();
    let mut inputs = inputs();
    let lacks = render("t", source, &farm(), &inputs).unwrap();
    assert_eq!(lacks, Rendered::Lacks(wanted.clone()));
    for path in &wanted {
        let name = path.display().to_string();
        inputs.files.insert(path.clone(), Ok(name));
    }
    let Rendered::Text { text, reads } = render("t", source, &farm(), &inputs).unwrap() else {
        panic!("it still lacks something");
    };
    assert_eq!(text, "/srv/spec/a/srv/b/c/d");
    assert_eq!(reads.files, wanted);
}

#[test]
fn an_unreadable_or_long_file_is_an_error() {
    let mut inputs = inputs();
    inputs
        .files
        .insert("/a".into(), Err("no such file".to_owned()));
    let long = "x".repeat(LONGEST_FILE + 1);
    inputs.files.insert("/b".into(), Ok(long));
    let error = render("t", "{{ file('/a') }}", &farm(), &inputs).unwrap_err();
    assert!(
        error.message.contains("cannot read `/a`: no such file"),
        "{error}"
    );
    let error = render("t", "{{ file('/b') }}", &farm(), &inputs).unwrap_err();
    assert!(error.message.contains("longer than 1 MiB"), "{error}");
}

#[test]
fn errors_have_their_place() {
    let error = wrong("fine\n{{ foo }}\n");
    assert_eq!((error.line, error.range.clone()), (Some(2), Some(8..11)));
    assert_eq!(
        error.message,
        "`foo` is not defined; defined here are \
         `env`, `file`, `nodes`, `service`, `services`, `vars`"
    );
    assert_eq!(
        wrong("{{ vars.nope }}").message,
        "`vars.nope` is not defined"
    );
    assert!(wrong("{% for i in x %}").message.contains("syntax error"));
    assert!(
        wrong("{% include 'other' %}")
            .message
            .contains("cannot be included")
    );
}

#[test]
fn hostile_templates_end_soon() {
    for source in [
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "{{ 'x' * 90000000 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    ] {
        let _ = wrong(source);
    }
    let error = wrong("{{ 'x' * 5000000 }}");
    assert!(error.message.contains("longer than 4 MiB"), "{error}");
}

#[test]
fn a_trial_learns_what_is_read() {
    let source = "{% for i in service('prime') %}{{ i.address }}{% endfor %}{{ file('x') }}";
    let reads = trial("t", source, &inputs()).unwrap();
    assert_eq!(reads.services, BTreeMap::from([("prime".to_owned(), 0)]));
    assert_eq!(reads.files, BTreeSet::from(["/srv/spec/x".into()]));
}

#[test]
fn a_trial_forgives_what_instances_may_mend_and_nothing_else() {
    let reads = trial("t", "{{ service('db')[0].address }}", &inputs()).unwrap();
    assert!(reads.services.contains_key("db"));
    assert!(trial("t", "{{ vars.nope }}{{ service('db') }}", &inputs()).is_err());
    assert!(trial("t", "{{ service('db') }}{{ 1|nope }}", &inputs()).is_err());
    assert!(trial("t", "{{ service('db') }}{% if %}", &inputs()).is_err());
}

fn evaluate(source: &str, scope: &Scope<'_>) -> Result<String, TemplateError> {
    let given = inputs();
    Evaluator::new(Path::new("/srv/spec"), &given.vars, &given.env)
        .evaluate(&Expr(source.to_owned()), scope)
}

#[test]
fn expressions_see_the_instance() {
    let scope = Scope {
        name: Some("prime1"),
        replica: Some(1),
        address: Some("10.50.0.2"),
        port: Some(8080),
    };
    assert_eq!(
        evaluate(
            "http://{{ address }}:{{ port }}/{{ name }}/{{ replica + 1 }}",
            &scope
        )
        .unwrap(),
        "http://10.50.0.2:8080/prime1/2"
    );
    assert_eq!(
        evaluate("{{ spec_dir }}/{{ vars.limit }}/{{ env.HOME }}", &scope).unwrap(),
        "/srv/spec/7//root"
    );
    assert_eq!(
        evaluate("plain } text\n", &scope).unwrap(),
        "plain } text\n"
    );
}

#[test]
fn expressions_name_what_is_in_scope() {
    let scope = Scope {
        name: Some("prime1"),
        ..Scope::default()
    };
    assert_eq!(
        evaluate("{{ port }}", &scope).unwrap_err().message,
        "`port` is not defined; defined here are \
         `env`, `name`, `spec_dir`, `vars`"
    );
    assert!(evaluate("a\0b", &scope).is_err());
    assert!(evaluate("{{ 'a\\u0000b' }}", &scope).is_err());
    assert!(evaluate("{{ 'x' * 200000 }}", &scope).is_err());
    assert!(evaluate("{{ service('prime') }}", &scope).is_err());
}

#[test]
fn paths_are_made_absolute() {
    for (given, wanted) in [
        ("./a", "/srv/spec/a"),
        ("../../../a", "/a"),
        ("/x/../y//z/.", "/y/z"),
        ("", "/srv/spec"),
    ] {
        assert_eq!(normalise(Path::new("/srv/spec"), given), Path::new(wanted));
    }
}

proptest! {
    #[test]
    fn no_source_panics(source in "(\\{\\{|\\}\\}|\\{%|%\\}|for |if |in |set |service\\(|'|\\)|\\[|\\]|[a-z0-9 .|+*~-]){0,30}") {
        let _ = render("t", &source, &farm(), &inputs());
        let _ = trial("t", &source, &inputs());
        let _ = evaluate(&source, &Scope::default());
    }

    #[test]
    fn quoted_text_is_one_word(value in "[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f]{0,20}") {
        let mut given = inputs();
        given.vars.insert("value".to_owned(), serde_json::json!(value));
        let Ok(Rendered::Text { text, .. }) = render("t", "{{ vars.value|quote }}", &farm(), &given)
        else {
            panic!("it does not render");
        };
        let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap();
        let mut letters = inner.chars();
        let mut read = String::new();
        while let Some(letter) = letters.next() {
            prop_assert!(letter != '"' && letter != '\n');
            read.push(match letter {
                '\\' => match letters.next() {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some(other) => other,
                    None => panic!("it ends in a backslash"),
                },
                other => other,
            });
        }
        prop_assert_eq!(read, value);
    }
}
