//! The mirror: a bare repository that holds what the remote one had when it was asked last.

use std::fs::{self, DirBuilder, DirEntry};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::commit::{self, Parsed};
use super::run::{Bounds, Ran, git, git_outside, run};
use super::tree::sync_folder;
use super::url::{check, check_reference, shown};
use super::verify::{self, Signer};
use super::{CommitId, GitError};
use crate::spec::model::{Commit, Verify};

/// The repository in a mirror's folder.
pub(super) const REPOSITORY: &str = "mirror.git";
/// A repository without this file is none, for git and for us.
const WHOLE: &str = "HEAD";
/// Where the head is kept.
const HEAD: &str = "refs/hatchery/head";
/// A commit object is no larger, in bytes.
const COMMIT: u64 = 1 << 20;
/// A short answer is no larger, in bytes.
const SHORT: u64 = 1 << 20;
/// For questions to the mirror alone.
const LOCAL: Duration = Duration::from_secs(60);
/// Whoever writes a configuration puts it into its place well within this time.
const TO_PLACE: Duration = Duration::from_secs(60);

/// What is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its address, as git takes it.
    pub url: String,
    /// A branch, a tag, or a whole name below `refs/`.
    pub reference: String,
    /// Submodules are fetched too.
    pub submodules: bool,
}

/// How much of a repository is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For one fetch.
    pub time: Duration,
    /// The mirror on disk, in bytes.
    pub mirror: u64,
    /// One file of a commit, in bytes.
    pub blob: u64,
    /// All files of a commit, in bytes.
    pub tree: u64,
    /// Files and folders of a commit.
    pub entries: usize,
    /// Submodules of a commit, those of submodules among them.
    pub submodules: usize,
    /// Submodules within submodules.
    pub depth: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            time: Duration::from_secs(120),
            mirror: 512 << 20,
            blob: 16 << 20,
            tree: 128 << 20,
            entries: 20_000,
            submodules: 16,
            depth: 4,
        }
    }
}

/// A mirror, and the trees of commits that are laid out from it.
#[derive(Debug, Clone)]
pub struct Mirror {
    pub(super) folder: PathBuf,
    /// Where the mirrors of submodules are.
    pub(super) modules: PathBuf,
    /// Held by who fetches a submodule: two commits that are laid out at once may have one in
    /// common.
    pub(super) fetching: Arc<Mutex<()>>,
    pub(super) remote: Remote,
    pub(super) limits: Limits,
}

impl Mirror {
    /// The mirror in this folder, which is made if it is not there. Nothing is fetched yet. Only
    /// one process may work with a folder at a time.
    ///
    /// # Errors
    /// When the address or the reference is not taken, or the disk refuses.
    pub fn open(folder: &Path, remote: Remote, limits: Limits) -> Result<Mirror, GitError> {
        let mirror = Mirror::at(folder, remote, limits)?;
        mirror.prepare()?;
        Ok(mirror)
    }

    /// The same, but for the repository, which may be missing or broken yet.
    pub(super) fn at(folder: &Path, remote: Remote, limits: Limits) -> Result<Mirror, GitError> {
        check(&remote.url)?;
        check_reference(&remote.reference)?;
        private_folder(folder)?;
        Ok(Mirror {
            folder: folder.to_owned(),
            modules: folder.join("modules"),
            fetching: Arc::default(),
            remote,
            limits,
        })
    }

    pub(super) fn repository(&self) -> PathBuf {
        self.folder.join(REPOSITORY)
    }

