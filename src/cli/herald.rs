//! Tells the service manager how the controller is. That it is alive is only said when the loop
//! itself has answered: one that hangs is noticed, however well the rest of the process is.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::error::CommandError;
use crate::driver::notifier::{self, Asked, Notifier};
use crate::plan::model::{NodeState, NodeStatus};
use crate::plan::text::visible;
use crate::reconcile::handle::{Ended, Handle, StackStatus};
use crate::reconcile::sync::{SourceStatus, Sync};
use crate::spec::model::Status;

/// How often the loop is asked where no watchdog wants to know.
const UNHURRIED: Duration = Duration::from_secs(15);
/// How often it is asked while something is outstanding.
const BUSY: Duration = Duration::from_secs(1);
/// How long the story's lines are gathered before it is asked what they came to.
const GATHER: Duration = Duration::from_millis(200);
/// The longest status line, in characters.
const LINE: usize = 200;

/// The one who tells.
pub struct Herald {
    notifier: Notifier,
    interval: Duration,
    /// `READY=1` was said.
    ready: AtomicBool,
}

impl Herald {
    /// What the environment asks for, which is taken out of it; `None` where nobody listens.
    ///
    /// # Errors
    /// When it names no socket.
    ///
    /// # Safety
    /// No other thread may run.
    pub unsafe fn of_environment() -> Result<Option<Herald>, CommandError> {
        // SAFETY: the caller promises that this is the only thread.
        let asked = unsafe { notifier::take() }.map_err(|error| {
            CommandError::new("cannot speak to the service manager").because(&error)
        })?;
        Ok(asked.map(Herald::new))
    }

    fn new(asked: Asked) -> Herald {
        // A pause and an answer that takes as long leave room for a third.
        let interval = asked.watchdog.map(|watchdog| watchdog / 3);
        Herald {
            notifier: asked.notifier,
            interval: interval.map_or(UNHURRIED, |interval| interval.min(UNHURRIED)),
            ready: AtomicBool::new(false),
        }
    }

    /// Tells until the loop ends.
    pub async fn attend(&self, handle: Handle) {
        tokio::select! {
            () = self.keep_alive(&handle) => {}
            () = self.mind_reloads(&handle) => {}
        }
    }

    /// Says what is going on before there is a loop that could be asked.
    pub fn say(&self, text: &str) {
        self.note(self.notifier.say(&format!("STATUS={}", short(text))));
    }

    /// Says that the controller is on its way out.
    pub fn say_stopping(&self) {
        self.note(self.notifier.say("STOPPING=1"));
    }

    async fn keep_alive(&self, handle: &Handle) {
        let mut story = handle.happenings();
        let mut said = None;
        loop {
            let pause = match tokio::time::timeout(self.interval, handle.status()).await {
                Ok(Ok(status)) => {
                    self.say_status(&status, &mut said);
                    match status.converged {
                        true => self.interval,
                        false => self.interval.min(BUSY),
                    }
                }
                Ok(Err(Ended)) => return,
                Err(_) => {
                    tracing::warn!("the loop gave no answer within {:?}", self.interval);
                    Duration::ZERO
                }
            };
            // The story only says that it is time to look; how much of it is of no account.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = story.recv() => tokio::time::sleep(GATHER.min(self.interval)).await,
            }
            story = story.resubscribe();
        }
    }

    /// The first answer of the loop means that it has its spec, and has seen what runs.
    fn say_status(&self, status: &StackStatus, said: &mut Option<String>) {
        let line = line(status);
        let mut message = "WATCHDOG=1".to_owned();
        if !self.ready.load(Ordering::Relaxed) {
            message.push_str("\nREADY=1");
        }
        if said.as_ref() != Some(&line) {
            message.push_str(&format!("\nSTATUS={line}"));
        }
        let sent = self.notifier.say(&message);
        if sent.is_ok() {
            self.ready.store(true, Ordering::Relaxed);
            *said = Some(line);
        }
        self.note(sent);
    }

    async fn mind_reloads(&self, handle: &Handle) {
        let mut reloads = handle.reloads();
        while reloads.changed().await.is_ok() {
            let under_way = *reloads.borrow_and_update() > 0;
            if !self.ready.load(Ordering::Relaxed) {
                // One that came before the first answer is part of the start.
                continue;
            }
            self.note(match under_way {
                true => self.notifier.say_reloading(),
                false => self.notifier.say("READY=1"),
            });
        }
    }

    fn note(&self, sent: io::Result<()>) {
        if let Err(error) = sent {
            tracing::warn!("cannot tell the service manager: {error}");
        }
    }
}

