//! The tree of a commit, laid out: whole or not at all, from the objects alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use super::links::stays_inside;
use super::mirror::{Mirror, private_folder};
use super::run::{Running, git, run};
use super::{CommitId, GitError};
use crate::spec::model::{Commit, Provenance};

/// For listing and for laying out.
const TIME: Duration = Duration::from_secs(120);
/// A list of a tree's contents is no longer, in bytes.
const LIST: u64 = 16 << 20;
/// The longest path in a tree, in bytes.
const PATH: usize = 1024;
/// The longest target of a symlink, in bytes.
const TARGET: u64 = 1024;

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
        let mut contents = BTreeMap::new();
        let mut used = Used::default();
        let top = fresh.path().join("tree");
        self.write_tree(&id, &top, "", &mut contents, &mut used, 0)?;
        keep_inside(&contents)?;
        let lines: String = contents
            .iter()
            .map(|(path, entry)| format!("{} {path}\n", entry.hash))
            .collect();
        let mut file =
            tempfile::NamedTempFile::new_in(&trees).map_err(GitError::disk("write in", &trees))?;
        let written = file.write_all(lines.as_bytes());
        written.map_err(GitError::disk("write", &objects))?;
        for (path, entry) in &contents {
            if let Some(target) = &entry.target {
                symlink(target, top.join(path)).map_err(GitError::disk("write", &tree))?;
            }
        }
        file.persist(&objects)
            .map_err(|error| GitError::disk("write", &objects)(error.error))?;
        fs::rename(&top, &tree).map_err(GitError::disk("write", &tree))?;
        Ok(origin)
    }

    /// Writes everything but symlinks, which could lead what is written elsewhere.
    pub(super) fn write_tree(
        &self,
        id: &CommitId,
        folder: &Path,
        prefix: &str,
        contents: &mut BTreeMap<String, Content>,
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
        contents.insert(prefix.trim_end_matches('/').to_owned(), Content::plain(own));
        let mut objects = Objects::open(self)?;
        for entry in &list {
            let below = folder.join(&entry.path);
            let mut content = Content::plain(entry.hash.clone());
            match entry.kind {
                Kind::Folder => make_folder(&below)?,
                Kind::File { executable } => objects.write(entry, &below, executable)?,
                Kind::Link => content.target = Some(objects.target(entry)?),
                Kind::Submodule => {
                    let under = format!("{prefix}{}/", entry.path);
                    self.submodule(id, entry, &below, &under, contents, used, depth)?;
                }
            }
            contents.insert(format!("{prefix}{}", entry.path), content);
        }
        objects.end()
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

/// What lies at a path: its hash, and where it leads if it is a symlink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub hash: String,
    pub target: Option<String>,
}

impl Content {
    fn plain(hash: String) -> Self {
        Content { hash, target: None }
    }
}

/// Refuses symlinks that lead out of the tree, by whatever way.
fn keep_inside(contents: &BTreeMap<String, Content>) -> Result<(), GitError> {
    let links: BTreeMap<String, String> = contents
        .iter()
        .filter_map(|(path, content)| Some((path.clone(), content.target.clone()?)))
        .collect();
    for (path, target) in &links {
        if !stays_inside(path, &links) {
            return Err(refused(format!(
                "the symlink `{path}` leads out of the tree, to `{}`",
                target.escape_debug()
            )));
        }
    }
    Ok(())
}

/// A folder that others may enter: what is mounted from it is read by other users.
fn make_folder(path: &Path) -> Result<(), GitError> {
    DirBuilder::new()
        .mode(0o755)
        .create(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
        .map_err(GitError::disk("make", path))
}

/// The contents of files, one after another from one git.
struct Objects {
    git: Running,
    limit: u64,
}

impl Objects {
    fn open(mirror: &Mirror) -> Result<Objects, GitError> {
        let mut batch = git(&mirror.repository());
        batch.args(["cat-file", "--batch"]);
        Ok(Objects {
            git: Running::start(batch, mirror.bounds(TIME, LIST))?,
            limit: mirror.limits.blob,
        })
    }

    /// Asks for one object, and gives its bytes to `take`.
    fn read(&mut self, entry: &Entry, mut take: impl Write) -> Result<(), GitError> {
        let lost = |error: std::io::Error| {
            GitError::Local(format!("cannot read `{}`: {error}", entry.path))
        };
        let odd = || GitError::Local(format!("cannot read `{}`: git says odd things", entry.path));
        let input = self.git.input.as_mut().ok_or_else(odd)?;
        writeln!(input, "{}", entry.hash).map_err(lost)?;
        let mut head = Vec::new();
        // One byte at a time, so that nothing of the content is read with it.
        let mut output = BufReader::with_capacity(1, &mut self.git.output);
        (&mut output)
            .take(256)
            .read_until(b'\n', &mut head)
            .map_err(lost)?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut words = head.split_whitespace();
        let size = match (words.next(), words.next(), words.next()) {
            (Some(_), Some("blob"), Some(size)) => size.parse::<u64>().map_err(|_| odd())?,
            _ => return Err(odd()),
        };
        if size > self.limit {
            return Err(odd());
        }
        let output = &mut self.git.output;
        let copied = std::io::copy(&mut output.take(size), &mut take).map_err(lost)?;
        let mut end = [0];
        output.read_exact(&mut end).map_err(lost)?;
        match copied == size {
            true => Ok(()),
            false => Err(odd()),
        }
    }

    fn write(&mut self, entry: &Entry, path: &Path, executable: bool) -> Result<(), GitError> {
        let mode = if executable { 0o755 } else { 0o644 };
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(GitError::disk("write", path))?;
        self.read(entry, &mut file)?;
        file.set_permissions(Permissions::from_mode(mode))
            .map_err(GitError::disk("write", path))
    }

    fn target(&mut self, entry: &Entry) -> Result<String, GitError> {
        let mut target = Vec::new();
        self.read(entry, &mut target)?;
        String::from_utf8(target)
            .ok()
            .filter(|target| !target.contains('\0'))
            .ok_or_else(|| refused(format!("the target of `{}` is no text", entry.path)))
    }

    fn end(self) -> Result<(), GitError> {
        self.git.end(Vec::new()).map(|_| ())
    }
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
