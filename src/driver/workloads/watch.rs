//! The thread that waits for the kernel: pidfds, `cgroup.events`, and the notify socket.
//!
//! What it learns only refreshes the table of lives; each event says no more than that
//! somebody should look.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fs::inotify;
use tokio::sync::mpsc::UnboundedSender;

use super::entry::{Entry, Tracked};
use super::notify::{self, Message};
use super::now;
use crate::driver::Event;
use crate::driver::cgroup::{self, Cgroups};
use crate::plan::world::{Exit, LifeId, LifeState};
use crate::spec::time::Time;

const WAKE: u64 = 0;
const GROUPS: u64 = 1;
const SOCKET: u64 = 2;
const FIRST_SERIAL: u64 = 16;

/// How many messages are read at once.
const MOST_MESSAGES: usize = 64;
/// How long the socket is left alone when there were more.
const REST: Duration = Duration::from_millis(20);

/// The lives that this controller knows.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By serial number.
    pub entries: Vec<Entry>,
    next: u64,
    closing: bool,
}

impl Table {
    /// The entry of a life.
    pub fn find(&mut self, life: &LifeId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| {
            entry.mark.incarnation == life.incarnation && entry.mark.node == life.node
        })
    }

    /// A number that no entry had before.
    pub fn serial(&mut self) -> u64 {
        self.next += 1;
        self.next + FIRST_SERIAL
    }
}

/// What the thread and its callers share.
pub(super) struct Shared {
    /// Where cgroups are.
    pub cgroups: Cgroups,
    /// Notified whenever an entry changed.
    pub changed: Condvar,
    table: Mutex<Table>,
    events: UnboundedSender<Event>,
    epoll: OwnedFd,
    groups: OwnedFd,
    wake: OwnedFd,
    /// Whoever has it reads the socket, and delivers what it read before the next one reads.
    socket: Mutex<UnixDatagram>,
}

