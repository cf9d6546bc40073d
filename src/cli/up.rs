//! `hatchery up`: runs a controller, here, detached, or as systemd's service.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use super::detach::{self, Begin};
use super::error::CommandError;
use super::foreground::{self, Foreground, Service};
use super::git::{self, Following, GitArgs};
use super::herald::Herald;
use super::narrator::{Manner, Narrator};
use super::spec_args::{self, SpecArgs};
use super::{Global, converge, listening::Listening, requirements, screen, stack};
use super::{plan_file, wiring};
use crate::graph::desired::Desired;
use crate::plan::world::Life;
use crate::reconcile::handle::SpecText;
use crate::spec::gather::Sought;
use crate::spec::model::OnFailure;

/// Arguments of `up`.
#[derive(Debug, clap::Args)]
#[command(group = spec_args::needed_anywhere())]
pub struct UpArgs {
    #[command(flatten)]
    from: SpecArgs,
    #[command(flatten)]
    git: GitArgs,
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
    /// What the stack went back to it from.
    left: Option<SpecText>,
    /// The repository that it comes from.
    following: Option<Following>,
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
    let checked = check(args, global)?;
    let name = checked.desired.stack.clone();
    demand(args, &checked.desired)?;
    if args.detach {
        let arguments = match args.git.is_given() {
            true => args.git.argv()?,
            false => checked.spec.arguments(),
        };
        let begin = Begin {
            arguments,
            follows: !args.no_follow,
            allow_empty: args.allow_empty,
            saved: None,
        };
        return wiring::block_on(go_behind(&name, begin, args.wait));
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
            saved,
            ..checked.begin(!args.no_follow)
        },
        following: checked.following,
        narrator,
        log: args.detached,
        service: None,
    }))
}

/// The spec, if it may be brought up.
fn check(args: &UpArgs, global: &Global) -> Result<Checked, CommandError> {
    let (spec, left, following) = match args.git.source()? {
        Some(source) => {
            let found = git::begin(source, global.stack.as_deref())?;
            (found.spec, found.left, Some(found.following))
        }
        None => (args.from.read()?, None, None),
    };
    let desired = wiring::compile(&spec)?;
    stack::same(global.stack.as_deref(), &desired.stack)?;
    if !args.allow_empty {
        hold_removal(&desired, &args.shown(), "up")?;
    }
    Ok(Checked {
        spec,
        desired,
        left,
        following,
    })
}

fn demand(args: &UpArgs, desired: &Desired) -> Result<(), CommandError> {
    requirements::demand(desired, &args.shown(), args.install)
}

async fn go_behind(name: &str, begin: Begin<'_>, wait: bool) -> Result<ExitCode, CommandError> {
    let started = detach::start(name, begin).await?;
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
    let checked = match check(args, global) {
        Ok(found) => gone_back(found),
        Err(error) => match last_good(args, global) {
            Some(last) => {
                let why = anstream::adapter::strip_str(&error.to_string()).to_string();
                tracing::warn!("begins with the spec that was taken last: {why}");
                last
            }
            None => return Err(error),
        },
    };
    demand(args, &checked.desired)?;
    let stack = checked.desired.stack.clone();
    wiring::block_on_threads(foreground::attend(Foreground {
        narrator: Narrator::of_controller(&stack),
        stack,
        begin: checked.begin(!args.no_follow),
        following: checked.following,
        log: false,
        service: Some(Service { herald }),
    }))
}

impl UpArgs {
    /// What is brought up, for hints.
    fn shown(&self) -> String {
        match self.git.is_given() {
            true => self.git.shown(),
            false => self.from.shown(),
        }
    }
}

impl Checked {
    /// What a controller begins with.
    fn begin(&self, follows: bool) -> wiring::Begin {
        let source = self.following.as_ref().map(|following| &following.source);
        let deadline = source
            .filter(|source| source.on_failure == OnFailure::Rollback)
            .map(|source| source.health_timeout);
        wiring::Begin {
            spec: Some(self.spec.clone()),
            saved: None,
            left: self.left.clone(),
            // What a commit holds never changes.
            follows: follows && source.is_none(),
            commit_deadline: deadline,
            keeps: source.is_some_and(|source| !source.prune),
        }
    }
}

/// A stack that was rolled back stays so, whoever keeps it now: a new start of its service is no
/// edit.
fn gone_back(found: Checked) -> Checked {
    let back = (found.following.is_none())
        .then(|| wiring::went_back(&found.desired.stack, &found.spec))
        .flatten();
    match back.and_then(|spec| Some((wiring::compile(&spec).ok()?, spec))) {
        Some((desired, spec)) => Checked {
            left: Some(found.spec),
            spec,
            desired,
            following: None,
        },
        None => found,
    }
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
    Some(Checked {
        spec,
        desired,
        left: None,
        following: None,
    })
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