/// How it stands, in one line.
fn line(status: &StackStatus) -> String {
    let total = status.nodes.len();
    let mut line = match status.converged {
        true => format!("converged, {total} nodes"),
        false => {
            let there = status.nodes.iter().filter(|node| is_there(node)).count();
            let first = status.outstanding.first();
            let first = first.map_or(String::new(), |first| format!("; {first}"));
            format!("{there} of {total} nodes ready{first}")
        }
    };
    if let Some(source) = &status.source {
        let (commit, trouble) = commit_words(source);
        line = format!("{commit}; {line}{trouble}");
    } else if status.spec_error.is_some() {
        line.insert_str(0, "the newest edit is not taken; ");
    }
    short(&line)
}

/// The commit in force and whether it is the newest, and what is wrong with that: a long reason
/// stands last, where it is cut off first.
fn commit_words(source: &SourceStatus) -> (String, String) {
    let commit = match &source.commit {
        Some(commit) => format!("commit {}", commit.short()),
        None => "no commit".to_owned(),
    };
    let sync = match (source.sync, &source.head) {
        (Sync::OutOfSync, None) => "the repository was not asked yet".to_owned(),
        (sync, _) => sync.to_string(),
    };
    let suspended = if source.suspended { ", suspended" } else { "" };
    let mut trouble = String::new();
    if let Some(file) = &source.edited {
        trouble.push_str(&format!("; `{}` was edited: restart", file.display()));
    }
    if source.deaf.is_some() {
        trouble.push_str("; no push is heard");
    }
    if let Some(reason) = &source.reason {
        let first = reason.lines().next().unwrap_or_default();
        trouble.push_str(&format!("; {first}"));
    }
    (format!("{commit}, {sync}{suspended}"), trouble)
}

fn short(text: &str) -> String {
    let line = visible(text.lines().next().unwrap_or_default());
    super::screen::cut(&line, LINE)
}

