//! `hatchery validate`: whether a spec is one.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::error::CommandError;
use super::{screen, spec_file, wiring};
use crate::reconcile::handle::SpecText;
use crate::spec::{self, Diagnostic};

/// Arguments of `validate`.
#[derive(Debug, clap::Args)]
pub struct ValidateArgs {
    /// The spec, a YAML file
    #[arg(value_name = "SPEC")]
    spec: PathBuf,
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
    help: Option<&'a str>,
}

/// Reads it, compiles it, and says everything that is wrong at once.
///
/// # Errors
/// The report on what is wrong.
pub fn run(args: &ValidateArgs) -> Result<ExitCode, CommandError> {
    let spec = spec_file::read(&args.spec)?;
    let found = wiring::diagnose(&spec);
    if args.json {
        return json(&spec, &found);
    }
    let shown = args.spec.display().to_string();
    match found {
        Ok(desired) => {
            screen::line(&format!(
                "`{shown}` is valid: stack `{}`, {} nodes",
                desired.stack,
                desired.nodes.len()
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => Err(CommandError::report(spec::report(
            &shown, &spec.text, &errors, true,
        ))),
    }
}

fn json(
    spec: &SpecText,
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
                let place = error
                    .span
                    .as_ref()
                    .map(|span| spec::position(&spec.text, span.start));
                Wrong {
                    message: &error.message,
                    line: place.map(|(line, _)| line),
                    column: place.map(|(_, column)| column),
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
