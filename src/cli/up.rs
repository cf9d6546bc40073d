//! `hatchery up`: runs a controller, here or detached.

use std::path::PathBuf;
use std::process::ExitCode;

use super::detach::{self, Begin};
use super::error::CommandError;
use super::foreground::{self, Foreground};
use super::narrator::{Manner, Narrator};
use super::spec_args::{self, SpecArgs};
use super::{Global, converge, listening::Listening, requirements, screen, stack};
use super::{plan_file, wiring};
use crate::graph::desired::Desired;
use crate::plan::world::Life;

/// Arguments of `up`.
#[derive(Debug, clap::Args)]
#[command(group = spec_args::needed())]
pub struct UpArgs {
    #[command(flatten)]
    spec: SpecArgs,
    /// Leave the controller in the background, and return once it has taken the spec
    #[arg(short, long)]
    detach: bool,
    /// Install the Debian packages of requirements that are missing
    #[arg(long)]
    install: bool,
    /// With `--detach`: return once everything is as the spec says
    #[arg(long, requires = "detach")]
    wait: bool,
    /// Do not follow edits of the spec's files
    #[arg(long)]
    no_follow: bool,
    /// Take the spec even if it would remove everything that runs
    #[arg(long)]
    allow_empty: bool,
    /// What `--detach` starts: the same, with its output in a log file
    #[arg(long, hide = true, conflicts_with = "detach")]
    detached: bool,
    /// What `apply PLAN` starts: only as far as this plan of the spec goes
    #[arg(long, hide = true, requires = "detached", value_name = "FILE")]
    saved: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// When the spec is wrong, something that it requires is missing, or a controller runs already.
pub fn run(args: &UpArgs, global: &Global) -> Result<ExitCode, CommandError> {
    let spec = args.spec.read()?;
    let desired = wiring::compile(&spec)?;
    let name = desired.stack.clone();
    stack::same(global.stack.as_deref(), &name)?;
    let shown = args.spec.shown();
    requirements::demand(&desired, &shown, args.install)?;
    if !args.allow_empty {
        hold_removal(&desired, &shown, "up")?;
    }
    if args.detach {
        let follows = !args.no_follow;
        return wiring::block_on(async {
            let begin = Begin {
                follows,
                allow_empty: args.allow_empty,
                saved: None,
            };
            let started = detach::start(&spec, &name, begin).await?;
            screen::line(&format!(
                "stack `{name}` is kept by a controller in the background (pid {})",
                started.pid
            ))?;
            if args.wait {
                let story = started.client.events().await?;
                let mut listening = Listening::There {
                    client: started.client,
                    story,
                };
                converge::converge(&mut listening, &mut Narrator::of_screen(), 1).await?;
            }
            Ok(ExitCode::SUCCESS)
        });
    }
    let saved = match &args.saved {
        Some(path) => Some(plan_file::read(path)?),
        None => None,
    };
    let manner = if args.detached {
        Narrator::new(Manner::All)
    } else {
        Narrator::of_screen()
    };
    wiring::block_on_threads(foreground::attend(Foreground {
        stack: name,
        spec,
        saved,
        follows: !args.no_follow,
        narrator: manner,
        log: args.detached,
    }))
}

/// A spec that would end everything that runs of its stack may be half a file.
pub fn hold_removal(desired: &Desired, shown: &str, verb: &str) -> Result<(), CommandError> {
    let lives = wiring::lives(&desired.stack)?;
    let stays = |life: &Life| desired.nodes.contains_key(&life.id.node);
    if lives.is_empty() || lives.iter().any(stays) {
        return Ok(());
    }
    Err(CommandError::new(format!(
        "the spec would remove everything that runs of stack `{}`",
        desired.stack
    ))
    .hint(format!(
        "if that is meant, use `hatchery {verb} --allow-empty {shown}`"
    )))
}
