//! `hatchery validate`: whether a spec is one.

use std::process::ExitCode;

use serde::Serialize;

use super::error::CommandError;
use super::spec_args::{self, SpecArgs};
use super::{screen, wiring};
use crate::spec::{Diagnostic, Sources};

/// Arguments of `validate`.
#[derive(Debug, clap::Args)]
#[command(group = spec_args::needed())]
pub struct ValidateArgs {
    #[command(flatten)]
    spec: SpecArgs,
    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Verdict<'a> {
    valid: bool,
    stack: Option<&'a str>,
    nodes: usize,
    errors: Vec<Wrong<'a>>,
}

#[derive(Serialize)]
struct Wrong<'a> {
    message: &'a str,
    line: Option<usize>,
    column: Option<usize>,
    /// Which file, where there is more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    help: Option<&'a str>,
}

/// Reads it, compiles it, and says everything that is wrong at once.
///
/// # Errors
/// The report on what is wrong.
pub fn run(args: &ValidateArgs) -> Result<ExitCode, CommandError> {
    let spec = args.spec.read()?;
    let found = wiring::diagnose(&spec);
    let shown = args.spec.shown();
    let sources = spec
        .sources()
        .called(&args.spec.first().display().to_string());
    if args.json {
        return json(&sources, &found);
    }
    match found {
        Ok(desired) => {
            screen::line(&format!(
                "`{shown}` is valid: stack `{}`, {} nodes",
                desired.stack,
                desired.nodes.len()
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => Err(CommandError::report(sources.report(&errors, true))),
    }
}

fn json(
    sources: &Sources<'_>,
    found: &Result<crate::graph::desired::Desired, Vec<Diagnostic>>,
) -> Result<ExitCode, CommandError> {
    let desired = found.as_ref().ok();
    let errors = found.as_ref().err().map(Vec::as_slice).unwrap_or_default();
    let verdict = Verdict {
        valid: desired.is_some(),
        stack: desired.map(|desired| desired.stack.as_str()),
        nodes: desired.map_or(0, |desired| desired.nodes.len()),
        errors: errors
            .iter()
            .map(|error| {
                let span = error.span.as_ref();
                let place = span.and_then(|span| sources.locate(span.start));
                Wrong {
                    message: &error.message,
                    line: place.as_ref().map(|place| place.line),
                    column: place.as_ref().map(|place| place.column),
                    file: place.map(|place| place.file).filter(|_| sources.are_many()),
                    help: error.help.as_deref(),
                }
            })
            .collect(),
    };
    screen::json(&verdict)?;
    Ok(if verdict.valid {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
