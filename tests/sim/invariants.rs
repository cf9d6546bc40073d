//! What must hold at every action of the drivers, judged by the truth of the world and by what
//! was asked for; never by what the planner thinks.

use hatchery::driver::{NewFile, Start};
use hatchery::plan::world::LifeId;
use hatchery::spec::model::Condition;
use hatchery::spec::node::NodeId;

use crate::limits;
use crate::specs::{Model, Ready, STACK, Work, instance};
use crate::world::proxy::servers;
use crate::world::{Cgroup, End, MILLI, SECOND, World};

/// How long a proxy may keep up the end of an instance, beyond the time that templates wait:
/// `plan/ending.rs`.
const LEAVE_AT_MOST: u64 = 10 * SECOND;

/// How long after something changed a plan may still build on what was.
fn grace(world: &World) -> u64 {
    if world.sighted_for(60) {
        2 * SECOND
    } else {
        62 * SECOND
    }
}

/// A start begins.
pub fn before_start(world: &mut World, start: &Start) {
    let node = start.id.node.clone();
    let now = world.now;
    let other = world
        .cgroups
        .iter()
        .find(|(id, cgroup)| id.node == node && (cgroup.populated() || cgroup.starting.is_some()))
        .map(|(id, _)| id.incarnation);
    if let Some(other) = other {
        world.violate(format!("{node} is started while its life {other} is there"));
    }
    let Some(model) = world.acting.clone() else {
        return;
    };
    let Some(work) = model.work_of(&node) else {
        return world.violate(format!("{node} is started, and the spec has no such thing"));
    };
    // What an edit took away while the start was on its way is not there.
    let current = world.in_force.as_ref();
    let edited =
        world.down || current.is_none_or(|current| !std::sync::Arc::ptr_eq(current, &model));
    let needs = needs(&model, work);
    // What ended while the machine slept was there when the start was decided.
    let woken = world.blind_at.is_some_and(|at| now - at < SECOND);
    for (on, condition) in needs.into_iter().filter(|_| !edited && !woken) {
        if let Some(why) = unmet(world, &model, &on, condition) {
            world.violate(format!("{node} is started before its need {on}: {why}"));
        }
    }
    let stopped = world.operator_stopped.get(&node);
    if stopped.is_some_and(|at| *at < world.planned_at) && !world.kept.lossy {
        world.violate(format!("{node} is started though an operator stopped it"));
    }
    let facts = world.facts.get(&node).cloned().unwrap_or_default();
    if let Some(end) = facts.ends.last().filter(|_| !facts.forgiven)
        && end.failed()
        && end.identity == start.identity
    {
        limits::again(world, &node, work, end);
    }
    let facts = world.facts.entry(node).or_default();
    facts.started = Some(now);
    // What ended before was cleared for this: it is judged once.
    facts.forgiven = true;
}

/// What a node needs by the spec, with the network and the files that are implied.
fn needs(model: &Model, work: &Work) -> Vec<(String, Condition)> {
    let mut needs = work.needs.clone();
    if let Some(network) = &work.network {
        needs.push((format!("networks/{network}"), Condition::Started));
    }
    needs.retain(|(on, _)| {
        model.work(on).is_some() || on.starts_with("networks/") || on.starts_with("templates/")
    });
    needs
}

/// Why a need is not met in truth, and was not a moment ago.
fn unmet(world: &World, model: &Model, on: &str, condition: Condition) -> Option<String> {
    let recent = |at: u64| world.now - at <= grace(world);
    if let Some(name) = on.strip_prefix("networks/") {
        let bridge = world.net.bridges.get(name);
        let there = bridge.is_some_and(|bridge| bridge.ours && bridge.address.is_some());
        let was = world.meddled_at.is_some_and(recent);
        return (!there && !was).then(|| "the bridge is not there".to_owned());
    }
    if let Some(name) = on.strip_prefix("templates/") {
        let template = model
            .templates
            .iter()
            .find(|template| template.name == name)?;
        let path = std::path::Path::new(&template.destination);
        let there = world
            .files
            .get(path)
            .is_some_and(|file| file.mark.is_some());
        let was = world.strangers_at.is_some_and(recent);
        return (!there && !was).then(|| "the file was not written".to_owned());
    }
    let work = model.work(on)?;
    for node in work.instances() {
        let why = unmet_node(world, model, work, &node, condition);
        if let Some(why) = why {
            return Some(format!("{node} {why}"));
        }
    }
    None
}