/// The thread; it ends with this.
pub(super) struct Watch {
    /// What it shares.
    pub shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts the thread, which receives sd_notify messages on `socket`.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn start(
        cgroups: Cgroups,
        socket: UnixDatagram,
        events: UnboundedSender<Event>,
    ) -> io::Result<Watch> {
        let shared = Arc::new(Shared {
            cgroups,
            changed: Condvar::new(),
            table: Mutex::default(),
            events,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            groups: inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?,
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            socket: Mutex::new(socket),
        });
        let level = epoll::EventFlags::IN;
        for (fd, token) in [
            (shared.wake.as_fd(), WAKE),
            (shared.groups.as_fd(), GROUPS),
            (lock(&shared.socket).as_fd(), SOCKET),
        ] {
            epoll::add(&shared.epoll, fd, epoll::EventData::new_u64(token), level)?;
        }
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("hatchery-watch".to_owned())
            .stack_size(512 * 1024)
            .spawn(move || own.run())?;
        Ok(Watch {
            shared,
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A thread that panicked cannot have left either half-changed in a way that matters.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The table. A thread that panicked cannot have left it half-changed in a way that the
    /// next look at the kernel would not mend.
    pub fn lock(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// Makes the thread look at its time-outs anew.
    pub fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Has the thread wait for what happens to an entry. What is watched already stays so.
    pub fn follow(&self, entry: &mut Entry) {
        if entry.watch.is_none() {
            let path = entry.folder.join("cgroup.events");
            entry.watch = inotify::add_watch(&self.groups, &path, inotify::WatchFlags::MODIFY).ok();
        }
        // Edges, because a pidfd stays readable from the exit on, and calls again when the
        // process is reaped, which is when its code can be known.
        let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
        let serial = epoll::EventData::new_u64(entry.serial);
        for tracked in [&entry.spawned, &entry.payload].into_iter().flatten() {
            let _ = epoll::add(&self.epoll, &tracked.process, serial, edges);
        }
    }

    /// Stops waiting for a life and forgets it.
    pub fn forget(&self, table: &mut Table, life: &LifeId) {
        if let Some(watch) = table.find(life).and_then(|entry| entry.watch) {
            // Refused when the cgroup is gone, and the watch with it.
            let _ = inotify::remove_watch(&self.groups, watch);
        }
        table.entries.retain(|entry| entry.mark.id() != *life);
    }

    /// Looks at one entry, and says so if it changed.
    pub fn settle(&self, entry: &mut Entry, now: Time) {
        let before = (entry.payload.is_some(), entry.spawned.is_some());
        entry.refresh(now);
        let found = before != (entry.payload.is_some(), entry.spawned.is_some());
        if found || entry.watch.is_none() {
            self.follow(entry);
        }
        let state = entry.state(now);
        let changed = entry.told.replace(state.clone()) != Some(state.clone());
        if changed && state != LifeState::Up {
            if let LifeState::Ended { exit, .. } = &state
                && entry.mark.exit.is_none()
                && *exit != Exit::Unknown
            {
                entry.mark.exit = Some(*exit);
                // If it cannot be written, only the next controller's knowledge suffers.
                let _ = entry.write(&entry.mark);
            }
            self.say(Event::Ended(entry.mark.id()));
        } else if found && !entry.starting && entry.main().is_some_and(Tracked::runs) {
            // An adopted start was completed: its process ids are known from now on.
            self.say(Event::Notified(entry.mark.id()));
        }
        if changed || found {
            self.changed.notify_all();
        }
        if entry.hangs(now) {
            // Its end is seen like any other, and it is started again.
            let _ = cgroup::kill(&entry.folder);
        }
    }

    fn say(&self, event: Event) {
        // Nobody listens while the controller ends; then nobody needs to know.
        let _ = self.events.send(event);
    }

    fn run(&self) {
        let mut ready = Vec::with_capacity(64);
        let mut resting = None;
        loop {
            let next = {
                let mut table = self.lock();
                if table.closing {
                    return;
                }
                let now = now();
                let entries = table.entries.iter_mut();
                let dues = entries.filter_map(|entry| {
                    entry.set_due(now);
                    entry.due
                });
                dues.chain(resting).min().map(|due| due.since(now))
            };
            ready.clear();
            let wait = next.and_then(|time| Timespec::try_from(time).ok());
            match epoll::wait(&self.epoll, spare_capacity(&mut ready), wait.as_ref()) {
                Ok(_) => self.react(&ready, &mut resting),
                Err(rustix::io::Errno::INTR) => {}
                // Nothing else can be wrong with a descriptor that is ours; do not spin on it.
                Err(_) => std::thread::sleep(Duration::from_secs(1)),
            }
        }
    }

    fn react(&self, ready: &[epoll::Event], resting: &mut Option<Time>) {
        let mut serials: Vec<u64> = Vec::new();
        let mut groups = false;
        for event in ready {
            match event.data.u64() {
                WAKE => {
                    let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
                }
                GROUPS => groups = true,
                // A sender that never stops is left alone for a while.
                SOCKET if self.messages() => {
                    self.listen(false);
                    *resting = Some(now() + REST);
                }
                SOCKET => {}
                serial => serials.push(serial),
            }
        }
        let now = now();
        if resting.is_some_and(|until| until <= now) {
            *resting = None;
            self.listen(true);
        }
        let mut table = self.lock();
        if groups {
            serials.extend(self.changed_groups(&table));
        }
        for entry in &mut table.entries {
            let due = entry.due.is_some_and(|due| due <= now);
            if due || serials.contains(&entry.serial) {
                entry.due = None;
                self.settle(entry, now);
            }
        }
    }

    /// Whether messages on the socket wake the thread.
    fn listen(&self, on: bool) {
        let flags = match on {
            true => epoll::EventFlags::IN,
            false => epoll::EventFlags::empty(),
        };
        let socket = lock(&self.socket);
        let _ = epoll::modify(
            &self.epoll,
            &*socket,
            epoll::EventData::new_u64(SOCKET),
            flags,
        );
    }

    fn changed_groups(&self, table: &Table) -> Vec<u64> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.groups, &mut buffer);
        let mut changed = Vec::new();
        while let Ok(event) = reader.next() {
            let lost = event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW);
            let mine = |entry: &&Entry| lost || entry.watch == Some(event.wd());
            changed.extend(table.entries.iter().filter(mine).map(|entry| entry.serial));
        }
        changed
    }

    /// Reads what waits on the notify socket; answers whether there was more than is read at once.
    /// What was sent before this was called, and is not more, is in the table afterwards.
    pub fn messages(&self) -> bool {
        let socket = lock(&self.socket);
        let mut received = Vec::new();
        while received.len() < MOST_MESSAGES {
            let Some(message) = notify::receive(&socket) else {
                break;
            };
            // Read here, and not while others wait for the table.
            let folder = self.cgroups.of_process(message.pid).ok();
            received.push((message, folder));
        }
        let mut table = self.lock();
        for (message, folder) in &received {
            self.deliver(&mut table, message, folder.as_ref());
        }
        received.len() == MOST_MESSAGES
    }

    fn deliver(&self, table: &mut Table, message: &Message, folder: Option<&PathBuf>) {
        let sender = |entry: &&mut Entry| sent_by(entry, message.pid, folder);
        let Some(entry) = table.entries.iter_mut().find(sender) else {
            return;
        };
        if entry.contained() && spawned_pid(entry) == Some(message.pid) {
            // nspawn itself: the container is set up. Its READY is not the payload's.
            if let Some(leader) = message.leader {
                entry.leader = leader;
                self.changed.notify_all();
            }
        } else if message.ready && entry.mark.notify && !entry.mark.notified {
            entry.mark.notified = true;
            // If it cannot be written, only the next controller's knowledge suffers.
            let _ = entry.write(&entry.mark);
            self.say(Event::Notified(entry.mark.id()));
        }
    }
}

fn spawned_pid(entry: &Entry) -> Option<i32> {
    entry.spawned.as_ref().map(|tracked| tracked.process.pid)
}

/// The cgroup of a sender that has ended cannot be read; what we started is known by number.
fn sent_by(entry: &Entry, pid: i32, folder: Option<&PathBuf>) -> bool {
    folder.is_some_and(|folder| folder.starts_with(&entry.folder))
        || spawned_pid(entry) == Some(pid)
}
