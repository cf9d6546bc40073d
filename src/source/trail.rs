//! The way to a file, through symlinks, as far as it exists.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows (path_resolution(7)).
const LINKS: usize = 40;

/// Every entry of a folder that decides what a path leads to, besides plain folders: the links
/// on the way and their target, or the first thing that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Trail {
    /// These entries, each in a folder that exists and with no link before its last part.
    pub(super) steps: BTreeSet<PathBuf>,
    /// Where the way ends.
    pub(super) end: PathBuf,
    /// Whether that is a folder.
    is_folder: bool,
}

impl Trail {
    /// The way of `path`, which is absolute, as it is now.
    pub(super) fn of(path: &Path) -> Self {
        let mut trail = Trail::default();
        let mut links = 0;
        let mut at = PathBuf::from("/");
        let mut rest: VecDeque<OsString> = parts(path);
        while let Some(part) = rest.pop_front() {
            if part == ".." {
                at.pop();
                continue;
            }
            let entry = at.join(&part);
            trail.end.clone_from(&entry);
            match entry.symlink_metadata() {
                Ok(found) if found.is_dir() && !rest.is_empty() => at = entry,
                Ok(found) if found.is_symlink() => {
                    trail.steps.insert(entry.clone());
                    links += 1;
                    let target = match std::fs::read_link(&entry) {
                        Ok(target) if links <= LINKS => target,
                        _ => break,
                    };
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    for part in parts(&target).into_iter().rev() {
                        rest.push_front(part);
                    }
                }
                found => {
                    trail.is_folder = found.is_ok_and(|found| found.is_dir());
                    trail.steps.insert(entry);
                    break;
                }
            }
        }
        trail
    }

    /// The folders that hold the steps: those to be watched.
    pub(super) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.steps.iter().filter_map(|step| step.parent())
    }

    /// The folder that the way ends at, if it ends at one.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.is_folder.then_some(self.end.as_path())
    }

    /// Whether this is an entry of the folder that the way ends at.
    pub(super) fn end_is_over(&self, path: &Path) -> bool {
        self.folder()
            .is_some_and(|folder| path.parent() == Some(folder))
    }

    /// Whether a change of this entry, or of this folder itself, may lead elsewhere.
    pub(super) fn touches(&self, path: &Path) -> bool {
        self.steps.contains(path) || self.folders().any(|folder| folder == path)
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    fn steps(root: &Path, path: &str) -> Vec<String> {
        Trail::of(&root.join(path))
            .steps
            .iter()
            .map(|step| step.strip_prefix(root).unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn links_and_what_is_missing_are_steps() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/file"), "").unwrap();
        symlink("b", root.join("a/current")).unwrap();
        symlink("../a/current/file", root.join("a/link")).unwrap();
        symlink(root.join("a"), root.join("absolute")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(steps(&root, "a/b/file"), ["a/b/file"]);
        assert_eq!(
            steps(&root, "absolute/link"),
            ["a/b/file", "a/current", "a/link", "absolute"]
        );
        assert_eq!(Trail::of(&root.join("a/link")).end, root.join("a/b/file"));
        assert_eq!(steps(&root, "a/none/of/these"), ["a/none"]);
        assert_eq!(steps(&root, "a/b/file/below"), ["a/b/file"]);
        assert_eq!(steps(&root, "a/b"), ["a/b"]);
        assert_eq!(steps(&root, "loop"), ["loop"]);
        let trail = Trail::of(&root.join("a/current/file"));
        assert!(trail.touches(&root.join("a/b")), "its folder itself");
        assert!(trail.touches(&root.join("a/current")));
        assert!(!trail.touches(&root.join("a/b/other")));
    }
}