fn unmet_node(
    world: &World,
    model: &Model,
    work: &Work,
    node: &NodeId,
    condition: Condition,
) -> Option<&'static str> {
    let recent = |at: u64| world.now - at <= grace(world);
    let last = world.last_end(node);
    let completed = last.is_some_and(End::completed);
    if condition == Condition::Completed {
        // It may be run again while a start is under way that found it completed; such a start
        // goes on, as what runs does.
        let cleared = world.cleared.iter().filter(|(id, _)| instance(id) == *node);
        let found = cleared.map(|(_, at)| *at).any(|at| at >= world.planned_at);
        return (!completed && !found).then_some("did not complete");
    }
    // What ended as it should is as far as it can be.
    let rests = completed && matches!(work.policy, "no" | "on-failure");
    let ready = |cgroup: &Cgroup| match work.ready {
        Ready::Started => cgroup.ran,
        // An adopted one may have said so while nobody listened: it counts after its time.
        Ready::Notify(timeout) => {
            let adopted = cgroup.begun_by != world.epoch;
            let soon = adopted && world.now - world.began >= timeout * MILLI;
            let had_time = cgroup.had_time || soon;
            // One that was begun under a spec that asked it otherwise has nobody to tell.
            let other = !cgroup.notify && cgroup.was_ready;
            cgroup.notified || had_time || other
        }
        Ready::Tcp(_) | Ready::Check(_) => cgroup.was_ready,
    };
    let up = world
        .cgroups
        .iter()
        .any(|(id, cgroup)| instance(&id.node) == *node && cgroup.main.is_some() && ready(cgroup));
    let was = last.is_some_and(|end| recent(end.at));
    if !up && !was && !rests {
        return Some("is not ready");
    }
    if condition == Condition::Healthy && up && !rests {
        let ill = model.serves(work).any(|service| {
            let id = format!("{STACK}-{}-{}", service.name, node.name);
            let ids = [id.clone(), format!("{id}.b")];
            let healthy = |id: &String| world.healthy_at.get(id).is_some_and(|at| recent(*at));
            !ids.iter().any(healthy)
        });
        if ill {
            return Some("does not pass its checks");
        }
    }
    None
}

/// A program begins.
pub fn one_copy(world: &mut World, id: &LifeId) {
    let copies = world
        .cgroups
        .iter()
        .filter(|(other, cgroup)| other.node == id.node && cgroup.main.is_some())
        .count();
    if copies > 1 {
        world.violate(format!("{copies} copies of {} run", id.node));
    }
}

/// A stop signal is on its way to a life that runs.
pub fn before_signal(world: &mut World, life: &LifeId) {
    // What was planned before the host slept is done after it.
    if world.down || !world.sighted_for(1) {
        return;
    }
    let Some(cgroup) = world.cgroups.get(life) else {
        return;
    };
    let Some((address, port)) = world.address(cgroup) else {
        return;
    };
    let at = format!("{address}:{port}");
    let waited = world
        .leaving
        .get(life)
        .is_some_and(|since| world.now - since + MILLI >= leave_at_most(world));
    if waited {
        return;
    }
    let instance = format!("-{}", life.node.name);
    let registered = world.catalog.as_ref().is_some_and(|catalog| {
        catalog.read(|catalog| {
            catalog.entries().any(|entry| {
                entry.registration.port == port
                    && entry.registration.address == address.to_string()
                    && entry.registration.id.ends_with(&instance)
            })
        })
    });
    if registered {
        return world.violate(format!(
            "{} gets its stop signal while it is registered",
            life.node
        ));
    }
    if let Some(proxy) = still_sends(world, &at) {
        return world.violate(format!(
            "{} gets its stop signal while {proxy} sends to {at}",
            life.node
        ));
    }
    let drain = cgroup.farewell.as_ref().map(|farewell| farewell.drain);
    let timeout = drain.map_or(0, |drain| drain.timeout.as_nanos() as u64);
    // What was decided under the spec before this one is done all the same.
    let models = [&world.in_force, &world.acting].into_iter().flatten();
    let shortest = models
        .filter_map(|model| model.work_of(&life.node))
        .map(drain_timeout)
        // It may have left the spec before that could be noted on it.
        .chain(
            world
                .drains
                .get(&crate::specs::instance(&life.node))
                .copied(),
        )
        .min();
    let timeout = timeout.min(shortest.unwrap_or(10_000) * MILLI);
    let waited = world
        .draining
        .get(life)
        .is_some_and(|since| world.now - since + MILLI >= timeout);
    // One that has just begun reads what is there, the last good file perhaps.
    let then = world.now.saturating_sub(100 * MILLI);
    if cgroup.served && timeout > 0 && !waited && world.connections_older(&at, then) > 0 {
        world.violate(format!(
            "{} gets its stop signal while connections to it live",
            life.node
        ));
    }
}

