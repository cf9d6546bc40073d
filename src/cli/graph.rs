//! `hatchery graph`: what needs what, and in which order it starts.

use std::path::PathBuf;
use std::process::ExitCode;

use super::error::CommandError;
use super::{screen, spec_file, wiring};
use crate::graph;
use crate::plan::text::visible;

/// Arguments of `graph`.
#[derive(Debug, clap::Args)]
pub struct GraphArgs {
    /// The spec, a YAML file
    #[arg(value_name = "SPEC")]
    spec: PathBuf,
    /// Print it for Graphviz
    #[arg(long)]
    dot: bool,
}

/// Prints it.
///
/// # Errors
/// When the spec is wrong.
pub fn run(args: &GraphArgs) -> Result<ExitCode, CommandError> {
    let desired = wiring::compile(&spec_file::read(&args.spec)?)?;
    let text = if args.dot {
        graph::dot(&desired)
    } else {
        graph::waves_text(&desired)
    };
    screen::line(visible(&text).trim_end())?;
    Ok(ExitCode::SUCCESS)
}
