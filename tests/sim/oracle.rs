//! Whether the world is as the spec wants it, found from the spec's model and the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hatchery::graph::instance_of;
use hatchery::plan::world::Exit;
use hatchery::spec::node::NodeId;

use crate::specs::{Model, Role, STACK, Work, instance};
use crate::world::proxy::servers;
use crate::world::{Cgroup, World};

/// What is not as it should be; the first that is found.
pub fn judge(world: &World, model: &Model) -> Option<String> {
    lives(world, model)
        .or_else(|| networks(world, model))
        .or_else(|| registry(world, model))
        .or_else(|| files(world, model))
        .or_else(|| proxies(world))
}

/// Whether a node ended as its policy lets it rest, or an operator stopped it.
pub fn rests(world: &World, work: &Work, node: &NodeId) -> bool {
    let of = |other: &NodeId| instance(other) == *node;
    let runs = world
        .cgroups
        .iter()
        .any(|(id, cgroup)| of(&id.node) && cgroup.populated());
    let stopped = world.operator_stopped.keys().any(of);
    let completed = world.last_end(node).is_some_and(|end| {
        // One that was late, and was not asked yet, is no failure to who comes after its end.
        let success = end.exit == Exit::Code(0) && end.known;
        success && !end.signalled && matches!(work.policy, "no" | "on-failure")
    });
    !runs && (stopped || completed)
}

fn lives(world: &World, model: &Model) -> Option<String> {
    let wanted = model.nodes();
    for (id, cgroup) in &world.cgroups {
        if !wanted.contains(&instance(&id.node)) {
            let populated = cgroup.populated();
            return Some(format!("{} is left (runs: {populated})", id.node));
        }
    }
    for work in &model.works {
        for node in work.instances() {
            if let Some(why) = life(world, work, &node) {
                return Some(format!("{node} {why}"));
            }
        }
    }
    None
}

fn life(world: &World, work: &Work, node: &NodeId) -> Option<String> {
    let lives: Vec<&Cgroup> = world
        .cgroups
        .iter()
        .filter(|(id, cgroup)| instance(&id.node) == *node && cgroup.populated())
        .map(|(_, cgroup)| cgroup)
        .collect();
    match lives.as_slice() {
        [] if rests(world, work, node) => None,
        [] => Some("does not run".to_owned()),
        [one] if one.main.is_none() => Some("has leftovers".to_owned()),
        [one] => {
            if work.role == Role::Once {
                return Some("runs still".to_owned());
            }
            if one.command != work.command() {
                return Some(format!("runs {:?}", one.command));
            }
            let other = one.watched.iter().find(|(path, hash)| {
                let now = world.files.get(*path).map(|file| &file.hash);
                now != hash.as_ref() && now != one.believed.get(*path)
            });
            other.map(|(path, _)| format!("has an old `{}`", path.display()))
        }
        more => Some(format!("runs {} times", more.len())),
    }
}

fn networks(world: &World, model: &Model) -> Option<String> {
    let wanted: BTreeSet<&String> = model.networks.iter().map(|net| &net.name).collect();
    for name in &wanted {
        let bridge = world.net.bridges.get(*name);
        if bridge.is_none_or(|bridge| !bridge.ours || !bridge.up || bridge.address.is_none()) {
            return Some(format!("bridge `{name}` is not whole"));
        }
    }
    let extra = world
        .net
        .bridges
        .iter()
        .find(|(name, bridge)| bridge.ours && !wanted.contains(name));
    if let Some((name, _)) = extra {
        return Some(format!("bridge `{name}` is left"));
    }
    let mut spaces: BTreeMap<String, &Work> = BTreeMap::new();
    for work in model.works.iter().filter(|work| work.network.is_some()) {
        for node in work.instances() {
            spaces.insert(format!("hatchery-{STACK}-{}", node.name), work);
        }
    }
    let left = world
        .net
        .namespaces
        .keys()
        .find(|name| !spaces.contains_key(instance_of(name)));
    if let Some(name) = left {
        return Some(format!("namespace `{name}` is left"));
    }
    for cgroup in world
        .cgroups
        .values()
        .filter(|cgroup| cgroup.main.is_some())
    {
        let Some(name) = &cgroup.namespace else {
            continue;
        };
        let space = world.net.namespaces.get(name);
        let whole = space.is_some_and(|space| {
            space.link.is_some() && space.address.is_some() && space.gateway.is_some()
        });
        let closed = spaces
            .get(instance_of(name))
            .is_some_and(|work| work.firewall.is_some());
        let firewall = space.is_some_and(|space| space.firewall.is_some());
        if !whole || closed != firewall {
            return Some(format!("namespace `{name}` is not whole"));
        }
    }
    None
}

