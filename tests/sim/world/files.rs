//! Files: the spec, sources, what is rendered and generated; and who follows them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hatchery::driver::{ErrorKind, Event, Files, NewFile, Result};
use hatchery::plan::world::{FileMark, FileView};
use hatchery::reconcile::host::Follow;

use super::{Happening, Reach, Shared, World, error};
use crate::faults::{Action, Fault};
use crate::invariants;

#[derive(Debug, Clone)]
pub struct File {
    pub text: String,
    pub hash: String,
    pub mark: Option<FileMark>,
    pub mode: u32,
}

impl World {
    /// Somebody saves a file, in one go.
    pub fn save(&mut self, path: &str, text: String) {
        let path = PathBuf::from(path);
        self.put(path.clone(), text, None);
        if let Some(file) = self.files.get(&path) {
            self.stood.saves(&path, &file.hash);
        }
        self.unsettled.insert(path.clone());
        let rest = self.rng.millis(200, 400);
        self.after(rest, Happening::Settled(path));
    }

    pub fn put(&mut self, path: PathBuf, text: String, mark: Option<FileMark>) {
        let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
        let mode = 0o644;
        self.files.insert(
            path,
            File {
                text,
                hash,
                mark,
                mode,
            },
        );
    }

    /// A file rests since a moment.
    pub fn settled(&mut self, path: PathBuf) {
        self.unsettled.remove(&path);
        if self.followed.contains(&path) {
            self.tell(Event::Files(vec![path]));
        }
    }

    /// Ours by its place.
    pub fn own(path: &Path) -> bool {
        path.starts_with("/run/hatchery") || path.starts_with("/var/lib/hatchery")
    }

    /// Whether a file is somebody else's.
    fn foreign(&self, path: &Path) -> bool {
        let file = self.files.get(path);
        !Self::own(path) && file.is_some_and(|file| file.mark.is_none())
    }
}

impl Files for Shared {
    fn look(&self, path: &Path) -> FileView {
        let mut world = self.lock();
        if !world.down && world.fires(Fault::Unreadable, Action::Look) {
            world.unread_at = Some(world.now);
            return FileView::Unreadable("input/output error".to_owned());
        }
        let Some(file) = world.files.get(path).cloned() else {
            return FileView::Missing;
        };
        world.looked.insert(path.to_owned(), file.hash.clone());
        FileView::File {
            hash: file.hash,
            mark: file.mark,
            mode: file.mode,
        }
    }

    fn read(&self, path: &Path, _limit: u64) -> Result<String> {
        let mut world = self.lock();
        if world.fires(Fault::Unreadable, Action::Read) {
            world.unread_at = Some(world.now);
            return Err(error(ErrorKind::Failed, "input/output error"));
        }
        let file = world.files.get(path);
        file.map(|file| file.text.clone())
            .ok_or_else(|| error(ErrorKind::Gone, "it is not there"))
    }

    fn names(&self, _folder: &Path) -> Result<Vec<String>> {
        Err(error(ErrorKind::Gone, "there are no folders here"))
    }

    fn write(&self, file: &NewFile) -> Result<()> {
        let mut world = self.lock();
        // What is half done is a temporary file beside it, which nobody sees.
        if let Reach::Nothing(why) | Reach::Half(why) = world.reach(Action::Write, false) {
            return Err(why);
        }
        if world.foreign(&file.path) {
            let same = world
                .files
                .get(&file.path)
                .is_some_and(|old| old.text == file.content);
            if !same {
                return Err(error(ErrorKind::Foreign, "the file is a stranger's"));
            }
        }
        invariants::before_write(&mut world, file);
        world.put(file.path.clone(), file.content.clone(), file.mark.clone());
        if let Some(written) = world.files.get_mut(&file.path) {
            written.mode = file.mode;
        }
        let servers = file.content.lines().count();
        world.log(format_args!(
            "writes `{}`: {servers} lines",
            file.path.display()
        ));
        let path = file.path.clone();
        if world.followed.contains(&path) {
            let rest = world.rng.millis(200, 400);
            world.after(rest, Happening::Settled(path));
        }
        Ok(())
    }

    fn rewrite(&self, path: &Path, content: &str) -> Result<()> {
        let mut world = self.lock();
        if let Reach::Nothing(why) | Reach::Half(why) = world.reach(Action::Rewrite, false) {
            return Err(why);
        }
        world.put(path.to_owned(), content.to_owned(), None);
        Ok(())
    }

    fn remove(&self, path: &Path, _stack: &str) -> Result<()> {
        let mut world = self.lock();
        if let Reach::Nothing(why) | Reach::Half(why) = world.reach(Action::RemoveFile, false) {
            return Err(why);
        }
        // As the drivers do: what it is now counts, not what was seen before.
        if world.foreign(path) {
            return Err(error(ErrorKind::Foreign, "it is a stranger's"));
        }
        world.files.remove(path);
        world.log(format_args!("removes `{}`", path.display()));
        Ok(())
    }
}

impl Follow for Shared {
    fn set(&self, paths: BTreeSet<PathBuf>) -> Result<()> {
        self.lock().followed = paths;
        Ok(())
    }

    fn unsettled(&self) -> BTreeSet<PathBuf> {
        let world = self.lock();
        world
            .unsettled
            .intersection(&world.followed)
            .cloned()
            .collect()
    }
}
