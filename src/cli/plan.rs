//! `hatchery plan`: what would be done.

use std::path::PathBuf;
use std::process::ExitCode;

use super::error::CommandError;
use super::{Global, requirements, screen, spec_file, stack, wiring};
use crate::plan::text::text;

/// `--detailed-exitcode`: there are changes.
const CHANGES: u8 = 2;

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// The spec, a YAML file
    #[arg(value_name = "SPEC")]
    spec: PathBuf,
    /// End with 0 when there is nothing to do, 1 after an error, 2 when there are changes
    #[arg(long)]
    detailed_exitcode: bool,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
}

/// Asks the stack's controller; without one, works it out from what the host shows. Executes
/// nothing that the spec names.
///
/// # Errors
/// When the spec is wrong or the host cannot be observed.
pub fn run(args: &PlanArgs, global: &Global) -> Result<ExitCode, CommandError> {
    let spec = spec_file::read(&args.spec)?;
    let desired = wiring::compile(&spec)?;
    let name = desired.stack.clone();
    stack::same(global.stack.as_deref(), &name)?;
    let asked = wiring::block_on(async {
        match stack::client_if_any(&name).await? {
            Some(client) => Ok(Some(client.plan(&spec).await?)),
            None => Ok(None),
        }
    })?;
    let view = match asked {
        Some(view) => view,
        None => wiring::preview(&spec, &name)?,
    };
    if args.json {
        screen::json(&view)?;
    } else {
        screen::say(&text(&view))?;
        if let Some(lacks) = requirements::note(&desired) {
            screen::say(&lacks)?;
        }
    }
    if args.detailed_exitcode && !view.items.is_empty() {
        return Ok(ExitCode::from(CHANGES));
    }
    Ok(ExitCode::SUCCESS)
}
