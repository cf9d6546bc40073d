//! Drives an [`Engine`] on a host: waits for a reason to look, brings what came, and puts jobs
//! on threads.

use tokio::sync::{broadcast, mpsc};

use super::engine::{Beginning, End, Engine, Input};
use super::execute::{Done, Job};
use super::handle::{Happening, Request};
use super::host::Host;
use super::monitors::{Monitors, Verdict};
use crate::driver::Event;

/// The loop's ends.
pub struct Channels {
    /// From the drivers.
    pub events: mpsc::UnboundedReceiver<Event>,
    /// From whoever holds a [`Handle`](super::handle::Handle).
    pub requests: mpsc::Receiver<Request>,
    /// To all who listen.
    pub happenings: broadcast::Sender<Happening>,
}

/// Runs until it is asked to leave or everything is down.
///
/// # Errors
/// The spec's report when it does not compile.
pub async fn run(beginning: Beginning, channels: Channels) -> Result<(), String> {
    let (done, finished) = mpsc::unbounded_channel();
    let (verdicts_in, verdicts) = mpsc::channel(256);
    let host = beginning.host.clone();
    let seed = beginning.seed;
    let engine = tokio::task::block_in_place(|| Engine::begin(beginning, &channels.happenings))?;
    let monitors = Monitors::start(host.probes.clone(), host.clock.clone(), seed, verdicts_in);
    let mut driven = Loop {
        engine,
        host,
        monitors,
        channels,
        done,
        finished,
        verdicts,
    };
    driven.run().await;
    Ok(())
}

struct Loop {
    engine: Engine,
    host: Host,
    monitors: Monitors,
    channels: Channels,
    done: mpsc::UnboundedSender<Done>,
    finished: mpsc::UnboundedReceiver<Done>,
    verdicts: mpsc::Receiver<Verdict>,
}

impl Loop {
    async fn run(&mut self) {
        let mut catalog = self.host.catalog.changed();
        while self.pass().is_none() {
            let next = self.engine.next_look().since(self.host.clock.now());
            let input = tokio::select! {
                event = self.channels.events.recv() => match event {
                    Some(event) => Some(Input::Event(event)),
                    None => return,
                },
                Some(done) = self.finished.recv() => Some(Input::Done(done)),
                Some(verdict) = self.verdicts.recv() => Some(Input::Verdict(verdict)),
                request = self.channels.requests.recv() => match request {
                    Some(request) => Some(Input::Request(Box::new(request))),
                    None => return,
                },
                // An index that moved is read in the pass that follows.
                changed = catalog.changed() => match changed {
                    Ok(()) => None,
                    Err(_) => return,
                },
                () = tokio::time::sleep(next) => None,
            };
            if input.and_then(|input| self.engine.take(input)).is_some() {
                return;
            }
            self.drain();
            catalog.borrow_and_update();
        }
    }

    /// Takes everything that is waiting, so that one pass answers it all.
    fn drain(&mut self) {
        while let Ok(event) = self.channels.events.try_recv() {
            self.engine.take(Input::Event(event));
        }
        while let Ok(done) = self.finished.try_recv() {
            self.engine.take(Input::Done(done));
        }
        while let Ok(verdict) = self.verdicts.try_recv() {
            self.engine.take(Input::Verdict(verdict));
        }
    }

    fn pass(&mut self) -> Option<End> {
        let pass = tokio::task::block_in_place(|| self.engine.pass());
        if let Some(wanted) = pass.watch {
            self.monitors.set(wanted);
        }
        for job in pass.jobs {
            self.put(job);
        }
        pass.end
    }

    /// Does a job on threads that may block.
    fn put(&self, mut job: Job) {
        let (host, done) = (self.host.clone(), self.done.clone());
        tokio::spawn(async move {
            let node = job.node().clone();
            let doing = tokio::task::spawn_blocking(move || {
                loop {
                    if let Some(done) = job.advance(&host) {
                        return done;
                    }
                }
            });
            let how = doing.await.unwrap_or_else(|_| Job::lost(node));
            // The loop may have ended meanwhile; then nobody needs the answer.
            let _ = done.send(how);
        });
    }
}
