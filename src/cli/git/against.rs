//! Two specs that are compared: a work tree or a branch, and what was there before.

use std::path::{Path, PathBuf};

use super::GitArgs;
use super::begin::{head_of, repository};
use super::repository::sought;
use super::scratch::Scratch;
use crate::cli::error::CommandError;
use crate::cli::spec_args::SpecArgs;
use crate::cli::spec_file;
use crate::reconcile::handle::SpecText;
use crate::reconcile::sync::{Fault, Repository};
use crate::source::git::Checkout;
use crate::spec::gather::Sought;
use crate::spec::model::GitSource;

/// What is compared; the trees of commits lie there for as long as this lives.
pub struct Compared {
    /// What is to be.
    pub new: SpecText,
    /// What was; `None` where there was no spec yet.
    pub old: Option<SpecText>,
    /// A stack would follow the repository: what it refuses is refused.
    pub followed: bool,
    _trees: Vec<Scratch>,
}

/// The spec that is named, and that of the file or the revision `against`.
///
/// # Errors
/// When either cannot be read.
pub fn compared(spec: &SpecArgs, git: &GitArgs, against: &str) -> Result<Compared, CommandError> {
    if let Some(source) = git.source(spec)? {
        return branches(source, against);
    }
    match Path::new(against).exists() {
        true => Ok(Compared {
            new: spec.read()?,
            old: Some(SpecArgs::of(Path::new(against)).read()?),
            followed: false,
            _trees: Vec::new(),
        }),
        false => work_tree(spec, against),
    }
}

fn failed(fault: Fault) -> CommandError {
    CommandError::new(fault.to_string())
}

/// Two branches of one repository. What is only compared needs no signature.
fn branches(source: GitSource, against: &str) -> Result<Compared, CommandError> {
    let before = GitSource {
        reference: against.to_owned(),
        verify: None,
        ..source.clone()
    };
    let (new, tree) = super::look(&source)?;
    let other = Scratch::new()?;
    let repository = repository(&before, other.path(), None)?;
    let commit = repository.fetch().map_err(failed)?;
    let laid_out = repository.tree(&commit).map_err(failed)?;
    let old = match is_there(&sought(&before, &laid_out.tree)) {
        true => Some(head_of(&repository)?),
        false => None,
    };
    Ok(Compared {
        new,
        old,
        followed: true,
        _trees: vec![tree, other],
    })
}

/// Whether there is such a spec: with an overlay that is not there yet there is none.
fn is_there(sought: &Sought) -> bool {
    let further = sought.overlays.iter().chain(&sought.vars);
    further.chain([&sought.path]).all(|path| path.exists())
}

/// What lies in the work tree around a spec, and a revision of its repository. Both are laid out
/// as commits are for a stack that follows the repository, so that they differ where it would
/// find a difference.
fn work_tree(spec: &SpecArgs, against: &str) -> Result<Compared, CommandError> {
    let scratch = Scratch::new()?;
    let named = std::path::absolute(spec.first())
        .and_then(|path| path.canonicalize())
        .map_err(|error| {
            let shown = spec.first().display();
            CommandError::new(format!("cannot find the spec `{shown}`")).because(&error)
        })?;
    let folder = match named.is_dir() {
        true => named,
        false => named.parent().map(PathBuf::from).unwrap_or(named),
    };
    let local = |error: crate::source::git::GitError| CommandError::new(error.to_string());
    let checkout = Checkout::of(&folder, &scratch.path().join("own.git")).map_err(|error| {
        local(error).hint("`--against` takes a file, or a revision of the spec's repository")
    })?;
    checkout.take_revision(against, "old").map_err(local)?;
    checkout.take_work_tree("new").map_err(local)?;
    let laid_out = |branch: &str| -> Result<Option<SpecText>, CommandError> {
        let source = GitSource::new(checkout.url(), branch.to_owned(), PathBuf::new());
        let place = scratch.path().join(branch);
        let repository = repository(&source, &place, None)?;
        let commit = repository.fetch().map_err(failed)?;
        let origin = repository.tree(&commit).map_err(failed)?;
        let sought = spec.sought_in_tree(checkout.top(), &origin.tree)?;
        if !is_there(&sought) {
            return Ok(None);
        }
        let mut text = spec_file::read(&sought)?;
        text.further.origin = Some(origin);
        Ok(Some(text))
    };
    let old = laid_out("old")?;
    let new = laid_out("new")?.ok_or_else(|| {
        CommandError::new(format!(
            "cannot compare `{}`: the repository ignores it",
            spec.shown()
        ))
    })?;
    Ok(Compared {
        new,
        old,
        followed: false,
        _trees: vec![scratch],
    })
}
