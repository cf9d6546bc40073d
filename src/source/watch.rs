//! Which folders are watched for which files, and what their events mean.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{CreateKind, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::UnboundedSender;

use super::settle::{Phase, Sign};
use super::trail::Trail;
use super::{Result, failed};
use crate::driver::because;
use crate::driver::{Event, Files};
use crate::plan::world::FileView;
use crate::spec::gather::is_part;

/// When a folder that could not be watched is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// How often the ways are walked anew while they change under our feet.
const ROUNDS: usize = 8;

/// One file that is followed.
struct Followed {
    trail: Trail,
    told: FileView,
    /// The parts of a spec in it, if it is a folder: it changes when one comes or goes.
    parts: BTreeSet<String>,
    phase: Phase,
}

/// All that the thread knows.
pub(super) struct Follower {
    notifier: RecommendedWatcher,
    events: UnboundedSender<Event>,
    unsettled: Arc<Mutex<BTreeSet<PathBuf>>>,
    files: Arc<dyn Files>,
    followed: BTreeMap<PathBuf, Followed>,
    /// Device and inode tell a folder from another one that was put in its place.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    retry: Option<Instant>,
}

impl Follower {
    pub(super) fn new(
        notifier: RecommendedWatcher,
        events: UnboundedSender<Event>,
        unsettled: Arc<Mutex<BTreeSet<PathBuf>>>,
        files: Arc<dyn Files>,
    ) -> Self {
        Follower {
            notifier,
            events,
            unsettled,
            files,
            followed: BTreeMap::new(),
            watched: BTreeMap::new(),
            retry: None,
        }
    }

    /// How long nothing is to be done.
    pub(super) fn wait(&self) -> Option<Duration> {
        let dues = self.followed.values().filter_map(|one| one.phase.due());
        let next = dues.chain(self.retry).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Follows exactly these.
    pub(super) fn set(&mut self, paths: BTreeSet<PathBuf>) -> Result<()> {
        self.followed.retain(|path, _| paths.contains(path));
        let new: Vec<PathBuf> = paths
            .into_iter()
            .filter(|path| !self.followed.contains_key(path))
            .collect();
        for path in &new {
            let one = Followed {
                trail: Trail::of(path),
                told: FileView::Missing,
                parts: BTreeSet::new(),
                phase: Phase::Settled,
            };
            self.followed.insert(path.clone(), one);
        }
        let outcome = self.walk(Sign::Whole);
        // Seen only now that it is watched: a change after this gives an event.
        for path in &new {
            if let Some(one) = self.followed.get_mut(path) {
                one.told = self.files.look(path);
                one.parts = parts(path, self.files.as_ref());
                one.phase = Phase::Settled;
            }
        }
        outcome
    }

    /// Takes note of one of the kernel's events.
    pub(super) fn changed(&mut self, event: &notify::Event) {
        let now = Instant::now();
        let mut ways_changed = false;
        for path in &event.paths {
            if is_departure(event.kind) {
                self.forget(path);
            }
            for one in self.followed.values_mut() {
                let name = path.file_name().and_then(|name| name.to_str());
                if one.trail.end_is_over(path) && name.is_some_and(is_part) {
                    // Who came or went is whole; what is in it is followed by itself.
                    one.phase = one.phase.after(Sign::Writing, now);
                    continue;
                }
                if !one.trail.touches(path) {
                    continue;
                }
                ways_changed |= !is_content(event.kind);
                let sign = sign(event.kind, path, &one.trail);
                one.phase = one.phase.after(sign, now);
            }
        }
        if ways_changed {
            let new_folder = event.kind == EventKind::Create(CreateKind::Folder);
            // In a folder that was just made, files may be half written.
            let sign = if new_folder {
                Sign::Writing
            } else {
                Sign::Whole
            };
            self.walk_and_warn(sign);
        }
    }

    /// The watch on a folder ends with it, and the notifier ends those below with it; what
    /// is still needed there is watched anew.
    fn forget(&mut self, path: &Path) {
        let gone: Vec<PathBuf> = self
            .watched
            .keys()
            .filter(|folder| folder.starts_with(path))
            .cloned()
            .collect();
        for folder in gone {
            let _ = self.notifier.unwatch(&folder);
            self.watched.remove(&folder);
        }
    }

    /// Events were lost: everything may have changed, and may be half written.
    pub(super) fn lost(&mut self) {
        let now = Instant::now();
        for one in self.followed.values_mut() {
            one.phase = one.phase.after(Sign::Writing, now);
        }
        self.walk_and_warn(Sign::Writing);
    }

    /// Tells what has settled and is not as it was; false when nobody listens any more.
    pub(super) fn tell(&mut self) -> bool {
        let now = Instant::now();
        if self.retry.is_some_and(|at| at <= now) {
            self.retry = None;
            self.walk_and_warn(Sign::Whole);
        }
        let mut changed = Vec::new();
        for (path, one) in &mut self.followed {
            if one.phase.due().is_none_or(|due| due > now) {
                continue;
            }
            one.phase = Phase::Settled;
            let view = self.files.look(path);
            let parts = parts(path, self.files.as_ref());
            if view != one.told || parts != one.parts {
                one.told = view;
                one.parts = parts;
                changed.push(path.clone());
            }
        }
        let unsettled = self
            .followed
            .iter()
            .filter(|(_, one)| one.phase != Phase::Settled)
            .map(|(path, _)| path.clone())
            .collect();
        *self
            .unsettled
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = unsettled;
        match changed.is_empty() {
            true => !self.events.is_closed(),
            false => self.events.send(Event::Files(changed)).is_ok(),
        }
    }

    /// Without a caller who could be told.
    fn walk_and_warn(&mut self, sign: Sign) {
        if let Err(error) = self.walk(sign) {
            tracing::warn!("{error}; trying again in {} s", AGAIN.as_secs());
        }
    }

    /// Walks every way anew and watches the folders on them, until both agree: a folder may
    /// appear between the look at it and the watch on it. What now leads elsewhere gets `sign`.
    fn walk(&mut self, sign: Sign) -> Result<()> {
        for _ in 0..ROUNDS {
            let now = Instant::now();
            for (path, one) in &mut self.followed {
                let trail = Trail::of(path);
                if trail != one.trail {
                    one.trail = trail;
                    one.phase = one.phase.after(sign, now);
                }
            }
            match self.watch_folders() {
                Ok(false) => return Ok(()),
                Ok(true) => {}
                Err(error) => {
                    self.retry = Some(now + AGAIN);
                    return Err(error);
                }
            }
        }
        self.retry = Some(Instant::now() + AGAIN);
        Ok(())
    }

    /// Watches what is needed and nothing else; whether anything was changed by that.
    fn watch_folders(&mut self) -> Result<bool> {
        let needed: BTreeSet<PathBuf> = self
            .followed
            .values()
            .flat_map(|one| one.trail.folders().chain(one.trail.folder()))
            .map(Path::to_owned)
            .collect();
        let stale: Vec<PathBuf> = self
            .watched
            .iter()
            .filter(|(folder, id)| !needed.contains(*folder) || identity(folder) != Some(**id))
            .map(|(folder, _)| folder.clone())
            .collect();
        for folder in &stale {
            // Its watch may have ended with the folder.
            let _ = self.notifier.unwatch(folder);
            self.watched.remove(folder);
        }
        let mut changed = !stale.is_empty();
        let mut first_error = None;
        for folder in needed {
            if self.watched.contains_key(&folder) {
                continue;
            }
            let Some(id) = identity(&folder) else {
                changed = true;
                continue;
            };
            match self.notifier.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(folder, id);
                    changed = true;
                }
                Err(error) => {
                    let reason = reason(&error, Some(&folder));
                    first_error.get_or_insert(failed(reason));
                }
            }
        }
        match first_error {
            Some(error) => Err(error),
            None => Ok(changed),
        }
    }
}

