//! One port, one listener.

use std::collections::HashMap;

use super::{literal, path, workloads};
use crate::spec::diagnostic::Diagnostic;
use crate::spec::model::{NetworkMode, Ready, Service, Spec};
use crate::spec::node::{Kind, NodeId};
use crate::spec::places::Places;

pub(super) fn check(spec: &Spec, places: &Places, errors: &mut Vec<Diagnostic>) {
    let mut taken: HashMap<(Option<&NodeId>, u16), &str> = HashMap::new();
    for (name, service) in &spec.services {
        // With an address of its own a service listens elsewhere than its target's other ones.
        let (Some(target), None) = (&service.target, &service.address) else {
            continue;
        };
        let at = path(Kind::Services, name).key("port");
        let port = service.port;
        let shared = shares_host(spec, target);
        let listener = (!shared).then_some(target);
        if shared && replicas(spec, target) > 1 {
            errors.push(
                places
                    .diagnostic(
                        &at,
                        format!(
                            "the replicas of `{target}` cannot all listen on the host's port {port}"
                        ),
                    )
                    .help("put them into a network, or give the service an `address` for each"),
            );
        }
        if let Some(other) = taken.insert((listener, port), name) {
            let whose = match same_target(spec.services.get(other), target) {
                true => format!("`{target}`"),
                false => "the host".to_owned(),
            };
            errors.push(
                places
                    .diagnostic(
                        &at,
                        format!("port {port} of {whose} is already that of service `{other}`"),
                    )
                    .help("give each service a port of its own"),
            );
        }
    }
    listening(spec, places, errors);
}

fn same_target(service: Option<&Service>, target: &NodeId) -> bool {
    service.and_then(|service| service.target.as_ref()) == Some(target)
}

/// Whether what runs there listens on the host's own addresses.
fn shares_host(spec: &Spec, target: &NodeId) -> bool {
    match target.kind {
        Kind::Containers => spec
            .containers
            .get(&target.name)
            .is_some_and(|container| container.network == NetworkMode::Host),
        _ => true,
    }
}

fn replicas(spec: &Spec, target: &NodeId) -> u32 {
    let workload = workloads(spec)
        .find(|workload| workload.kind == target.kind && workload.name == target.name);
    workload.and_then(|w| w.workload.replicas).unwrap_or(1)
}

/// Addresses on which something of the spec says that it listens.
fn listening(spec: &Spec, places: &Places, errors: &mut Vec<Diagnostic>) {
    let mut taken: HashMap<String, String> = HashMap::new();
    if let Some(http) = spec.registry.http {
        taken.insert(http.to_string(), "the registry".to_owned());
    }
    for workload in workloads(spec) {
        let on_host = workload
            .container
            .is_none_or(|container| container.network == NetworkMode::Host);
        let Ready::Listening { tcp, .. } = &workload.workload.ready else {
            continue;
        };
        let Some(address) = literal(tcp).filter(|_| on_host) else {
            continue;
        };
        let at = workload.path().key("ready").key("tcp");
        if workload.workload.replicas.unwrap_or(1) > 1 {
            errors.push(
                places
                    .diagnostic(
                        &at,
                        format!(
                            "the replicas of {} cannot all listen on {address}",
                            workload.title()
                        ),
                    )
                    .help("make the port depend on `{{ replica }}`"),
            );
        }
        if let Some(other) = taken.insert(address.to_owned(), workload.title()) {
            errors.push(
                places
                    .diagnostic(&at, format!("{address} is already that of {other}"))
                    .help("two cannot listen on one port"),
            );
        }
    }
}
