//! Where specs come from: a file that is followed, with the files that it names.

pub mod git;
mod settle;
mod trail;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher};
use tokio::sync::mpsc::UnboundedSender;

use self::watch::Follower;
use crate::driver::because;
use crate::driver::{DriverError, ErrorKind, Event, Files};

/// How many events of the kernel may wait; with more of them everything is looked at anew.
const QUEUE: usize = 1024;

/// The most files that one stack may follow.
const MOST: usize = 10_000;

type Result<T> = std::result::Result<T, DriverError>;

/// What the following thread is told.
enum Message {
    Changed(notify::Event),
    Lost,
    Set(BTreeSet<PathBuf>, SyncSender<Result<()>>),
    Stop,
}

/// Follows files, and says so when one has settled with another content, mode or mark than
/// before, or came, or went.
///
/// It rests in the kernel until a folder on the way to one of the files changes.
#[derive(Debug)]
pub struct Watcher {
    messages: SyncSender<Message>,
    unsettled: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Watcher {
    /// Follows nothing yet; what changes, as `files` sees it, will be sent to `events`.
    ///
    /// # Errors
    /// Names the kernel's limit when too many programs watch files.
    pub fn new(events: UnboundedSender<Event>, files: Arc<dyn Files>) -> Result<Self> {
        let (messages, inbox) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicBool::new(false));
        let notifier = notifier(messages.clone(), lost.clone())?;
        let unsettled = Arc::new(Mutex::default());
        let follower = Follower::new(notifier, events, Arc::clone(&unsettled), files);
        std::thread::Builder::new()
            .name("hatchery-files".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || follow(follower, &inbox, &lost))
            .map_err(|error| {
                failed(format!(
                    "cannot start the thread that follows files: {}",
                    because(&error)
                ))
            })?;
        Ok(Watcher {
            messages,
            unsettled,
        })
    }

    /// From now on exactly these files, as absolute paths. Look at a file after this, not
    /// before: what changed in between would not be told. It may be called again with the
    /// same set, and then mends watches that were lost.
    ///
    /// # Errors
    /// Names the folder that cannot be watched, and the kernel's limit if that is why; the
    /// other files are followed all the same.
    pub fn set(&self, paths: BTreeSet<PathBuf>) -> Result<()> {
        if paths.len() > MOST {
            return Err(failed(format!(
                "cannot follow {} files: at most {MOST} may be followed",
                paths.len()
            )));
        }
        if let Some(path) = paths.iter().find(|path| !path.is_absolute()) {
            return Err(failed(format!(
                "cannot follow `{}`: it is not an absolute path",
                path.display()
            )));
        }
        let (answer, answered) = sync_channel(1);
        let ended = || failed("cannot follow files: the thread for it has ended".to_owned());
        self.messages
            .send(Message::Set(paths, answer))
            .map_err(|_| ended())?;
        answered.recv().map_err(|_| ended())?
    }

    /// Files that are being saved at this moment. What is seen of them now may be half of it:
    /// go on with what was seen before, until their event comes.
    pub fn unsettled(&self) -> BTreeSet<PathBuf> {
        self.unsettled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // When the thread has ended before, there is nothing to stop.
        let _ = self.messages.send(Message::Stop);
    }
}

/// The kernel's events, without those that reading causes.
fn notifier(messages: SyncSender<Message>, lost: Arc<AtomicBool>) -> Result<RecommendedWatcher> {
    let forward = move |event: notify::Result<notify::Event>| {
        let message = match event {
            Ok(event) if event.need_rescan() => Message::Lost,
            Ok(event) => match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => Message::Changed(event),
                EventKind::Access(_) => return,
                _ => Message::Changed(event),
            },
            Err(_) => Message::Lost,
        };
        // The kernel's reader must never wait for us: a full queue means to look at all.
        if messages.try_send(message).is_err() {
            lost.store(true, Ordering::Release);
        }
    };
    notify::recommended_watcher(forward).map_err(|error| failed(watch::reason(&error, None)))
}

/// The thread: every wait ends with a message, or when something has settled.
fn follow(mut follower: Follower, inbox: &Receiver<Message>, lost: &AtomicBool) {
    loop {
        let first = match follower.wait() {
            Some(wait) => match inbox.recv_timeout(wait) {
                Ok(message) => Some(message),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => None,
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
            },
            None => match inbox.recv() {
                Ok(message) => Some(message),
                Err(_) => return,
            },
        };
        for message in first.into_iter().chain(inbox.try_iter().take(QUEUE)) {
            match message {
                Message::Changed(event) => follower.changed(&event),
                Message::Lost => follower.lost(),
                Message::Set(paths, answer) => {
                    // Who asked may have gone; the set holds all the same.
                    let _ = answer.send(follower.set(paths));
                }
                Message::Stop => return,
            }
        }
        if lost.swap(false, Ordering::Acquire) {
            follower.lost();
        }
        if !follower.tell() {
            return;
        }
    }
}

fn failed(message: String) -> DriverError {
    DriverError {
        message,
        kind: ErrorKind::Failed,
    }
}
