#![allow(clippy::unwrap_used, clippy::panic)]
//! The engine on a host that is played: what runs is what was started, and time is told.

mod ends;
mod keep;
mod offered;
mod trials;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{broadcast, oneshot};

use super::engine::{Beginning, Engine, Input};
use super::handle::{EventKind, Happening, Request, SpecText, StackStatus};
use super::host::{Follow, Host, Listener};
use super::load::Surroundings;
use super::shared::SharedCatalog;
use super::sync::Fault;
use crate::driver::{
    Clock, Commands, DriverError, ErrorKind, Files, Networks, NewFile, Output, Probes, Result,
    Start, Workloads,
};
use crate::graph::desired::{Attachment, CheckNode, Desired, Dirs, NetworkNode};
use crate::health::Answer;
use crate::plan::model::Note;
use crate::plan::world::{FileView, Life, LifeId, LifeState, NetworkView, RegistryView};
use crate::registry::{Catalog, Config};
use crate::spec::generation::{Cause, Generation, Outcome};
use crate::spec::model::{Commit, Confirm, Firewall, Provenance, Registry, Signal};
use crate::spec::node::NodeId;
use crate::spec::time::Time;

/// What is on the host, and what time it is.
#[derive(Default)]
struct Scene {
    now: Time,
    lives: Vec<Life>,
    generations: Vec<(Generation, SpecText)>,
    /// What the machine lacks.
    lacks: Vec<String>,
    blind: bool,
}

#[derive(Clone, Default)]
struct Played(Arc<Mutex<Scene>>);

fn failed(message: &str) -> DriverError {
    DriverError {
        message: message.to_owned(),
        kind: ErrorKind::Failed,
    }
}

fn commit(id: &str) -> Commit {
    Commit {
        id: id.to_owned(),
        author: "Ada".to_owned(),
        subject: id.to_owned(),
        at_s: 0,
    }
}

/// The spec of a commit with one process that runs this program; `bad` cannot be started.
fn spec(id: &str, program: &str) -> SpecText {
    let text = format!(
        "name: s\nprocesses:\n  job: {{ command: [ {program} ] }}\nservices:\n  job: {{ target: \
         processes/job, port: 80, checks: [ {{ tcp: \"127.0.0.1:80\" }} ] }}\n"
    );
    let mut spec = SpecText::of(format!("/{id}/s.yaml"), text);
    spec.further.origin = Some(Provenance {
        commit: commit(id),
        tree: format!("/{id}").into(),
        objects: format!("/{id}.objects").into(),
    });
    spec
}

impl Played {
    fn scene(&self) -> MutexGuard<'_, Scene> {
        self.0.lock().unwrap()
    }

    fn pass_time(&self, time: Duration) {
        let mut scene = self.scene();
        scene.now = scene.now + time;
    }

    fn later(&self, seconds: u64) {
        self.pass_time(Duration::from_secs(seconds));
    }

    fn host(&self) -> Host {
        let config = Config {
            node: "n1".into(),
            address: "127.0.0.1".into(),
            datacenter: "dc1".into(),
        };
        Host {
            workloads: Arc::new(self.clone()),
            networks: Arc::new(self.clone()),
            files: Arc::new(self.clone()),
            commands: Arc::new(self.clone()),
            probes: Arc::new(self.clone()),
            clock: Arc::new(self.clone()),
            follow: Arc::new(self.clone()),
            listener: Arc::new(self.clone()),
            keep: Arc::new(self.clone()),
            catalog: SharedCatalog::new(Catalog::new(config, 1)),
        }
    }

    /// A generation of an earlier controller, as old as the machine.
    fn past(&self, number: u64, spec: &SpecText, outcome: Outcome) {
        let generation = Generation {
            number,
            path: spec.path.clone(),
            commit: spec.commit().cloned(),
            cause: Cause::Commit,
            at_ms: 0,
            boot: String::new(),
            outcome,
        };
        self.scene().generations.push((generation, spec.clone()));
    }

    /// A controller that begins with this, and has a minute for a commit unless it holds them.
    fn begin(&self, spec: SpecText, change: impl FnOnce(&mut Beginning)) -> Controlled {
        let (happenings, story) = broadcast::channel(1024);
        let mut beginning = Beginning {
            host: self.host(),
            around: Surroundings {
                dirs: Arc::new(|stack| Dirs {
                    run: Path::new("/run").join(stack),
                    state: Path::new("/state").join(stack),
                    log: Path::new("/log").join(stack),
                }),
                env: BTreeMap::new(),
                compares: false,
            },
            spec: Some(spec),
            stack: "s".to_owned(),
            saved: None,
            left: None,
            follows: false,
            commit_deadline: Some(Duration::from_secs(60)),
            keeps: false,
            suspended: false,
            seed: 1,
        };
        change(&mut beginning);
        let host = beginning.host.clone();
        let engine = Engine::begin(beginning, &happenings).unwrap();
        Controlled {
            played: self.clone(),
            engine,
            host,
            story,
            told: Vec::new(),
        }
    }
}

/// A controller, and what it told.
struct Controlled {
    played: Played,
    engine: Engine,
    host: Host,
    story: broadcast::Receiver<Happening>,
    told: Vec<Happening>,
}

impl Controlled {
    /// One look, and everything that follows from it at once.
    fn pass(&mut self) {
        for mut job in self.engine.pass().jobs {
            let done = loop {
                if let Some(done) = job.advance(&self.host) {
                    break done;
                }
            };
            self.engine.take(Input::Done(done));
        }
        while let Ok(happening) = self.story.try_recv() {
            self.told.push(happening);
        }
    }

