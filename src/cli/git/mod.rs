//! The repository that a stack follows: what names it, and how a controller begins with it.

pub mod against;
mod repository;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use self::repository::GitRepository;

use super::error::CommandError;
use super::spec_args::lasting;
use super::spec_file;
use super::wiring;
use crate::reconcile::handle::SpecText;
use crate::reconcile::load::INPUT_LIMIT;
use crate::reconcile::sync::{Fault, Head, Known, Next, Refusal, Repository, judge};
use crate::source::git::{Limits, Mirror, Remote};
use crate::spec::generation::{Generation, Outcome, Past, gone_back, last_taken};
use crate::spec::model::{Commit, GitSource};
use crate::spec::text::parse_duration;
use crate::store::history;

/// Which repository.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct GitArgs {
    /// Follow the spec in this git repository
    #[arg(long, value_name = "URL", conflicts_with_all = ["spec", "file"])]
    git: Option<String>,
    /// Follow the repository that this file names, as `source: { git: URL, … }`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["spec", "file", "git"])]
    source: Option<PathBuf>,
    /// With `--git`: the branch or tag; `main` unless given
    #[arg(long = "ref", value_name = "REF", requires = "git")]
    reference: Option<String>,
    /// With `--git`: the spec's file or folder in the repository; its top unless given
    #[arg(long, value_name = "PATH", requires = "git")]
    path: Option<PathBuf>,
    /// With `--git`: how often the repository is asked; `60s` unless given
    #[arg(long, value_name = "TIME", requires = "git", value_parser = interval)]
    interval: Option<Duration>,
    /// With `--git`: take a head that does not descend from what was applied
    #[arg(long, requires = "git")]
    allow_rewrite: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    match interval < GitSource::LEAST_INTERVAL {
        true => Err("it is shorter than 1s".to_owned()),
        false => Ok(interval),
    }
}

impl GitArgs {
    /// Whether a repository is named.
    pub fn is_given(&self) -> bool {
        self.git.is_some() || self.source.is_some()
    }

    /// The repository that is named.
    ///
    /// # Errors
    /// What is wrong with the file that names it, or with a path.
    pub fn source(&self) -> Result<Option<GitSource>, CommandError> {
        if let Some(file) = &self.source {
            return read(file).map(Some);
        }
        let Some(url) = &self.git else {
            return Ok(None);
        };
        let path = self.path.clone().unwrap_or_default();
        let inner = crate::spec::within_tree(&path).ok_or_else(|| {
            CommandError::new(format!(
                "`{}` is not a path inside the repository",
                path.display()
            ))
            .hint("as `--path specs/prime`, without `..`")
        })?;
        let reference = self.reference.clone();
        let reference = reference.unwrap_or_else(|| GitSource::REFERENCE.to_owned());
        let mut source = GitSource::new(absolute_url(url), reference, inner);
        source.interval = self.interval.unwrap_or(source.interval);
        source.allow_rewrite = self.allow_rewrite;
        Ok(Some(source))
    }

    /// The same arguments for another process in another folder.
    ///
    /// # Errors
    /// When a folder on the way is not there.
    pub fn argv(&self) -> Result<Vec<OsString>, CommandError> {
        let mut argv: Vec<OsString> = Vec::new();
        if let Some(file) = &self.source {
            let file = lasting(file).map_err(|error| {
                CommandError::new(format!("cannot find `{}`", file.display())).because(&error)
            })?;
            argv.extend(["--source".into(), file.into()]);
        }
        if let Some(url) = &self.git {
            argv.push(joined("--git", absolute_url(url)));
        }
        argv.extend(
            self.reference
                .iter()
                .map(|name| joined("--ref", name.clone())),
        );
        argv.extend(self.path.iter().map(|path| joined("--path", path.clone())));
        let interval = self
            .interval
            .map(|interval| format!("{}ms", interval.as_millis()));
        argv.extend(interval.map(|interval| joined("--interval", interval)));
        argv.extend(self.allow_rewrite.then(|| "--allow-rewrite".into()));
        Ok(argv)
    }