/// The proxy that was told of its newest files and sends to `at` all the same, where nothing
/// excuses it.
fn still_sends(world: &World, at: &str) -> Option<NodeId> {
    // What was decided under the spec before this one is done all the same.
    let models = [&world.in_force, &world.acting].into_iter().flatten();
    let found = models.map(|model| sends_under(world, model, at));
    found.reduce(Option::and).flatten()
}

/// The same, by one spec.
fn sends_under(world: &World, model: &Model, at: &str) -> Option<NodeId> {
    let (id, cgroup) = world.cgroups.iter().find(|(_, cgroup)| {
        let proxy = cgroup.proxy.as_ref();
        cgroup.main.is_some() && proxy.is_some_and(|proxy| proxy.sends_to.contains(at))
    })?;
    let proxy = cgroup.proxy.as_ref()?;
    let work = model.work_of(&id.node)?;
    if cgroup.asked.is_some() || world.leaving.contains_key(id) || !cgroup.listens {
        return None;
    }
    for path in proxy.read.keys() {
        let template = model
            .templates
            .iter()
            .find(|template| std::path::Path::new(&template.destination) == path)?;
        let confirms = matches!(
            &template.reload,
            crate::specs::Reload::Process { confirm: true, .. }
        );
        let file = world.files.get(path);
        let foreign = file.is_none_or(|file| file.mark.is_none());
        let unread = world
            .unread_at
            .is_some_and(|at| world.now - at < 40 * SECOND);
        let listed = file.is_none_or(|file| servers(&file.text).contains(at));
        if !listed && confirms && !foreign && !unread {
            // All that is left is to tell of it, whatever is said of the next text.
            continue;
        }
        // The last good file serves where no better one can be made.
        let source = world.files.get(std::path::Path::new(&template.source()));
        let good = source.is_some_and(|source| source.text == template.text());
        let refused = world
            .refused_at
            .is_some_and(|at| world.now - at < 120 * SECOND);
        if !good || !confirms || refused || unread || foreign || template.keep {
            return None;
        }
    }
    (work.files.len() == proxy.read.len()).then(|| id.node.clone())
}

/// How long the proxies get under the spec that the end was planned by.
fn leave_at_most(world: &World) -> u64 {
    let model = world.acting.as_ref().or(world.in_force.as_ref());
    let waits = model.into_iter().flat_map(|model| &model.templates);
    let longest = waits.map(|template| template.wait.1).max();
    LEAVE_AT_MOST + longest.unwrap_or(0) * MILLI
}

/// How long connections are waited for, in milliseconds.
fn drain_timeout(work: &Work) -> u64 {
    work.drain.map_or(10_000, |(_, timeout)| timeout)
}

/// All of a life is killed.
pub fn before_kill(world: &mut World, life: &LifeId) {
    let Some(cgroup) = world.cgroups.get(life) else {
        return;
    };
    let others = world
        .cgroups
        .iter()
        .any(|(id, other)| id.node == life.node && id != life && other.populated());
    if cgroup.main.is_none() || others || world.down_kill {
        return;
    }
    let now = world.now;
    let least = cgroup
        .farewell
        .as_ref()
        .map_or(500, |farewell| farewell.grace.as_millis().min(500) as u64);
    let asked = cgroup
        .ending_planned
        .is_some_and(|at| now - at + MILLI >= least * MILLI);
    if !asked {
        world.violate(format!(
            "{} is killed without being asked to end",
            life.node
        ));
    }
}

/// A rendered file is about to be replaced.
pub fn before_write(world: &mut World, file: &NewFile) {
    let hash = blake3::hash(file.content.as_bytes()).to_hex().to_string();
    let text = (file.path.clone(), hash);
    let Some(model) = world.acting.clone() else {
        // Nobody knows what half of a spec, which was saved so for good, asks.
        world.accepted.insert(text);
        return;
    };
    let path = file.path.display().to_string();
    let Some(template) = model.templates.iter().find(|t| t.destination == path) else {
        return world.violate(format!("`{path}` is written, and no template says so"));
    };
    if !template.validate {
        world.accepted.insert(text);
    } else if !world.accepted.contains(&text) {
        world.violate(format!(
            "`{path}` is written with a text that no validator accepted"
        ));
    }
    if template.keep && servers(&file.content).is_empty() {
        world.violate(format!(
            "`{path}` is written empty, and it is to keep the last good one"
        ));
    }
}

