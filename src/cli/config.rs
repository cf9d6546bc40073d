//! `hatchery config`: what a spec comes to once its files are put together.

use std::process::ExitCode;

use super::error::CommandError;
use super::screen;
use super::spec_args::{self, SpecArgs};
use crate::spec::normal::normal;
use crate::spec::{emit, read_texts};

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
#[command(group = spec_args::needed())]
pub struct ConfigArgs {
    #[command(flatten)]
    spec: SpecArgs,
    /// Say of each value which line of which file it came from
    #[arg(long)]
    origins: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Puts the files together, fills in the variables, and prints the spec that comes of it, in the
/// one form that each of its values has.
///
/// # Errors
/// The report on what is wrong.
pub fn run(args: &ConfigArgs) -> Result<ExitCode, CommandError> {
    let spec = args.spec.read()?;
    let sources = spec.sources();
    let (_, places) = read_texts(&spec, &sources)
        .map_err(|errors| CommandError::report(sources.report(&errors, true)))?;
    let places = normal(&places);
    let sources = sources.within(spec.dir());
    let text = match (args.json, args.origins) {
        (false, false) => emit::yaml(&places, None),
        (false, true) => emit::yaml(&places, Some(&sources)),
        (true, false) => emit::json(&places, None),
        (true, true) => emit::json(&places, Some(&sources)),
    };
    screen::say(&text)?;
    Ok(ExitCode::SUCCESS)
}
