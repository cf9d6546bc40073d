//! What must hold after every event, whoever brought it about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hatchery::plan::model::Plan;
use hatchery::spec::node::NodeId;

use crate::specs::Model;
use crate::world::networks::{Bridge, Space};
use crate::world::proxy::servers;
use crate::world::{File, SECOND, World};

/// So long after its start a controller may have no plan of a life.
const KNOWN_WITHIN: u64 = 2 * SECOND;

/// How things stood after the event before.
#[derive(Debug, Default)]
pub struct Stood {
    /// Up to which change through a driver.
    mutations: u64,
    foreign: Foreign,
    /// What each rendered file held, and whether that led anywhere.
    rendered: BTreeMap<PathBuf, (String, bool)>,
}

/// What is somebody else's.
#[derive(Debug, Default)]
struct Foreign {
    files: BTreeMap<PathBuf, String>,
    bridges: BTreeMap<String, Bridge>,
    spaces: BTreeMap<String, Space>,
    forward: bool,
}

impl Stood {
    /// Whoever may do so saves a file.
    pub fn saves(&mut self, path: &Path, hash: &str) {
        self.foreign.files.insert(path.to_owned(), hash.to_owned());
    }
}

/// Somebody outside did something: that is how things stand now.
pub fn outside(world: &mut World) {
    let strange = |(path, file): &(&PathBuf, &File)| file.mark.is_none() && !World::own(path);
    let files = world.files.iter().filter(strange);
    let bridges = world.net.bridges.iter().filter(|(_, bridge)| !bridge.ours);
    let spaces = world.net.namespaces.iter();
    let spaces = spaces.filter(|(_, space)| space.foreign.is_some());
    world.stood.foreign = Foreign {
        files: files
            .map(|(path, file)| (path.clone(), file.hash.clone()))
            .collect(),
        bridges: bridges
            .map(|(name, bridge)| (name.clone(), bridge.clone()))
            .collect(),
        spaces: spaces
            .map(|(name, space)| (name.clone(), space.clone()))
            .collect(),
        forward: world.net.forward,
    };
    world.stood.rendered = rendered(world);
    world.stood.mutations = world.mutations;
}

/// An event is over in which nobody outside did anything.
pub fn holds(world: &mut World) {
    let wrong = lives(world);
    let wrong = match world.stood.mutations == world.mutations {
        true => wrong,
        false => {
            world.stood.mutations = world.mutations;
            wrong.or_else(|| foreign(world)).or_else(|| serves(world))
        }
    };
    if let Some(wrong) = wrong {
        world.violate(wrong);
    }
}

/// One copy of each, and a mark on all that runs.
fn lives(world: &World) -> Option<String> {
    let mut before: Option<&NodeId> = None;
    // Ordered by node.
    for (id, cgroup) in world.cgroups.iter().filter(|(_, c)| c.populated()) {
        if before.replace(&id.node) == Some(&id.node) {
            return Some(format!("two lives of {} are there", id.node));
        }
        let known = cgroup.marked && cgroup.farewell.is_some();
        if !known || cgroup.identity.fields().is_empty() {
            return Some(format!("{} runs without a mark", id.node));
        }
    }
    None
}

fn foreign(world: &mut World) -> Option<String> {
    let World {
        stood, files, net, ..
    } = world;
    // One that holds what was to be written is taken over.
    let ours = |path: &Path, hash: &String| {
        let file = files.get(path);
        file.is_some_and(|file| file.mark.is_some() && file.hash == *hash)
    };
    stood.foreign.files.retain(|path, hash| !ours(path, hash));
    let is = |path: &PathBuf| files.get(path).map(|file| &file.hash);
    let mut known = stood.foreign.files.iter();
    if let Some((path, _)) = known.find(|(path, hash)| is(path) != Some(hash)) {
        let path = path.display();
        return Some(format!("`{path}` is a stranger's, and was changed"));
    }
    let mut known = stood.foreign.bridges.iter();
    if let Some((name, _)) = known.find(|(name, was)| net.bridges.get(*name) != Some(was)) {
        return Some(format!("bridge `{name}` is a stranger's, and was changed"));
    }
    let mut known = stood.foreign.spaces.iter();
    if let Some((name, _)) = known.find(|(name, was)| net.namespaces.get(*name) != Some(was)) {
        return Some(format!(
            "namespace `{name}` is a stranger's, and was changed"
        ));
    }
    if stood.foreign.forward && !net.forward {
        return Some("forwarding is turned off, which others may need".to_owned());
    }
    stood.foreign.forward = net.forward;
    None
}

fn rendered(world: &World) -> BTreeMap<PathBuf, (String, bool)> {
    let files = world.files.iter().filter(|(_, file)| file.mark.is_some());
    let what = |file: &File| (file.hash.clone(), !servers(&file.text).is_empty());
    files
        .map(|(path, file)| (path.clone(), what(file)))
        .collect()
}

/// What is rendered was accepted where somebody is asked, and the last good one stays.
fn serves(world: &mut World) -> Option<String> {
    let now = rendered(world);
    let was = std::mem::replace(&mut world.stood.rendered, now);
    let now = &world.stood.rendered;
    let fresh = now
        .iter()
        .filter(|(path, (hash, _))| was.get(*path).is_none_or(|(before, _)| before != hash));
    for (path, (hash, _)) in fresh {
        if !world.accepted.contains(&(path.clone(), hash.clone())) {
            let path = path.display();
            return Some(format!("`{path}` holds what nobody accepted"));
        }
    }
    if world.down {
        return None;
    }
    let mut good = was.iter().filter(|(_, (_, leads))| *leads);
    let lost = good.find(|(path, _)| {
        let leads = now.get(*path).is_some_and(|(_, leads)| *leads);
        !leads && keeps(&world.in_force, path) && keeps(&world.acted, path)
    });
    lost.map(|(path, _)| format!("`{}` was good, and serves no more", path.display()))
}

/// Whether a spec has the last good file serve on.
fn keeps(model: &Option<std::sync::Arc<Model>>, path: &Path) -> bool {
    let mut templates = model.iter().flat_map(|model| &model.templates);
    templates.any(|template| template.keep && Path::new(&template.destination) == path)
}

/// A controller knows all that runs.
pub fn knows(world: &mut World, plan: &Plan) {
    if !world.sighted_for(KNOWN_WITHIN / SECOND) {
        return;
    }
    let known: BTreeSet<&NodeId> = {
        let items = plan.items.iter().map(|item| &item.node);
        let nodes = plan.nodes.iter().map(|status| &status.node);
        items.chain(nodes).collect()
    };
    let mut lives = world.cgroups.iter().filter(|(_, c)| c.populated());
    let stray = lives
        .find(|(id, cgroup)| world.now - cgroup.made > KNOWN_WITHIN && !known.contains(&id.node));
    if let Some((id, _)) = stray {
        let what = format!("{} runs, and no plan knows of it", id.node);
        world.violate(what);
    }
}
