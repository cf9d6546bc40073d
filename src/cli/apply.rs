//! `hatchery apply`: hands a spec, or a saved plan of one, to the stack's controller, or starts
//! one, and waits.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::detach::{self, Begin};
use super::error::CommandError;
use super::{Global, converge, listening::Listening, narrator::Narrator};
use super::{plan_file, requirements, screen, spec_file, stack, wiring};
use crate::plan::saved::SavedPlan;
use crate::reconcile::handle::SpecText;

/// Arguments of `apply`.
#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    /// The spec, a YAML file; or a plan that `plan --out` kept
    #[arg(value_name = "SPEC|PLAN")]
    file: PathBuf,
    /// Take the spec even if it would remove everything that runs
    #[arg(long)]
    allow_empty: bool,
}

/// What is applied.
struct Applied {
    spec: SpecText,
    /// The plan, and the file that it is in.
    saved: Option<(PathBuf, SavedPlan)>,
    /// As it was named.
    shown: String,
}

/// Returns once everything is as the spec says, or as far as the plan goes.
///
/// # Errors
/// When the spec or the plan is refused, or something fails on the way.
pub fn run(args: &ApplyArgs, global: &Global) -> Result<ExitCode, CommandError> {
    let Applied { spec, saved, shown } = read(&args.file)?;
    let desired = wiring::compile(&spec)?;
    let name = desired.stack.clone();
    stack::same(global.stack.as_deref(), &name)?;
    requirements::demand(&desired, &shown, false)?;
    wiring::block_on(async {
        let mut narrator = Narrator::of_screen();
        let (client, story, generation) = match stack::client_if_any(&name).await? {
            Some(client) => {
                let story = client.events().await?;
                let saved = saved.map(|(_, saved)| saved);
                let generation = client.apply(spec, args.allow_empty, saved).await?;
                (client, story, generation)
            }
            None => {
                // What a plan removes was looked at.
                let allow_empty = args.allow_empty || saved.is_some();
                if !allow_empty {
                    super::up::hold_removal(&desired, &shown, "apply")?;
                }
                let begin = Begin {
                    follows: false,
                    allow_empty,
                    saved: saved.as_ref().map(|(path, _)| path.as_path()),
                };
                let started = detach::start(&spec, &name, begin).await?;
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

/// The spec in this file, or the plan and the spec that it was made from.
fn read(path: &Path) -> Result<Applied, CommandError> {
    let found = spec_file::text(path, "spec or plan", plan_file::LIMIT)?;
    let shown = path.display().to_string();
    let Some(saved) = plan_file::recognise(path, &found.text)? else {
        let spec = spec_file::within_limit(path, found)?;
        return Ok(Applied {
            spec,
            saved: None,
            shown,
        });
    };
    let spec = spec_file::read(&saved.spec)?;
    if !saved.is_of(&spec.text) {
        let changed = saved.spec_changed();
        let spec = saved.spec.display();
        return Err(CommandError::new(
            "cannot apply the plan: since it was made, something changed",
        )
        .detail(changed)
        .hint(format!(
            "look at a new one, `hatchery plan {spec} --out FILE`"
        )));
    }
    Ok(Applied {
        shown: saved.spec.display().to_string(),
        saved: Some((found.path, saved)),
        spec,
    })
}
