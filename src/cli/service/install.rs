//! `hatchery service install`.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::systemctl::{self, View};
use super::unit::{self, Definition, Found};
use super::{ours, source_of};
use crate::api::control::Client;
use crate::cli::error::CommandError;
use crate::cli::git::{self, GitArgs};
use crate::cli::spec_args::{self, SpecArgs, lasting};
use crate::cli::{Global, requirements, screen, stack, sync, up, wiring};
use crate::graph::desired::Desired;
use crate::reconcile::sync::Word;

/// The variables that say where a stack's folders are: the service is to use the same ones.
const FOLDERS: [&str; 3] = ["HATCHERY_RUN_DIR", "HATCHERY_STATE_DIR", "HATCHERY_LOG_DIR"];
/// How long another controller may take to end.
const PARTING: Duration = Duration::from_secs(15);
/// Between two looks whether it did.
const LOOK: Duration = Duration::from_millis(50);

/// Arguments of `service install`.
#[derive(Debug, clap::Args)]
#[command(group = spec_args::needed_anywhere())]
pub struct InstallArgs {
    #[command(flatten)]
    from: SpecArgs,
    #[command(flatten)]
    git: GitArgs,
    /// Install the Debian packages of requirements that are missing
    #[arg(long)]
    install: bool,
    /// Do not follow edits of the spec's files; `systemctl reload` takes them
    #[arg(long, conflicts_with_all = ["git", "source"])]
    no_follow: bool,
    /// Print the unit, and do nothing
    #[arg(long)]
    print: bool,
}

/// Returns once the controller runs and has taken the spec.
///
/// # Errors
/// When systemd or the spec's requirements are missing, the spec is wrong, a unit of that name
/// is somebody else's, or the unit does not start.
pub fn run(args: &InstallArgs, global: &Global) -> Result<ExitCode, CommandError> {
    let shown = args.shown();
    let desired = args.desired(global.stack.as_deref())?;
    let name = desired.stack.as_str();
    stack::same(global.stack.as_deref(), name)?;
    let text = definition(args, name)?;
    if args.print {
        screen::say(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    systemctl::demand()?;
    let unit = unit::name(name);
    let path = unit::path(name);
    let found = ours(name)?;
    let before = systemctl::view(&unit)?;
    demand_no_other(&before, &path)?;
    requirements::demand(&desired, &shown, args.install)?;
    up::hold_removal(&desired, &shown, args.verb())?;
    let other = other(name, &before)?;
    let written = found == Found::Ours(text.clone());
    if !written {
        unit::write(&path, &text).map_err(|error| {
            CommandError::new(format!("cannot write `{}`", path.display())).because(&error)
        })?;
        systemctl::systemctl(&["daemon-reload"])?;
    }
    systemctl::systemctl(&["enable", &unit])?;
    let runs = before.active == "active";
    let same = written && !(runs && is_edited(name));
    if let Some(other) = &other {
        take_over(name, other)?;
    }
    match (runs, same) {
        (true, true) => {
            screen::line(&format!("`{unit}` runs already, as it would be installed"))?;
            return tell_source(name, args).map(|()| ExitCode::SUCCESS);
        }
        (true, false) => systemctl::launch("restart", &unit)?,
        (false, _) => systemctl::launch("start", &unit)?,
    }
    screen::line(&format!(
        "stack `{name}` is kept by `{unit}`, from the boot on; `journalctl -u {unit}` tells what \
         it does"
    ))?;
    tell_source(name, args)?;
    Ok(ExitCode::SUCCESS)
}

impl InstallArgs {
    /// What is installed, for hints.
    fn shown(&self) -> String {
        match self.git.is_given() {
            true => self.git.shown(&self.from),
            false => self.from.shown(),
        }
    }

    /// The verb that would take the same spec once.
    fn verb(&self) -> &'static str {
        match self.git.is_given() {
            true => "up",
            false => "apply",
        }
    }

    /// What the service would begin with. A controller may work with the stack's own mirror of
    /// the repository meanwhile, so that is left alone.
    fn desired(&self, stack: Option<&str>) -> Result<Desired, CommandError> {
        let Some(named) = self.git.followed(&self.from, None)? else {
            return wiring::compile(&self.from.read()?);
        };
        let error = match git::look(&named.source) {
            Ok((spec, _tree)) => return wiring::compile(&spec),
            Err(error) => error,
        };
        let last = stack.and_then(wiring::last_spec);
        match last.filter(|spec| spec.commit().is_some()) {
            Some(last) => {
                let why = error.message();
                screen::complain(&format!("the last commit is gone on with: {why}"));
                wiring::compile(&last)
            }
            None => Err(error.hint(
                "the first start needs the repository; from then on the stack begins with the \
                 last commit that it took, whether the repository answers or not",
            )),
        }
    }
}

/// Whether the file that named the repository to the controller was edited since.
fn is_edited(name: &str) -> bool {
    source_of(name).is_some_and(|source| source.edited.is_some())
}

/// What came of the newest commit, where a repository is followed.
fn tell_source(name: &str, args: &InstallArgs) -> Result<(), CommandError> {
    if !args.git.is_given() {
        return Ok(());
    }
    let status = wiring::block_on(async {
        let client = stack::client(name).await?;
        Ok(client.sync(Word::Pushed).await?)
    })?;
    screen::say(&sync::text(&status, screen::day_and_time))?;
    Ok(())
}

fn definition(args: &InstallArgs, stack: &str) -> Result<String, CommandError> {
    let program = own_path()?;
    let asks = args.git.is_given();
    let from = match asks {
        true => args.git.argv(&args.from)?,
        false => args.from.argv()?,
    };
    let mut needs: Vec<PathBuf> = match asks {
        // A repository on a disk of this machine may be away like any other.
        true => args.git.file().into_iter().collect(),
        false => from.iter().map(PathBuf::from).collect(),
    };
    needs.push(program.clone());
    let environment: Vec<(&'static str, OsString)> = FOLDERS
        .into_iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)))
        .collect();
    needs.extend(environment.iter().map(|(_, folder)| folder.into()));
    needs.retain(|path| path.is_absolute());
    let mut arguments: Vec<OsString> = Vec::new();
    arguments.extend(args.no_follow.then(|| "--no-follow".into()));
    arguments.extend(from);
    unit::text(&Definition {
        stack,
        program: &program,
        arguments,
        asks,
        needs,
        environment,
    })
    .map_err(CommandError::new)
}

