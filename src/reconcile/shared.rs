//! The one catalog of the process, shared between the loop and whoever serves it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::registry::Catalog;
use crate::template::Snapshot;

/// A catalog behind a lock, with its index published to whoever waits. Cheap to clone.
///
/// The lock is never held across an await, and a poisoned one is taken all the same: each
/// method of the catalog leaves it whole.
#[derive(Debug, Clone)]
pub struct SharedCatalog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cell: Mutex<Cell>,
    index: watch::Sender<u64>,
}

#[derive(Debug)]
struct Cell {
    catalog: Catalog,
    /// The snapshot of the index that it was taken at.
    snapshot: Option<(u64, Arc<Snapshot>)>,
}

impl SharedCatalog {
    /// Shares `catalog`.
    pub fn new(catalog: Catalog) -> Self {
        let (index, _) = watch::channel(catalog.index());
        let cell = Mutex::new(Cell {
            catalog,
            snapshot: None,
        });
        SharedCatalog {
            inner: Arc::new(Inner { cell, index }),
        }
    }

    /// Runs `act` on the catalog, and publishes the index if it moved. `act` must be short:
    /// everybody else waits.
    pub fn with<R>(&self, act: impl FnOnce(&mut Catalog) -> R) -> R {
        let mut cell = self.lock();
        let answer = act(&mut cell.catalog);
        let now = cell.catalog.index();
        // Still under the lock, so that readers never see a later index before an earlier one.
        self.inner.index.send_if_modified(|index| {
            let moved = *index != now;
            *index = now;
            moved
        });
        answer
    }

    /// Runs `look` on the catalog; nothing can change.
    pub fn read<R>(&self, look: impl FnOnce(&Catalog) -> R) -> R {
        look(&self.lock().catalog)
    }

    /// The catalog's index, each time it moves.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.index.subscribe()
    }

    /// How many wait for the index to move.
    pub fn waiting(&self) -> usize {
        self.inner.index.receiver_count()
    }

    /// What templates may read; made once for each index.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let mut cell = self.lock();
        let index = cell.catalog.index();
        match &cell.snapshot {
            Some((at, snapshot)) if *at == index => Arc::clone(snapshot),
            Some(_) | None => {
                let snapshot = Arc::new(cell.catalog.snapshot());
                cell.snapshot = Some((index, Arc::clone(&snapshot)));
                snapshot
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Cell> {
        let lock = self.inner.cell.lock();
        lock.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
