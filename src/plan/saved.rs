//! A plan that is kept in a file, and how it is told that it still holds.
//!
//! The file names the spec and everything that the plan was worked out from, by hash: neither
//! the spec's text nor a rendered file stands in it, because both may hold secrets and neither
//! is needed. What is applied is read again, and must still have these hashes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::context::Context;
use super::exit_words;
use super::memory::Memory;
use super::model::{Change, Plan};
use super::network::id_of_bridge;
use super::permit::Permit;
use super::template::Text;
use super::text::visible;
use super::workload::specified;
use super::world::{FileView, Identity, LifeState, NetworkView, Observed};
use crate::graph::desired::{Desired, Node};
use crate::spec::node::{Kind, NodeId};
use crate::spec::texts::SpecText;
use crate::spec::time::Time;

/// The version of the form of plan files; others are not read.
pub const VERSION: u32 = 1;

/// The field that tells a plan file from a spec: no spec has it.
pub const MARK: &str = "hatchery_plan";

/// A reason is kept in so many characters at most.
const REASON: usize = 200;

/// A plan as it is kept in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPlan {
    /// The version of this form.
    pub hatchery_plan: u32,
    /// The version of the program that made it: another may plan otherwise.
    pub made_by: String,
    /// The stack.
    pub stack: String,
    /// The spec's file or folder, absolute.
    pub spec: PathBuf,
    /// What was laid over it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overlays: Vec<PathBuf>,
    /// The files of variables that were named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vars: Vec<PathBuf>,
    /// Hash of the spec's texts, and of the values of its variables.
    pub spec_hash: String,
    /// A controller made it, from its own memory and registry.
    pub by_controller: bool,
    /// Hashes of template sources, of files that they read, and of watched files.
    pub inputs: BTreeMap<PathBuf, String>,
    /// What the plan does.
    pub items: Vec<SavedItem>,
    /// The world that it was made on, node by node.
    pub world: BTreeMap<NodeId, Footprint>,
}

/// One item of a saved plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedItem {
    /// Whose.
    pub node: NodeId,
    /// What becomes of it.
    pub change: Change,
    /// Why, in one line.
    pub reason: String,
}

/// All that is seen of one node, as far as a plan depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Footprint {
    /// Hash of what the spec wants of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// Its lives by incarnation.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub lives: BTreeMap<u64, LifeMark>,
    /// The newest end that is remembered: which incarnation, and how.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<(u64, String)>,
    /// An operator stopped it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// Hashes of what else is there of it: "bridge", "network link", "file".
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, String>,
}

/// One life in a [`Footprint`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifeMark {
    /// "runs", "is ending", "exited 1".
    pub state: String,
    /// Hash of what was started.
    pub identity: String,
}

/// What a plan was made from.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// What is wanted.
    pub desired: &'a Desired,
    /// What is there.
    pub observed: &'a Observed,
    /// What is remembered.
    pub memory: &'a Memory,
    /// The plan that came of it.
    pub plan: &'a Plan,
    /// When.
    pub now: Time,
}

impl SavedPlan {
    /// Keeps a plan of this spec.
    pub fn new(sight: &Sight<'_>, spec: &SpecText, by_controller: bool) -> SavedPlan {
        let context = Context::new(sight.desired, sight.observed, sight.memory, sight.now);
        let items = sight.plan.items.iter().map(|item| SavedItem {
            node: item.node.clone(),
            change: item.change,
            reason: one_line(&item.reason),
        });
        SavedPlan {
            hatchery_plan: VERSION,
            made_by: env!("CARGO_PKG_VERSION").to_owned(),
            stack: sight.desired.stack.clone(),
            spec: spec.path.clone(),
            overlays: spec.sought().overlays,
            vars: spec.further.vars.clone(),
            spec_hash: digest(&spec.content()),
            by_controller,
            inputs: inputs(&context),
            items: items.collect(),
            world: world(&context, by_controller),
        }
    }

    /// Whether it was made from just this spec.
    pub fn is_of(&self, spec: &SpecText) -> bool {
        self.spec_hash == digest(&spec.content())
    }

    /// That the spec is another by now, in words.
    pub fn spec_changed(&self) -> String {
        format!("{} changed", visible(&self.spec.display().to_string()))
    }