/// Whether a node is where it should be.
pub fn is_there(node: &NodeStatus) -> bool {
    match node.state {
        NodeState::Running => node.health != Some(Status::Critical),
        NodeState::Completed | NodeState::Stopped | NodeState::Exited => true,
        NodeState::Waiting
        | NodeState::Starting
        | NodeState::Stopping
        | NodeState::Backoff
        | NodeState::Failed => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::UnixDatagram;

    use tokio::sync::{broadcast, mpsc};

    use super::*;
    use crate::reconcile::handle::Request;
    use crate::spec::model::{Commit, GitSource};

    fn source() -> SourceStatus {
        let source = GitSource::new("/specs.git".into(), "main".into(), "".into());
        SourceStatus::new("/specs.git".to_owned(), &source)
    }

    fn status(converged: bool) -> StackStatus {
        StackStatus {
            stack: "prime".to_owned(),
            controller_pid: 7,
            version: "1".to_owned(),
            spec: "/s.yaml".into(),
            generation: 1,
            converged,
            spec_error: None,
            registry: None,
            nodes: Vec::new(),
            outstanding: vec!["containers/prime1: start".to_owned()],
            ..StackStatus::default()
        }
    }

    /// A service manager, and a herald that speaks to it.
    fn manager() -> (tempfile::TempDir, UnixDatagram, Herald) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let herald = Herald::new(Asked {
            notifier: Notifier::new(path.as_os_str().as_bytes()).unwrap(),
            watchdog: Some(Duration::from_millis(150)),
        });
        (folder, socket, herald)
    }

    fn heard(socket: &UnixDatagram) -> std::io::Result<String> {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_loop_that_hangs_is_not_said_to_be_alive() {
        let (_folder, socket, herald) = manager();
        let (requests_in, mut requests) = mpsc::channel(64);
        let (happenings, _) = broadcast::channel(8);
        let handle = Handle::new(requests_in, happenings);
        let telling = tokio::spawn(async move { herald.attend(handle).await });
        let mut answer = async |converged: bool| {
            let Some(Request::Status(answer)) = requests.recv().await else {
                return false;
            };
            answer.send(status(converged)).is_ok()
        };
        assert!(answer(false).await);
        assert_eq!(
            heard(&socket).unwrap(),
            "WATCHDOG=1\nREADY=1\nSTATUS=0 of 0 nodes ready; containers/prime1: start"
        );
        assert!(answer(true).await);
        assert_eq!(
            heard(&socket).unwrap(),
            "WATCHDOG=1\nSTATUS=converged, 0 nodes"
        );
        // Questions come, and nobody answers: nothing is told.
        let mut unanswered = Vec::new();
        for _ in 0..3 {
            unanswered.push(requests.recv().await.unwrap());
        }
        socket.set_nonblocking(true).unwrap();
        let silence = heard(&socket).unwrap_err();
        assert_eq!(silence.kind(), std::io::ErrorKind::WouldBlock);
        drop((requests, unanswered));
        telling.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reload_is_told_while_it_lasts() {
        let (_folder, socket, herald) = manager();
        let (requests_in, mut requests) = mpsc::channel(64);
        let (happenings, _) = broadcast::channel(8);
        let handle = Handle::new(requests_in, happenings);
        herald.ready.store(true, Ordering::Relaxed);
        let telling = {
            let handle = handle.clone();
            tokio::spawn(async move { herald.mind_reloads(&handle).await })
        };
        // What comes before somebody listens is told to nobody.
        while handle.reload_listeners() == 0 {
            tokio::task::yield_now().await;
        }
        let by = crate::spec::generation::User { uid: 0, name: None };
        let asking = tokio::spawn(async move { handle.reload(by).await });
        assert!(
            heard(&socket)
                .unwrap()
                .starts_with("RELOADING=1\nMONOTONIC_USEC=")
        );
        let Some(Request::Reload { answer, .. }) = requests.recv().await else {
            unreachable!("the only request is a reload");
        };
        answer.send(Ok(2)).unwrap();
        assert_eq!(asking.await.unwrap(), Ok(Ok(2)));
        assert_eq!(heard(&socket).unwrap(), "READY=1");
        telling.abort();
    }

    #[test]
    fn the_line_says_what_is_outstanding_and_what_was_refused() {
        assert_eq!(line(&status(true)), "converged, 0 nodes");
        let refused = StackStatus {
            spec_error: Some("error".to_owned()),
            ..status(true)
        };
        assert_eq!(
            line(&refused),
            "the newest edit is not taken; converged, 0 nodes"
        );
        let source = SourceStatus {
            commit: Some(Commit {
                id: "a1".repeat(20),
                author: "Ada".to_owned(),
                subject: "s".to_owned(),
                at_s: 0,
            }),
            reason: Some("cannot ask the repository: no route\nto host".to_owned()),
            ..source()
        };
        let following = |source: SourceStatus| StackStatus {
            source: Some(source),
            ..status(true)
        };
        assert_eq!(
            line(&following(source.clone())),
            "commit a1a1a1a1a1, the repository was not asked yet; converged, 0 nodes; cannot ask \
             the repository: no route"
        );
        let synced = SourceStatus {
            sync: Sync::Synced,
            suspended: true,
            edited: Some("/s.yaml".into()),
            reason: None,
            ..source
        };
        assert_eq!(
            line(&following(synced)),
            "commit a1a1a1a1a1, synced, suspended; converged, 0 nodes; `/s.yaml` was edited: \
             restart"
        );
        let mut long = status(false);
        long.outstanding = vec![format!("a\u{1b}[2Jb\n{}", "x".repeat(500))];
        assert_eq!(line(&long), "0 of 0 nodes ready; a\\u{1b}[2Jb");
    }
}
