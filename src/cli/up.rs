//! `hatchery up`: runs a controller, here, detached, or as systemd's service.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use super::detach::{self, Begin};
use super::error::CommandError;
use super::foreground::{self, Foreground, Service};
use super::herald::Herald;
use super::narrator::{Manner, Narrator};
use super::spec_args::{self, SpecArgs};
use super::{Global, converge, listening::Listening, requirements, screen, stack};
use super::{plan_file, wiring};
use crate::graph::desired::Desired;
use crate::plan::world::Life;
use crate::reconcile::handle::SpecText;
use crate::spec::gather::Sought;

/// Arguments of `up`.
#[derive(Debug, clap::Args)]
#[command(group = spec_args::needed())]
pub struct UpArgs {
    #[command(flatten)]
    from: SpecArgs,
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
    /// What the unit of `service install` runs
    #[arg(long, hide = true, conflicts_with_all = ["detach", "detached"])]
    service: bool,
}

/// A spec that may be brought up.
struct Checked {
    spec: SpecText,
    desired: Desired,
}

/// Runs it.
///
/// # Errors
/// When the spec is wrong, something that it requires is missing, or a controller runs already.
pub fn run(args: &UpArgs, global: &Global) -> Result<ExitCode, CommandError> {
    if args.service {
        // SAFETY: no thread was started yet.
        let herald = unsafe { Herald::of_environment()? };
        return serve(args, global, herald);
    }
    let Checked { spec, desired } = check(args, global)?;
    let name = desired.stack.clone();
    demand(args, &desired)?;
    if args.detach {
        let begin = Begin {
            follows: !args.no_follow,
            allow_empty: args.allow_empty,
            saved: None,
        };
        return wiring::block_on(go_behind(&spec, &name, begin, args.wait));
    }
    let saved = match &args.saved {
        Some(path) => Some(plan_file::read(path)?),
        None => None,
    };
    let narrator = if args.detached {
        Narrator::new(Manner::All)
    } else {
        Narrator::of_controller(&name)
    };
    wiring::block_on_threads(foreground::attend(Foreground {
        stack: name,
        begin: wiring::Begin {
            spec: Some(spec),
            saved,
            left: None,
            follows: !args.no_follow,
        },
        narrator,
        log: args.detached,
        service: None,
    }))
}

/// The spec, if it may be brought up.
fn check(args: &UpArgs, global: &Global) -> Result<Checked, CommandError> {
    let spec = args.from.read()?;
    let desired = wiring::compile(&spec)?;
    stack::same(global.stack.as_deref(), &desired.stack)?;
    if !args.allow_empty {
        hold_removal(&desired, &args.from.shown(), "up")?;
    }
    Ok(Checked { spec, desired })
}

fn demand(args: &UpArgs, desired: &Desired) -> Result<(), CommandError> {
    requirements::demand(desired, &args.from.shown(), args.install)
}

async fn go_behind(
    spec: &SpecText,
    name: &str,
    begin: Begin<'_>,
    wait: bool,
) -> Result<ExitCode, CommandError> {
    let started = detach::start(spec, name, begin).await?;
    screen::line(&format!(
        "stack `{name}` is kept by a controller in the background (pid {})",
        started.pid
    ))?;
    if wait {
        let story = started.client.events().await?;
        let mut listening = Listening::There {
            client: started.client,
            story,
        };
        converge::converge(&mut listening, &mut Narrator::of_screen(), 1).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the controller for systemd. An upgrade, a crash or a boot must not cost the stack its
/// controller because somebody is editing the spec: then it begins with what was taken last,
/// and says what is wrong with the file as it does of any edit.
fn serve(args: &UpArgs, global: &Global, herald: Option<Herald>) -> Result<ExitCode, CommandError> {
    let mut left = None;
    let Checked { spec, desired } = match check(args, global) {
        Ok(found) => match gone_back(&found) {
            Some(back) => {
                left = Some(found.spec);
                back
            }
            None => found,
        },
        Err(error) => match last_good(args, global) {
            Some(last) => {
                let why = anstream::adapter::strip_str(&error.to_string()).to_string();
                tracing::warn!("begins with the spec that was taken last: {why}");
                last
            }
            None => return Err(error),
        },
    };
    demand(args, &desired)?;
    wiring::block_on_threads(foreground::attend(Foreground {
        narrator: Narrator::of_controller(&desired.stack),
        stack: desired.stack,
        begin: wiring::Begin {
            spec: Some(spec),
            saved: None,
            left,
            follows: !args.no_follow,
        },
        log: false,
        service: Some(Service { herald }),
    }))
}

/// A stack that was rolled back stays so, whoever keeps it now: a new start of its service is no
/// edit.
fn gone_back(found: &Checked) -> Option<Checked> {
    let spec = wiring::went_back(&found.desired.stack, &found.spec)?;
    let desired = wiring::compile(&spec).ok()?;
    Some(Checked { spec, desired })
}

/// What the stack took last, if it came from the same file and is good still.
fn last_good(args: &UpArgs, global: &Global) -> Option<Checked> {
    let spec = wiring::last_spec(global.stack.as_deref()?)?;
    let files = Sought {
        environment: BTreeMap::new(),
        ..spec.sought()
    };
    if args.from.sought().ok()? != files {
        return None;
    }
    let desired = wiring::compile(&spec).ok()?;
    Some(Checked { spec, desired })
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
