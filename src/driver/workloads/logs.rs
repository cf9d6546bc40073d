//! The logs of all lives: cut in time, and looked at in time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Result, failed};
use crate::driver::{because, log};
use crate::spec::model::LogLimit;

/// What the last look at each log found.
#[derive(Debug, Default)]
pub(super) struct Logs {
    seen: Mutex<BTreeMap<PathBuf, Seen>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Instant,
    size: u64,
}

impl Logs {
    /// Rotates every log that outgrew its limit; cheap when none did. Answers how soon one may
    /// outgrow it.
    ///
    /// # Errors
    /// The first that failed; the others were still tried.
    pub fn rotate(&self, limits: BTreeMap<PathBuf, LogLimit>) -> Result<Option<Duration>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|path, _| limits.contains_key(path));
        let mut first = Ok(());
        let mut soon: Option<Duration> = None;
        for (path, limit) in limits {
            let now = Seen {
                at: Instant::now(),
                size: size(&path),
            };
            let before = seen.get(&path).copied();
            let cut = now.size > limit.max_size;
            if let Err(error) = log::rotate(&path, limit) {
                let why = because(&error);
                let problem = format!(
                    "cannot rotate the log `{}`, and what could not be kept of it is lost: {why}",
                    path.display()
                );
                first = first.and(Err(failed(problem)));
            }
            let rest = if cut { size(&path) } else { now.size };
            let next = match before {
                // What it grew by is known at the second look.
                None => Some(Duration::ZERO),
                Some(before) => log::Growth {
                    grew: now.size.saturating_sub(before.size),
                    within: now.at.duration_since(before.at),
                    size: rest,
                }
                .next_look(limit),
            };
            soon = soon.into_iter().chain(next).min();
            seen.insert(path, Seen { size: rest, ..now });
        }
        first.map(|()| soon)
    }
}

fn size(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).map_or(0, |found| found.len())
}
