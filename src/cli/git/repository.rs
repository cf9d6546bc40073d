//! A git mirror as the syncer knows repositories.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::NamedBy;
use crate::cli::spec_args::sought_in;
use crate::cli::spec_file;
use crate::reconcile::handle::SpecText;
use crate::reconcile::sync::{Fault, Repository};
use crate::source::git::{CommitId, GitError, Mirror};
use crate::spec::gather::Sought;
use crate::spec::model::{Commit, GitSource, Provenance};

/// A mirror, and what of it is the spec.
pub struct GitRepository {
    mirror: Mirror,
    source: GitSource,
    file: Option<NamedBy>,
}

impl GitRepository {
    /// The spec that `source` names, from `mirror`; `file` is where that was read, if it was.
    pub fn new(mirror: Mirror, source: GitSource, file: Option<NamedBy>) -> Self {
        GitRepository {
            mirror,
            source,
            file,
        }
    }

    /// The tree of a commit, whether it was verified or not.
    ///
    /// # Errors
    /// What of it is not taken.
    pub fn tree(&self, commit: &Commit) -> Result<Provenance, Fault> {
        Ok(self.mirror.lay_out(commit)?)
    }
}

/// Which files of a commit's tree are the spec.
pub(super) fn sought(source: &GitSource, tree: &Path) -> Sought {
    let all = |paths: &[PathBuf]| paths.iter().map(|path| tree.join(path)).collect();
    Sought {
        overlays: all(&source.overlays),
        vars: all(&source.vars),
        ..sought_in(&tree.join(&source.path))
    }
}

impl From<GitError> for Fault {
    fn from(error: GitError) -> Self {
        match error {
            GitError::Refused(why) => Fault::Refused(why),
            GitError::Unreachable(why) | GitError::Local(why) => Fault::Later(why),
        }
    }
}

fn id(text: &str) -> Result<CommitId, Fault> {
    let odd = || Fault::Refused(format!("`{}` is no commit", text.escape_debug()));
    CommitId::new(text).ok_or_else(odd)
}

impl Repository for GitRepository {
    fn fetch(&self) -> Result<Commit, Fault> {
        let id = self.mirror.fetch()?;
        Ok(self.mirror.commit(&id)?)
    }

    fn descends(&self, earlier: &str, later: &str) -> Result<bool, Fault> {
        Ok(earlier == later || self.mirror.descends(&id(earlier)?, &id(later)?)?)
    }

    fn prepare(&self, commit: &Commit) -> Result<SpecText, Fault> {
        if let Some(by) = &self.source.verify {
            self.mirror.verify(&id(&commit.id)?, by)?;
        }
        let origin = self.tree(commit)?;
        let refused = |why: String| Fault::Refused(why);
        let read = spec_file::read(&sought(&self.source, &origin.tree));
        let mut spec = read.map_err(|error| refused(error.message().to_owned()))?;
        spec.further.origin = Some(origin);
        Ok(spec)
    }

    fn lay_out(&self, commit: &Commit) -> Result<(), Fault> {
        self.tree(commit)?;
        Ok(())
    }

    fn keep(&self, commits: &BTreeSet<String>) -> Result<(), Fault> {
        let ids = commits.iter().filter_map(|text| CommitId::new(text));
        Ok(self.mirror.keep_trees(&ids.collect())?)
    }

    fn edited(&self) -> Option<PathBuf> {
        let file = self.file.as_ref()?;
        (!file.still_names(&self.source)).then(|| file.path.clone())
    }
}