    /// The arguments as people know them, for hints.
    pub fn shown(&self) -> String {
        match (&self.source, &self.git) {
            (Some(file), _) => format!("--source {}", file.display()),
            (None, Some(url)) => format!("--git {}", crate::source::git::shown(url)),
            (None, None) => String::new(),
        }
    }
}

/// One argument, so that a value that begins with `-` is none.
fn joined(name: &str, value: impl Into<OsString>) -> OsString {
    let mut argument = OsString::from(name);
    argument.push("=");
    argument.push(value.into());
    argument
}

/// A path of this machine is made absolute: the controller works elsewhere.
fn absolute_url(url: &str) -> String {
    let is_path = url.starts_with(['.', '/']) || Path::new(url).is_dir();
    match std::path::absolute(url).ok().filter(|_| is_path) {
        Some(path) => path.display().to_string(),
        None => url.to_owned(),
    }
}

fn read(file: &Path) -> Result<GitSource, CommandError> {
    let found = spec_file::text(file, "source", INPUT_LIMIT)?;
    let name = file.display().to_string();
    crate::spec::read_source(&name, &found.text).map_err(|errors| {
        CommandError::report(crate::spec::report(&name, &found.text, &errors, true))
    })
}

/// What a controller follows.
pub struct Following {
    /// How.
    pub source: GitSource,
    /// The repository.
    pub repository: Arc<GitRepository>,
    /// What is known of it already.
    pub known: Known,
}

/// What a controller begins with, and follows from then on.
pub struct Found {
    /// The spec.
    pub spec: SpecText,
    /// What the stack went back from.
    pub left: Option<SpecText>,
    /// The repository.
    pub following: Following,
}

/// The newest spec that may be taken: that of the head, or what is in force already where the
/// head is not to be taken or cannot be had.
///
/// # Errors
/// When there is neither.
pub fn begin(source: GitSource, stack: Option<&str>) -> Result<Found, CommandError> {
    let stack = match stack {
        Some(stack) => stack.to_owned(),
        None => name_of(&source)?,
    };
    let folder = wiring::dirs(&stack).state.join("git");
    let mirror = open(&source, &folder)?;
    let repository = Arc::new(GitRepository::new(mirror, source.clone()));
    let past = history::past(&wiring::dirs(&stack));
    let mut known = known(&stack, &past);
    let last = last_spec(&stack, &past, &repository);
    let asked = repository.fetch().and_then(|commit| {
        let descends = match &known.taken {
            Some(taken) => repository.descends(taken, &commit.id)?,
            None => true,
        };
        Ok(Head { commit, descends })
    });
    let taken = match asked {
        Ok(head) => match judge(&known, &head, source.allow_rewrite, false) {
            Next::Take => prepared(&repository, &head.commit, &stack, &mut known),
            Next::Nothing => Err("it is in force already".to_owned()),
            Next::Leave(why) => Err(why),
        },
        Err(fault) => Err(fault.to_string()),
    };
    let (spec, left) = match (taken, last) {
        (Ok(spec), _) => (spec, None),
        (Err(_), Some(last)) => last,
        (Err(why), None) => {
            return Err(CommandError::new(format!(
                "cannot begin with `{}`: {why}",
                crate::source::git::shown(&source.url)
            )));
        }
    };
    Ok(Found {
        spec,
        left,
        following: Following {
            source,
            repository,
            known,
        },
    })
}

fn open(source: &GitSource, folder: &Path) -> Result<Mirror, CommandError> {
    let remote = Remote {
        url: source.url.clone(),
        reference: source.reference.clone(),
        submodules: source.submodules,
    };
    Mirror::open(folder, remote, Limits::default())
        .map_err(|error| CommandError::new(error.to_string()))
}

/// A spec that compiles, and is of this stack.
fn prepared(
    repository: &GitRepository,
    commit: &Commit,
    stack: &str,
    known: &mut Known,
) -> Result<SpecText, String> {
    let spec = repository.prepare(commit);
    let spec = spec.map_err(|fault| fault.to_string()).and_then(|spec| {
        let desired = wiring::compile(&spec).map_err(|error| error.to_string())?;
        match desired.stack == stack {
            true => Ok(spec),
            false => Err(format!(
                "it is of stack `{}`, not of `{stack}`",
                desired.stack
            )),
        }
    });
    spec.map_err(|why| {
        let why = anstream::adapter::strip_str(&why).to_string();
        known.refused = Some(Refusal {
            commit: commit.id.clone(),
            why: format!("commit {} is refused: {why}", commit.short()),
        });
        why
    })
}

