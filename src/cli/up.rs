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
            true => args.git.argv(&args.from)?,
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
    let asked = global.stack.as_deref();
    // Who types is told of every mistake.
    let kept = asked.filter(|_| args.service);
    if let Some(named) = args.git.followed(&args.from, kept)? {
        let checked = Checked::of(git::begin(named, asked, args.allow_empty)?)?;
        stack::same(asked, &checked.desired.stack)?;
        return Ok(checked);
    }
    let spec = args.from.read()?;
    let desired = wiring::compile(&spec)?;
    stack::same(asked, &desired.stack)?;
    if !args.allow_empty {
        hold_removal(&desired, &args.shown(), "up")?;
    }
    Ok(Checked {
        spec,
        desired,
        left: None,
        following: None,
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
///
/// One that follows a repository begins with the commit that is in force, and asks the repository
/// once it is ready: at boot the network may be away, and a host that is slow must not hold up
/// what runs here.
///
/// Only the very first start has to ask. It does so once, within the limits of a fetch, for which
/// the unit leaves it time, and ends when there is nothing to begin with; systemd starts it again,
/// for ever. To be ready without a spec would be a lie to whoever waits for it, and to extend the
/// start until the repository answers would hold up the boot: its target waits for this unit.
fn serve(args: &UpArgs, global: &Global, herald: Option<Herald>) -> Result<ExitCode, CommandError> {
    let checked = match resumed(args, global)? {
        Some(resumed) => resumed,
        None => first(args, global, herald.as_ref())?,
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

/// The commit that is in force, where a repository is followed.
fn resumed(args: &UpArgs, global: &Global) -> Result<Option<Checked>, CommandError> {
    let Some(stack) = global.stack.as_deref() else {
        return Ok(None);
    };
    let Some(named) = args.git.followed(&args.from, Some(stack))? else {
        return Ok(None);
    };
    git::resume(&named, stack).map(Checked::of).transpose()
}

/// What a service begins with that cannot simply go on.
fn first(args: &UpArgs, global: &Global, herald: Option<&Herald>) -> Result<Checked, CommandError> {
    if let Some(herald) = herald.filter(|_| args.git.is_given()) {
        herald.say(&format!("asks the repository of `{}`", args.shown()));
    }
    let error = match check(args, global) {
        Ok(found) => return Ok(gone_back(found)),
        Err(error) => error,
    };
    let why = anstream::adapter::strip_str(&error.to_string()).to_string();
    if let Some(last) = last_good(args, global) {
        tracing::warn!("begins with the spec that was taken last: {why}");
        return Ok(last);
    }
    if let Some(herald) = herald {
        herald.say(&format!("cannot begin, and is tried again: {why}"));
    }
    Err(error)
}

impl UpArgs {
    /// What is brought up, for hints.
    fn shown(&self) -> String {
        match self.git.is_given() {
            true => self.git.shown(&self.from),
            false => self.from.shown(),
        }
    }
}

impl Checked {
    /// What came from a repository.
    fn of(found: git::Found) -> Result<Checked, CommandError> {
        Ok(Checked {
            desired: wiring::compile(&found.spec)?,
            spec: found.spec,
            left: found.left,
            following: Some(found.following),
        })
    }

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
    if args.git.is_given() {
        return None;
    }
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
    match removal(desired)? {
        None => Ok(()),
        Some(why) => Err(CommandError::new(why).hint(format!(
            "if that is meant, use `hatchery {verb} --allow-empty {shown}`"
        ))),
    }
}

/// Says so of a spec that would end everything that runs of its stack.
///
/// # Errors
/// When what runs cannot be seen.
pub fn removal(desired: &Desired) -> Result<Option<String>, CommandError> {
    let lives = wiring::lives(&desired.stack)?;
    let stays = |life: &Life| desired.stays(&life.id.node);
    Ok((!lives.is_empty() && !lives.iter().any(stays)).then(|| {
        format!(
            "the spec would remove everything that runs of stack `{}`",
            desired.stack
        )
    }))
}
