//! `hatchery graph`: what needs what, and in which order it starts.

use std::process::ExitCode;

use super::error::CommandError;
use super::spec_args::{self, SpecArgs};
use super::{screen, wiring};
use crate::graph;
use crate::plan::text::visible;

/// Arguments of `graph`.
#[derive(Debug, clap::Args)]
#[command(group = spec_args::needed())]
pub struct GraphArgs {
    #[command(flatten)]
    spec: SpecArgs,
    /// Print it for Graphviz
    #[arg(long)]
    dot: bool,
}

/// Prints it.
///
/// # Errors
/// When the spec is wrong.
pub fn run(args: &GraphArgs) -> Result<ExitCode, CommandError> {
    let desired = wiring::compile(&args.spec.read()?)?;
    let text = if args.dot {
        graph::dot(&desired)
    } else {
        graph::waves_text(&desired)
    };
    screen::line(visible(&text).trim_end())?;
    Ok(ExitCode::SUCCESS)
}