/// The name of the stack that the head describes: fetched into a folder that goes again, since
/// nobody knows yet where it is to stay.
fn name_of(source: &GitSource) -> Result<String, CommandError> {
    let scratch = scratch()?;
    let repository = GitRepository::new(open(source, scratch.path())?, source.clone());
    let spec = head_of(&repository)?;
    let name = wiring::compile(&spec)?.stack;
    let place = wiring::dirs(&name).state.join("git");
    let kept = place.join("mirror.git");
    if !kept.exists() && std::fs::create_dir_all(&place).is_ok() {
        // What was fetched need not be fetched again; where it cannot stay, it is.
        let _ = std::fs::rename(scratch.path().join("mirror.git"), kept);
    }
    Ok(name)
}

/// The spec of the newest commit, for those who only look.
///
/// # Errors
/// When it cannot be had.
pub fn head_of(repository: &GitRepository) -> Result<SpecText, CommandError> {
    let failed = |fault: Fault| CommandError::new(fault.to_string());
    let commit = repository.fetch().map_err(failed)?;
    repository.prepare(&commit).map_err(failed)
}

/// The head of a repository, laid out in a folder that goes when it is dropped.
///
/// # Errors
/// As [`head_of`].
pub fn look(source: &GitSource) -> Result<(SpecText, tempfile::TempDir), CommandError> {
    let scratch = scratch()?;
    let repository = GitRepository::new(open(source, scratch.path())?, source.clone());
    Ok((head_of(&repository)?, scratch))
}

/// A folder that only we may enter: where our state is, or wherever who only looks may write.
fn scratch() -> Result<tempfile::TempDir, CommandError> {
    let root = wiring::roots().state;
    let mut folder = tempfile::Builder::new();
    folder.prefix(".git-");
    let made = std::fs::create_dir_all(&root)
        .and_then(|()| folder.tempdir_in(&root))
        .or_else(|_| folder.tempdir());
    made.map_err(|error| {
        let temporary = std::env::temp_dir();
        CommandError::new(format!(
            "cannot make a folder in `{}` or `{}`",
            root.display(),
            temporary.display()
        ))
        .because(&error)
    })
}

/// What earlier controllers of the stack left behind.
fn known(stack: &str, past: &Past) -> Known {
    let dirs = wiring::dirs(stack);
    let commit_of = |generation: &Generation| -> Option<String> {
        let spec = history::spec(&dirs, generation).ok()?;
        Some(spec.commit()?.id.clone())
    };
    let mut taken: Vec<&Generation> = past
        .generations
        .iter()
        .filter(|generation| !matches!(generation.outcome, Outcome::Refused { .. }))
        .collect();
    taken.sort_by_key(|generation| std::cmp::Reverse(generation.number));
    let refused = gone_back(&past.generations).and_then(|(current, left)| {
        Some(Refusal {
            commit: commit_of(left)?,
            why: format!(
                "the stack went back to generation {} from it; `hatchery sync --now` tries it \
                 again",
                current.number
            ),
        })
    });
    Known {
        in_force: last_taken(&past.generations).and_then(commit_of),
        taken: taken.into_iter().find_map(commit_of),
        refused,
    }
}

/// What is in force, and what it was gone back to from; its tree is laid out again if it is gone.
fn last_spec(
    stack: &str,
    past: &Past,
    repository: &GitRepository,
) -> Option<(SpecText, Option<SpecText>)> {
    let dirs = wiring::dirs(stack);
    let spec = history::spec(&dirs, last_taken(&past.generations)?).ok()?;
    if let Some(commit) = spec.commit() {
        repository.lay_out(commit).ok()?;
    }
    wiring::compile(&spec).ok()?;
    let left = gone_back(&past.generations).and_then(|(_, left)| history::spec(&dirs, left).ok());
    Some((spec, left))
}
