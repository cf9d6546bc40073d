//! Submodules: each has a mirror of its own, with the same bounds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use super::mirror::{Mirror, Remote};
use super::run::{git, run};
use super::tree::{Entry, Used};
use super::url::{beside, shown};
use super::{CommitId, GitError};
use crate::spec::model::Objects;

/// For reading `.gitmodules`, which is no larger than this, in bytes.
const TIME: Duration = Duration::from_secs(30);
const LIST: u64 = 1 << 20;

impl Mirror {
    /// Lays out the submodule at `entry` of a commit, in `folder`.
    #[expect(
        clippy::too_many_arguments,
        reason = "all of them describe one place in one tree"
    )]
    pub(super) fn submodule(
        &self,
        commit: &CommitId,
        entry: &Entry,
        folder: &Path,
        prefix: &str,
        contents: &mut Objects,
        used: &mut Used,
        depth: u32,
    ) -> Result<(), GitError> {
        let path = &entry.path;
        let refused = |why: String| GitError::Refused(format!("the submodule `{path}` {why}"));
        if !self.remote.submodules {
            let why = "is not fetched; if it is needed, set `submodules: true`";
            return Err(refused(why.to_owned()));
        }
        used.submodules += 1;
        if depth >= self.limits.depth || used.submodules > self.limits.submodules {
            return Err(refused("is one too many".to_owned()));
        }
        let named = self.gitmodules(commit)?;
        let url = named
            .get(path)
            .ok_or_else(|| refused("has no address in `.gitmodules`".to_owned()))?;
        let url = beside(&self.remote.url, url)?;
        let id = CommitId::new(&entry.hash).ok_or_else(|| refused("is of no commit".to_owned()))?;
        let name = blake3::hash(url.as_bytes()).to_hex();
        let place = self.modules.join(name.as_str());
        used.modules.insert(name.to_string());
        let remote = Remote {
            url: url.clone(),
            // Not fetched by name: what counts is the commit.
            reference: "HEAD".to_owned(),
            submodules: true,
        };
        let mut inner = Mirror::at(&place, remote, self.limits)
            .map_err(|error| refused(format!("is not taken: {error}")))?;
        // Whatever has submodules in its turn, all of one address share a mirror.
        inner.modules.clone_from(&self.modules);
        inner.fetching.clone_from(&self.fetching);
        inner.bring(&id).map_err(|error| match error {
            GitError::Unreachable(why) => {
                GitError::Unreachable(format!("the submodule `{path}` is not there: {why}"))
            }
            GitError::Refused(why) => refused(format!("is not taken: {why}")),
            local @ GitError::Local(_) => local,
        })?;
        inner.write_tree(&id, folder, prefix, contents, used, depth + 1)
    }

    /// Fetches a commit, unless it is there, and no more than may be. Only who has to fetch waits
    /// for others who do.
    fn bring(&self, id: &CommitId) -> Result<(), GitError> {
        if self.is_whole() {
            self.configure()?;
            if self.resolve(id.as_str()).is_ok() {
                if let Ok(_alone) = self.fetching.try_lock() {
                    self.sweep();
                }
                return Ok(());
            }
        }
        let _alone = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        self.prepare()?;
        self.bounded(|| self.fetch_commit(id))
    }

    /// With the branches, or on its own where a server gives it so.
    fn fetch_commit(&self, id: &CommitId) -> Result<(), GitError> {
        if self.resolve(id.as_str()).is_err() {
            self.fetch_into("+refs/heads/*:refs/hatchery/heads/*")?;
        }
        if self.resolve(id.as_str()).is_ok() {
            return Ok(());
        }
        match self.fetch_into(&format!("+{id}:refs/hatchery/asked")) {
            // It may have been forgotten, and be pushed yet.
            Err(GitError::Unreachable(why)) if why.contains("not our ref") => {
                Err(GitError::Unreachable(format!(
                    "`{}` does not have commit {id}; was it pushed?",
                    shown(&self.remote.url)
                )))
            }
            fetched => fetched,
        }
    }

    /// The addresses of a commit's submodules by their paths.
    fn gitmodules(&self, commit: &CommitId) -> Result<BTreeMap<String, String>, GitError> {
        let mut config = git(&self.repository());
        config.args(["config", "-z", &format!("--blob={commit}:.gitmodules")]);
        config.args(["--get-regexp", r"^submodule\..*\.(path|url)$"]);
        let ran = run(config, b"", self.bounds(TIME, LIST))?;
        Ok(read(&ran.text()))
    }
}

