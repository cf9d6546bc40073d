//! Files that are followed, saved in every way that editors and deployments have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hatchery::driver::Event;
use hatchery::source::Watcher;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const DEADLINE: Duration = Duration::from_secs(10);

/// A folder with a watcher on some files in it, and on a marker that tells that all changes
/// made before it would have been told by now.
struct Scene {
    root: PathBuf,
    _temporary: tempfile::TempDir,
    watcher: Watcher,
    events: UnboundedReceiver<Event>,
    marks: u32,
    names: Vec<String>,
}

impl Scene {
    fn new(prepare: impl FnOnce(&Path), names: &[&str]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        prepare(&root);
        let (sender, events) = unbounded_channel();
        let mut scene = Scene {
            root,
            _temporary: temporary,
            watcher: Watcher::new(
                sender,
                std::sync::Arc::new(hatchery::driver::files::HostFiles::default()),
            )
            .unwrap(),
            events,
            marks: 0,
            names: Vec::new(),
        };
        scene.follow(names);
        scene
    }

    fn follow(&mut self, names: &[&str]) {
        self.names = names.iter().map(|name| (*name).to_owned()).collect();
        let all = names.iter().chain(&["marker"]);
        self.watcher
            .set(all.map(|name| self.root.join(name)).collect())
            .unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A complete save by rename.
    fn save(&self, name: &str, content: &str) {
        let new = self.path(&format!("{name}.new"));
        fs::write(&new, content).unwrap();
        fs::rename(&new, self.path(name)).unwrap();
    }

    /// The next files that changed.
    fn next(&mut self) -> Vec<PathBuf> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.events.try_recv() {
                Ok(Event::Files(paths)) => return paths,
                Ok(other) => panic!("{other:?}"),
                Err(_) => {
                    assert!(Instant::now() < deadline, "nothing was told in time");
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
    }

    /// What was told before the marker was: `seen` counts the events of each followed file.
    fn told(&mut self) -> Vec<usize> {
        self.marks += 1;
        self.save("marker", &self.marks.to_string());
        let marker = self.path("marker");
        let mut counts = vec![0; self.names.len()];
        loop {
            let paths = self.next();
            for (count, name) in counts.iter_mut().zip(&self.names) {
                *count += usize::from(paths.contains(&self.root.join(name)));
            }
            if paths.contains(&marker) {
                return counts;
            }
        }
    }

    /// Waits until this file alone is told, once.
    fn once(&mut self, name: &str) {
        assert_eq!(self.next(), [self.path(name)]);
        assert!(self.told().iter().all(|count| *count == 0), "told twice");
    }

    fn wait_unsettled(&self, name: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.watcher.unsettled().contains(&self.path(name)) {
            assert!(Instant::now() < deadline, "the write was not noticed");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn one_file(root: &Path) {
    fs::write(root.join("spec.yaml"), "name: prime\n").unwrap();
}

#[test]
fn half_a_save_is_not_believed() {
    let mut scene = Scene::new(one_file, &["spec.yaml"]);
    let mut file = File::create(scene.path("spec.yaml")).unwrap();
    file.write_all(b"name: pri").unwrap();
    scene.wait_unsettled("spec.yaml");
    assert_eq!(scene.told(), [0], "the first half was believed");
    file.write_all(b"me2\n").unwrap();
    drop(file);
    scene.once("spec.yaml");
    assert!(scene.watcher.unsettled().is_empty());
}

#[test]
fn a_writer_that_never_closes_is_believed_when_it_rests() {
    let mut scene = Scene::new(one_file, &["spec.yaml"]);
    let before = Instant::now();
    let mut file = File::create(scene.path("spec.yaml")).unwrap();
    file.write_all(b"name: other\n").unwrap();
    scene.once("spec.yaml");
    assert!(before.elapsed() >= Duration::from_secs(2));
    drop(file);
    assert_eq!(scene.told(), [0], "the close brings nothing new");
}

#[test]
fn saves_by_rename_are_seen_each_once() {
    let mut scene = Scene::new(one_file, &["spec.yaml"]);
    for round in 0..3 {
        scene.save("spec.yaml", &format!("name: a{round}\n"));
        scene.once("spec.yaml");
    }
}

#[test]
fn a_save_that_moves_the_old_one_away_is_seen_once() {
    let mut scene = Scene::new(one_file, &["spec.yaml"]);
    fs::rename(scene.path("spec.yaml"), scene.path("spec.yaml~")).unwrap();
    fs::write(scene.path("spec.yaml"), "name: new\n").unwrap();
    fs::remove_file(scene.path("spec.yaml~")).unwrap();
    scene.once("spec.yaml");
}

#[test]
fn swapped_links_are_seen() {
    let prepare = |root: &Path| {
        for version in ["v1", "v2"] {
            fs::create_dir(root.join(version)).unwrap();
            fs::write(root.join(version).join("spec.yaml"), version).unwrap();
        }
        symlink("v1", root.join("data")).unwrap();
        symlink("data/spec.yaml", root.join("spec.yaml")).unwrap();
    };
    let mut scene = Scene::new(prepare, &["spec.yaml"]);
    symlink("v2", scene.path("data.new")).unwrap();
    fs::rename(scene.path("data.new"), scene.path("data")).unwrap();
    scene.once("spec.yaml");
    fs::write(scene.path("v2/spec.yaml"), "edited behind the link").unwrap();
    scene.once("spec.yaml");
    fs::write(scene.path("v1/spec.yaml"), "nobody leads here").unwrap();
    assert_eq!(scene.told(), [0]);
    fs::remove_file(scene.path("spec.yaml")).unwrap();
    symlink("v1/spec.yaml", scene.path("spec.yaml")).unwrap();
    scene.once("spec.yaml");
}

#[test]
fn folders_may_go_and_come_back() {
    let prepare = |root: &Path| {
        fs::create_dir(root.join("conf")).unwrap();
        fs::write(root.join("conf/spec.yaml"), "1").unwrap();
    };
    let mut scene = Scene::new(prepare, &["conf/spec.yaml"]);
    fs::remove_dir_all(scene.path("conf")).unwrap();
    scene.once("conf/spec.yaml");
    fs::create_dir_all(scene.path("conf")).unwrap();
    fs::write(scene.path("conf/spec.yaml"), "2").unwrap();
    scene.once("conf/spec.yaml");
    fs::write(scene.path("conf/spec.yaml"), "3").unwrap();
    scene.once("conf/spec.yaml");

    fs::create_dir(scene.path("conf.new")).unwrap();
    fs::write(scene.path("conf.new/spec.yaml"), "4").unwrap();
    fs::rename(scene.path("conf"), scene.path("conf.old")).unwrap();
    fs::rename(scene.path("conf.new"), scene.path("conf")).unwrap();
    scene.once("conf/spec.yaml");
    fs::write(scene.path("conf/spec.yaml"), "5").unwrap();
    scene.once("conf/spec.yaml");
    fs::write(scene.path("conf.old/spec.yaml"), "6").unwrap();
    assert_eq!(scene.told(), [0], "the old folder means nothing");

    // Gone and back at once, again and again.
    for round in 0..5 {
        fs::remove_dir_all(scene.path("conf")).unwrap();
        fs::create_dir(scene.path("conf")).unwrap();
        fs::write(scene.path("conf/spec.yaml"), format!("7{round}")).unwrap();
    }
    scene.once("conf/spec.yaml");
    fs::write(scene.path("conf/spec.yaml"), "8").unwrap();
    scene.once("conf/spec.yaml");
}

#[test]
fn what_is_not_there_yet_is_seen_when_it_comes() {
    let mut scene = Scene::new(|_| (), &["a/b/c/file"]);
    fs::create_dir_all(scene.path("a/b/c")).unwrap();
    fs::write(scene.path("a/b/c/file"), "here").unwrap();
    scene.once("a/b/c/file");
}

#[test]
fn reading_and_equal_saves_tell_nothing() {
    let mut scene = Scene::new(one_file, &["spec.yaml"]);
    for _ in 0..20 {
        fs::read(scene.path("spec.yaml")).unwrap();
    }
    fs::write(scene.path("neighbour"), "x").unwrap();
    fs::write(scene.path("spec.yaml"), "name: prime\n").unwrap();
    scene.save("spec.yaml", "name: prime\n");
    assert_eq!(scene.told(), [0]);
}

#[test]
fn the_set_may_change() {
    let mut scene = Scene::new(one_file, &["spec.yaml"]);
    fs::write(scene.path("work.py"), "1").unwrap();
    scene.follow(&["work.py"]);
    scene.save("spec.yaml", "name: unwatched\n");
    scene.save("work.py", "2");
    scene.once("work.py");
    scene.follow(&["work.py", "spec.yaml"]);
    scene.save("spec.yaml", "name: watched\n");
    scene.once("spec.yaml");
    let error = scene
        .watcher
        .set([PathBuf::from("relative")].into())
        .unwrap_err();
    assert_eq!(
        error.message,
        "cannot follow `relative`: it is not an absolute path"
    );
}

#[test]
fn a_folder_changes_when_a_part_of_a_spec_comes_or_goes() {
    let prepare = |root: &Path| {
        fs::create_dir(root.join("parts")).unwrap();
        fs::write(root.join("parts/a.yaml"), "name: prime\n").unwrap();
    };
    let mut scene = Scene::new(prepare, &["parts", "parts/a.yaml"]);
    scene.save("parts/b.yaml", "checks:\n");
    scene.once("parts");
    scene.save("parts/b.yaml", "services:\n");
    scene.save("parts/notes.txt", "none of ours");
    scene.save("parts/.c.yaml", "hidden");
    assert_eq!(scene.told(), [0, 0], "no name that counts came or went");
    scene.save("parts/a.yaml", "name: other\n");
    scene.once("parts/a.yaml");
    fs::remove_file(scene.path("parts/b.yaml")).unwrap();
    scene.once("parts");
}

#[test]
fn many_changes_at_once_lose_none() {
    let names: Vec<String> = (0..200).map(|number| format!("file{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut scene = Scene::new(|_| (), &names);
    for round in 0..10 {
        for name in &names {
            scene.save(name, &round.to_string());
        }
    }
    let deadline = Instant::now() + DEADLINE;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < names.len() {
        assert!(Instant::now() < deadline, "only {} were seen", seen.len());
        seen.extend(scene.next());
    }
}