/// This program's path as it was called. Links in it stay, for an upgrade may swap them; the
/// kernel's own name of the file would stay with the old one.
fn own_path() -> Result<PathBuf, CommandError> {
    let called = std::env::args_os().next().map(PathBuf::from);
    let called = called.unwrap_or_default();
    let path = match called.components().count() {
        0 | 1 if !called.is_absolute() => on_path(&called),
        _ => lasting(&called).ok(),
    };
    path.filter(|path| is_own(path))
        .or_else(|| std::env::current_exe().ok().filter(|path| is_own(path)))
        .ok_or_else(|| {
            CommandError::new("cannot tell where this program lies: its file is gone or another")
                .hint("call the new one by its absolute path")
        })
}

fn on_path(name: &Path) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Whether the file at `path` is the one that runs here.
fn is_own(path: &Path) -> bool {
    let identity = |path: &Path| {
        let file = path.metadata().ok()?;
        Some((file.dev(), file.ino()))
    };
    let own = identity(Path::new("/proc/self/exe"));
    own.is_some() && identity(path) == own
}

/// A unit of the same name elsewhere, of a package say, would be hidden by ours.
fn demand_no_other(view: &View, path: &Path) -> Result<(), CommandError> {
    if view.fragment.is_empty() || Path::new(&view.fragment) == path {
        return Ok(());
    }
    Err(CommandError::new(format!(
        "cannot write `{}`: systemd has a unit of that name, `{}`",
        path.display(),
        view.fragment
    )))
}

/// A controller that runs outside of the service.
struct Other {
    pid: u32,
    client: Client,
}

/// Who keeps the stack besides the service. One that another unit keeps would come back when it
/// is ended, and one that does not listen cannot be asked to end: both are refused.
fn other(name: &str, service: &View) -> Result<Option<Other>, CommandError> {
    let running = wiring::block_on(async {
        match stack::client_if_any(name).await? {
            Some(client) => Ok(Some(Other {
                pid: client.version().await?.pid,
                client,
            })),
            None => Ok(None),
        }
    })?;
    let Some(other) = running else {
        return demand_free(name, service.pid).map(|()| None);
    };
    if other.pid == service.pid {
        return Ok(None);
    }
    match systemctl::unit_kept_by(other.pid) {
        None => Ok(Some(other)),
        Some(unit) => Err(CommandError::new(format!(
            "cannot take stack `{name}` over: `{unit}` keeps its controller (pid {})",
            other.pid
        ))
        .hint(format!(
            "`systemctl disable --now {unit}` ends that, and what runs goes on"
        ))),
    }
}

/// Ends it: what it keeps goes on, and the service adopts it.
fn take_over(name: &str, other: &Other) -> Result<(), CommandError> {
    screen::line(&format!(
        "the controller that ran outside of the service (pid {}) ends; what runs goes on",
        other.pid
    ))?;
    wiring::block_on(async { Ok(other.client.leave().await?) })?;
    let deadline = Instant::now() + PARTING;
    while wiring::holder(name).is_some() && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
    demand_free(name, 0)
}

/// Demands that nobody but the service holds the stack.
fn demand_free(name: &str, service: u32) -> Result<(), CommandError> {
    match wiring::holder(name) {
        None => Ok(()),
        Some(pid) if pid == service && pid != 0 => Ok(()),
        Some(pid) => Err(CommandError::new(format!(
            "cannot start the service: stack `{name}` is held by hatchery (pid {pid})"
        ))
        .hint(format!("`kill {pid}` ends it, and leaves what runs"))),
    }
}