    /// What is not any more as it was when this plan was made, in words, if `now` is what the
    /// same spec gives at this moment.
    pub fn differences(&self, now: &SavedPlan) -> Vec<String> {
        if self.made_by != now.made_by {
            let (then, now) = (visible(&self.made_by), &now.made_by);
            return vec![format!(
                "hatchery {then} made it, and this is hatchery {now}"
            )];
        }
        if self.spec_hash != now.spec_hash {
            // All that it comes to is another then.
            return vec![self.spec_changed()];
        }
        let mut said = Vec::new();
        match (self.by_controller, now.by_controller) {
            (true, false) => said.push("the controller that it was made by has ended".to_owned()),
            (false, true) => said.push("a controller keeps the stack now".to_owned()),
            _ => {}
        }
        let paths: BTreeSet<&PathBuf> = self.inputs.keys().chain(now.inputs.keys()).collect();
        for path in paths {
            if let Some(how) = part(self.inputs.get(path), now.inputs.get(path)) {
                said.push(format!("{} {how}", visible(&path.display().to_string())));
            }
        }
        let none = Footprint::default();
        let nodes: BTreeSet<&NodeId> = self.world.keys().chain(now.world.keys()).collect();
        for node in nodes {
            let (old, new) = (self.world.get(node), now.world.get(node));
            let how = old.unwrap_or(&none).differences(new.unwrap_or(&none));
            if !how.is_empty() {
                said.push(format!("{node}: {}", how.join(", ")));
            }
        }
        said
    }

    /// What applying it lets happen, where `sight` is the world that it is applied on.
    pub fn permit(&self, sight: &Sight<'_>) -> Permit {
        let context = Context::new(sight.desired, sight.observed, sight.memory, sight.now);
        let outstanding: BTreeSet<&NodeId> =
            sight.plan.items.iter().map(|item| &item.node).collect();
        let stands = sight
            .desired
            .nodes
            .keys()
            .filter(|node| !outstanding.contains(node));
        let identities = sight.desired.nodes.values().filter_map(|node| match node {
            Node::Workload(workload) => {
                // What cannot be worked out was approved as nothing.
                let identity = specified(&context, workload, None).unwrap_or_default();
                Some((workload.id.clone(), identity))
            }
            _ => None,
        });
        Permit {
            nodes: self
                .items
                .iter()
                .map(|item| &item.node)
                .chain(stands)
                .cloned()
                .collect(),
            identities: identities.collect(),
        }
    }
}

impl Footprint {
    fn differences(&self, now: &Footprint) -> Vec<String> {
        let mut said = Vec::new();
        for (incarnation, life) in &self.lives {
            match now.lives.get(incarnation) {
                Some(same) if same == life => {}
                Some(other) => said.push(other.state.clone()),
                None => said.push(match &now.ended {
                    Some((ended, how)) if ended == incarnation => how.clone(),
                    _ => "the life that was there is gone".to_owned(),
                }),
            }
        }
        if now.lives.keys().any(|life| !self.lives.contains_key(life)) {
            said.push("was started".to_owned());
        }
        match (self.stopped, now.stopped) {
            (false, true) => said.push("was stopped by an operator".to_owned()),
            (true, false) => said.push("is no longer stopped by an operator".to_owned()),
            _ => {}
        }
        if self.wanted != now.wanted {
            said.push(
                "what the spec comes to for it changed: an environment variable, or an address \
                 that is in use"
                    .to_owned(),
            );
        }
        let names: BTreeSet<&String> = self.parts.keys().chain(now.parts.keys()).collect();
        for name in names {
            if let Some(how) = part(self.parts.get(name), now.parts.get(name)) {
                said.push(format!("its {name} {how}"));
            }
        }
        said
    }
}

fn part(old: Option<&String>, new: Option<&String>) -> Option<&'static str> {
    match (old, new) {
        (Some(old), Some(new)) if old != new => Some("changed"),
        (Some(_), None) => Some("is gone"),
        (None, Some(_)) => Some("appeared"),
        _ => None,
    }
}

/// 16 hex digits: enough to see that something changed.
fn digest(text: &str) -> String {
    let hash = blake3::hash(text.as_bytes()).to_hex();
    hash.chars().take(16).collect()
}

fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(REASON).collect()
}

/// What the plan read beside the spec.
fn inputs(context: &Context<'_>) -> BTreeMap<PathBuf, String> {
    let mut inputs = BTreeMap::new();
    for state in context.templates.values() {
        let mut paths: BTreeSet<&PathBuf> = [&state.node.source].into();
        if let Text::Ready { reads, .. } = &state.text {
            paths.extend(&reads.files);
        }
        for path in paths {
            if let Some(content) = context.observed.inputs.files.get(path) {
                let hash = content
                    .as_ref()
                    .map_or("unreadable".to_owned(), |c| digest(c));
                inputs.insert(path.clone(), hash);
            }
        }
    }
    let watched = context
        .desired
        .nodes
        .values()
        .filter_map(|node| match node {
            Node::Workload(workload) => Some(&workload.watch),
            _ => None,
        });
    for path in watched.flatten() {
        match context.observed.files.get(path) {
            Some(FileView::File { hash, .. }) => {
                inputs.insert(path.clone(), hash.chars().take(16).collect());
            }
            Some(FileView::Unreadable(_)) => {
                inputs.insert(path.clone(), "unreadable".to_owned());
            }
            Some(FileView::Missing) | None => {}
        }
    }
    inputs
}

