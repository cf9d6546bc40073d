//! `hatchery apply`: hands a spec to the stack's controller, or starts one, and waits.

use std::path::PathBuf;
use std::process::ExitCode;

use super::error::CommandError;
use super::{Global, converge, detach, listening::Listening, narrator::Narrator};
use super::{requirements, screen, spec_file, stack, wiring};

/// Arguments of `apply`.
#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    /// The spec, a YAML file
    #[arg(value_name = "SPEC")]
    spec: PathBuf,
    /// Take the spec even if it would remove everything that runs
    #[arg(long)]
    allow_empty: bool,
}

/// Returns once everything is as the spec says.
///
/// # Errors
/// When the spec is refused, or something fails on the way.
pub fn run(args: &ApplyArgs, global: &Global) -> Result<ExitCode, CommandError> {
    let spec = spec_file::read(&args.spec)?;
    let desired = wiring::compile(&spec)?;
    let name = desired.stack.clone();
    stack::same(global.stack.as_deref(), &name)?;
    requirements::demand(&desired, &args.spec.display().to_string(), false)?;
    wiring::block_on(async {
        let mut narrator = Narrator::of_screen();
        let (client, story, generation) = match stack::client_if_any(&name).await? {
            Some(client) => {
                let story = client.events().await?;
                let generation = client.apply(spec, args.allow_empty).await?;
                (client, story, generation)
            }
            None => {
                if !args.allow_empty {
                    super::up::hold_removal(&desired, &args.spec.display().to_string(), "apply")?;
                }
                let started = detach::start(&spec, &name, false, args.allow_empty).await?;
                screen::line(&format!(
                    "stack `{name}` is kept by a controller in the background (pid {})",
                    started.pid
                ))?;
                let story = started.client.events().await?;
                (started.client, story, 1)
            }
        };
        let mut listening = Listening::There { client, story };
        converge::converge(&mut listening, &mut narrator, generation).await?;
        Ok(ExitCode::SUCCESS)
    })
}
