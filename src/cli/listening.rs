//! A controller that is listened to: in this process, or behind its control socket.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};

use crate::api::control::{Client, Story};
use crate::reconcile::handle::{Handle, Happening, StackStatus};

/// How long what was told already may take to be read.
const REST: Duration = Duration::from_millis(50);

/// Where the story comes from.
pub enum Listening {
    /// The loop runs in this process.
    Here {
        /// Asks it.
        handle: Handle,
        /// Hears it.
        story: broadcast::Receiver<Happening>,
    },
    /// It runs elsewhere.
    There {
        /// Asks it.
        client: Client,
        /// Hears it.
        story: Story,
    },
}

impl Listening {
    /// What happens next; `None` once the controller ended.
    pub async fn next(&mut self) -> Option<Happening> {
        match self {
            Listening::Here { story, .. } => match story.recv().await {
                Ok(happening) => Some(happening),
                Err(RecvError::Lagged(lost)) => Some(gap(lost)),
                Err(RecvError::Closed) => None,
            },
            Listening::There { story, .. } => story.next().await,
        }
    }

    /// What was told already and not heard yet.
    pub async fn rest(&mut self) -> Vec<Happening> {
        let mut rest = Vec::new();
        match self {
            Listening::Here { story, .. } => loop {
                match story.try_recv() {
                    Ok(happening) => rest.push(happening),
                    Err(TryRecvError::Lagged(lost)) => rest.push(gap(lost)),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => return rest,
                }
            },
            Listening::There { story, .. } => {
                while let Ok(Some(happening)) = tokio::time::timeout(REST, story.next()).await {
                    rest.push(happening);
                }
                rest
            }
        }
    }

    /// How the stack stands; `None` once the controller ended.
    pub async fn status(&self) -> Option<StackStatus> {
        match self {
            Listening::Here { handle, .. } => {
                let asked = tokio::time::timeout(Handle::PATIENCE, handle.status());
                asked.await.ok()?.ok()
            }
            Listening::There { client, .. } => client.status().await.ok(),
        }
    }
}

fn gap(lost: u64) -> Happening {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let at_ms = since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    });
    let text = format!("{lost} lines were lost: they came faster than they were printed");
    Happening::warning(at_ms, text)
}
