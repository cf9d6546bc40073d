//! What of trees and mirrors is kept.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::mirror::{Mirror, REPOSITORY, remove_repository};
use super::tree::{MODULES, sync_folder};
use super::{CommitId, GitError};

impl Mirror {
    /// The trees of all other commits go, and the mirrors that only their submodules needed.
    ///
    /// # Errors
    /// What the disk said.
    pub fn keep_trees(&self, needed: &BTreeSet<CommitId>) -> Result<(), GitError> {
        let trees = self.trees();
        let is_needed = |entry: &DirEntry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let id = CommitId::new(name.split('.').next().unwrap_or_default());
            id.is_some_and(|id| needed.contains(&id))
        };
        let left = listed(&trees)?
            .into_iter()
            .filter(|entry| !is_needed(entry));
        let (folders, files): (Vec<DirEntry>, Vec<DirEntry>) = left.partition(is_folder);
        // What says that a tree is whole goes before the tree, also where the power goes: one
        // that is removed in part only never counts as whole.
        remove_all(&files)?;
        if !files.is_empty() {
            sync_folder(&trees)?;
        }
        remove_all(&folders)?;
        self.keep_modules()
    }

    /// The mirrors of submodules go that no tree was laid out with.
    fn keep_modules(&self) -> Result<(), GitError> {
        let mut needed = BTreeSet::new();
        for entry in listed(&self.trees())? {
            if entry.file_name().to_string_lossy().ends_with(MODULES) {
                let path = entry.path();
                let names = fs::read_to_string(&path).map_err(GitError::disk("read", &path))?;
                needed.extend(names.lines().map(str::to_owned));
            }
        }
        let mut left = listed(&self.modules)?;
        left.retain(|entry| !needed.contains(&*entry.file_name().to_string_lossy()));
        for folder in left.iter().filter(|entry| is_folder(entry)) {
            remove_repository(&folder.path().join(REPOSITORY))?;
        }
        remove_all(&left)
    }
}

fn is_folder(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// What is in a folder; nothing where there is none.
fn listed(folder: &Path) -> Result<Vec<DirEntry>, GitError> {
    let read = || -> io::Result<Vec<DirEntry>> { fs::read_dir(folder)?.collect() };
    match read() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(GitError::disk("read", folder)),
    }
}

fn remove_all(entries: &[DirEntry]) -> Result<(), GitError> {
    for entry in entries {
        let path = entry.path();
        let removed = match is_folder(entry) {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(GitError::disk("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::source::git::{Limits, Remote};

    #[test]
    fn what_no_needed_tree_has_goes() {
        let folder = tempfile::tempdir().unwrap();
        let remote = Remote {
            url: "/srv/specs.git".to_owned(),
            reference: "main".to_owned(),
            submodules: true,
        };
        let mirror = Mirror::open(folder.path(), remote, Limits::default()).unwrap();
        let (old, new) = ("a".repeat(40), "b".repeat(40));
        let made = |path: String| fs::create_dir_all(folder.path().join(path)).unwrap();
        let written = |path: String, text: &str| {
            fs::write(folder.path().join(path), text).unwrap();
        };
        for (commit, module) in [(&old, "left"), (&new, "kept")] {
            made(format!("trees/{commit}/farm"));
            made(format!("modules/{module}/mirror.git"));
            written(format!("trees/{commit}.objects"), "");
            written(format!("trees/{commit}.modules"), &format!("{module}\n"));
        }
        // What a process left behind that was killed while it laid a tree out.
        made("trees/.new-x/tree".to_owned());
        mirror
            .keep_trees(&CommitId::new(&new).into_iter().collect())
            .unwrap();
        let names = |of: &str| -> BTreeSet<String> {
            let all = fs::read_dir(folder.path().join(of)).unwrap().flatten();
            all.map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        };
        let trees = ["", ".modules", ".objects"].map(|ending| format!("{new}{ending}"));
        assert_eq!(names("trees"), trees.into());
        assert_eq!(names("modules"), ["kept".to_owned()].into());
        mirror.keep_trees(&BTreeSet::new()).unwrap();
        assert!(names("trees").is_empty() && names("modules").is_empty());
    }
}
