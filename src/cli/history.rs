//! `hatchery history`: the generations of a stack's spec.

use std::process::ExitCode;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::error::CommandError;
use super::table::{cell, columns};
use super::{Global, screen, stack, wiring};
use crate::plan::text::visible;
use crate::plan::words;
use crate::spec::generation::{Generation, Outcome};
use crate::store::history;

const PLAIN: Style = Style::new();
const GOOD: Style = AnsiColor::Green.on_default();
const WARN: Style = AnsiColor::Yellow.on_default();
const WRONG: Style = AnsiColor::Red.on_default();

/// Arguments of `history`.
#[derive(Debug, clap::Args)]
pub struct HistoryArgs {
    /// The stack; as `--stack`
    #[arg(value_name = "STACK", value_parser = stack::parse_name)]
    named: Option<String>,
    /// Print the spec of this generation
    #[arg(long, value_name = "GENERATION", conflicts_with = "json")]
    show: Option<u64>,
    /// Print the generations as JSON
    #[arg(long)]
    json: bool,
}

/// Reads what the stack's controllers kept; none needs to run.
///
/// # Errors
/// When there is no such stack, or no such generation.
pub fn run(args: &HistoryArgs, global: &Global) -> Result<ExitCode, CommandError> {
    let name = stack::choose(args.named.as_deref().or(global.stack.as_deref()))?;
    let dirs = wiring::dirs(&name);
    if let Some(number) = args.show {
        let unread = |why: String| {
            CommandError::new(format!("cannot show generation {number}"))
                .detail(why)
                .hint("`hatchery history` lists those that are kept")
        };
        screen::say(&history::text(&dirs, number).map_err(unread)?)?;
        let further = history::further(&dirs, number).map_err(unread)?;
        for part in further.parts.iter().chain(&further.overlays) {
            let path = visible(&part.path.display().to_string());
            screen::say(&format!("# {path}\n{}", part.text))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let past = history::past(&dirs);
    for unread in &past.unread {
        screen::complain(&visible(unread));
    }
    if args.json {
        screen::json(&past.generations)?;
    } else {
        screen::say(&text(&name, &past.generations, screen::day_and_time))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(stack: &str, generations: &[Generation], when: impl Fn(u64) -> String) -> String {
    if generations.is_empty() {
        return format!("no generation of stack `{}` is kept\n", visible(stack));
    }
    let rows: Vec<_> = generations
        .iter()
        .map(|generation| {
            let (outcome, style) = outcome_words(&generation.outcome);
            let spec = match &generation.commit {
                Some(commit) => commit.to_string(),
                None => generation.path.display().to_string(),
            };
            vec![
                cell(generation.number.to_string(), PLAIN),
                cell(when(generation.at_ms), PLAIN),
                cell(visible(&generation.cause.to_string()), PLAIN),
                cell(visible(&spec), PLAIN),
                cell(visible(&outcome), style),
            ]
        })
        .collect();
    columns(&["GENERATION", "CAME", "BY", "SPEC", "OUTCOME"], &rows)
}

fn outcome_words(outcome: &Outcome) -> (String, Style) {
    match outcome {
        Outcome::Converging => ("converging".to_owned(), PLAIN),
        Outcome::Converged { after_ms } => {
            let after = words(Duration::from_millis(*after_ms));
            (format!("converged after {after}"), GOOD)
        }
        Outcome::Superseded => ("superseded".to_owned(), PLAIN),
        Outcome::Failed { why } => (format!("failed: {why}"), WRONG),
        Outcome::RolledBack { to, why } => {
            let why = why.as_ref().map(|why| format!(": {why}"));
            (
                format!("rolled back to {to}{}", why.unwrap_or_default()),
                WARN,
            )
        }
        Outcome::Refused { why } => (format!("refused: {why}"), WARN),
    }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;
    use crate::spec::generation::{Cause, User};

    #[test]
    fn each_generation_is_a_row() {
        let root = || User {
            uid: 0,
            name: Some("root".to_owned()),
        };
        let nameless = User {
            uid: 1000,
            name: None,
        };
        let causes = [
            Cause::Begin,
            Cause::FileEdit,
            Cause::FileEdit,
            Cause::Rollback {
                to: 1,
                by: Some(root()),
            },
            Cause::Apply { by: nameless },
            Cause::Rollback { to: 4, by: None },
        ];
        let outcomes = [
            Outcome::Converged { after_ms: 2_345 },
            Outcome::Refused {
                why: "unknown field `replica`".to_owned(),
            },
            Outcome::RolledBack {
                to: 1,
                why: Some("containers/prime1 is not well after 5m00s".to_owned()),
            },
            Outcome::Converged { after_ms: 61_000 },
            Outcome::Failed {
                why: "processes/job: exited 3 2s ago; gave up after 3 failures in a row".to_owned(),
            },
            Outcome::Converging,
        ];
        let generations: Vec<Generation> = (1..)
            .zip(causes.into_iter().zip(outcomes))
            .map(|(number, (cause, outcome))| Generation {
                commit: None,
                number,
                path: "/srv/prime.yaml".into(),
                cause,
                at_ms: number * 1000,
                boot: String::new(),
                outcome,
            })
            .collect();
        let shown = text("prime", &generations, |at| format!("at {at}"));
        insta::assert_snapshot!(strip_str(&shown).to_string(), @r"
        GENERATION  CAME     BY                     SPEC             OUTCOME
        1           at 1000  begin                  /srv/prime.yaml  converged after 2.3s
        2           at 2000  file edit              /srv/prime.yaml  refused: unknown field `replica`
        3           at 3000  file edit              /srv/prime.yaml  rolled back to 1: containers/prime1 is not well after 5m00s
        4           at 4000  rollback to 1 by root  /srv/prime.yaml  converged after 1m01s
        5           at 5000  apply by uid 1000      /srv/prime.yaml  failed: processes/job: exited 3 2s ago; gave up after 3 failures in a row
        6           at 6000  rollback to 4          /srv/prime.yaml  converging
        ");
        insta::assert_snapshot!(text("prime", &[], |_| String::new()), @"no generation of stack `prime` is kept");
    }

    #[test]
    fn programs_read_names_and_numbers() {
        let by = Some(User {
            uid: 0,
            name: Some("root".to_owned()),
        });
        let generation = Generation {
            commit: None,
            number: 4,
            path: "/srv/prime.yaml".into(),
            cause: Cause::Rollback { to: 1, by },
            at_ms: 4000,
            boot: String::new(),
            outcome: Outcome::Converged { after_ms: 61_000 },
        };
        let json = serde_json::to_string_pretty(&generation).unwrap_or_default();
        insta::assert_snapshot!(json, @r#"
        {
          "number": 4,
          "path": "/srv/prime.yaml",
          "cause": {
            "kind": "rollback",
            "to": 1,
            "by": {
              "uid": 0,
              "name": "root"
            }
          },
          "at_ms": 4000,
          "boot": "",
          "outcome": {
            "state": "converged",
            "after_ms": 61000
          }
        }
        "#);
    }
}