/// The ids that are to be registered, with where they lead.
fn wanted_ids(world: &World, model: &Model) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for service in &model.services {
        let work = model.work(&service.target);
        for (id, node) in model.endpoints(service) {
            if work.is_some_and(|work| !rests(world, work, &node)) {
                ids.insert(id);
            }
        }
    }
    ids
}

fn registry(world: &World, model: &Model) -> Option<String> {
    let catalog = world.catalog.as_ref()?;
    let wanted = wanted_ids(world, model);
    let there: BTreeSet<String> = catalog.read(|catalog| {
        let entries = catalog.entries();
        entries
            .map(|entry| instance_of(&entry.registration.id).to_owned())
            .collect()
    });
    if there != wanted {
        return Some(format!(
            "the registry has {there:?}, it is to have {wanted:?}"
        ));
    }
    let address = world.listener.map(|address| address.port());
    (address != model.http).then(|| format!("the registry listens at {address:?}"))
}

/// Where a service's instances answer, in truth.
fn instances(world: &World, model: &Model, name: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let Some(service) = model.services.iter().find(|service| service.name == name) else {
        return all;
    };
    for (_, node) in model.endpoints(service) {
        let life = world
            .cgroups
            .iter()
            .find(|(id, c)| instance(&id.node) == node && c.main.is_some());
        let Some((_, cgroup)) = life else { continue };
        // A check is what tells that nothing listens.
        if !service.checks.is_empty() && !world.well(cgroup) {
            continue;
        }
        if let Some((address, _)) = world.address(cgroup) {
            all.insert(format!("{address}:{}", service.port));
        }
    }
    all
}

fn files(world: &World, model: &Model) -> Option<String> {
    let mut known = BTreeSet::new();
    for template in &model.templates {
        let path = Path::new(&template.destination);
        known.insert(path);
        let each: Vec<BTreeSet<String>> = template
            .services
            .iter()
            .map(|name| instances(world, model, name))
            .collect();
        if template.keep && each.iter().any(BTreeSet::is_empty) {
            continue;
        }
        let wanted: BTreeSet<String> = each.into_iter().flatten().collect();
        let Some(file) = world.files.get(path) else {
            return Some(format!("`{}` is not there", path.display()));
        };
        let there = servers(&file.text);
        if there != wanted {
            return Some(format!(
                "`{}` lists {there:?}, it is to list {wanted:?}",
                path.display()
            ));
        }
        if !file.text.starts_with(&format!("# {}\n", template.version)) {
            return Some(format!("`{}` is of an old source", path.display()));
        }
    }
    let left = world.files.iter().find(|(path, file)| {
        file.mark.is_some() && !known.contains(path.as_path()) && !world.kept.lossy
    });
    left.map(|(path, _)| format!("`{}` is left", path.display()))
}

fn proxies(world: &World) -> Option<String> {
    for (id, cgroup) in &world.cgroups {
        let Some(proxy) = cgroup.proxy.as_ref().filter(|_| cgroup.main.is_some()) else {
            continue;
        };
        for (path, hash) in &proxy.read {
            let file = world.files.get(path);
            if file.is_some_and(|file| file.hash != *hash) {
                return Some(format!("{} has not read `{}`", id.node, path.display()));
            }
        }
    }
    None
}
