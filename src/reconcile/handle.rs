//! How the rest of the program speaks with the loop.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub use super::happening::{EventKind, Happening, Level};
use super::sync::{Fault, Orders, SourceStatus, Word};
use crate::plan::explain::Explanation;
use crate::plan::model::NodeStatus;
use crate::plan::saved::SavedPlan;
pub use crate::plan::view::{ItemView, PlanView};
use crate::spec::generation::{Cause, User};
use crate::spec::model::Commit;
use crate::spec::node::NodeId;
pub use crate::spec::texts::SpecText;

/// What somebody asks of the loop.
#[derive(Debug)]
pub enum Request {
    /// How it stands.
    Status(oneshot::Sender<StackStatus>),
    /// What would be done for this spec; nothing is.
    Plan(SpecText, oneshot::Sender<Result<Proposal, String>>),
    /// The whole story of what a name stands for.
    Explain {
        /// Under this spec; under the one in force if `None`.
        spec: Option<SpecText>,
        /// A node, a group, or an endpoint's id.
        name: String,
        /// The story, or why there is none.
        answer: oneshot::Sender<Result<Explanation, String>>,
    },
    /// From now on this spec.
    Apply {
        /// The spec.
        spec: SpecText,
        /// It may remove everything.
        allow_empty: bool,
        /// Only as far as this plan of it goes, if the world is still the one that it was made
        /// on.
        saved: Option<Box<SavedPlan>>,
        /// How it came.
        cause: Cause,
        /// The generation that it became, or why it did not.
        answer: oneshot::Sender<Result<u64, Fault>>,
    },
    /// Take what the spec's file holds now.
    Reload {
        /// Who asks.
        by: User,
        /// The generation in force then, or why the file is not taken.
        answer: oneshot::Sender<Result<u64, String>>,
    },
    /// Stop everything and end; `purge` keeps nothing.
    Down {
        /// Persistent data of ours too: logs and state.
        purge: bool,
        /// Kill instead of asking.
        kill: bool,
        /// Who asks.
        by: User,
        /// Answered when all is gone.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// `start`, `stop` or `restart` some nodes; a group's name stands for its instances.
    Operate {
        /// What.
        verb: Verb,
        /// Whom.
        names: Vec<String>,
        /// Who asks.
        by: User,
        /// The nodes meant, or why not.
        answer: oneshot::Sender<Result<Vec<NodeId>, String>>,
    },
    /// Leave a stack that follows a repository as it is, or follow on: a commit is on trial only
    /// while it is followed.
    Suspend(bool),
    /// Tell something that happened outside of the loop.
    Tell {
        /// What happened.
        kind: EventKind,
        /// How grave.
        level: Level,
        /// In words.
        text: String,
        /// The hash of the commit that it is about.
        commit: Option<String>,
    },
    /// End the controller; workloads live on.
    Leave(oneshot::Sender<()>),
}

/// A plan, as readers get it and as it is kept in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// For readers.
    pub view: PlanView,
    /// For `apply`.
    pub saved: SavedPlan,
}

/// What an operator does to a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Lets it run again.
    Start,
    /// Keeps it stopped.
    Stop,
    /// Ends this life; a new one follows.
    Restart,
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verb::Start => "start",
            Verb::Stop => "stop",
            Verb::Restart => "restart",
        })
    }
}

/// How a stack stands, as the control socket tells it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StackStatus {
    /// Its name.
    pub stack: String,
    /// The controller's process.
    pub controller_pid: u32,
    /// Its version.
    pub version: String,
    /// The spec's file.
    pub spec: PathBuf,
    /// The number of the generation in force.
    pub generation: u64,
    /// Nothing is outstanding.
    pub converged: bool,
    /// What the newest edit of the file was refused for, if it was.
    pub spec_error: Option<String>,
    /// Where the registry answers.
    pub registry: Option<String>,
    /// Every node.
    pub nodes: Vec<NodeStatus>,
    /// What is outstanding, as one line each.
    pub outstanding: Vec<String>,
    /// A plan file was applied, and nothing else is done before the next generation: how many
    /// of what is outstanding is not in it.
    #[serde(default)]
    pub withheld: Option<usize>,
    /// The commit that the spec in force came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Commit>,
    /// The commit that the stack left for an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<LeftCommit>,
    /// The hashes of all commits whose trees are in use or may be gone back to.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub commits: BTreeSet<String>,
    /// Everything was as the generation in force says, at some time.
    #[serde(default)]
    pub converged_once: bool,
    /// The repository that it follows, and how it stands towards that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,
}

/// A commit that is not to be tried again by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftCommit {
    /// Its hash.
    pub commit: String,
    /// Why the stack left it.
    pub why: String,
}

/// The loop's far end: cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    happenings: broadcast::Sender<Happening>,
    orders: Option<Orders>,
    /// How many reloads are under way.
    reloads: watch::Sender<u32>,
}

/// A reload under way; it is over when this is dropped.
struct Reloading<'a>(&'a watch::Sender<u32>);

impl<'a> Reloading<'a> {
    fn begin(reloads: &'a watch::Sender<u32>) -> Self {
        reloads.send_modify(|count| *count = count.saturating_add(1));
        Reloading(reloads)
    }
}

impl Drop for Reloading<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// The controller ended before it answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the controller ended before it answered")]
pub struct Ended;

