//! A host that does at once what a plan tells it, and takes note of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use hatchery::graph::desired::{Desired, Dirs, Node};
use hatchery::graph::{self, CompileInputs};
use hatchery::plan::model::{Gate, Plan, Step};
use hatchery::plan::rehearsal::Rehearsal;
use hatchery::plan::world::{Exit, LifeState};
use hatchery::spec::node::NodeId;
use hatchery::spec::{Diagnostic, Places, model::Spec};

/// The folder that every spec here is said to be in.
pub const SPEC_DIR: &str = "/spec";

/// A program that does its work and ends well; all others run on.
pub const ONCE: &str = "/bin/once";

/// What compiling needs beside the spec: `templates` by the names of their files.
pub fn inputs(stack: &str, templates: &BTreeMap<&str, &str>) -> CompileInputs {
    let folder = |of: &str| PathBuf::from(format!("/{of}/hatchery/{stack}"));
    CompileInputs {
        spec_dir: SPEC_DIR.into(),
        tree: None,
        dirs: Dirs {
            run: folder("run"),
            state: folder("var/lib"),
            log: folder("var/log"),
        },
        env: Default::default(),
        template_sources: templates
            .iter()
            .map(|(name, text)| (Path::new(SPEC_DIR).join(name), Ok((*text).to_owned())))
            .collect(),
        held: BTreeMap::new(),
    }
}

/// Reads and compiles a spec that has to be good.
pub fn compiled(text: &str, templates: &BTreeMap<&str, &str>) -> Desired {
    let (spec, places) = read(text).unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"));
    graph::compile(&spec, &places, &inputs(&spec.name, templates))
        .unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"))
}

/// Reads and validates a spec.
pub fn read(text: &str) -> Result<(Spec, Places), Vec<Diagnostic>> {
    hatchery::spec::read("spec.yaml", text)
}

/// The host, and what was done on it.
pub struct Model {
    pub host: Rehearsal,
    /// Every step that was done, in order.
    pub done: Vec<Step>,
    /// Whether the steps that are done are kept.
    pub keeps: bool,
}

impl Deref for Model {
    type Target = Rehearsal;

    fn deref(&self) -> &Rehearsal {
        &self.host
    }
}

impl DerefMut for Model {
    fn deref_mut(&mut self) -> &mut Rehearsal {
        &mut self.host
    }
}

impl Model {
    /// An empty host.
    pub fn new(desired: Desired, templates: &BTreeMap<&str, &str>) -> Model {
        let mut model = Model {
            host: Rehearsal::new(desired, inputs("", templates).template_sources),
            done: Vec::new(),
            keeps: true,
        };
        model.save_watched();
        model
    }

    /// Another spec takes the place of the one before.
    pub fn edit(&mut self, desired: Desired) {
        self.host.edit(desired);
        self.done.clear();
        self.save_watched();
    }

    fn save_watched(&mut self) {
        let nodes = self.desired.nodes.values();
        let watched = nodes.filter_map(|node| match node {
            Node::Workload(workload) => Some(workload.watch.clone()),
            _ => None,
        });
        for path in watched.flatten().collect::<Vec<_>>() {
            self.put(&path, "watched");
        }
    }

    /// One pass: everything that is ready is done; the clock goes to the next wake.
    pub fn pass(&mut self) -> Plan {
        self.look();
        let plan = self.plan();
        let now = self.now;
        self.memory.absorb(&plan.notes, now);
        let mut busy = false;
        for item in plan.items.iter().filter(|item| item.gate == Gate::Ready) {
            busy = true;
            for step in &item.steps {
                self.apply(step);
            }
        }
        self.settle();
        self.wait(&plan, busy);
        plan
    }

    /// Passes until nothing is outstanding; how many it took, `None` when `most` were not enough.
    pub fn converge(&mut self, most: usize) -> Option<usize> {
        (0..most).find(|_| self.pass().is_empty())
    }

    /// Does one step.
    pub fn apply(&mut self, step: &Step) {
        if self.keeps {
            self.done.push(step.clone());
        }
        let Step::Start(start) = step else {
            return self.host.apply(step);
        };
        let node = &start.id.node;
        let twice = self.keeps && self.runs(node);
        assert!(!twice, "a second copy of {node} was started");
        self.host.apply(step);
        if start.run.command.first().map(String::as_str) == Some(ONCE) {
            self.exit(&start.id, Exit::Code(0));
        }
    }

    /// Whether a life of this node is up.
    pub fn runs(&self, node: &NodeId) -> bool {
        let mut lives = self.observed.lives.iter();
        lives.any(|life| life.id.node == *node && life.state == LifeState::Up)
    }

    /// What is up, by node.
    pub fn lives(&self) -> BTreeMap<NodeId, u64> {
        let up = self.observed.lives.iter();
        up.filter(|life| life.state == LifeState::Up)
            .map(|life| (life.id.node.clone(), life.id.incarnation))
            .collect()
    }
}
