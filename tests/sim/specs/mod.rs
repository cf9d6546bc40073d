//! Specs that are valid by construction: what a stack holds, as this simulator means it.
//! The product reads the text; the oracle reads this.

mod draw;
mod edit;
mod yaml;

use std::collections::BTreeSet;

use hatchery::graph::instance_of;
use hatchery::spec::model::Condition;
use hatchery::spec::node::{Kind, NodeId};

pub const STACK: &str = "s";
pub const SPEC: &str = "/spec/s.yaml";
pub const DIR: &str = "/spec";

/// One stack.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Told apart from every other text.
    pub revision: u64,
    pub http: Option<u16>,
    pub networks: Vec<Network>,
    pub works: Vec<Work>,
    pub services: Vec<Service>,
    pub templates: Vec<Template>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    pub name: String,
    pub third: u8,
    pub forward: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    App,
    Once,
    Proxy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Started,
    Notify(u64),
    Tcp(u64),
    Check(u64),
}

/// A group of containers or processes. Durations are in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    pub container: bool,
    pub name: String,
    pub role: Role,
    pub replicas: Option<u32>,
    pub version: u64,
    /// What is wrong with this version.
    pub defect: Option<Defect>,
    pub port: Option<u16>,
    pub network: Option<String>,
    pub policy: &'static str,
    pub delay: u64,
    pub max_delay: u64,
    pub reset_after: u64,
    pub max_attempts: Option<u32>,
    pub window: Option<u64>,
    pub ready: Ready,
    pub watch: Vec<String>,
    pub needs: Vec<(String, Condition)>,
    pub grace: u64,
    pub firewall: Option<u16>,
    pub pre_start: bool,
    /// The files that a proxy reads.
    pub files: Vec<String>,
    pub update: Option<Update>,
    /// Quiet and time-out.
    pub drain: Option<(u64, u64)>,
}

/// Why a version cannot run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// It ends as soon as it begins.
    Ends,
    /// It never becomes ready.
    Mute,
}

impl Defect {
    /// Its argument, which says so to the world.
    pub fn word(self) -> &'static str {
        match self {
            Defect::Ends => "ends",
            Defect::Mute => "mute",
        }
    }
}

/// How instances are replaced. Durations are in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    pub start_first: bool,
    pub max_unavailable: u32,
    pub min_healthy: Option<u64>,
    pub deadline: Option<u64>,
    pub action: Action,
}

/// What follows when an update fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Rollback,
    Pause,
    Continue,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub name: String,
    pub target: String,
    pub port: u16,
    pub tags: Vec<String>,
    pub checks: Vec<Check>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    Http,
    Tcp,
    Exec,
    Ttl(u64),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    pub probe: Probe,
    pub interval: u64,
    pub timeout: u64,
    pub retries: u32,
    pub start_period: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reload {
    None,
    Process { name: String, confirm: bool },
    Command,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    pub name: String,
    pub destination: String,
    pub services: Vec<String>,
    pub validate: bool,
    pub reload: Reload,
    pub keep: bool,
    pub wait: (u64, u64),
    /// Put into its source, which the world holds.
    pub version: u64,
}

/// The instance of a seat: what is replaced start-first has two.
pub fn instance(node: &NodeId) -> NodeId {
    NodeId::new(node.kind, instance_of(&node.name))
}

impl Work {
    /// How long it has to say that it is ready, in milliseconds, if it is to say so.
    pub fn notified_within(&self) -> Option<u64> {
        match self.ready {
            Ready::Notify(timeout) => Some(timeout),
            _ => None,
        }
    }

    pub fn kind(&self) -> Kind {
        if self.container {
            Kind::Containers
        } else {
            Kind::Processes
        }
    }

    pub fn reference(&self) -> String {
        format!("{}/{}", self.kind().word(), self.name)
    }

    pub fn instances(&self) -> Vec<NodeId> {
        match self.replicas {
            None => vec![NodeId::new(self.kind(), self.name.clone())],
            Some(count) => (1..=count)
                .map(|number| NodeId::new(self.kind(), format!("{}{number}", self.name)))
                .collect(),
        }
    }

    /// Its program and arguments; the world knows what they do.
    pub fn command(&self) -> Vec<String> {
        let program = match self.role {
            Role::App => "/bin/app",
            Role::Once => "/bin/once",
            Role::Proxy => "/bin/proxy",
        };
        let mut words = vec![program.to_owned(), format!("v{}", self.version)];
        if let Some(defect) = self.defect {
            words.push(defect.word().to_owned());
        }
        if let Some(port) = self.port {
            words.push(format!("port={port}"));
        }
        words.extend(self.files.iter().map(|file| format!("file={file}")));
        words
    }
}

impl Template {
    pub fn source(&self) -> String {
        format!("{DIR}/{}.j2", self.name)
    }

    /// What its source holds.
    pub fn text(&self) -> String {
        let mut text = format!("# {}\n", self.version);
        for service in &self.services {
            text.push_str("{% for i in service('");
            text.push_str(service);
            text.push_str("') %}server {{ i.address }}:{{ i.port }};\n{% endfor %}");
        }
        text
    }
}

impl Model {
    /// Whether another says the same, whatever its number.
    pub fn means(&self, other: &Model) -> bool {
        let revision = other.revision;
        Model {
            revision,
            ..self.clone()
        } == *other
    }

    pub fn work(&self, reference: &str) -> Option<&Work> {
        self.works.iter().find(|work| work.reference() == reference)
    }

    /// The group that an instance, or a seat of it, belongs to.
    pub fn work_of(&self, node: &NodeId) -> Option<&Work> {
        let node = instance(node);
        self.works
            .iter()
            .find(|work| work.kind() == node.kind && work.instances().contains(&node))
    }

    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.works.iter().flat_map(Work::instances).collect()
    }

    /// The services that lead to this group.
    pub fn serves<'a>(&'a self, work: &Work) -> impl Iterator<Item = &'a Service> {
        let reference = work.reference();
        self.services
            .iter()
            .filter(move |service| service.target == reference)
    }

    /// The ids under which the instances of a service are registered.
    pub fn endpoints(&self, service: &Service) -> Vec<(String, NodeId)> {
        let Some(work) = self.work(&service.target) else {
            return Vec::new();
        };
        let name = &service.name;
        let id = |node: NodeId| (format!("{STACK}-{name}-{}", node.name), node);
        work.instances().into_iter().map(id).collect()
    }
}
