//! What lives there are, from the cgroups alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::entry::Entry;
use super::mark::{Mark, Reading};
use super::watch::Table;
use super::{Result, SLICE, failed, life_of, names, now};
use crate::driver::cgroup::{self, Cgroups};
use crate::graph::identity::Identity;
use crate::plan::world::{Life, LifeId};

/// Every life of `stack`, for a reader that changes nothing and is told nothing later.
///
/// # Errors
/// When cgroup v2 is missing or cannot be read.
pub fn look(stack: &str) -> Result<Vec<Life>> {
    let cgroups = Cgroups::find()?;
    let mut table = Table::default();
    adopt(&cgroups, stack, &mut table)?;
    let now = now();
    for entry in &mut table.entries {
        entry.refresh(now);
    }
    Ok(table.entries.iter().map(|entry| entry.life(now)).collect())
}

/// Puts every life that the cgroups show into the table.
pub(super) fn adopt(cgroups: &Cgroups, stack: &str, table: &mut Table) -> Result<()> {
    // Scopes first: what is left of one that systemd collected is a cgroup of the other kind.
    let group = Path::new("hatchery").join(stack);
    let slice = Path::new(SLICE);
    let prefix = format!("hatchery-{stack}-");
    for name in names(&cgroups.folder(slice))? {
        let key = name.strip_prefix(&prefix);
        let Some(key) = key.and_then(|key| key.strip_suffix(".scope")) else {
            continue;
        };
        let relative = slice.join(&name);
        let folder = cgroups.folder(&relative);
        // The prefix is another stack's too, if its name begins with ours.
        if let Found::Ours(mark) = read(&folder, stack, life_of(key).is_some())? {
            let record = cgroups.folder(&group.join(super::key(&mark.id())));
            add(table, *mark, folder, relative, Some(record));
        }
    }
    for name in names(&cgroups.folder(&group))? {
        let relative = group.join(&name);
        let folder = cgroups.folder(&relative);
        match read(&folder, stack, true)? {
            Found::Ours(mark) => add(table, *mark, folder, relative, None),
            // Made, and its maker died before it could mark it: it is empty for ever.
            Found::Unmarked if !cgroup::populated(&folder) => {
                if let Some(life) = life_of(&name) {
                    add(table, unmarked(stack, &life), folder, relative, None);
                }
            }
            Found::Unmarked | Found::Anothers => {}
        }
    }
    Ok(())
}

/// What a cgroup in our place is to us.
enum Found {
    Ours(Box<Mark>),
    Anothers,
    /// Or marked in a way that nobody needs to understand, because nothing runs in it.
    Unmarked,
}

/// Reads a mark. One that is not understood is ours if it says so, or else if `likely`.
///
/// # Errors
/// When something runs under such a mark: taken for nothing, it would be started once more.
fn read(folder: &Path, stack: &str, likely: bool) -> Result<Found> {
    let (whose, why) = match Mark::read(folder) {
        Reading::None => return Ok(Found::Unmarked),
        Reading::Mark(mark) if mark.stack == stack => return Ok(Found::Ours(mark)),
        Reading::Mark(_) => return Ok(Found::Anothers),
        Reading::Unknown { stack, why } => (stack, why),
    };
    if !whose.map_or(likely, |whose| whose == stack) {
        return Ok(Found::Anothers);
    }
    if !cgroup::populated(folder) {
        return Ok(Found::Unmarked);
    }
    let folder = folder.display();
    Err(failed(format!(
        "cannot tell what runs in the cgroup `{folder}`: another version of hatchery marked it \
         ({why}); begin that version, or end what runs there: `echo 1 > {folder}/cgroup.kill`"
    )))
}

fn add(table: &mut Table, mark: Mark, folder: PathBuf, relative: PathBuf, record: Option<PathBuf>) {
    if table.find(&mark.id()).is_none() {
        let serial = table.serial();
        let mut entry = Entry::new(serial, mark, folder, relative);
        entry.record = record;
        table.entries.push(entry);
    }
}

fn unmarked(stack: &str, life: &LifeId) -> Mark {
    Mark {
        stack: stack.to_owned(),
        node: life.node.clone(),
        incarnation: life.incarnation,
        identity: Identity::default(),
        started: now(),
        applied: BTreeMap::new(),
        notify: false,
        notified: false,
        exit: None,
        log_size: u64::MAX,
        log_files: 0,
        log_name: None,
        farewell: None,
        commit: None,
        asked: false,
        late: false,
        told: false,
        others: BTreeMap::new(),
    }
}