/// The controller takes a spec.
pub fn takes(world: &mut World, text: &str) {
    let model = world.models.get(&crate::history::text_hash(text)).cloned();
    let now = world.now;
    world.log(format_args!(
        "takes revision {:?}",
        model.as_ref().map(|model| model.revision)
    ));
    let up = world.cgroups.values().any(|cgroup| cgroup.main.is_some());
    if !world.beginning && !world.allow_empty {
        // What a generation before had so for good may come back.
        let path = std::path::Path::new(crate::specs::SPEC);
        let read = world.files.get(path).is_some_and(|file| file.text == text);
        if model.is_none() && read && world.unsettled.contains(path) {
            world.violate("it takes a half-saved spec".to_owned());
        }
        if up && model.as_ref().is_some_and(|model| model.works.is_empty()) {
            world.violate("it takes a spec that removes everything".to_owned());
        }
    }
    let works = model.iter().flat_map(|model| &model.works);
    let drains = works.flat_map(|work| {
        let timeout = drain_timeout(work);
        work.instances()
            .into_iter()
            .map(move |node| (node, timeout))
    });
    world.drains.extend(drains);
    let before = world.in_force.take();
    for (node, facts) in &mut world.facts {
        // Another in its place, and be it for a moment, begins anew.
        let was = before.as_ref().and_then(|model| model.work_of(node));
        let is = model.as_ref().and_then(|model| model.work_of(node));
        facts.forgiven |= was != is;
    }
    let (epoch, began) = (world.epoch, world.began);
    for (id, cgroup) in &mut world.cgroups {
        // Where nobody knows what was asked for, it may have had it.
        let before = before.as_ref().map(|model| model.work_of(&id.node));
        let timeout = before.map_or(Some(0), |work| work.and_then(Work::notified_within));
        let had = timeout.is_some_and(|timeout| now - began >= timeout * MILLI);
        cgroup.had_time |= had && cgroup.begun_by != epoch;
    }
    world.in_force = model;
    world.took_at = now;
    // Half a file that a controller began with has nobody that we know of.
    let model = world.in_force.as_ref();
    match model.map(|model| model.nodes()) {
        Some(nodes) => {
            let perhaps = &mut world.perhaps_stopped;
            perhaps.retain(|node| nodes.contains(&instance(node)));
        }
        None => {
            let stopped = world.operator_stopped.keys().cloned();
            world.perhaps_stopped.extend(stopped);
        }
    }
    let nodes = model.map(|model| model.nodes()).unwrap_or_default();
    world
        .operator_stopped
        .retain(|node, _| nodes.contains(&instance(node)));
    // One that begins counts what it finds ended after that.
    if !world.beginning {
        for facts in world.facts.values_mut() {
            (facts.failures, facts.doubted) = (0, false);
        }
    }
}

/// A command is to be run in the namespaces of a process.
pub fn enters(world: &mut World, target: Option<&NodeId>, pid: Option<i32>) {
    let (Some(target), Some(pid)) = (target, pid) else {
        return;
    };
    let holder = world.pids.get(&pid).copied();
    let holder = holder.and_then(|serial| Some(world.by_serial(serial)?.0.node));
    if holder
        .as_ref()
        .is_some_and(|holder| instance(holder) == instance(target))
    {
        return;
    }
    let allowed = grace(world);
    let ends = world.facts.get(target).map_or(&[][..], |facts| &facts.ends);
    let just_ended = ends
        .iter()
        .any(|end| end.pid == pid && world.now - end.at <= allowed);
    // A probe that was due before the host slept comes after it.
    let woken = !world.sighted_for(1);
    if !just_ended && !woken {
        world.violate(format!(
            "a check of {target} enters pid {pid}, which is {holder:?}"
        ));
    }
}

/// The stack says that it is down.
pub fn when_down(world: &mut World) {
    let left = world.cgroups.iter().find(|(_, cgroup)| cgroup.populated());
    if let Some((id, _)) = left {
        let what = format!("{} runs after `down`", id.node);
        world.violate(what);
    }
    let bridge = world.net.bridges.iter().find(|(_, bridge)| bridge.ours);
    if let Some((name, _)) = bridge {
        let what = format!("bridge `{name}` is there after `down`");
        world.violate(what);
    }
    let space = world
        .net
        .namespaces
        .iter()
        .find(|(_, s)| s.foreign.is_none());
    if let Some((name, _)) = space {
        let what = format!("namespace `{name}` is there after `down`");
        world.violate(what);
    }
    let file = world.files.iter().find(|(_, file)| file.mark.is_some());
    if let Some((path, _)) = file.filter(|_| !world.kept.lossy) {
        let what = format!("`{}` is there after `down`", path.display());
        world.violate(what);
    }
}
