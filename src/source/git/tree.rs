//! The tree of a commit, laid out: whole or not at all, from the objects alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use tempfile::NamedTempFile;

use super::batch::Batch;
use super::mirror::{Mirror, private_folder};
use super::run::{git, run};
use super::{CommitId, GitError};
use crate::spec::model::{Commit, Object, Objects, Provenance};

/// For listing and for laying out.
pub(super) const TIME: Duration = Duration::from_secs(120);
/// A list of a tree's contents is no longer, in bytes.
pub(super) const LIST: u64 = 16 << 20;
/// The longest path in a tree, in bytes.
const PATH: usize = 1024;
/// The longest target of a symlink, in bytes.
const TARGET: u64 = 1024;

/// Beside a tree, a file of this ending names the mirrors of its submodules.
pub(super) const MODULES: &str = ".modules";

/// What stands at one path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File { executable: bool },
    Link,
    Submodule,
}

/// One path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub path: String,
    pub kind: Kind,
    pub hash: String,
}

/// What of a commit's limits is used up already.
#[derive(Debug, Default)]
pub(super) struct Used {
    pub entries: usize,
    pub bytes: u64,
    pub submodules: usize,
    /// The mirrors of its submodules, by the names of their folders.
    pub modules: BTreeSet<String>,
}

fn refused(why: impl Into<String>) -> GitError {
    GitError::Refused(why.into())
}

/// Reads what `ls-tree -r -t -z` says.
///
/// # Errors
/// Names what cannot be laid out.
pub(super) fn read_list(list: &[u8]) -> Result<Vec<Entry>, GitError> {
    let lines = list
        .split(|byte| *byte == 0)
        .filter(|line| !line.is_empty());
    lines.map(read_line).collect()
}

fn read_line(line: &[u8]) -> Result<Entry, GitError> {
    let shown = String::from_utf8_lossy(line).escape_debug().to_string();
    let odd = || refused(format!("cannot lay out `{shown}`: its name is not taken"));
    let text = std::str::from_utf8(line).map_err(|_| odd())?;
    let (about, path) = text.split_once('\t').ok_or_else(odd)?;
    let mut about = about.split(' ');
    let (mode, _, hash) = (about.next(), about.next(), about.next());
    let kind = match mode {
        Some("040000") => Kind::Folder,
        Some("100755") => Kind::File { executable: true },
        Some("100644" | "100664") => Kind::File { executable: false },
        Some("120000") => Kind::Link,
        Some("160000") => Kind::Submodule,
        _ => return Err(odd()),
    };
    let bad_part =
        |part: &str| matches!(part, "" | "." | "..") || part.eq_ignore_ascii_case(".git");
    if path.len() > PATH || path.chars().any(char::is_control) || path.split('/').any(bad_part) {
        return Err(odd());
    }
    Ok(Entry {
        path: path.to_owned(),
        kind,
        hash: hash.unwrap_or_default().to_owned(),
    })
}

