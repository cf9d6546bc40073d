//! How a controller begins with what a repository holds, or held.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::repository::sought;
use super::scratch::Scratch;
use super::{GitRepository, Named, NamedBy, keep};
use crate::cli::error::CommandError;
use crate::cli::spec_args::IN_FOLDER;
use crate::cli::{host, requirements, up, wiring};
use crate::reconcile::handle::SpecText;
use crate::reconcile::sync::{Fault, Head, Known, Next, Refusal, Repository, judge};
use crate::source::git::{Limits, Mirror, Remote, shown};
use crate::spec::generation::{Cause, Past, last_followed, last_taken};
use crate::spec::model::{Commit, GitSource};
use crate::store::{git_folder, history};

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
    /// It was in force before.
    pub goes_on: bool,
    /// The repository.
    pub following: Following,
}

/// What a commit may do that is begun with.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// It may remove everything.
    pub empty: bool,
    /// It may require what the machine lacks: that is installed.
    pub install: bool,
}

/// Between two looks whether somebody holds the stack.
const LOOK: Duration = Duration::from_millis(10);
/// How often that is looked at: what one that just died started has a copy of its lock for a
/// moment.
const LOOKS: u32 = 20;

/// What a controller begins with.
struct Begun {
    spec: SpecText,
    left: Option<SpecText>,
    goes_on: bool,
}

/// What is there before the repository is asked.
struct Ground {
    repository: Arc<GitRepository>,
    known: Known,
    /// What is in force, and what it was gone back to from.
    last: Option<Begun>,
}

impl Ground {
    fn look(named: &Named, stack: &str) -> Result<Ground, CommandError> {
        let Named { source, file } = named;
        let folder = git_folder(&wiring::dirs(stack));
        let repository = repository(source, &folder, file.clone())?;
        if let Some(file) = file {
            keep(stack, file);
        }
        let past = history::past(&wiring::dirs(stack));
        Ok(Ground {
            known: known(stack, &past, source),
            last: last_spec(stack, &past, &repository),
            repository: Arc::new(repository),
        })
    }

    fn found(self, source: GitSource, begun: Begun) -> Found {
        Found {
            spec: begun.spec,
            left: begun.left,
            goes_on: begun.goes_on,
            following: Following {
                source,
                repository: self.repository,
                known: self.known,
            },
        }
    }
}

/// The commit that is in force already, if it is there still, from the place that is named. The
/// repository is not asked.
pub fn resume(named: &Named, stack: &str) -> Option<Found> {
    let mut ground = Ground::look(named, stack).ok()?;
    let last = ground.last.take()?;
    is_at(&last.spec, &named.source).then(|| ground.found(named.source.clone(), last))
}

/// Whether a spec came from those files of its commit's tree that `source` names.
fn is_at(spec: &SpecText, source: &GitSource) -> bool {
    // By names alone: the tree need not be there any more.
    let further = &spec.further;
    further.origin.as_ref().is_some_and(|origin| {
        let named = sought(source, &origin.tree);
        let overlays = further.overlays.iter().map(|overlay| &overlay.path);
        let is_first = spec.path == named.path || spec.path == named.path.join(IN_FOLDER);
        is_first && overlays.eq(&named.overlays) && further.vars == named.vars
    })
}

/// The newest spec that may be taken: that of the head, or what is in force already where the
/// head is not to be taken or cannot be had.
///
/// # Errors
/// When there is neither.
pub fn begin(named: Named, stack: Option<&str>, allowed: Allowed) -> Result<Found, CommandError> {
    let stack = match stack {
        Some(stack) => stack.to_owned(),
        None => name_of(&named.source)?,
    };
    demand_free(&stack)?;
    let mut ground = Ground::look(&named, &stack)?;
    let Named { source, .. } = named;
    let last = ground.last.take();
    let suspended = last.is_some() && host::is_suspended(&wiring::dirs(&stack));
    let asked = match suspended {
        true => Err(Fault::Later("an operator suspended it".to_owned())),
        false => ground.repository.fetch(),
    };
    let asked = asked.and_then(|commit| {
        let descends = match &ground.known.taken {
            Some(taken) => ground.repository.descends(taken, &commit.id)?,
            None => true,
        };
        Ok(Head { commit, descends })
    });
    let allowed = Allowed {
        empty: allowed.empty || source.allow_empty,
        ..allowed
    };
    let taken = match asked {
        Ok(head) => match judge(&ground.known, &head, source.allow_rewrite, false) {
            Next::Take => {
                let spec = prepared(&mut ground, &head.commit, &stack, allowed);
                spec.inspect(|_| ground.known.taken = Some(head.commit.id.clone()))
            }
            Next::Nothing => Err("it is in force already".to_owned()),
            Next::Leave(why) => Err(why),
        },
        Err(fault) => Err(fault.to_string()),
    };
    let begun = match (taken, last) {
        (Ok(spec), _) => Begun {
            spec,
            left: None,
            goes_on: false,
        },
        (Err(_), Some(last)) => last,
        (Err(why), None) => {
            return Err(CommandError::new(format!(
                "cannot begin with `{}`: {why}",
                shown(&source.url)
            )));
        }
    };
    Ok(ground.found(source, begun))
}