/// Reads `git config -z`: a key, a line end, a value, and a zero byte each.
fn read(text: &str) -> BTreeMap<String, String> {
    let mut paths: BTreeMap<&str, &str> = BTreeMap::new();
    let mut urls: BTreeMap<&str, &str> = BTreeMap::new();
    for item in text.split('\0') {
        let Some((key, value)) = item.split_once('\n') else {
            continue;
        };
        let Some((name, field)) = key.rsplit_once('.') else {
            continue;
        };
        match field {
            "path" => paths.insert(name, value),
            _ => urls.insert(name, value),
        };
    }
    paths
        .into_iter()
        .filter_map(|(name, path)| Some((path.to_owned(), (*urls.get(name)?).to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::io::Read;

    use super::super::mirror::{Limits, size};
    use super::super::tests::said;
    use super::*;

    #[test]
    fn what_a_submodule_had_once_does_not_pile_up() {
        let root = tempfile::tempdir().unwrap();
        let (lib, top) = (root.path().join("lib"), root.path().join("top"));
        for folder in [&lib, &top] {
            fs::create_dir(folder).unwrap();
            said(folder, &["init", "--quiet", "-b", "main"]);
        }
        said(&lib, &["config", "uploadpack.allowFilter", "true"]);
        let remote = Remote {
            url: top.display().to_string(),
            reference: "main".to_owned(),
            submodules: true,
        };
        let limits = Limits {
            mirror: 512 << 10,
            ..Limits::default()
        };
        let mirror = Mirror::open(&root.path().join("git"), remote, limits).unwrap();
        let modules = format!(
            "[submodule \"lib\"]\n\tpath = lib\n\turl = {}\n",
            lib.display()
        );
        fs::write(top.join(".gitmodules"), modules).unwrap();
        fs::create_dir(top.join("lib")).unwrap();
        for round in 0..5 {
            let mut noise = Vec::new();
            let mut random = fs::File::open("/dev/urandom").unwrap().take(200 << 10);
            random.read_to_end(&mut noise).unwrap();
            fs::write(lib.join("noise"), &noise).unwrap();
            said(&lib, &["add", "--all"]);
            let amend = match round {
                0 => "--quiet",
                _ => "--amend",
            };
            said(&lib, &["commit", "--quiet", amend, "-m", "noise"]);
            let commit = said(&lib, &["rev-parse", "HEAD"]);
            let place = format!("160000,{commit},lib");
            said(&top, &["add", ".gitmodules"]);
            said(&top, &["update-index", "--add", "--cacheinfo", &place]);
            said(&top, &["commit", "--quiet", "-m", "another"]);
            let head = mirror.commit(&mirror.fetch().unwrap()).unwrap();
            let tree = mirror.lay_out(&head).unwrap().tree;
            assert_eq!(fs::read(tree.join("lib/noise")).unwrap(), noise);
            let taken = size(&mirror.modules);
            assert!(taken < 550 << 10, "{round}: {taken} bytes");
        }
    }

    #[test]
    fn addresses_are_found_by_path() {
        let text = "submodule.a.b.path\nlib/x\0submodule.a.b.url\n../x.git\0submodule.c.path\ny\0";
        let read = read(text);
        assert_eq!(read.get("lib/x").map(String::as_str), Some("../x.git"));
        assert_eq!(read.len(), 1);
    }
}
