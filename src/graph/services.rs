//! Services as endpoints: one for each instance of the target.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Compiler;
use super::at::At;
use super::desired::{CheckNode, EndpointNode, Node, Nodes};
use super::instances::{Groups, Instance};
use super::names;
use crate::spec::model::{CheckRef, Probe, Service};
use crate::spec::node::{Kind, NodeId};
use crate::template::expr::Scope;

/// Stands for the instance where the service is none of ours.
const EXTERNAL: &str = "external";

/// Adds the endpoints of every service.
pub(super) fn add(
    compiler: &mut Compiler<'_>,
    instances: &[Instance<'_>],
    groups: &Groups,
    nodes: &mut Nodes,
) {
    let spec = compiler.spec;
    let by_id: BTreeMap<&NodeId, &Instance<'_>> = instances
        .iter()
        .map(|instance| (&instance.id, instance))
        .collect();
    let section = At::section(Kind::Services.word());
    let mut ids: BTreeMap<String, NodeId> = BTreeMap::new();
    for (name, service) in &spec.services {
        let at = section.key(name);
        refuse_bad_tags(compiler, &at, service);
        for target in targets(compiler, &at, service, groups) {
            let instance = target.as_ref().and_then(|id| by_id.get(id).copied());
            let Some(endpoint) = endpoint(compiler, &at, name, service, instance) else {
                continue;
            };
            let id = NodeId::endpoint(name, instance.map_or(EXTERNAL, |one| &one.id.name));
            if let Some(other) = ids.insert(endpoint.service_id.clone(), id.clone()) {
                compiler.problems.advise(
                    &at,
                    format!(
                        "`{id}` and `{other}` both get the id `{}` in the registry",
                        endpoint.service_id
                    ),
                    "rename one of the services",
                );
            }
            if let Some(Node::Workload(workload)) =
                target.as_ref().and_then(|target| nodes.get_mut(target))
            {
                workload.ports.insert(service.port);
                if !endpoint.checks.is_empty() && workload.update.min_healthy_time.is_none() {
                    workload.min_healthy_time = Duration::ZERO;
                }
            }
            nodes.insert(id, Node::Endpoint(endpoint));
        }
    }
}

/// The instances behind a service; one `None` where it is none of ours.
fn targets(
    compiler: &mut Compiler<'_>,
    at: &At<'_>,
    service: &Service,
    groups: &Groups,
) -> Vec<Option<NodeId>> {
    let Some(target) = &service.target else {
        return vec![None];
    };
    if let Some(members) = groups.get(target) {
        return members.iter().cloned().map(Some).collect();
    }
    let second = names::second_seat(target);
    let seats: Vec<Option<NodeId>> = groups
        .values()
        .flatten()
        .filter(|seat| *seat == target || **seat == second)
        .cloned()
        .map(Some)
        .collect();
    if !seats.is_empty() {
        return seats;
    }
    compiler
        .problems
        .add(&at.key("target"), format!("`{target}` does not exist"));
    Vec::new()
}

fn refuse_bad_tags(compiler: &mut Compiler<'_>, at: &At<'_>, service: &Service) {
    let list = at.key("tags");
    for (index, tag) in service.tags.iter().enumerate() {
        if !names::is_word(tag) {
            compiler.problems.advise(
                &list.index(index),
                format!("`{tag}` cannot be a tag"),
                "use letters, digits, `.`, `_` and `-`; `meta` takes any text",
            );
        }
    }
}

fn endpoint(
    compiler: &mut Compiler<'_>,
    at: &At<'_>,
    name: &str,
    service: &Service,
    instance: Option<&Instance<'_>>,
) -> Option<EndpointNode> {
    let mut scope = instance.map_or_else(
        || Scope {
            name: Some(name),
            ..Scope::default()
        },
        Instance::scope,
    );
    scope.port = Some(service.port);
    let address = address(compiler, at, name, service, instance, &scope)?;
    scope.address = Some(&address);
    let target = instance.map(|instance| instance.id.clone());
    let suffix = target.as_ref().map_or(EXTERNAL, |id| &id.name);
    let service_id = names::service_id(&compiler.spec.name, name, suffix);
    let checks = checks(compiler, at, service, &service_id, &scope, target.as_ref());
    let list = at.key("meta");
    let meta: Vec<Option<(String, String)>> = service
        .meta
        .iter()
        .map(|(key, value)| {
            let value = compiler.text(&list.key(key), value, &scope)?;
            Some((key.clone(), value))
        })
        .collect();
    Some(EndpointNode {
        service: name.to_owned(),
        service_id,
        target,
        port: service.port,
        tags: service.tags.clone(),
        meta: meta.into_iter().collect::<Option<_>>()?,
        checks: checks?,
        address,
    })
}

fn address(
    compiler: &mut Compiler<'_>,
    at: &At<'_>,
    name: &str,
    service: &Service,
    instance: Option<&Instance<'_>>,
    scope: &Scope<'_>,
) -> Option<String> {
    let Some(expression) = &service.address else {
        let Some(instance) = instance else {
            let message = format!("service `{name}` has neither a `target` nor an `address`");
            compiler.problems.add(at, message);
            return None;
        };
        // A container that should have an address and has none was reported already.
        if instance.reached_at.is_none() && is_apart(compiler, instance) {
            let message = format!("service `{name}` cannot be reached: its target has no network");
            let help = "put the target into a network, or give the service an `address`";
            compiler.problems.advise(&at.key("target"), message, help);
        }
        return instance.reached_at.clone();
    };
    let place = at.key("address");
    let text = compiler.text(&place, expression, scope)?;
    if !names::is_address(&text) {
        let message = format!("`{text}` is neither an IP address nor a hostname");
        compiler.problems.add(&place, message);
        return None;
    }
    Some(text)
}

fn is_apart(compiler: &Compiler<'_>, instance: &Instance<'_>) -> bool {
    super::workloads::network_id(compiler, instance).is_none()
}

fn checks(
    compiler: &mut Compiler<'_>,
    at: &At<'_>,
    service: &Service,
    service_id: &str,
    scope: &Scope<'_>,
    target: Option<&NodeId>,
) -> Option<Vec<CheckNode>> {
    let list = at.key("checks");
    let mut checks = Vec::new();
    let mut taken = BTreeSet::new();
    let mut whole = true;
    for (index, reference) in service.checks.iter().enumerate() {
        let place = list.index(index);
        let Some((definition_at, definition)) = compiler.check_definition(&place, reference) else {
            whole = false;
            continue;
        };
        let name = match reference {
            CheckRef::Named(name) => name.clone(),
            CheckRef::Inline(_) => free_name(&definition.probe, service, &taken),
        };
        if !taken.insert(name.clone()) {
            let message = format!("check `{name}` stands here twice");
            compiler.problems.add(&place, message);
            whole = false;
            continue;
        }
        let check = compiler.check(&definition_at, definition, &name, scope, target);
        whole &= check.is_some();
        checks.extend(check.map(|check| CheckNode {
            id: format!("{service_id}:{name}"),
            ..check
        }));
    }
    whole.then_some(checks)
}

/// A check written in place is called by what it asks, with a number where that is taken.
fn free_name(probe: &Probe, service: &Service, taken: &BTreeSet<String>) -> String {
    let word = match probe {
        Probe::Http(_) => "http",
        Probe::Tcp(_) => "tcp",
        Probe::Exec(_) => "exec",
        Probe::Ttl(_) => "ttl",
    };
    let is_named = |name: &str| {
        let same = |check: &CheckRef| matches!(check, CheckRef::Named(other) if other == name);
        service.checks.iter().any(same)
    };
    // One of so many names is free, since no more than all checks can hold one each.
    let numbered = (2..=service.checks.len().saturating_add(2)).map(|n| format!("{word}-{n}"));
    std::iter::once(word.to_owned())
        .chain(numbered)
        .find(|name| !taken.contains(name) && !is_named(name))
        .unwrap_or_else(|| word.to_owned())
}