/// Two controllers would fetch into the same mirror, each from its own repository.
fn demand_free(stack: &str) -> Result<(), CommandError> {
    let mut holder = None;
    for _ in 0..LOOKS {
        holder = wiring::holder(stack);
        if holder.is_none() {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
    let pid = holder.unwrap_or_default();
    Err(CommandError::new(format!(
        "stack `{stack}` has a controller already (pid {pid})"
    ))
    .hint(format!(
        "`hatchery --stack {stack} sync` says what it follows"
    )))
}

pub(super) fn repository(
    source: &GitSource,
    folder: &Path,
    file: Option<NamedBy>,
) -> Result<GitRepository, CommandError> {
    let remote = Remote {
        url: source.url.clone(),
        reference: source.reference.clone(),
        submodules: source.submodules,
    };
    let mirror = Mirror::open(folder, remote, Limits::default())
        .map_err(|error| CommandError::new(error.to_string()))?;
    Ok(GitRepository::new(mirror, source.clone(), file))
}

/// A spec that compiles, is of this stack, and may take the place of what runs. It is only held
/// against a commit what is the commit's fault.
fn prepared(
    ground: &mut Ground,
    commit: &Commit,
    stack: &str,
    allowed: Allowed,
) -> Result<SpecText, String> {
    let spec = ground.repository.prepare(commit);
    let spec = spec.and_then(|spec| may_begin(&spec, stack, allowed).map(|()| spec));
    spec.map_err(|fault| {
        let why = anstream::adapter::strip_str(&fault.to_string()).to_string();
        if let Fault::Refused(_) = fault {
            ground.known.refused = Some(Refusal {
                commit: commit.id.clone(),
                why: format!("commit {} is refused: {why}", commit.short()),
            });
        }
        why
    })
}

fn may_begin(spec: &SpecText, stack: &str, allowed: Allowed) -> Result<(), Fault> {
    let desired = wiring::compile(spec).map_err(|error| Fault::Refused(error.to_string()))?;
    if desired.stack != stack {
        let theirs = desired.stack;
        let why = format!("it is of stack `{theirs}`, not of `{stack}`");
        return Err(Fault::Refused(why));
    }
    let removal = up::removal(&desired).map_err(|error| Fault::Later(error.to_string()))?;
    if let Some(why) = removal.filter(|_| !allowed.empty) {
        return Err(Fault::Refused(why));
    }
    match requirements::lacks(&desired) {
        Some(why) if !allowed.install => Err(Fault::Later(why)),
        _ => Ok(()),
    }
}

/// The name of the stack that the head describes: fetched into a folder that goes again, since
/// nobody knows yet where it is to stay.
fn name_of(source: &GitSource) -> Result<String, CommandError> {
    let scratch = Scratch::new()?;
    let repository = repository(source, scratch.path(), None)?;
    let spec = head_of(&repository)?;
    let name = wiring::compile(&spec)?.stack;
    let place = git_folder(&wiring::dirs(&name));
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
pub(super) fn head_of(repository: &GitRepository) -> Result<SpecText, CommandError> {
    let failed = |fault: Fault| CommandError::new(fault.to_string());
    let commit = repository.fetch().map_err(failed)?;
    repository.prepare(&commit).map_err(failed)
}

/// The head of a repository, laid out in a folder that goes when it is dropped.
///
/// # Errors
/// When it cannot be had.
pub fn look(source: &GitSource) -> Result<(SpecText, Scratch), CommandError> {
    let scratch = Scratch::new()?;
    let repository = repository(source, scratch.path(), None)?;
    Ok((head_of(&repository)?, scratch))
}

/// What earlier controllers of the stack left behind.
fn known(stack: &str, past: &Past, source: &GitSource) -> Known {
    let dirs = wiring::dirs(stack);
    let Some(followed) = last_followed(&past.generations) else {
        return Known::default();
    };
    let taken = followed.commit.as_ref().map(|commit| commit.id.clone());
    let spec = history::spec(&dirs, followed).ok();
    if !spec.is_some_and(|spec| is_at(&spec, source)) {
        // The same commit has another spec at another place.
        return Known {
            taken,
            ..Known::default()
        };
    }
    let last = last_taken(&past.generations);
    let in_force = last.and_then(|last| Some(last.commit.as_ref()?.id.clone()));
    let displaced = taken.clone().filter(|_| in_force != taken).zip(last);
    Known {
        left: displaced.map(|(commit, last)| Refusal::displaced(commit, last.number)),
        in_force,
        taken,
        refused: None,
    }
}

/// What is in force, and what it was gone back to from; its tree is laid out again if it is gone.
fn last_spec(stack: &str, past: &Past, repository: &GitRepository) -> Option<Begun> {
    let dirs = wiring::dirs(stack);
    let last = last_taken(&past.generations)?;
    let spec = history::spec(&dirs, last).ok()?;
    if let Some(commit) = spec.commit() {
        repository.lay_out(commit).ok()?;
    }
    wiring::compile(&spec).ok()?;
    let left = last_followed(&past.generations)
        .filter(|left| matches!(last.cause, Cause::Rollback { .. }) && left.commit != last.commit)
        .and_then(|left| history::spec(&dirs, left).ok());
    Some(Begun {
        spec,
        left,
        goes_on: true,
    })
}