impl Mirror {
    /// The tree of a commit in a folder of its own, which is never changed again.
    ///
    /// # Errors
    /// [`GitError::Refused`] names what of the commit is not taken.
    pub fn lay_out(&self, commit: &Commit) -> Result<Provenance, GitError> {
        let id = CommitId::new(&commit.id)
            .ok_or_else(|| refused(format!("`{}` is no commit", commit.id.escape_debug())))?;
        let trees = self.trees();
        private_folder(&trees)?;
        let tree = trees.join(id.as_str());
        let objects = trees.join(format!("{id}.objects"));
        let origin = Provenance {
            commit: commit.clone(),
            tree: tree.clone(),
            objects: objects.clone(),
        };
        if tree.is_dir() && objects.is_file() {
            return Ok(origin);
        }
        let _ = fs::remove_dir_all(&tree);
        let fresh = tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(&trees)
            .map_err(GitError::disk("make a folder in", &trees))?;
        let mut contents = Objects::default();
        let mut used = Used::default();
        let top = fresh.path().join("tree");
        self.write_tree(&id, &top, "", &mut contents, &mut used, 0)?;
        keep_inside(&contents)?;
        for (path, target) in contents.links() {
            symlink(target, top.join(path)).map_err(GitError::disk("write", &tree))?;
        }
        let modules = trees.join(format!("{id}{MODULES}"));
        let names: String = used
            .modules
            .iter()
            .map(|name| format!("{name}\n"))
            .collect();
        let modules_file = beside(&trees, &names, &modules)?;
        let marker = beside(&trees, &contents.text(), &objects)?;
        // What says that the tree is whole must not outlive a power cut that the tree's files do
        // not.
        File::open(&trees)
            .and_then(|folder| Ok(rustix::fs::syncfs(folder)?))
            .map_err(GitError::disk("write to the disk of", &trees))?;
        put(modules_file, &modules)?;
        put(marker, &objects)?;
        fs::rename(&top, &tree).map_err(GitError::disk("write", &tree))?;
        sync_folder(&trees)?;
        Ok(origin)
    }

    /// Writes everything but symlinks, which could lead what is written elsewhere.
    pub(super) fn write_tree(
        &self,
        id: &CommitId,
        folder: &Path,
        prefix: &str,
        contents: &mut Objects,
        used: &mut Used,
        depth: u32,
    ) -> Result<(), GitError> {
        let list = self.list(id)?;
        used.entries += list.len();
        if used.entries > self.limits.entries {
            return Err(refused(format!(
                "the commit has more than {} files and folders",
                self.limits.entries
            )));
        }
        self.weigh(&list, used)?;
        make_folder(folder)?;
        let own = self.tree_hash(id)?;
        contents.insert(prefix.trim_end_matches('/').to_owned(), Object::plain(own));
        let mut batch = Batch::open(self)?;
        for entry in &list {
            let below = folder.join(&entry.path);
            let mut object = Object::plain(entry.hash.clone());
            match entry.kind {
                Kind::Folder => make_folder(&below)?,
                Kind::File { executable } => batch.write(entry, &below, executable)?,
                Kind::Link => object.target = Some(batch.target(entry)?),
                Kind::Submodule => {
                    let under = format!("{prefix}{}/", entry.path);
                    self.submodule(id, entry, &below, &under, contents, used, depth)?;
                }
            }
            contents.insert(format!("{prefix}{}", entry.path), object);
        }
        batch.end()
    }

    fn list(&self, id: &CommitId) -> Result<Vec<Entry>, GitError> {
        let mut list = git(&self.repository());
        list.args(["ls-tree", "-r", "-t", "-z", "--full-tree", id.as_str()]);
        let ran = run(list, b"", self.bounds(TIME, LIST))?;
        self.expect(&ran, "list a commit of")?;
        read_list(&ran.output)
    }

    fn tree_hash(&self, id: &CommitId) -> Result<String, GitError> {
        let mut parse = git(&self.repository());
        parse.args(["rev-parse", "--verify", "--quiet"]);
        parse.arg(format!("{id}^{{tree}}"));
        let ran = run(parse, b"", self.bounds(TIME, LIST))?;
        self.expect(&ran, "read a commit of")?;
        Ok(ran.text().trim().to_owned())
    }

