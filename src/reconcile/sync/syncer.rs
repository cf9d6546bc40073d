//! Follows a repository: asks, judges, hands over, and says how it stands.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

use super::judge::{Head, Known, Next, Refusal, judge};
use super::orders::{Order, Orders, Word};
use super::status::{SourceStatus, Sync};
use super::{Fault, Memory, Repository, blocking};
use crate::driver::Clock;
use crate::health::Jitter;
use crate::reconcile::handle::{EventKind, Handle, Level};
use crate::reconcile::happening::one_line;
use crate::spec::generation::Cause;
use crate::spec::model::{Commit, GitSource};

/// Orders that wait at most; each of them begins a round, and one round answers them all.
const WAITING: usize = 16;

/// What a repository holds is fetched in vain ever more seldom, down to every 64th interval: one
/// that is too large costs its whole bound each time.
const MOST_DOUBLINGS: u32 = 6;

/// What a syncer works with.
pub struct SyncerParts {
    /// The repository.
    pub repository: Arc<dyn Repository>,
    /// How it is followed.
    pub source: GitSource,
    /// Its address as it may be shown.
    pub shown_url: String,
    /// What earlier controllers left, and what this one began with.
    pub known: Known,
    /// An operator suspended it under an earlier controller.
    pub suspended: bool,
    /// Remembers that it is suspended.
    pub memory: Arc<dyn Memory>,
    /// For the time of the day.
    pub clock: Arc<dyn Clock>,
    /// For jitter.
    pub seed: u64,
}

/// Follows one repository for one stack.
pub struct Syncer {
    parts: SyncerParts,
    handle: Handle,
    orders: mpsc::Receiver<Order>,
    status: watch::Sender<SourceStatus>,
    happenings: broadcast::Receiver<crate::reconcile::handle::Happening>,
    /// What was last told of, so that it is told once.
    told: Option<String>,
    /// The head as it was judged last.
    head: Option<Head>,
    /// Why the repository could not be asked the last time, if it could not.
    unasked: Option<String>,
    /// The commit that was not taken the last time, and may be taken later.
    waiting: Option<Refusal>,
    /// The commit in force, where it would not be taken today.
    distrusted: Option<Refusal>,
    /// How often in a row what was fetched was refused before there was a commit to judge.
    in_vain: u32,
    /// Machines that began together are not to ask together.
    jitter: Jitter,
}

impl Syncer {
    /// A syncer that hands over to the loop of `handle`. It does nothing until it is run.
    pub fn new(parts: SyncerParts, handle: Handle) -> (Syncer, Orders) {
        let (orders_in, orders) = mpsc::channel(WAITING);
        let suspended = parts.suspended;
        let jitter = Jitter::new(parts.seed);
        let status = watch::Sender::new(SourceStatus {
            suspended,
            ..SourceStatus::new(parts.shown_url.clone(), &parts.source)
        });
        let shown = status.clone();
        let repository = parts.repository.clone();
        let syncer = Syncer {
            happenings: handle.happenings(),
            parts,
            handle,
            orders,
            status,
            told: None,
            head: None,
            unasked: None,
            waiting: None,
            distrusted: None,
            in_vain: 0,
            jitter,
        };
        let orders = Orders {
            orders: orders_in,
            status: shown,
            repository,
        };
        (syncer, orders)
    }

