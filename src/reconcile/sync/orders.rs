//! What is asked of a syncer, and who may ask.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::status::SourceStatus;
use super::{Fault, Repository, blocking};
use crate::spec::model::Commit;

/// What somebody asks of the syncer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// Something may have been pushed.
    Pushed,
    /// Ask now, and try again what was refused.
    Now,
    /// Leave the repository alone until told otherwise.
    Suspend,
    /// Follow it again.
    Resume,
}

/// A word, and who waits for what comes of it.
#[derive(Debug)]
pub struct Order {
    /// What.
    pub word: Word,
    /// Told how it stands after the round.
    pub answer: Option<oneshot::Sender<SourceStatus>>,
}

/// Gives orders; cheap to clone.
#[derive(Clone)]
pub struct Orders {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) status: watch::Sender<SourceStatus>,
    pub(super) repository: Arc<dyn Repository>,
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orders")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Orders {
    /// How it stands, but for the stack's health.
    pub fn status(&self) -> SourceStatus {
        self.status.borrow().clone()
    }

    /// Notes why pushes are not heard though there is a webhook; `None` when they are.
    pub fn note_deaf(&self, why: Option<String>) {
        self.status.send_modify(|status| status.deaf = why);
    }

    /// Has the tree of a commit that was taken before at hand again. It waits for no fetch that
    /// is under way: whoever goes back is in a hurry.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub async fn lay_out(&self, commit: Commit) -> Result<(), Fault> {
        let repository = self.repository.clone();
        let laid_out = blocking(move || repository.lay_out(&commit)).await;
        laid_out.unwrap_or_else(|| Err(Fault::Later("it failed".to_owned())))
    }

    /// Says that something may have been pushed. One that waits already is enough.
    pub fn pushed(&self) {
        let word = Word::Pushed;
        // A full channel holds a word that begins a round as well.
        let _ = self.orders.try_send(Order { word, answer: None });
    }

    /// Gives an order, and waits for what comes of it; `None` when the syncer has ended.
    pub async fn give(&self, word: Word) -> Option<SourceStatus> {
        let (answer, answered) = oneshot::channel();
        let answer = Some(answer);
        self.orders.send(Order { word, answer }).await.ok()?;
        answered.await.ok()
    }
}