/// Everything that is seen, by the node that it belongs to.
fn world(context: &Context<'_>, by_controller: bool) -> BTreeMap<NodeId, Footprint> {
    let mut world: BTreeMap<NodeId, Footprint> = BTreeMap::new();
    for (id, node) in &context.desired.nodes {
        world.entry(id.clone()).or_default().wanted = Some(digest(&format!("{node:?}")));
    }
    for life in &context.observed.lives {
        let footprint = world.entry(life.id.node.clone()).or_default();
        let mark = LifeMark {
            state: match &life.state {
                LifeState::Up => "runs".to_owned(),
                LifeState::Ending => "is ending".to_owned(),
                LifeState::Ended { exit, .. } => exit_words(*exit),
            },
            identity: identity_mark(&life.identity),
        };
        footprint.lives.insert(life.id.incarnation, mark);
    }
    for (node, memory) in &context.memory.workloads {
        if let (Some(footprint), Some(last)) = (world.get_mut(node), memory.last_exit) {
            footprint.ended = Some((last.incarnation, exit_words(last.exit)));
        }
    }
    for node in &context.memory.stopped {
        world.entry(node.clone()).or_default().stopped = true;
    }
    let mut put = |node: NodeId, part: &str, seen: String| {
        let parts = &mut world.entry(node).or_default().parts;
        parts.insert(part.to_owned(), digest(&seen));
    };
    network(context, &mut put);
    files(context, &mut put);
    if by_controller {
        catalog(context, &mut put);
    }
    world
}

type Put<'a> = &'a mut dyn FnMut(NodeId, &str, String);

fn network(context: &Context<'_>, put: Put<'_>) {
    let NetworkView {
        bridges,
        attachments,
        foreign,
        forward,
    } = &context.observed.network;
    let mut wanted = BTreeSet::new();
    let prefix = format!("hatchery-{}-", context.desired.stack);
    for (name, view) in attachments {
        let instance = name.strip_prefix(&prefix).unwrap_or(name);
        let node = NodeId::new(Kind::Containers, instance);
        put(node, "network link", format!("{view:?}"));
    }
    for (id, node) in &context.desired.nodes {
        let Node::Network(network) = node else {
            continue;
        };
        wanted.insert(&network.bridge);
        if let Some(view) = bridges.get(&network.bridge) {
            put(id.clone(), "bridge", format!("{view:?}"));
        }
        let held: Vec<_> = foreign
            .iter()
            .filter(|(_, net)| net.contains(&network.subnet) || network.subnet.contains(net))
            .collect();
        if !held.is_empty() {
            put(id.clone(), "subnet's other holder", format!("{held:?}"));
        }
        if network.forward {
            put(id.clone(), "forwarding", forward.to_string());
        }
    }
    for (name, view) in bridges.iter().filter(|(name, _)| !wanted.contains(name)) {
        put(id_of_bridge(name), "bridge", format!("{view:?}"));
    }
}

fn files(context: &Context<'_>, put: Put<'_>) {
    let seen = |path: &Path| match context.observed.files.get(path) {
        None | Some(FileView::Missing) => None,
        Some(view) => Some(format!("{view:?}")),
    };
    let mut known = BTreeSet::new();
    for (id, node) in &context.desired.nodes {
        let (path, what) = match node {
            Node::Template(template) => (&template.destination, "file"),
            Node::Workload(workload) => match &workload.run.container {
                Some(container) => (&container.hosts, "hosts file"),
                None => continue,
            },
            _ => continue,
        };
        known.insert(path);
        if let Some(seen) = seen(path) {
            put(id.clone(), what, seen);
        }
    }
    let former: BTreeMap<_, _> = context.observed.files.iter().collect();
    for (path, view) in former {
        if let FileView::File {
            mark: Some(mark), ..
        } = view
            && mark.stack == context.desired.stack
            && !known.contains(path)
        {
            let node = NodeId::new(Kind::Templates, mark.template.clone());
            put(node, "former file", format!("{view:?}"));
        }
    }
}

/// What only a controller knows.
fn catalog(context: &Context<'_>, put: Put<'_>) {
    let registry = format!("{:?}", context.observed.registry);
    put(NodeId::registry(), "listener", registry);
    let registered = &context.observed.registered;
    for (id, node) in &context.desired.nodes {
        if let Node::Endpoint(endpoint) = node
            && let Some(there) = registered.get(&endpoint.service_id)
        {
            put(id.clone(), "registration", there.hash.clone());
        }
    }
    for (name, state) in &context.templates {
        if let Text::Ready { hash, .. } = &state.text {
            let node = NodeId::new(Kind::Templates, *name);
            put(node, "rendered text", hash.clone());
        }
    }
}

fn identity_mark(identity: &Identity) -> String {
    digest(&format!("{:?}", identity.fields()))
}