impl Handle {
    /// A handle on the loop that reads `requests`.
    pub fn new(requests: mpsc::Sender<Request>, happenings: broadcast::Sender<Happening>) -> Self {
        Handle {
            requests,
            happenings,
            orders: None,
            reloads: watch::Sender::new(0),
        }
    }

    /// The same for a stack that follows a repository.
    #[must_use]
    pub fn following(self, orders: Orders) -> Self {
        Handle {
            orders: Some(orders),
            ..self
        }
    }

    /// Who takes orders about the repository; `None` when none is followed.
    pub fn orders(&self) -> Option<&Orders> {
        self.orders.as_ref()
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Ended> {
        let (sender, receiver) = oneshot::channel();
        self.requests.send(make(sender)).await.map_err(|_| Ended)?;
        receiver.await.map_err(|_| Ended)
    }

    /// How the stack stands.
    pub async fn status(&self) -> Result<StackStatus, Ended> {
        let mut status = self.ask(Request::Status).await?;
        if let Some(orders) = &self.orders {
            let mut source = orders.status();
            source.judge(&status);
            status.source = Some(source);
        }
        Ok(status)
    }

    /// Tells something that happened outside of the loop, about the commit of this hash.
    pub async fn tell(
        &self,
        kind: EventKind,
        level: Level,
        text: String,
        commit: Option<String>,
    ) -> Result<(), Ended> {
        let tell = Request::Tell {
            kind,
            level,
            text,
            commit,
        };
        self.requests.send(tell).await.map_err(|_| Ended)
    }

    /// Has the commit in force stay, however it is, or puts it on trial anew.
    pub(super) async fn suspend(&self, suspended: bool) -> Result<(), Ended> {
        let suspend = Request::Suspend(suspended);
        self.requests.send(suspend).await.map_err(|_| Ended)
    }

    /// What would be done for `spec`.
    pub async fn plan(&self, spec: SpecText) -> Result<Result<Proposal, String>, Ended> {
        self.ask(|answer| Request::Plan(spec, answer)).await
    }

    /// The whole story of what `name` stands for.
    pub async fn explain(
        &self,
        spec: Option<SpecText>,
        name: String,
    ) -> Result<Result<Explanation, String>, Ended> {
        self.ask(|answer| Request::Explain { spec, name, answer })
            .await
    }

    /// Hands over a spec; answers its generation once it is taken, not once it converged.
    pub async fn apply(
        &self,
        spec: SpecText,
        allow_empty: bool,
        saved: Option<Box<SavedPlan>>,
        cause: Cause,
    ) -> Result<Result<u64, Fault>, Ended> {
        // The trees of commits long gone are not kept.
        if let (Cause::Rollback { .. }, Some(orders)) = (&cause, &self.orders)
            && let Some(commit) = spec.commit()
            && let Err(fault) = orders.lay_out(commit.clone()).await
        {
            let why = format!("cannot go back to commit {}: {fault}", commit.short());
            return Ok(Err(Fault::Refused(why)));
        }
        self.ask(|answer| Request::Apply {
            spec,
            allow_empty,
            saved,
            cause,
            answer,
        })
        .await
    }

    /// Takes what the spec's file holds now, or the newest commit of the repository, whatever
    /// became of it before; answers the generation in force then.
    pub async fn reload(&self, by: User) -> Result<Result<u64, String>, Ended> {
        let _under_way = Reloading::begin(&self.reloads);
        if let Some(orders) = &self.orders {
            let text = format!("{by} asks: reload");
            self.tell(EventKind::Operator, Level::Progress, text, None)
                .await?;
            let source = orders.give(Word::Now).await.ok_or(Ended)?;
            return match source.lacks() {
                Some(why) => Ok(Err(why)),
                None => Ok(Ok(self.status().await?.generation)),
            };
        }
        self.ask(|answer| Request::Reload { by, answer }).await
    }

    /// How many reloads are under way, from now on.
    pub fn reloads(&self) -> watch::Receiver<u32> {
        self.reloads.subscribe()
    }

    /// Tells something to all who listen, as if the loop had.
    #[cfg(test)]
    pub(crate) fn pretend(&self, happening: Happening) {
        // Nobody listening is no error.
        let _ = self.happenings.send(happening);
    }

    /// How many want to know of reloads.
    #[cfg(test)]
    pub(crate) fn reload_listeners(&self) -> usize {
        self.reloads.receiver_count()
    }

    /// Takes the stack down; answers when all is gone.
    pub async fn down(
        &self,
        purge: bool,
        kill: bool,
        by: User,
    ) -> Result<Result<(), String>, Ended> {
        self.ask(|answer| Request::Down {
            purge,
            kill,
            by,
            answer,
        })
        .await
    }

    /// Starts, stops or restarts by name.
    pub async fn operate(
        &self,
        verb: Verb,
        names: Vec<String>,
        by: User,
    ) -> Result<Result<Vec<NodeId>, String>, Ended> {
        self.ask(|answer| Request::Operate {
            verb,
            names,
            by,
            answer,
        })
        .await
    }

    /// Ends the controller and leaves the workloads.
    pub async fn leave(&self) -> Result<(), Ended> {
        self.ask(Request::Leave).await
    }

    /// The story from now on.
    pub fn happenings(&self) -> broadcast::Receiver<Happening> {
        self.happenings.subscribe()
    }

    /// How long a caller may wait for an answer that needs no convergence.
    pub const PATIENCE: Duration = Duration::from_secs(10);
}
