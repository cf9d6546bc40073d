//! A driver on a folder of its own, and what tests ask of it again and again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use hatchery::driver::unwritable::Unwritable;
use hatchery::driver::workloads::{Asker, HostWorkloads, exec_command};
use hatchery::driver::{Event, Start, Workloads};
use hatchery::graph::desired::{ContainerRun, Dirs, NetworkRun, RootRun, Run};
use hatchery::plan::world::{Exit, Identity, Life, LifeId, LifeState};
use hatchery::spec::model::LogLimit;
use hatchery::spec::node::{Kind, NodeId};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub const LIMIT: Duration = Duration::from_secs(20);

pub struct Bench {
    pub workloads: HostWorkloads,
    pub events: UnboundedReceiver<Event>,
    pub folder: tempfile::TempDir,
}

pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_hatchery"))
}

/// The program, as those whom it enters cannot change it.
pub fn unwritable() -> &'static Unwritable {
    static OPEN: OnceLock<Unwritable> = OnceLock::new();
    OPEN.get_or_init(|| Unwritable::open(&program()).unwrap())
}

pub fn dirs(folder: &Path) -> Dirs {
    Dirs {
        run: folder.join("run"),
        state: folder.join("state"),
        log: folder.join("log"),
    }
}

pub fn drive(folder: &Path) -> (HostWorkloads, UnboundedReceiver<Event>) {
    let (sender, events) = unbounded_channel();
    let workloads =
        HostWorkloads::with_program(&super::stack(), dirs(folder), sender, program()).unwrap();
    (workloads, events)
}

impl Bench {
    pub fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let (workloads, events) = drive(folder.path());
        Bench {
            workloads,
            events,
            folder,
        }
    }

    /// Another controller takes over.
    pub fn succeed(self) -> Bench {
        drop(self.workloads);
        let (workloads, events) = drive(self.folder.path());
        Bench {
            workloads,
            events,
            folder: self.folder,
        }
    }

    pub fn life(&self, id: &LifeId) -> Option<Life> {
        let lives = self.workloads.observe().unwrap();
        lives.into_iter().find(|life| life.id == *id)
    }

    pub fn log(&self, id: &LifeId) -> String {
        let path = self
            .folder
            .path()
            .join("log")
            .join(format!("{}.log", id.node.name));
        fs::read_to_string(path).unwrap_or_default()
    }

    /// The first event about this life.
    pub fn event(&mut self, wanted: &Event) {
        super::wait_for(&format!("{wanted:?}"), LIMIT, || {
            self.events.try_recv().ok().filter(|event| event == wanted)
        });
    }

    pub fn ended(&self, id: &LifeId) -> Exit {
        super::wait_for("its end", LIMIT, || match self.life(id)?.state {
            LifeState::Ended { exit, .. } => Some(exit),
            _ => None,
        })
    }

    /// Removes the life and asserts that nothing of it, or of the stack, is left.
    pub fn clear(&self, id: &LifeId) {
        self.workloads.remove(id).unwrap();
        assert!(self.life(id).is_none());
        self.workloads.remove_stack_root().unwrap();
        let left = super::cgroups_left(&super::stack());
        assert!(left.is_empty(), "{left:?}");
        assert!(!self.folder.path().join("run/roots").exists());
    }

    /// A command line that enters the life.
    pub fn entering(&self, id: &LifeId, command: &[&str], asker: Asker) -> Command {
        let pid = self.life(id).unwrap().main_pid;
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        exec_command(unwritable(), pid, &command, asker)
    }

    pub fn run_inside(&self, id: &LifeId, command: &[&str]) -> (Option<i32>, String) {
        let output = self.entering(id, command, Asker::Check).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }
}

pub fn start(kind: Kind, name: &str, command: &[&str]) -> Start {
    let identity = Identity::from(BTreeMap::from([("command".to_owned(), "abc".to_owned())]));
    let container = (kind == Kind::Containers).then(|| ContainerRun {
        hostname: name.to_owned(),
        machine: format!("{}-{name}", super::stack()),
        root: RootRun::Host,
        mounts: Vec::new(),
        tmpfs: Vec::new(),
        network: NetworkRun::Host,
        hosts: PathBuf::from("/run/hatchery/hosts"),
    });
    Start {
        commit: None,
        id: LifeId {
            node: NodeId::new(kind, name),
            incarnation: 7,
        },
        identity,
        applied: BTreeMap::from([("upstream".to_owned(), "h1".to_owned())]),
        run: Run {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            environment: BTreeMap::from([
                (
                    "PATH".to_owned(),
                    "/usr/bin:/bin:/usr/sbin:/sbin".to_owned(),
                ),
                ("COLOUR".to_owned(), "deep blue".to_owned()),
            ]),
            user: None,
            working_dir: None,
            notify: false,
            container,
        },
        log: LogLimit {
            max_size: 1 << 20,
            max_files: 1,
        },
        farewell: hatchery::graph::desired::Farewell {
            signal: hatchery::spec::model::Signal::TERM,
            grace: std::time::Duration::from_secs(10),
            drain: hatchery::spec::model::Drain::default(),
            ports: std::collections::BTreeSet::new(),
        },
    }
}

pub fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}
