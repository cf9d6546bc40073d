#![allow(clippy::unwrap_used, clippy::panic)]

use anstream::adapter::strip_str;
use clap::CommandFactory;

use super::spec_args::SpecArgs;
use super::*;
use crate::api::control::ClientError;

/// The help of the program, or of one verb of it (`service install`), 100 columns wide.
fn help(verb: Option<&str>) -> String {
    let mut command = Cli::command().term_width(100);
    command.build();
    let words = verb.unwrap_or_default().split_whitespace();
    let found = words.fold(&mut command, |command, word| {
        command.find_subcommand_mut(word).unwrap()
    });
    let shown = found.clone().term_width(100).render_help();
    strip_str(&shown.to_string())
        .to_string()
        .lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
}

fn shown(error: &CommandError) -> String {
    strip_str(&error.to_string()).to_string()
}

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn the_arguments_make_sense() {
    Cli::command().debug_assert();
}

#[test]
fn help_lists_the_verbs() {
    insta::assert_snapshot!(help(None), @r"
    Keeps this machine as one YAML file says: containers, processes, services, templates

    Usage: hatchery [OPTIONS] <COMMAND>

    Commands:
      up        Bring a stack up and keep it so, here or in the background
      plan      Show what would be done, and do nothing
      apply     Hand a spec or a saved plan to the stack's controller, and wait until it is so
      reload    Have the controller look at its spec or repository now, and say what came of it
      down      Stop and remove everything but persistent roots, logs and history
      ps        Show how a stack stands
      logs      Print what workloads wrote
      events    Show what happened to a stack, also before its controller began
      history   Show the generations of a stack's spec, and what became of them
      rollback  Bring an earlier generation back
      sync      Show how a stack stands towards the repository that it follows
      suspend   Leave the repository alone until `resume`
      resume    Follow the repository again
      exec      Run a command inside a workload
      start     Let stopped workloads run again
      stop      Stop workloads, and keep them stopped
      restart   Stop workloads, and start them anew
      service   Let systemd run the stack's controller, from the boot on
      validate  Check a spec
      config    Print a spec as its files come to be one, with its variables filled in
      schema    Print the JSON Schema of specs, for editors; or what changing each field does
      graph     Show what needs what, and the start order
      version   Show the version, and the running controller's

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Options of every command:
          --stack <NAME>  The stack that is meant; the only one here unless given [env: HATCHERY_STACK]
          --color <WHEN>  When to use colours; NO_COLOR is heeded too [default: auto] [possible values:
                          auto, always, never]
      -v, --verbose...    Say more about what goes on inside; twice for still more
    ");
}

#[test]
fn help_of_up() {
    insta::assert_snapshot!(help(Some("up")), @r"
    Bring a stack up and keep it so, here or in the background

    Usage: hatchery up [OPTIONS] <SPEC|--file <FILE>|--git <URL>|--source <FILE>>

    Arguments:
      [SPEC]  The spec: a YAML file, or a folder with `hatchery.yaml` or with files that are its parts

    Options:
      -f, --file <FILE>      Lay this file over the spec; the later wins. Without SPEC, the first one is
                             the spec
          --vars <FILE>      Read variables (`${NAME}`) from this file, not from `.env` beside the spec;
                             the later wins
          --git <URL>        Follow the spec in this git repository; `-f` and `--vars` are files of it
                             then
          --source <FILE>    Follow the repository that this file names, as `source: { git: URL, … }`
          --ref <REF>        With `--git`: the branch or tag; `main` unless given
          --path <PATH>      With `--git`: the spec's file or folder in the repository; its top unless
                             given
          --interval <TIME>  With `--git`: how often the repository is asked; `60s` unless given
          --allow-rewrite    With `--git`: take a head that does not descend from what was applied
      -d, --detach           Leave the controller in the background, and return once it has taken the
                             spec
          --install          Install the Debian packages of requirements that are missing
          --wait             With `--detach`: return once everything is as the spec says
          --no-follow        Do not follow edits of the spec's files
          --allow-empty      Take the spec even if it would remove everything that runs
      -h, --help             Print help

    Options of every command:
          --stack <NAME>  The stack that is meant; the only one here unless given [env: HATCHERY_STACK]
          --color <WHEN>  When to use colours; NO_COLOR is heeded too [default: auto] [possible values:
                          auto, always, never]
      -v, --verbose...    Say more about what goes on inside; twice for still more
    ");
}

#[test]
fn help_of_service_install() {
    insta::assert_snapshot!(help(Some("service install")), @r"
    Write the unit, enable it at boot, and start it; what runs goes on

    Usage: hatchery service install [OPTIONS] <SPEC|--file <FILE>|--git <URL>|--source <FILE>>

    Arguments:
      [SPEC]  The spec: a YAML file, or a folder with `hatchery.yaml` or with files that are its parts

    Options:
      -f, --file <FILE>      Lay this file over the spec; the later wins. Without SPEC, the first one is
                             the spec
          --vars <FILE>      Read variables (`${NAME}`) from this file, not from `.env` beside the spec;
                             the later wins
          --git <URL>        Follow the spec in this git repository; `-f` and `--vars` are files of it
                             then
          --source <FILE>    Follow the repository that this file names, as `source: { git: URL, … }`
          --ref <REF>        With `--git`: the branch or tag; `main` unless given
          --path <PATH>      With `--git`: the spec's file or folder in the repository; its top unless
                             given
          --interval <TIME>  With `--git`: how often the repository is asked; `60s` unless given
          --allow-rewrite    With `--git`: take a head that does not descend from what was applied
          --install          Install the Debian packages of requirements that are missing
          --no-follow        Do not follow edits of the spec's files; `systemctl reload` takes them
          --print            Print the unit, and do nothing
      -h, --help             Print help

    Options of every command:
          --stack <NAME>  The stack that is meant; the only one here unless given [env: HATCHERY_STACK]
          --color <WHEN>  When to use colours; NO_COLOR is heeded too [default: auto] [possible values:
                          auto, always, never]
      -v, --verbose...    Say more about what goes on inside; twice for still more
    ");
}

#[test]
fn help_of_plan() {
    insta::assert_snapshot!(help(Some("plan")), @r"
    Show what would be done, and do nothing

    Usage: hatchery plan [OPTIONS] <SPEC|--file <FILE>|--git <URL>|--source <FILE>|--explain <NAME>|--schema>

    Arguments:
      [SPEC]  The spec: a YAML file, or a folder with `hatchery.yaml` or with files that are its parts

    Options:
      -f, --file <FILE>         Lay this file over the spec; the later wins. Without SPEC, the first one
                                is the spec
          --vars <FILE>         Read variables (`${NAME}`) from this file, not from `.env` beside the
                                spec; the later wins
          --git <URL>           Follow the spec in this git repository; `-f` and `--vars` are files of
                                it then
          --source <FILE>       Follow the repository that this file names, as `source: { git: URL, … }`
          --ref <REF>           With `--git`: the branch or tag; `main` unless given
          --path <PATH>         With `--git`: the spec's file or folder in the repository; its top
                                unless given
          --interval <TIME>     With `--git`: how often the repository is asked; `60s` unless given
          --allow-rewrite       With `--git`: take a head that does not descend from what was applied
          --against <FILE|REF>  Compare with the spec of this file, or with the same one at this
                                revision of its repository, instead of looking at the host
          --format <FORMAT>     How the plan is printed [default: text] [possible values: text,
                                markdown, json]
          --detailed-exitcode   End with 0 when there is nothing to do, 1 after an error, 2 when there
                                are changes
          --json                Print the plan, or the stories of `--explain`, as JSON
          --out <FILE>          Keep the plan in this file, for `apply`; not of a repository, whose tree
                                is looked at only for as long as the plan is made
          --explain <NAME>      Tell the whole story of one node, a group, or an endpoint; without a
                                spec, under the one in force
          --schema              Print the JSON Schema of what `--json` prints
      -h, --help                Print help (see more with '--help')

    Options of every command:
          --stack <NAME>  The stack that is meant; the only one here unless given [env: HATCHERY_STACK]
          --color <WHEN>  When to use colours; NO_COLOR is heeded too [default: auto] [possible values:
                          auto, always, never]
      -v, --verbose...    Say more about what goes on inside; twice for still more
    ");
}

#[test]
fn help_of_logs() {
    insta::assert_snapshot!(help(Some("logs")), @r"
    Print what workloads wrote

    Usage: hatchery logs [OPTIONS] [NAME]...

    Arguments:
      [NAME]...  Containers and processes, all by default; a group's name stands for all of it, and
                 `controller` for a controller in the background

    Options:
      -f, --follow    Go on printing what is written
          --tail <N>  So many of the last lines of each
      -h, --help      Print help

    Options of every command:
          --stack <NAME>  The stack that is meant; the only one here unless given [env: HATCHERY_STACK]
          --color <WHEN>  When to use colours; NO_COLOR is heeded too [default: auto] [possible values:
                          auto, always, never]
      -v, --verbose...    Say more about what goes on inside; twice for still more
    ");
}

#[test]
fn a_command_for_exec_keeps_its_own_options() {
    for line in [
        "hatchery exec prime1 -- ls -l --color",
        "hatchery exec prime1 ls -l --color",
        "hatchery --stack prime exec prime1 -- ls -l --color",
    ] {
        let cli = parse(line).unwrap();
        let Command::Exec(args) = cli.command else {
            panic!("{line}");
        };
        assert!(
            format!("{args:?}").contains(r#"["ls", "-l", "--color"]"#),
            "{args:?}"
        );
    }
}

#[test]
fn options_that_need_others_say_so() {
    assert!(parse("hatchery up --wait a.yaml").is_err());
    assert!(parse("hatchery up -d --wait a.yaml").is_ok());
    assert!(parse("hatchery --stack ../../etc ps").is_err());
    assert!(parse("hatchery service install").is_err());
    assert!(parse("hatchery service install --git /g --interval 1s").is_ok());
    assert!(parse("hatchery service install --source /s.yaml").is_ok());
    assert!(parse("hatchery service install --git /g a.yaml").is_err());
    assert!(parse("hatchery service install --git /g --no-follow").is_err());
    assert!(parse("hatchery service install --ref main a.yaml").is_err());
    assert!(parse("hatchery up --git /g --path a.yaml -f b.yaml --vars c.env").is_ok());
    assert!(parse("hatchery up --source /s.yaml -f b.yaml").is_err());
    assert!(parse("hatchery plan --source /s.yaml --out /next.plan").is_err());
}

#[test]
fn errors_are_said_once_with_causes_and_hints() {
    let cause = std::io::Error::other("the disk is full");
    let error = CommandError::new("cannot write the log `/l`")
        .because(&cause)
        .hint("make room");
    insta::assert_snapshot!(shown(&error), @r"
    error: cannot write the log `/l`
      the disk is full
    hint: make room
    ");
}

#[test]
fn what_the_controller_says_reads_as_an_error() {
    let stack = || "prime".to_owned();
    let errors = [
        ClientError::NotRunning { stack: stack() },
        ClientError::Unreachable {
            stack: stack(),
            cause: "permission denied".to_owned(),
        },
        ClientError::Refused {
            error: "the stack is going down".to_owned(),
            hint: None,
        },
        ClientError::Refused {
            error: "error: unknown field `replica`\n --> a.yaml:3:5\n".to_owned(),
            hint: None,
        },
        ClientError::Broken {
            stack: stack(),
            cause: "connection closed".to_owned(),
        },
    ];
    let all: Vec<String> = errors
        .into_iter()
        .map(|error| shown(&error.into()))
        .collect();
    insta::assert_snapshot!(all.join("\n\n"), @r"
    error: no controller runs for stack `prime`
    hint: start one with `hatchery up SPEC`

    error: cannot reach the controller of stack `prime`: permission denied
    hint: the control socket is root's; run this as root

    error: the stack is going down

    error: unknown field `replica`
     --> a.yaml:3:5

    error: the controller of stack `prime` gave no answer: connection closed
    hint: what it said last is in `controller.log` in the stack's log folder
    ");
}

#[test]
fn a_closed_pipe_is_silent() {
    let error = CommandError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
    assert_eq!(error.to_string(), "");
    let other = CommandError::from(std::io::Error::other("full"));
    assert!(shown(&other).contains("standard output"));
}

#[test]
fn hostile_names_do_not_reach_the_terminal() {
    let error = CommandError::new("no `\u{1b}[2J`").hint("\u{7}");
    assert_eq!(shown(&error), "error: no `\\u{1b}[2J`\nhint: \\u{7}");
}

#[test]
fn a_spec_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let say = |path: &std::path::Path| {
        let error = shown(&SpecArgs::of(path).read().unwrap_err());
        error.replace(&folder.path().display().to_string(), "DIR")
    };
    let binary = folder.path().join("binary.yaml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    let large = folder.path().join("large.yaml");
    std::fs::write(&large, vec![b' '; (1 << 20) + 1]).unwrap();
    let all = [
        say(&folder.path().join("no.yaml")),
        say(folder.path()),
        say(std::path::Path::new("/dev/null")),
        say(&binary),
        say(&large),
    ];
    insta::assert_snapshot!(all.join("\n"), @r"
    error: cannot read the spec `DIR/no.yaml`: no such file or directory
    error: cannot read the file `DIR/binary.yaml`: it is not UTF-8 text
    error: cannot read the spec `/dev/null`: it is not a regular file
    error: cannot read the spec `DIR/binary.yaml`: it is not UTF-8 text
    error: cannot read the spec `DIR/large.yaml`: it is larger than 1 MiB
    ");
}
