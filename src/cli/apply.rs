//! `hatchery apply`: hands a spec, or a saved plan of one, to the stack's controller, or starts
//! one, and waits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use super::detach::{self, Begin};
use super::error::CommandError;
use super::spec_args::{self, SpecArgs};
use super::{Global, converge, listening::Listening, narrator::Narrator};
use super::{plan_file, requirements, screen, spec_file, stack, wiring};
use crate::plan::saved::SavedPlan;
use crate::reconcile::handle::SpecText;
use crate::spec::gather::Sought;

/// Arguments of `apply`.
#[derive(Debug, clap::Args)]
#[command(group = spec_args::needed())]
pub struct ApplyArgs {
    #[command(flatten)]
    spec: SpecArgs,
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
    let Applied { spec, saved, shown } = read(&args.spec)?;
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
                    arguments: spec.arguments(),
                    follows: false,
                    allow_empty,
                    saved: saved.as_ref().map(|(path, _)| path.as_path()),
                };
                let started = detach::start(&name, begin).await?;
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

/// The spec that is named, or the plan and the spec that it was made from.
fn read(args: &SpecArgs) -> Result<Applied, CommandError> {
    let found = match args.only_file() {
        Some(path) => {
            let found = spec_file::text(path, "spec or plan", plan_file::LIMIT)?;
            plan_file::recognise(path, &found.text)?.map(|saved| (found.path, saved))
        }
        None => None,
    };
    let Some((path, saved)) = found else {
        return Ok(Applied {
            spec: args.read()?,
            saved: None,
            shown: args.shown(),
        });
    };
    let spec = spec_file::read(&Sought {
        path: saved.spec.clone(),
        folder: saved.spec.is_dir(),
        overlays: saved.overlays.clone(),
        vars: saved.vars.clone(),
        environment: BTreeMap::new(),
    })?;
    if !saved.is_of(&spec) {
        let changed = saved.spec_changed();
        let spec = spec.shown();
        return Err(CommandError::new(
            "cannot apply the plan: since it was made, something changed",
        )
        .detail(changed)
        .hint(format!(
            "look at a new one, `hatchery plan {spec} --out FILE`"
        )));
    }
    Ok(Applied {
        shown: spec.shown(),
        saved: Some((path, saved)),
        spec,
    })
}
