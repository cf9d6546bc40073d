//! What one that was killed leaves in a mirror.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::fs::inotify;

use super::*;

/// What `git` says in a folder.
pub(super) fn said(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"])
        .args(["-c", "protocol.file.allow=always"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A repository with one submodule, and a mirror of it.
struct Scene {
    root: tempfile::TempDir,
    mirror: Mirror,
}

impl Scene {
    fn new() -> Scene {
        let root = tempfile::tempdir().unwrap();
        for name in ["lib", "top"] {
            let folder = root.path().join(name);
            fs::create_dir(&folder).unwrap();
            said(&folder, &["init", "--quiet", "-b", "main"]);
        }
        let remote = Remote {
            url: root.path().join("top").display().to_string(),
            reference: "main".to_owned(),
            submodules: true,
        };
        let mirror = root.path().join("git");
        let mirror = Mirror::open(&mirror, remote, Limits::default()).unwrap();
        let scene = Scene { root, mirror };
        scene.commit_lib("first");
        scene.commit_top("first");
        scene
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn commit_lib(&self, text: &str) {
        let lib = self.folder("lib");
        fs::write(lib.join("file"), text).unwrap();
        said(&lib, &["add", "file"]);
        said(&lib, &["commit", "--quiet", "-m", text]);
    }

    /// A commit of `top` with the newest one of `lib`.
    fn commit_top(&self, text: &str) {
        let (lib, top) = (self.folder("lib"), self.folder("top"));
        let modules = format!(
            "[submodule \"lib\"]\n\tpath = lib\n\turl = {}\n",
            lib.display()
        );
        fs::write(top.join(".gitmodules"), modules).unwrap();
        fs::write(top.join("file"), text).unwrap();
        let place = format!("160000,{},lib", said(&lib, &["rev-parse", "HEAD"]));
        said(&top, &["add", "file", ".gitmodules"]);
        said(&top, &["update-index", "--add", "--cacheinfo", &place]);
        said(&top, &["commit", "--quiet", "-m", text]);
    }

    /// Fetches, and lays out what the head is; what its submodule's file says.
    fn follow(&self) -> Result<String, GitError> {
        let head = self.mirror.commit(&self.mirror.fetch()?)?;
        let tree = self.mirror.lay_out(&head)?.tree;
        Ok(fs::read_to_string(tree.join("lib/file")).unwrap())
    }

    /// The repository of the submodule's mirror.
    fn module(&self) -> PathBuf {
        let mut modules = fs::read_dir(&self.mirror.modules).unwrap();
        modules.next().unwrap().unwrap().path().join("mirror.git")
    }
}

/// Files below a repository, as a fetch that was killed leaves them.
fn plant(repository: &Path, paths: &[&str]) -> Vec<PathBuf> {
    let planted: Vec<PathBuf> = paths.iter().map(|path| repository.join(path)).collect();
    for path in &planted {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    planted
}

/// The name of the first file that goes while `remove` removes a folder.
fn first_removed(folder: &Path, remove: impl FnOnce()) -> String {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        inotify::add_watch(&watch, &folder, inotify::WatchFlags::DELETE).unwrap();
        let entries = fs::read_dir(&folder).unwrap().flatten();
        folders.extend(
            entries
                .map(|entry| entry.path())
                .filter(|path| path.is_dir()),
        );
    }
    remove();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(&watch, &mut buffer);
    let event = reader.next().unwrap();
    event.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn a_mirror_is_not_whole_any_more_before_anything_of_it_goes() {
    let scene = Scene::new();
    scene.follow().unwrap();
    let repository = scene.mirror.repository();
    // One of many, so that no order but ours removes it first.
    let many: Vec<String> = (0..100).map(|number| format!("other-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    plant(&repository, &many);
    let first = first_removed(&repository, || {
        mirror::remove_repository(&repository).unwrap();
    });
    assert_eq!(first, "HEAD");
    assert!(!repository.exists());

    let module = scene.module();
    plant(&module, &many);
    let first = first_removed(module.parent().unwrap(), || {
        scene.mirror.keep_trees(&Default::default()).unwrap();
    });
    assert_eq!(first, "HEAD");
    assert!(!module.exists());
}

#[test]
fn one_that_was_removed_in_part_is_made_anew() {
    let scene = Scene::new();
    assert_eq!(scene.follow().unwrap(), "first");
    scene.commit_lib("second");
    scene.commit_top("second");
    for repository in [scene.mirror.repository(), scene.module()] {
        fs::remove_file(repository.join("HEAD")).unwrap();
        fs::remove_dir_all(repository.join("objects/pack")).unwrap();
    }
    assert_eq!(scene.follow().unwrap(), "second");
}

#[test]
fn what_a_killed_fetch_left_is_in_nobodys_way() {
    let scene = Scene::new();
    assert_eq!(scene.follow().unwrap(), "first");
    let mut left = plant(
        &scene.mirror.repository(),
        &[
            "objects/pack/tmp_pack_AbCdEf",
            "refs/hatchery/head.lock",
            "config.lock",
            "shallow.lock",
        ],
    );
    left.extend(plant(
        &scene.module(),
        &[
            "objects/pack/tmp_idx_AbCdEf",
            "refs/hatchery/heads/main.lock",
            "refs/hatchery/heads/a/deep/one.lock",
            "refs/hatchery/asked.lock",
        ],
    ));
    // A configuration is written without a fetch, so only an old one is nobody's.
    let unplaced = |name: &str| {
        let path = scene.mirror.repository().join(name);
        fs::write(&path, "").unwrap();
        path
    };
    let (old, new) = (unplaced(".tmpOldOne"), unplaced(".tmpNewOne"));
    let hour = Duration::from_secs(3600);
    File::options()
        .write(true)
        .open(&old)
        .and_then(|file| file.set_modified(SystemTime::now() - hour))
        .unwrap();
    left.push(old);

    scene.commit_lib("second");
    scene.commit_top("second");
    assert_eq!(scene.follow().unwrap(), "second");
    for path in left {
        assert!(!path.exists(), "{}", path.display());
    }
    assert!(new.exists());
}

#[test]
fn a_submodule_that_is_there_needs_no_fetch_and_disturbs_none() {
    let scene = Scene::new();
    scene.follow().unwrap();
    let module = scene.module();
    let left = plant(&module, &["objects/pack/tmp_pack_AbCdEf"]);
    // Git notes there that the other side keeps objects for us, until the fetch is over.
    let configured = fs::read_to_string(module.join("config")).unwrap();
    fs::write(
        module.join("config"),
        format!("{configured}\tpromisor = true\n"),
    )
    .unwrap();
    fs::remove_dir_all(scene.folder("lib")).unwrap();
    let top = scene.folder("top");
    let another = |text: &str| {
        fs::write(top.join("file"), text).unwrap();
        said(&top, &["commit", "--quiet", "-m", text, "file"]);
    };
    another("second");
    let fetching = scene.mirror.fetching.lock().unwrap();
    assert_eq!(scene.follow().unwrap(), "first");
    assert!(left[0].exists(), "somebody may be writing it");
    drop(fetching);
    another("third");
    assert_eq!(scene.follow().unwrap(), "first");
    assert!(!left[0].exists());
    assert_eq!(
        fs::read_to_string(module.join("config")).unwrap(),
        configured
    );
}