/// The names in a folder that are parts of a spec; none for anything else.
fn parts(path: &Path, files: &dyn Files) -> BTreeSet<String> {
    let names = match path.is_dir() {
        true => files.names(path).unwrap_or_default(),
        false => Vec::new(),
    };
    names.into_iter().filter(|name| is_part(name)).collect()
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    let found = folder.symlink_metadata().ok()?;
    found.is_dir().then(|| (found.dev(), found.ino()))
}

/// What an event at `path` says about the file at the end of the way.
fn sign(kind: EventKind, path: &Path, trail: &Trail) -> Sign {
    match kind {
        EventKind::Modify(ModifyKind::Data(_)) => Sign::Writing,
        EventKind::Modify(ModifyKind::Metadata(_)) => Sign::Touched,
        // A new file is still to be filled; a new link is whole.
        EventKind::Create(_) if path == trail.end => {
            match path.symlink_metadata().is_ok_and(|found| found.is_file()) {
                true => Sign::Writing,
                false => Sign::Whole,
            }
        }
        _ => Sign::Whole,
    }
}

/// Whether only a file's content or attributes changed, not where names lead.
fn is_content(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) | EventKind::Access(_)
    )
}

fn is_departure(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
    )
}

/// What keeps us from watching, with the setting that lifts a limit.
pub(super) fn reason(error: &notify::Error, folder: Option<&Path>) -> String {
    let what = match folder {
        Some(folder) => format!("cannot watch `{}`", folder.display()),
        None => "cannot watch files".to_owned(),
    };
    let limit = |name: &str| {
        format!("{what}: this user's limit is reached; raise `sysctl fs.inotify.{name}`")
    };
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => limit("max_user_watches"),
        notify::ErrorKind::Io(error) => match error.raw_os_error() {
            Some(libc::ENOSPC) => limit("max_user_watches"),
            Some(libc::EMFILE) => limit("max_user_instances"),
            _ => format!("{what}: {}", because(error)),
        },
        other => format!("{what}: {other:?}"),
    }
}
