use super::*;
use crate::spec;

const FARM: &str = include_str!("../../../specs/prime/prime.yaml");

const UPSTREAM: &str = include_str!("../../../specs/prime/prime.conf.j2");

fn compile_text(text: &str) -> Result<Desired, String> {
    let report = |errors: Vec<Diagnostic>| spec::report("prime.yaml", text, &errors, false);
    let (parsed, places) = spec::parse("prime.yaml", text).map_err(report)?;
    let sources = BTreeMap::from([("/srv/spec/prime.conf.j2".into(), Ok(UPSTREAM.to_owned()))]);
    let inputs = CompileInputs {
        template_sources: sources,
        ..inputs()
    };
    compile(&parsed, &places, &inputs).map_err(report)
}

#[test]
fn the_example_compiles() {
    let desired = compile_text(FARM).unwrap();
    assert_eq!(desired.waves.len(), 5);
    let run = &run_of(&desired, "containers/prime4").run;
    assert_eq!(run.environment["PRIME_MAX"], "100000000");
    assert_eq!(
        needs(&desired, "templates/upstream"),
        [
            "registry",
            "services/prime/prime1",
            "services/prime/prime2",
            "services/prime/prime3",
            "services/prime/prime4"
        ]
    );
}

#[test]
fn errors_point_into_the_file() {
    let text = r#"name: prime
processes:
  one:
    command: [ sleep, "{{ name }}-{{ prot }}" ]
    depends_on: [ processes/two ]
  two:
    command: sleep {{ replica
    environment: [ "A={{ nope }}" ]
    depends_on: { processes/one: { condition: started } }
containers:
  c:
    command: [ "true" ]
    root: host
    mounts: [ "/a:{{ nowhere }}" ]
services:
  s:
    target: processes/one
    port: 80
    checks: [ { http: "{{ address }}" }, { http: { url: "http://{{ adress }}" } } ]
"#;
    insta::assert_snapshot!(compile_text(text).unwrap_err(), @r#"
    error: cannot evaluate `{{ name }}-{{ prot }}`: `prot` is not defined; defined here are `address`, `env`, `name`, `port`, `replica`, `spec_dir`, `vars`
     --> prime.yaml:4:38
      |
    4 |     command: [ sleep, "{{ name }}-{{ prot }}" ]
      |                                      ^^^^

    error: cannot evaluate `{{`: syntax error: unexpected end of input, expected expression
     --> prime.yaml:7:14
      |
    7 |     command: sleep {{ replica
      |              ^^^^^^^^^^^^^^^^

    error: cannot evaluate `{{ nope }}`: `nope` is not defined; defined here are `address`, `env`, `name`, `replica`, `spec_dir`, `vars`
     --> prime.yaml:8:5
      |
    8 |     environment: [ "A={{ nope }}" ]
      |     ^^^^^^^^^^^

    error: dependency cycle: `processes/one` -> `processes/two` -> `processes/one`
     --> prime.yaml:9:5
      |
    9 |     depends_on: { processes/one: { condition: started } }
      |     ^^^^^^^^^^ this closes the cycle
      |
      = help: each needs the next before it starts; take one of these dependencies out

    error: cannot evaluate `{{ nowhere }}`: `nowhere` is not defined; defined here are `address`, `env`, `name`, `replica`, `spec_dir`, `vars`
      --> prime.yaml:14:15
       |
    14 |     mounts: [ "/a:{{ nowhere }}" ]
       |               ^^^^^^^^^^^^^^^^^^

    error: `127.0.0.1` is not a URL
      --> prime.yaml:19:23
       |
    19 |     checks: [ { http: "{{ address }}" }, { http: { url: "http://{{ adress }}" } } ]
       |                       ^^^^^^^^^^^^^^^
       |
       = help: write it as `http://ADDRESS:PORT/PATH`

    error: cannot evaluate `http://{{ adress }}`: `adress` is not defined; defined here are `address`, `env`, `name`, `port`, `replica`, `spec_dir`, `vars`
      --> prime.yaml:19:68
       |
    19 |     checks: [ { http: "{{ address }}" }, { http: { url: "http://{{ adress }}" } } ]
       |                                                                    ^^^^^^
    "#);
}