    /// Follows the repository until the loop or everybody who could give orders is gone.
    pub async fn run(mut self) {
        // What is suspended has no round, and the loop may have told of its beginning before
        // anybody listened.
        self.judge_again().await;
        let mut due = Instant::now();
        loop {
            let suspended = self.status.borrow().suspended;
            tokio::select! {
                order = self.orders.recv() => {
                    let Some(order) = order else { return };
                    self.obey(order).await;
                    due = Instant::now() + self.pause();
                }
                () = tokio::time::sleep_until(due), if !suspended => {
                    self.round(false).await;
                    due = Instant::now() + self.pause();
                }
                happening = self.happenings.recv() => match happening {
                    Ok(happening) if turns(happening.kind) => self.judge_again().await,
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => self.judge_again().await,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
            }
        }
    }

    /// The interval or a little less, so that a push is always seen within it; more while what
    /// is fetched is refused.
    fn pause(&mut self) -> Duration {
        let times = 1 << self.in_vain.min(MOST_DOUBLINGS);
        let interval = self.parts.source.interval * 10 / 11;
        self.jitter.spread(interval.saturating_mul(times))
    }

    async fn obey(&mut self, order: Order) {
        let mut waiting = vec![order];
        while let Ok(order) = self.orders.try_recv() {
            waiting.push(order);
        }
        let mut again = false;
        for order in &waiting {
            match order.word {
                Word::Pushed => {}
                Word::Now => again = true,
                Word::Suspend => self.suspend(true).await,
                Word::Resume => self.suspend(false).await,
            }
        }
        if !self.status.borrow().suspended || again {
            self.round(again).await;
        }
        let status = self.status.borrow().clone();
        for answer in waiting.into_iter().filter_map(|order| order.answer) {
            // Who asked may have gone.
            let _ = answer.send(status.clone());
        }
    }

    async fn suspend(&mut self, suspended: bool) {
        if self.status.borrow().suspended == suspended {
            return;
        }
        let memory = self.parts.memory.clone();
        let kept = blocking(move || memory.suspend(suspended)).await;
        if let Some(Err(error)) = kept {
            self.tell(EventKind::Warning, Level::Warning, error.message, None)
                .await;
        }
        self.status
            .send_modify(|status| status.suspended = suspended);
        // A loop that ends has nothing to leave.
        let _ = self.handle.suspend(suspended).await;
        let text = match suspended {
            true => "the repository is not followed any more, until `hatchery resume`",
            false => "the repository is followed again",
        };
        self.tell(EventKind::Operator, Level::Notice, text.to_owned(), None)
            .await;
    }

    /// Asks for the head, and takes it if it is to be taken.
    async fn round(&mut self, again: bool) {
        if !self.learn().await {
            return;
        }
        let repository = self.parts.repository.clone();
        let taken = self.parts.known.taken.clone();
        let asked = blocking(move || {
            let head = ask(repository.as_ref(), taken.as_deref());
            (head, repository.edited())
        });
        let (asked, edited) = asked.await.unzip();
        let now = self.parts.clock.wall_ms();
        self.status
            .send_modify(|status| status.edited = edited.flatten());
        self.vet().await;
        let head = match asked {
            Some(Ok(head)) => head,
            Some(Err(fault)) => {
                self.in_vain = match fault {
                    Fault::Refused(_) => self.in_vain.saturating_add(1),
                    Fault::Later(_) => 0,
                };
                let why = format!("cannot ask the repository: {fault}");
                self.unasked = Some(why.clone());
                self.stall(why, None).await;
                return;
            }
            None => return,
        };
        self.in_vain = 0;
        self.unasked = None;
        self.head = Some(head.clone());
        self.status.send_modify(|status| {
            status.head = Some(head.commit.clone());
            status.asked_at_ms = Some(now);
        });
        let allow_rewrite = self.parts.source.allow_rewrite;
        match judge(&self.parts.known, &head, allow_rewrite, again) {
            Next::Take => {
                // One that waits is still said to, until it is known what comes of this try.
                self.settle(Next::Take).await;
                self.take(head.commit).await;
            }
            next => self.settle(next).await,
        }
    }

    /// Says how it stands with this to be done about the head.
    async fn settle(&mut self, next: Next) {
        let head = self.head.as_ref().map(|head| head.commit.id.clone());
        if let Some(why) = self.unasked.clone() {
            // What is known of the head may be long outdated.
            return self.stall(why, None).await;
        }
        let of_head = |one: &&Refusal| head.as_ref() == Some(&one.commit);
        let waiting = self.waiting.as_ref().filter(of_head);
        match (&next, waiting, &self.distrusted) {
            (Next::Leave(why), ..) => self.stall(why.clone(), head).await,
            (Next::Take, Some(waiting), _) => self.stall(waiting.why.clone(), head).await,
            (Next::Nothing, _, Some(distrusted)) => {
                self.stall(distrusted.why.clone(), head).await;
            }
            _ => {
                self.status.send_modify(|status| {
                    status.sync = next.sync();
                    status.reason = None;
                });
                if next == Next::Nothing {
                    self.recover().await;
                }
            }
        }
    }

    /// Looks whether the commit in force would be taken today: `verify` may have been added or
    /// changed since, or a key revoked. It stays in force whatever comes of it.
    async fn vet(&mut self) {
        let in_force = self.parts.known.in_force.clone();
        let wanted = in_force.filter(|_| self.parts.source.verify.is_some());
        let Some(commit) = wanted else {
            self.distrusted = None;
            return;
        };
        let (repository, id) = (self.parts.repository.clone(), commit.clone());
        match blocking(move || repository.vouched(&id)).await {
            Some(Err(Fault::Refused(why))) => {
                let why = format!(
                    "the commit in force would not be taken today: {why}; it stays until one \
                     that is good takes its place"
                );
                self.distrusted = Some(Refusal { commit, why });
            }
            Some(Ok(())) => self.distrusted = None,
            // What is not known this time was known before, if it is about the same one.
            Some(Err(Fault::Later(_))) | None => {
                self.distrusted.take_if(|one| one.commit != commit);
            }
        }
    }

    async fn take(&mut self, commit: Commit) {
        let repository = self.parts.repository.clone();
        let wanted = commit.clone();
        let prepared = blocking(move || repository.prepare(&wanted)).await;
        let spec = match prepared {
            Some(Ok(spec)) => spec,
            Some(Err(fault)) => return self.not_taken(&commit, fault).await,
            None => return,
        };
        let allow_empty = self.parts.source.allow_empty;
        let applied = self.handle.apply(spec, allow_empty, None, Cause::Commit);
        match applied.await {
            Ok(Ok(_)) => {
                self.parts.known.refused = None;
                self.waiting = None;
                self.parts.known.taken = Some(commit.id.clone());
                let descends = true;
                self.head = Some(Head { commit, descends });
                self.told = None;
                self.learn().await;
                self.judge_again().await;
                self.prune().await;
            }
            Ok(Err(fault)) => self.not_taken(&commit, fault).await,
            // The controller ends; the next one asks again.
            Err(_) => {}
        }
    }

    /// A commit is not taken: it is tried again by itself only if it may be taken later.
    async fn not_taken(&mut self, commit: &Commit, fault: Fault) {
        let (id, short) = (commit.id.clone(), commit.short());
        let why = match &fault {
            Fault::Refused(why) => format!("commit {short} is refused: {why}"),
            Fault::Later(why) => format!("commit {short} waits, and is tried again: {why}"),
        };
        let refusal = Refusal {
            commit: id.clone(),
            why: why.clone(),
        };
        match fault {
            Fault::Refused(_) => {
                self.waiting = None;
                self.parts.known.refused = Some(refusal);
            }
            Fault::Later(_) => self.waiting = Some(refusal),
        }
        self.stall(why, Some(id)).await;
    }

    /// Says why the head is not in force, or should not be; in the story once, and of which commit
    /// if it is about one.
    async fn stall(&mut self, why: String, commit: Option<String>) {
        let (kind, why) = match &self.distrusted {
            Some(distrusted) if distrusted.why == why => (EventKind::Warning, why),
            Some(distrusted) => (EventKind::Refused, format!("{why}\n{}", distrusted.why)),
            None => (EventKind::Refused, why),
        };
        self.status.send_modify(|status| {
            status.sync = Sync::Stalled;
            status.reason = Some(why.clone());
        });
        if self.told.as_ref() != Some(&why) {
            self.told = Some(why.clone());
            self.tell(kind, Level::Error, one_line(&why), commit).await;
        }
    }

    /// After it was told that the newest commit is not in force, it is to be told that it is.
    async fn recover(&mut self) {
        if self.told.take().is_some() {
            let text = "the newest commit of the repository is in force".to_owned();
            let head = self.head.as_ref().map(|head| head.commit.id.clone());
            self.tell(EventKind::Accepted, Level::Notice, text, head)
                .await;
        }
    }

    async fn tell(&self, kind: EventKind, level: Level, text: String, commit: Option<String>) {
        // A controller that ends has nobody to tell.
        let _ = self.handle.tell(kind, level, text, commit).await;
    }

    /// Takes note of what is in force; `false` when the loop has ended.
    async fn learn(&mut self) -> bool {
        let Ok(stack) = self.handle.status().await else {
            return false;
        };
        let known = &mut self.parts.known;
        known.in_force = stack.commit.as_ref().map(|commit| commit.id.clone());
        if known.taken.is_none() {
            let left = stack.left.as_ref().map(|left| left.commit.clone());
            known.taken = left.or_else(|| known.in_force.clone());
        }
        let displaced = known.taken.clone();
        known.left = displaced
            .filter(|taken| known.in_force.as_ref() != Some(taken))
            .map(|commit| match stack.left {
                Some(left) if left.commit == commit => Refusal {
                    commit,
                    why: left.why,
                },
                _ => Refusal::displaced(commit, stack.generation),
            });
        self.status
            .send_modify(|status| status.commit = stack.commit);
        true
    }

    /// What is in force may be another one now; the repository is not asked for that.
    async fn judge_again(&mut self) {
        if !self.learn().await {
            return;
        }
        let Some(head) = &self.head else {
            return;
        };
        let allow_rewrite = self.parts.source.allow_rewrite;
        let next = judge(&self.parts.known, head, allow_rewrite, false);
        let vetted = self.distrusted.as_ref().map(|one| &one.commit);
        if vetted != self.parts.known.in_force.as_ref() {
            self.vet().await;
        }
        self.settle(next).await;
    }

    /// Trees that nothing needs any more go.
    async fn prune(&self) {
        let Ok(stack) = self.handle.status().await else {
            return;
        };
        let mut needed: BTreeSet<String> = stack.commits.into_iter().collect();
        needed.extend(self.parts.known.in_force.clone());
        let repository = self.parts.repository.clone();
        if let Some(Err(fault)) = blocking(move || repository.keep(&needed)).await {
            self.tell(EventKind::Warning, Level::Warning, fault.to_string(), None)
                .await;
        }
    }
}

/// The head, and whether it descends from what was taken last.
fn ask(repository: &dyn Repository, taken: Option<&str>) -> Result<Head, Fault> {
    let commit = repository.fetch()?;
    let descends = match taken {
        Some(taken) if taken != commit.id => repository.descends(taken, &commit.id)?,
        _ => true,
    };
    Ok(Head { commit, descends })
}

/// Whether what happened may change what is in force.
fn turns(kind: EventKind) -> bool {
    matches!(kind, EventKind::Generation | EventKind::RolledBack)
}
