//! A controller in this process: its socket, its story, and what signals mean to it.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::detach;
use super::error::CommandError;
use super::git::Following;
use super::herald::Herald;
use super::hook;
use super::listening::Listening;
use super::narrator::Narrator;
use super::wiring::{self, Begin, Running};
use crate::api::control;
use crate::reconcile::handle::{Ended, EventKind, Handle, Happening};

/// How often it is asked how things stand, while they do not stand as they should.
const TICK: Duration = Duration::from_millis(150);
/// Lines after which the size of the log file is looked at.
const LOOK_AT_LOG: u32 = 500;
/// The exit code of a service whose stack was taken down: systemd is not to start it again then.
pub const TAKEN_DOWN: u8 = 80;

/// What is run.
pub struct Foreground {
    /// The stack.
    pub stack: String,
    /// What its controller begins with.
    pub begin: Begin,
    /// The repository that is followed.
    pub following: Option<Following>,
    /// Who tells the story.
    pub narrator: Narrator,
    /// Standard output is the controller's own log file.
    pub log: bool,
    /// Set where a service manager keeps the controller.
    pub service: Option<Service>,
}

/// A service manager's wishes.
pub struct Service {
    /// Tells it how things stand, if it wants to know.
    pub herald: Option<Herald>,
}

/// Runs the controller until it leaves or everything is down.
///
/// # Errors
/// When it cannot begin, or taking the stack down failed.
pub async fn attend(foreground: Foreground) -> Result<ExitCode, CommandError> {
    let signals = Signals::new()?;
    let dirs = wiring::dirs(&foreground.stack);
    let mut running = wiring::begin(&foreground.stack, foreground.begin)?;
    let path = control::socket(&dirs.run);
    let socket = control::bind(&path).map_err(|error| {
        CommandError::new(format!("cannot listen on `{}`", path.display())).because(&error)
    })?;
    let shutdown = CancellationToken::new();
    if let Some(following) = foreground.following {
        let webhook = following.source.webhook.clone();
        let (syncer, orders) = wiring::syncer(&running, following);
        running.handle = running.handle.following(orders.clone());
        tokio::spawn(syncer.run());
        if let Some(webhook) = webhook {
            let handle = running.handle.clone();
            tokio::spawn(hook::attend(webhook, handle, orders, shutdown.clone()));
        }
    }
    let serving = tokio::spawn(control::serve(
        socket,
        running.handle.clone(),
        shutdown.clone(),
    ));
    let is_service = foreground.service.is_some();
    let herald = foreground.service.and_then(|service| service.herald);
    let herald = herald.map(Arc::new);
    if let Some(herald) = herald.clone() {
        let handle = running.handle.clone();
        tokio::spawn(async move { herald.attend(handle).await });
    }
    let outcome = Attendance {
        stack: foreground.stack,
        narrator: foreground.narrator,
        log: foreground.log.then(|| detach::log_file(&dirs)),
        lines: 0,
        down: None,
        is_service,
        herald,
        went_down: false,
        signals,
    }
    .watch(running)
    .await;
    shutdown.cancel();
    if let Ok(Err(error)) = serving.await {
        tracing::warn!("{error}");
    }
    remove(&path);
    outcome
}

/// Going down takes the run folder away with it.
fn remove(socket: &Path) {
    if let Err(error) = std::fs::remove_file(socket)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove `{}`: {error}", socket.display());
    }
}

type Downing = JoinHandle<Result<Result<(), String>, Ended>>;

struct Attendance {
    stack: String,
    narrator: Narrator,
    /// The file that standard output goes to, if it is ours to bound.
    log: Option<std::path::PathBuf>,
    lines: u32,
    /// Set by the first Ctrl-C.
    down: Option<Downing>,
    is_service: bool,
    herald: Option<Arc<Herald>>,
    /// The story said that the stack is down.
    went_down: bool,
    signals: Signals,
}

impl Attendance {
    async fn watch(mut self, running: Running) -> Result<ExitCode, CommandError> {
        let Running {
            handle,
            story,
            mut ended,
            keep: _,
        } = running;
        let mut listening = Listening::Here {
            handle: handle.clone(),
            story,
        };
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut unsettled = self.narrator.wants_status();
        loop {
            tokio::select! {
                biased;
                asked = self.signals.next() => self.on_signal(asked, &handle),
                end = &mut ended => {
                    for happening in listening.rest().await {
                        self.tell(&happening);
                    }
                    self.narrator.clear();
                    self.say_stopping();
                    return self.result(end).await;
                }
                Some(happening) = listening.next() => {
                    self.tell(&happening);
                    self.bound_log();
                    unsettled = self.narrator.wants_status();
                }
                _ = ticks.tick(), if unsettled => {
                    if let Some(status) = listening.status().await {
                        unsettled = !self.narrator.show(&status);
                    }
                }
            }
        }
    }

    fn tell(&mut self, happening: &Happening) {
        self.went_down |= happening.kind == EventKind::Down;
        self.narrator.tell(happening);
    }

    fn say_stopping(&self) {
        if let Some(herald) = &self.herald {
            herald.say_stopping();
        }
    }

    fn on_signal(&mut self, asked: Asked, handle: &Handle) {
        match (asked, &self.down) {
            (Asked::Down, None) => {
                let words = format!(
                    "taking stack `{}` down; Ctrl-C again kills what is left",
                    self.stack
                );
                self.narrator.everything();
                self.narrator.say(&words);
                self.down = Some(request_down(handle, false));
            }
            (Asked::Down, Some(_)) => {
                self.narrator.say("killing what is left");
                self.down = Some(request_down(handle, true));
            }
            (Asked::Leave, _) => {
                let words = format!(
                    "the controller ends; what runs of stack `{}` goes on",
                    self.stack
                );
                self.narrator.everything();
                self.narrator.say(&words);
                self.say_stopping();
                let handle = handle.clone();
                // That it left is seen by its end.
                tokio::spawn(async move { handle.leave().await });
            }
        }
    }

    async fn result(
        self,
        end: Result<Result<(), String>, JoinError>,
    ) -> Result<ExitCode, CommandError> {
        match end {
            Ok(Ok(())) => {}
            Ok(Err(report)) => return Err(CommandError::report(report)),
            Err(error) => {
                return Err(CommandError::new("the controller failed").because(&error));
            }
        }
        if let Some(down) = self.down
            && let Ok(Ok(Err(error))) = down.await
        {
            return Err(CommandError::new(format!(
                "cannot take stack `{}` down: {error}",
                self.stack
            )));
        }
        Ok(match self.is_service && self.went_down {
            true => ExitCode::from(TAKEN_DOWN),
            false => ExitCode::SUCCESS,
        })
    }

    fn bound_log(&mut self) {
        self.lines = self.lines.wrapping_add(1);
        if let Some(log) = &self.log
            && self.lines.is_multiple_of(LOOK_AT_LOG)
        {
            detach::bound(log);
        }
    }
}

fn request_down(handle: &Handle, kill: bool) -> Downing {
    let handle = handle.clone();
    tokio::spawn(async move { handle.down(false, kill, wiring::own_user()).await })
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Ctrl-C.
    Down,
    /// SIGTERM, SIGHUP.
    Leave,
}

/// The signals that a controller listens to.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> Result<Self, CommandError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| CommandError::new("cannot listen to signals").because(&error))
        };
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// What the next one asks for.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Down,
            _ = self.terminate.recv() => Asked::Leave,
            _ = self.hangup.recv() => Asked::Leave,
        }
    }
}