    /// The checks that are asked answer this.
    fn answer(&mut self, status: crate::spec::model::Status) {
        let watched = self.engine.watched();
        for (id, watched) in watched {
            self.engine.take(Input::Verdict(super::schedule::Verdict {
                check_id: id,
                since: watched.since,
                status,
                output: String::new(),
                first: true,
                flip: true,
                failing: true,
            }));
        }
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            self.pass();
            self.played.pass_time(Duration::from_millis(10));
        }
    }

    fn request(&mut self, request: Request) {
        self.engine.take(Input::Request(Box::new(request)));
    }

    fn apply(&mut self, spec: SpecText, cause: Cause) -> std::result::Result<u64, Fault> {
        let (answer, mut answered) = oneshot::channel();
        self.request(Request::Apply {
            spec,
            allow_empty: false,
            saved: None,
            cause,
            answer,
        });
        answered.try_recv().unwrap()
    }

    fn status(&mut self) -> StackStatus {
        let (answer, mut answered) = oneshot::channel();
        self.request(Request::Status(answer));
        answered.try_recv().unwrap()
    }

    /// Which commit is in force.
    fn commit(&mut self) -> String {
        self.status().commit.unwrap().id
    }

    fn told(&self, kind: EventKind) -> Vec<&str> {
        let told = self.told.iter().filter(|happening| happening.kind == kind);
        told.map(|happening| happening.text.as_str()).collect()
    }
}

impl Workloads for Played {
    fn observe(&self) -> Result<Vec<Life>> {
        let scene = self.scene();
        match scene.blind {
            true => Err(failed("cannot read the cgroups")),
            false => Ok(scene.lives.clone()),
        }
    }

    fn start(&self, start: &Start) -> Result<()> {
        if start
            .run
            .command
            .first()
            .is_some_and(|program| program == "bad")
        {
            return Err(failed("cannot run `bad`"));
        }
        let mut scene = self.scene();
        let life = Life {
            id: start.id.clone(),
            identity: start.identity.clone(),
            started: scene.now,
            state: LifeState::Up,
            main_pid: 7,
            leader_pid: 7,
            notified: false,
            applied: BTreeMap::new(),
            cgroup: "/cgroup".into(),
            farewell: Some(start.farewell.clone()),
            commit: None,
            asked: false,
            late: false,
        };
        scene.lives.push(life);
        Ok(())
    }

    fn signal(&self, life: &LifeId, _: Signal, _: bool) -> Result<()> {
        self.kill(life)
    }

    fn reload(&self, _: &LifeId, _: Signal, _: Confirm, _: Duration) -> Result<()> {
        Ok(())
    }

    fn connections(&self, _: &LifeId, _: &BTreeSet<u16>) -> Result<u32> {
        Ok(0)
    }

    fn kill(&self, life: &LifeId) -> Result<()> {
        Workloads::remove(self, life)
    }

    fn remove(&self, life: &LifeId) -> Result<()> {
        self.scene().lives.retain(|one| one.id != *life);
        Ok(())
    }

    fn clear_stack(&self) -> Result<()> {
        Ok(())
    }

    fn rotate_logs(&self) -> Result<Option<Duration>> {
        Ok(None)
    }

    fn note(&self, _: &LifeId, _: &Note) -> Result<()> {
        Ok(())
    }
}

impl Networks for Played {
    fn observe(&self, _: &[String]) -> Result<NetworkView> {
        Ok(NetworkView::default())
    }

    fn create(&self, _: &NetworkNode) -> Result<()> {
        Ok(())
    }

    fn remove(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn attach(&self, _: &Attachment) -> Result<()> {
        Ok(())
    }

    fn firewall(&self, _: &str, _: Option<&Firewall>) -> Result<()> {
        Ok(())
    }

    fn detach(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

impl Files for Played {
    fn look(&self, _: &Path) -> FileView {
        FileView::Missing
    }

    fn read(&self, _: &Path, _: u64) -> Result<String> {
        Ok(String::new())
    }

    fn names(&self, _: &Path) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn write(&self, _: &NewFile) -> Result<()> {
        Ok(())
    }

    fn rewrite(&self, _: &Path, _: &str) -> Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path, _: &str) -> Result<()> {
        Ok(())
    }
}

impl Commands for Played {
    fn run(&self, _: &[String], _: &Path, _: Duration) -> Result<Output> {
        Err(failed("nothing is run"))
    }

    fn validate(&self, _: &[String], _: &[NewFile], _: Duration) -> Result<Output> {
        Err(failed("nothing is validated"))
    }

    fn port_holder(&self, _: SocketAddr) -> Option<String> {
        None
    }

    fn lacks(&self, desired: &Desired) -> Vec<String> {
        let lacks = self.scene().lacks.clone();
        match desired.requires.is_empty() {
            true => Vec::new(),
            false => lacks,
        }
    }
}

impl Probes for Played {
    fn probe(&self, _: &CheckNode, _: Option<i32>) -> BoxFuture<'static, Answer> {
        panic!("the engine asks nothing itself")
    }
}

impl Clock for Played {
    fn now(&self) -> Time {
        self.scene().now
    }

    fn wall_ms(&self) -> u64 {
        let since = self.scene().now.since(Time(0));
        u64::try_from(since.as_millis()).unwrap()
    }
}

impl Follow for Played {
    fn set(&self, _: BTreeSet<PathBuf>) -> Result<()> {
        Ok(())
    }

    fn unsettled(&self) -> BTreeSet<PathBuf> {
        BTreeSet::new()
    }
}

impl Listener for Played {
    fn open(&self, _: &Registry) -> Result<()> {
        Ok(())
    }

    fn look(&self) -> RegistryView {
        RegistryView {
            up: true,
            ..RegistryView::default()
        }
    }
}
