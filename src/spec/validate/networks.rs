//! Subnets and addresses.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::{literal, path};
use crate::spec::diagnostic::Diagnostic;
use crate::spec::model::{Container, Network, NetworkMode, Spec, UpdateOrder};
use crate::spec::node::Kind;
use crate::spec::places::{Path, Places};
use ipnet::Ipv4Net;

pub(super) fn check(spec: &Spec, places: &Places, errors: &mut Vec<Diagnostic>) {
    overlaps(spec, places, errors);
    let mut taken: BTreeMap<(&str, Ipv4Addr), &str> = BTreeMap::new();
    for (name, container) in &spec.containers {
        let at = path(Kind::Containers, name);
        alone(name, container, &at, places, errors);
        let NetworkMode::Bridge(bridge) = &container.network else {
            outside_of_networks(name, container, &at, places, errors);
            continue;
        };
        let Some(network) = spec.networks.get(bridge) else {
            continue;
        };
        let Some(address) = fixed(container, network, bridge, &at, places, errors) else {
            continue;
        };
        if let Some(other) = taken.insert((bridge, address), name) {
            errors.push(
                places
                    .diagnostic(
                        &at.key("address"),
                        format!("the address {address} is already that of container `{other}`"),
                    )
                    .help("give each its own, or leave `address` out for a free one"),
            );
        }
    }
    room(spec, places, errors);
}

fn overlaps(spec: &Spec, places: &Places, errors: &mut Vec<Diagnostic>) {
    // By first address and then by size, so that a network that overlaps with any earlier one
    // overlaps with the one that reaches furthest.
    let mut nets: Vec<(Ipv4Net, usize, &String)> = spec
        .networks
        .iter()
        .enumerate()
        .map(|(order, (name, network))| (network.subnet, order, name))
        .collect();
    nets.sort_by_key(|(net, order, _)| (net.network(), net.prefix_len(), *order));
    let mut furthest: Option<(Ipv4Net, usize, &String)> = None;
    for next in nets {
        if let Some(before) = furthest
            && before.0.broadcast() >= next.0.network()
        {
            // The one that stands later in the file is the one that is pointed at.
            let (first, second) = if before.1 < next.1 {
                (before, next)
            } else {
                (next, before)
            };
            errors.push(
                places
                    .diagnostic(
                        &path(Kind::Networks, second.2).key("subnet"),
                        format!(
                            "the subnet {} of network `{}` overlaps {} of network `{}`",
                            second.0, second.2, first.0, first.2
                        ),
                    )
                    .help("give each network addresses of its own"),
            );
        }
        if furthest.is_none_or(|before| before.0.broadcast() < next.0.broadcast()) {
            furthest = Some(next);
        }
    }
}

/// A fixed address serves one instance.
fn alone(
    name: &str,
    container: &Container,
    at: &Path,
    places: &Places,
    errors: &mut Vec<Diagnostic>,
) {
    let replicas = container.workload.replicas.unwrap_or(1);
    if replicas > 1 && container.address.as_ref().and_then(literal).is_some() {
        errors.push(
            places
                .diagnostic(
                    &at.key("address"),
                    format!("container `{name}` has {replicas} replicas and one fixed address"),
                )
                .help("remove `address`, so that each replica takes a free one"),
        );
    }
}

fn outside_of_networks(
    name: &str,
    container: &Container,
    at: &Path,
    places: &Places,
    errors: &mut Vec<Diagnostic>,
) {
    let given = [
        ("firewall", container.firewall.is_some()),
        ("address", container.address.is_some()),
    ];
    for (field, given) in given {
        if given {
            errors.push(
                places
                    .diagnostic_at_key(
                        &at.key(field),
                        format!("container `{name}` has `{field}`, but is in no network"),
                    )
                    .help(format!(
                        "name one of `networks` as `network`, or remove `{field}`"
                    )),
            );
        }
    }
}

/// The container's fixed address, if it has one that its network can give.
fn fixed(
    container: &Container,
    network: &Network,
    bridge: &str,
    at: &Path,
    places: &Places,
    errors: &mut Vec<Diagnostic>,
) -> Option<Ipv4Addr> {
    let text = literal(container.address.as_ref()?)?;
    let at = at.key("address");
    let subnet = network.subnet;
    let Ok(address) = text.trim().parse::<Ipv4Addr>() else {
        errors.push(
            places
                .diagnostic(&at, format!("`{text}` is not an IPv4 address"))
                .help(format!("network `{bridge}` has addresses in {subnet}")),
        );
        return None;
    };
    let why = if !subnet.contains(&address) {
        format!("is outside of {subnet}, the subnet of network `{bridge}`")
    } else if address == subnet.network() {
        format!("is network `{bridge}` itself")
    } else if address == subnet.broadcast() {
        format!("is the broadcast address of network `{bridge}`")
    } else if Some(address) == subnet.hosts().next() {
        format!("is the host's own in network `{bridge}`")
    } else {
        return Some(address);
    };
    errors.push(
        places
            .diagnostic(&at, format!("the address {address} {why}"))
            .help(match (subnet.hosts().nth(1), subnet.hosts().next_back()) {
                (Some(first), Some(last)) => format!("containers have {first} to {last}"),
                _ => "give the network a larger subnet".to_owned(),
            }),
    );
    None
}

/// Each network has room for its containers.
fn room(spec: &Spec, places: &Places, errors: &mut Vec<Diagnostic>) {
    let mut wanted: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, container) in &spec.containers {
        let NetworkMode::Bridge(bridge) = &container.network else {
            continue;
        };
        let Some(network) = spec.networks.get(bridge) else {
            continue;
        };
        // Without the network's own, the broadcast and the host's address.
        let free = (1_u64 << (32 - u32::from(network.subnet.prefix_len()))).saturating_sub(3);
        let before = wanted.entry(bridge).or_default();
        let twice = container.workload.update.order == UpdateOrder::StartFirst;
        let instances = u64::from(container.workload.replicas.unwrap_or(1));
        let after = *before + instances * if twice { 2 } else { 1 };
        if *before <= free && after > free {
            let at = path(Kind::Containers, name).key("replicas");
            errors.push(
                places
                    .diagnostic(
                        &at,
                        format!("container `{name}` does not fit into network `{bridge}`"),
                    )
                    .label(format!("{after} addresses of {free} are asked for with it"))
                    .help(if twice {
                        "start-first takes two addresses for each instance: give the network a \
                         larger subnet, or write `order: stop-first`"
                    } else {
                        "give the network a larger subnet, or fewer replicas to it"
                    }),
            );
        }
        *before = after;
    }
}