    /// Makes the repository if it is missing or broken. What is in its configuration is ours
    /// alone.
    pub(super) fn prepare(&self) -> Result<(), GitError> {
        let path = self.repository();
        if path.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
            return Err(GitError::Local(format!(
                "cannot use `{}`: it is not a folder; remove it",
                path.display()
            )));
        }
        if !self.is_whole() {
            remove_repository(&path)?;
            private_folder(&path)?;
            let mut init = git(&path);
            init.args(["init", "--quiet", "--bare", "--template="]);
            let ran = run(init, b"", self.bounds(LOCAL, SHORT))?;
            self.expect(&ran, "make a mirror of")?;
        }
        self.configure()
    }

    /// Whether the repository was made to its end, and nobody began to remove it.
    pub(super) fn is_whole(&self) -> bool {
        let path = self.repository();
        path.join(WHOLE).is_file() && path.join("objects").is_dir()
    }

    /// Writes the configuration: the address stands there and in no command line. That the
    /// remote keeps objects for us is told to `fetch` alone, so that nothing else ever fetches
    /// what is missing.
    pub(super) fn configure(&self) -> Result<(), GitError> {
        let path = self.repository().join("config");
        let url = self.remote.url.replace('\\', "\\\\").replace('"', "\\\"");
        let text = format!(
            "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[remote \"origin\"]\n\turl = \
             \"{url}\"\n"
        );
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(self.repository())?;
            file.write_all(text.as_bytes())?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(GitError::disk("write", &path))
    }

    pub(super) fn bounds(&self, time: Duration, output: u64) -> Bounds {
        Bounds {
            time,
            output,
            file: self.limits.mirror,
        }
    }

    /// Fetches, and answers the newest commit of the reference.
    ///
    /// # Errors
    /// [`GitError::Unreachable`] when it may work later, or there is no such reference;
    /// [`GitError::Refused`] when it is too large, or broken.
    pub fn fetch(&self) -> Result<CommitId, GitError> {
        self.prepare()?;
        self.bounded(|| self.fetch_reference())?;
        self.resolve(HEAD)
    }

    /// Fetches so that no more stays than a mirror may have. Nobody else may fetch into it
    /// meanwhile: what lies about of a fetch is taken for that of one that was killed.
    pub(super) fn bounded(&self, fetch: impl Fn() -> Result<(), GitError>) -> Result<(), GitError> {
        self.sweep();
        fetch()?;
        if size(&self.repository()) <= self.limits.mirror {
            return Ok(());
        }
        // What was fetched over the years may be more than what is there.
        remove_repository(&self.repository())?;
        self.prepare()?;
        fetch()?;
        if size(&self.repository()) <= self.limits.mirror {
            return Ok(());
        }
        remove_repository(&self.repository())?;
        Err(self.too_large())
    }

    fn fetch_reference(&self) -> Result<(), GitError> {
        let name = &self.remote.reference;
        let names = match name.starts_with("refs/") {
            true => vec![name.clone()],
            false => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")],
        };
        let mut missing = None;
        for name in names {
            match self.fetch_into(&format!("+{name}:{HEAD}")) {
                Err(GitError::Refused(why)) if why.contains("couldn't find remote ref") => {
                    missing = Some(why);
                }
                other => return other,
            }
        }
        let url = shown(&self.remote.url);
        match missing {
            // Somebody may push it yet.
            Some(_) => Err(GitError::Unreachable(format!(
                "`{url}` has no branch or tag `{name}`"
            ))),
            None => Ok(()),
        }
    }

    /// Fetches what a refspec names.
    pub(super) fn fetch_into(&self, refspec: &str) -> Result<(), GitError> {
        let limit = self.limits.blob;
        let mut fetch = git_outside(&self.repository());
        fetch.args([
            "-c",
            "remote.origin.promisor=true",
            "-c",
            &format!("remote.origin.partialclonefilter=blob:limit={limit}"),
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-recurse-submodules",
            &format!("--filter=blob:limit={limit}"),
            "origin",
            refspec,
        ]);
        let ran = run(fetch, b"", self.bounds(self.limits.time, SHORT));
        // It notes the filter in the configuration.
        self.configure()?;
        let ran = ran?;
        if !ran.success {
            self.sweep();
        }
        let url = shown(&self.remote.url);
        match &ran.said {
            _ if ran.success => Ok(()),
            _ if ran.late => Err(GitError::Unreachable(format!(
                "cannot fetch from `{url}`: it took longer than {}s",
                self.limits.time.as_secs()
            ))),
            said if said.contains("signal 25") || said.contains("File too large") => {
                Err(self.too_large())
            }
            said if said.contains("couldn't find remote ref") || said.contains("fsck") => Err(
                GitError::Refused(format!("cannot fetch from `{url}`: {said}")),
            ),
            said if said.contains("Host key verification failed") => {
                Err(GitError::Unreachable(format!(
                    "cannot fetch from `{url}`: {said}; if the host is the right one, add its \
                     key to the `known_hosts` of the user whose controller this is"
                )))
            }
            said => Err(GitError::Unreachable(format!(
                "cannot fetch from `{url}`: {said}"
            ))),
        }
    }

    fn too_large(&self) -> GitError {
        GitError::Refused(format!(
            "`{}` is larger than the {} MiB that are fetched",
            shown(&self.remote.url),
            self.limits.mirror >> 20
        ))
    }

    /// Removes what a fetch left behind that was killed, or whose controller was. What stays is
    /// counted against the limit, and tried again.
    pub(super) fn sweep(&self) {
        let repository = self.repository();
        for entry in entries(&repository.join("objects/pack")) {
            if entry.file_name().to_string_lossy().starts_with("tmp_") {
                let _ = fs::remove_file(entry.path());
            }
        }
        for entry in entries(&repository) {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // Another commit that is laid out may have its submodule configured just now.
            let unplaced = name.starts_with(".tmp") && is_older(&entry, TO_PLACE);
            if unplaced || ["shallow.lock", "packed-refs.lock", "config.lock"].contains(&&*name) {
                let _ = fs::remove_file(entry.path());
            }
        }
        // No part of a reference's name ends so (git-check-ref-format(1)).
        let mut folders = vec![repository.join("refs/hatchery")];
        while let Some(folder) = folders.pop() {
            for entry in entries(&folder) {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                } else if entry.file_name().to_string_lossy().ends_with(".lock") {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }

    /// The commit that a name stands for.
    pub(super) fn resolve(&self, name: &str) -> Result<CommitId, GitError> {
        let mut parse = git(&self.repository());
        parse.args(["rev-parse", "--verify", "--quiet", "--end-of-options"]);
        parse.arg(format!("{name}^{{commit}}"));
        let ran = run(parse, b"", self.bounds(LOCAL, SHORT))?;
        CommitId::new(ran.text().trim()).ok_or_else(|| {
            GitError::Refused(format!(
                "`{}` of `{}` is no commit",
                self.remote.reference,
                shown(&self.remote.url)
            ))
        })
    }

    /// An object's bytes.
    pub(super) fn object(&self, kind: &str, id: &CommitId) -> Result<Vec<u8>, GitError> {
        let mut cat = git(&self.repository());
        cat.args(["cat-file", kind, id.as_str()]);
        let ran = run(cat, b"", self.bounds(LOCAL, COMMIT))?;
        self.expect(&ran, "read a commit of")?;
        Ok(ran.output)
    }

    fn parsed(&self, id: &CommitId) -> Result<Parsed, GitError> {
        commit::parse(&self.object("commit", id)?)
    }

    /// What people are told of a commit.
    ///
    /// # Errors
    /// When the mirror does not have it.
    pub fn commit(&self, id: &CommitId) -> Result<Commit, GitError> {
        let parsed = self.parsed(id)?;
        Ok(Commit {
            id: id.to_string(),
            author: parsed.author,
            subject: parsed.subject,
            at_s: parsed.committed_s,
        })
    }

    /// Whether `later` descends from `earlier`. One that the mirror does not have is no ancestor
    /// of anything.
    ///
    /// # Errors
    /// When `later` is not there.
    pub fn descends(&self, earlier: &CommitId, later: &CommitId) -> Result<bool, GitError> {
        self.resolve(later.as_str())?;
        if self.resolve(earlier.as_str()).is_err() {
            return Ok(false);
        }
        let mut base = git(&self.repository());
        base.args([
            "merge-base",
            "--is-ancestor",
            earlier.as_str(),
            later.as_str(),
        ]);
        Ok(run(base, b"", self.bounds(LOCAL, SHORT))?.success)
    }

    /// Who signed a commit, by the keys that count.
    ///
    /// # Errors
    /// [`GitError::Refused`] when nobody did whose key counts.
    pub fn verify(&self, id: &CommitId, by: &Verify) -> Result<Signer, GitError> {
        verify::verify(&self.parsed(id)?, by).map_err(|error| error.of(id))
    }

    pub(super) fn trees(&self) -> PathBuf {
        self.folder.join("trees")
    }

    /// A question to the mirror that has an answer unless it is broken.
    pub(super) fn expect(&self, ran: &Ran, what: &str) -> Result<(), GitError> {
        match ran.success {
            true => Ok(()),
            false => Err(GitError::Local(format!(
                "cannot {what} `{}`: {}",
                shown(&self.remote.url),
                match ran.late {
                    true => "it took too long",
                    false => &ran.said,
                }
            ))),
        }
    }
}

/// Makes a folder that only we may enter.
pub(super) fn private_folder(path: &Path) -> Result<(), GitError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(GitError::disk("make", path))?;
    let found = path
        .symlink_metadata()
        .map_err(GitError::disk("look at", path))?;
    match found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() {
        true => Ok(()),
        false => Err(GitError::Local(format!(
            "cannot use `{}`: it is no folder of ours; remove it",
            path.display()
        ))),
    }
}

/// Removes a repository. It stops being whole first, also where the power goes: one that is
/// removed in part only lacks objects that its references name, and is made anew.
pub(super) fn remove_repository(path: &Path) -> Result<(), GitError> {
    let whole = path.join(WHOLE);
    if whole.is_file() {
        fs::remove_file(&whole).map_err(GitError::disk("remove", &whole))?;
        sync_folder(path)?;
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(GitError::disk("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// What is in a folder, as far as it can be read.
fn entries(folder: &Path) -> impl Iterator<Item = DirEntry> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}

fn is_older(entry: &DirEntry, than: Duration) -> bool {
    let changed = entry.metadata().and_then(|found| found.modified());
    changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= than))
}

/// What lies below a folder, in bytes.
pub(super) fn size(folder: &Path) -> u64 {
    let sizes = entries(folder).map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.fold(0, u64::saturating_add)
}