    /// Looks at the sizes of all files before any is written.
    fn weigh(&self, list: &[Entry], used: &mut Used) -> Result<(), GitError> {
        let files: Vec<&Entry> = list
            .iter()
            .filter(|entry| matches!(entry.kind, Kind::File { .. } | Kind::Link))
            .collect();
        let asked: BTreeSet<&str> = files.iter().map(|entry| entry.hash.as_str()).collect();
        let asked: String = asked.iter().map(|hash| format!("{hash}\n")).collect();
        let mut check = git(&self.repository());
        check.args(["cat-file", "--batch-check=%(objectname) %(objectsize)"]);
        let ran = run(check, asked.as_bytes(), self.bounds(TIME, LIST))?;
        self.expect(&ran, "read a commit of")?;
        let text = ran.text();
        let sizes: BTreeMap<&str, Option<u64>> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(hash, size)| (hash, size.parse().ok()))
            .collect();
        for entry in files {
            let size = sizes.get(entry.hash.as_str()).copied().flatten();
            // One that is not there was too large to be fetched.
            let size = size
                .filter(|size| *size <= self.limits.blob)
                .ok_or_else(|| {
                    refused(format!(
                        "`{}` is larger than the {} MiB that a file may have",
                        entry.path,
                        self.limits.blob >> 20
                    ))
                })?;
            used.bytes = used.bytes.saturating_add(size);
            if used.bytes > self.limits.tree {
                return Err(refused(format!(
                    "the commit's files have more than {} MiB together",
                    self.limits.tree >> 20
                )));
            }
            if entry.kind == Kind::Link && size > TARGET {
                return Err(refused(format!(
                    "the target of `{}` is too long",
                    entry.path
                )));
            }
        }
        Ok(())
    }
}

/// Refuses symlinks that lead out of the tree, by whatever way.
fn keep_inside(contents: &Objects) -> Result<(), GitError> {
    for (path, target) in contents.links() {
        if contents.real(path).is_none() {
            return Err(refused(format!(
                "the symlink `{path}` leads out of the tree, to `{}`",
                target.escape_debug()
            )));
        }
    }
    Ok(())
}

/// A file that is to become `path`, with this text.
fn beside(folder: &Path, text: &str, path: &Path) -> Result<NamedTempFile, GitError> {
    let mut file = NamedTempFile::new_in(folder).map_err(GitError::disk("write in", folder))?;
    let written = file.write_all(text.as_bytes());
    written.map_err(GitError::disk("write", path))?;
    Ok(file)
}

fn put(file: NamedTempFile, path: &Path) -> Result<(), GitError> {
    let put = file.persist(path);
    put.map_err(|error| GitError::disk("write", path)(error.error))?;
    Ok(())
}

/// Names that came or went are on the disk.
pub(super) fn sync_folder(folder: &Path) -> Result<(), GitError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(GitError::disk("write to the disk of", folder))
}

/// A folder that others may enter: what is mounted from it is read by other users.
fn make_folder(path: &Path) -> Result<(), GitError> {
    DirBuilder::new()
        .mode(0o755)
        .create(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
        .map_err(GitError::disk("make", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_list_is_read() {
        let list = [
            "040000 tree aa\td",
            "100644 blob bb\td/a b",
            "100755 blob cc\tx",
            "120000 blob dd\tl",
            "160000 commit ee\tm",
            "",
        ];
        let entries = read_list(list.join("\0").as_bytes()).unwrap();
        let kinds: Vec<(&str, &str)> = entries
            .iter()
            .map(|entry| (entry.path.as_str(), entry.hash.as_str()))
            .collect();
        assert_eq!(
            kinds,
            [
                ("d", "aa"),
                ("d/a b", "bb"),
                ("x", "cc"),
                ("l", "dd"),
                ("m", "ee")
            ]
        );
        assert_eq!(entries[2].kind, Kind::File { executable: true });
        assert_eq!(entries[4].kind, Kind::Submodule);
    }

    #[test]
    fn odd_names_are_refused() {
        for path in [
            "../x",
            "a/../b",
            "/x",
            "a//b",
            ".git/config",
            "a/.GIT/x",
            ".",
            "a\nb",
        ] {
            let line = format!("100644 blob aa\t{path}\0");
            let error = read_list(line.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("its name is not taken"), "{path:?}: {error}");
        }
        assert!(read_list(b"100644 blob aa\t\xff\0").is_err());
        assert!(read_list(b"170000 blob aa\tx\0").is_err());
        assert!(read_list(b"nonsense\0").is_err());
    }
}
