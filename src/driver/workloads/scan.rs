//! What lives there are, from the cgroups alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::entry::Entry;
use super::mark::Mark;
use super::watch::Table;
use super::{Result, SLICE, life_of, names, now};
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
    let group = Path::new("hatchery").join(stack);
    for name in names(&cgroups.folder(&group))? {
        let relative = group.join(&name);
        let folder = cgroups.folder(&relative);
        match Mark::read(&folder).filter(|mark| mark.stack == stack) {
            Some(mark) => add(table, mark, folder, relative),
            // Made, and its maker died before it could mark it: it is empty for ever.
            None if !cgroup::populated(&folder) => {
                if let Some(life) = life_of(&name) {
                    add(table, unmarked(stack, &life), folder, relative);
                }
            }
            None => {}
        }
    }
    let slice = Path::new(SLICE);
    let prefix = format!("hatchery-{stack}-");
    for name in names(&cgroups.folder(slice))? {
        if !name.starts_with(&prefix) || !name.ends_with(".scope") {
            continue;
        }
        let relative = slice.join(&name);
        let folder = cgroups.folder(&relative);
        if let Some(mark) = Mark::read(&folder).filter(|mark| mark.stack == stack) {
            add(table, mark, folder, relative);
        }
    }
    Ok(())
}

fn add(table: &mut Table, mark: Mark, folder: PathBuf, relative: PathBuf) {
    if table.find(&mark.id()).is_none() {
        let serial = table.serial();
        table
            .entries
            .push(Entry::new(serial, mark, folder, relative));
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
        farewell: None,
        commit: None,
        asked: false,
    }
}
