//! Groups expanded to instances, and their addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Compiler;
use super::at::At;
use super::names;
use crate::spec::model::{Container, Expr, NetworkMode, Spec, UpdateOrder};
use crate::spec::node::{Kind, NodeId};
use crate::template::expr::Scope;

/// The most copies of one container or process.
const MOST_REPLICAS: u32 = 1000;

/// What is on the host's own network answers here.
const LOOPBACK: &str = "127.0.0.1";

/// One instance of a container or process; one of its two seats where it is replaced
/// start-first.
pub(super) struct Instance<'a> {
    /// `containers/prime1`, or its second seat `containers/prime1.b`.
    pub(super) id: NodeId,
    /// `prime1`, for both seats.
    pub(super) name: String,
    /// The name in the spec.
    pub(super) group: &'a str,
    /// 1 for the first.
    pub(super) replica: u32,
    /// Its address in a network of the spec.
    pub(super) address: Option<Ipv4Addr>,
    /// Where it answers; `None` when nothing can reach it.
    pub(super) reached_at: Option<String>,
    /// The port of the first service that it serves.
    pub(super) port: Option<u16>,
}

impl Instance<'_> {
    /// What expressions about it see.
    pub(super) fn scope(&self) -> Scope<'_> {
        Scope {
            name: Some(&self.name),
            replica: Some(self.replica),
            address: self.reached_at.as_deref(),
            port: self.port,
        }
    }
}

/// The instances of every group, each with its seats: by the group's name as `kind/name`.
pub(super) type Groups = BTreeMap<NodeId, Vec<NodeId>>;

/// All instances in spec order, containers first, with their addresses.
pub(super) fn expand<'a>(compiler: &mut Compiler<'a>) -> (Vec<Instance<'a>>, Groups) {
    let spec = compiler.spec;
    let mut instances = Vec::new();
    let mut groups = Groups::new();
    let mut taken = BTreeMap::new();
    let ports = ports(spec);
    let containers = spec
        .containers
        .iter()
        .map(|(name, container)| (Kind::Containers, name, &container.workload));
    let processes = spec
        .processes
        .iter()
        .map(|(name, process)| (Kind::Processes, name, &process.workload));
    for (kind, group, workload) in containers.chain(processes) {
        let members = copies(compiler, kind, group, workload.replicas);
        let ids = groups.entry(NodeId::new(kind, group)).or_default();
        for (replica, name) in members {
            let first = NodeId::new(kind, name.as_str());
            let port = first_port(&ports, kind, group, &first);
            for id in seats(first, workload.update.order) {
                claim_name(compiler, &mut taken, kind, group, &id.name);
                ids.push(id.clone());
                instances.push(Instance {
                    port,
                    id,
                    name: name.clone(),
                    group,
                    replica,
                    address: None,
                    reached_at: Some(LOOPBACK.to_owned()),
                });
            }
        }
    }
    assign(compiler, &mut instances);
    (instances, groups)
}

/// Where the lives of an instance have their place: the new one takes the seat that the old one
/// has not.
fn seats(first: NodeId, order: UpdateOrder) -> Vec<NodeId> {
    match order {
        UpdateOrder::StopFirst => vec![first],
        UpdateOrder::StartFirst => {
            let second = names::second_seat(&first);
            vec![first, second]
        }
    }
}

/// Names and numbers of a group's copies. They are numbered when `replicas` was written, even
/// for 1, so that scaling from 1 renames nothing.
fn copies(
    compiler: &mut Compiler<'_>,
    kind: Kind,
    group: &str,
    replicas: Option<u32>,
) -> Vec<(u32, String)> {
    let Some(count) = replicas else {
        return vec![(1, group.to_owned())];
    };
    if count > MOST_REPLICAS {
        let section = At::section(kind.word());
        compiler.problems.add(
            &section.key(group).key("replicas"),
            format!(
                "`{kind}/{group}` has {count} replicas, more than {MOST_REPLICAS}",
                kind = kind.word()
            ),
        );
        return Vec::new();
    }
    (1..=count)
        .map(|number| (number, format!("{group}{number}")))
        .collect()
}

/// Logs, and commands like `exec prime1`, name an instance without its kind.
fn claim_name<'a>(
    compiler: &mut Compiler<'_>,
    taken: &mut BTreeMap<String, (Kind, &'a str)>,
    kind: Kind,
    group: &'a str,
    name: &str,
) {
    if let Some((other_kind, other)) = taken.insert(name.to_owned(), (kind, group)) {
        compiler.problems.advise(
            &At::section(kind.word()).key(group),
            format!(
                "`{}/{group}` and `{}/{other}` both have an instance called `{name}`",
                kind.word(),
                other_kind.word()
            ),
            "containers and processes share their names in logs and commands; rename one of them",
        );
    }
}

/// The port of the first service that names this instance or its group.
fn first_port(ports: &Ports, kind: Kind, group: &str, id: &NodeId) -> Option<u16> {
    let by_group = ports.get(&NodeId::new(kind, group));
    let first = ports.get(id).into_iter().chain(by_group).min();
    first.map(|(_, port)| *port)
}

/// Of each target, its first service's place in the spec, and that service's port.
type Ports = BTreeMap<NodeId, (usize, u16)>;

fn ports(spec: &Spec) -> Ports {
    let mut ports = Ports::new();
    for (place, service) in spec.services.values().enumerate() {
        if let Some(target) = &service.target {
            let first = ports.entry(target.clone());
            first.or_insert((place, service.port));
        }
    }
    ports
}

/// The host's address in a network.
pub(super) fn gateway(subnet: Ipv4Net) -> Option<Ipv4Addr> {
    (subnet.prefix_len() <= 30)
        .then(|| subnet.hosts().next())
        .flatten()
}

/// Gives every container in a network its address: fixed ones first, then those that
/// instances hold already, then the first free ones in spec order, second seats last. A change
/// of one group so moves no other, as long as it runs. What an instance holds that left the spec
/// is given away only when nothing else is free: it may serve for a while yet.
fn assign(compiler: &mut Compiler<'_>, instances: &mut [Instance<'_>]) {
    let spec = compiler.spec;
    let mut taken: BTreeSet<Ipv4Addr> = BTreeSet::new();
    for instance in instances.iter_mut() {
        let Some(container) = container_of(compiler, instance) else {
            continue;
        };
        if container.network == NetworkMode::None {
            instance.reached_at = None;
        }
        if let (Some((_, subnet)), Some(address)) =
            (network_of(compiler, container), &container.address)
        {
            instance.reached_at = None;
            instance.address = fixed(compiler, instance, address, subnet, &mut taken);
        }
    }
    for instance in instances.iter_mut() {
        let held = compiler.inputs.held.get(&instance.id).copied();
        let container = container_of(compiler, instance);
        if let (Some(held), Some(container)) = (held, container)
            && container.address.is_none()
            && let Some((_, subnet)) = network_of(compiler, container)
            && is_free_host(subnet, held)
            && taken.insert(held)
        {
            instance.address = Some(held);
        }
    }
    let leaving: BTreeSet<Ipv4Addr> = held_by_others(compiler, instances);
    let hosts = || -> BTreeMap<&str, ipnet::Ipv4AddrRange> {
        let networks = spec.networks.iter();
        networks
            .map(|(name, network)| (name.as_str(), network.subnet.hosts()))
            .collect()
    };
    let (mut free, mut rest) = (hosts(), hosts());
    let (seconds, firsts): (Vec<_>, Vec<_>) = instances
        .iter_mut()
        .partition(|instance| names::is_second_seat(&instance.id.name));
    for instance in firsts.into_iter().chain(seconds) {
        let Some(container) = container_of(compiler, instance) else {
            continue;
        };
        if let Some((network, subnet)) = network_of(compiler, container) {
            if instance.address.is_none() && container.address.is_none() {
                let mut find = |hosts: Option<&mut ipnet::Ipv4AddrRange>, anyone: bool| {
                    hosts?.find(|host| {
                        is_free_host(subnet, *host)
                            && (anyone || !leaving.contains(host))
                            && taken.insert(*host)
                    })
                };
                instance.address = find(free.get_mut(network), false)
                    .or_else(|| find(rest.get_mut(network), true));
                if instance.address.is_none() {
                    full(compiler, instance, network, subnet);
                }
            }
            instance.reached_at = instance.address.map(|address| address.to_string());
        }
    }
}

/// Addresses that are held by what this spec does not have, or has elsewhere.
fn held_by_others(compiler: &Compiler<'_>, instances: &[Instance<'_>]) -> BTreeSet<Ipv4Addr> {
    let stays: BTreeMap<&NodeId, Ipv4Addr> = instances
        .iter()
        .filter_map(|instance| Some((&instance.id, instance.address?)))
        .collect();
    let held = compiler.inputs.held.iter();
    held.filter(|(id, address)| stays.get(id) != Some(address))
        .map(|(_, address)| *address)
        .collect()
}

fn container_of<'a>(compiler: &Compiler<'a>, instance: &Instance<'_>) -> Option<&'a Container> {
    (instance.id.kind == Kind::Containers)
        .then(|| compiler.spec.containers.get(instance.group))
        .flatten()
}

fn network_of<'a>(compiler: &Compiler<'a>, container: &'a Container) -> Option<(&'a str, Ipv4Net)> {
    match &container.network {
        NetworkMode::Bridge(name) => compiler
            .spec
            .networks
            .get(name)
            .map(|network| (name.as_str(), network.subnet)),
        NetworkMode::Host | NetworkMode::None => None,
    }
}

/// An address that a container may have, leaving aside whether another has it.
fn is_free_host(subnet: Ipv4Net, address: Ipv4Addr) -> bool {
    subnet.contains(&address)
        && address != subnet.network()
        && address != subnet.broadcast()
        && Some(address) != gateway(subnet)
}

fn fixed(
    compiler: &mut Compiler<'_>,
    instance: &Instance<'_>,
    expression: &Expr,
    subnet: Ipv4Net,
    taken: &mut BTreeSet<Ipv4Addr>,
) -> Option<Ipv4Addr> {
    let section = At::section(instance.id.kind.word());
    let group = section.key(instance.group);
    let at = group.key("address");
    let text = compiler.text(&at, expression, &instance.scope())?;
    let Ok(address) = text.parse::<Ipv4Addr>() else {
        compiler
            .problems
            .add(&at, format!("`{text}` is not an IPv4 address"));
        return None;
    };
    if !is_free_host(subnet, address) {
        compiler.problems.add(
            &at,
            format!("`{address}` is no address for a container in `{subnet}`"),
        );
        return None;
    }
    if !taken.insert(address) {
        compiler.problems.add(
            &at,
            format!("`{address}` is the address of another container too"),
        );
        return None;
    }
    Some(address)
}

fn full(compiler: &mut Compiler<'_>, instance: &Instance<'_>, network: &str, subnet: Ipv4Net) {
    // A subnet without room for anybody is an error of the network's own.
    if gateway(subnet).is_none() {
        return;
    }
    let section = At::section(instance.id.kind.word());
    let group = section.key(instance.group);
    let (replicas, attached) = (group.key("replicas"), group.key("network"));
    let scaled = compiler.problems.has(&replicas);
    let order = container_of(compiler, instance).map(|container| container.workload.update.order);
    compiler.problems.advise(
        if scaled { &replicas } else { &attached },
        format!(
            "network `{network}` has no address left in `{subnet}` for `{}/{}`",
            instance.id.kind.word(),
            instance.group
        ),
        if order == Some(UpdateOrder::StartFirst) {
            "start-first takes two addresses for each instance: give the network a larger \
             subnet, or write `order: stop-first`"
        } else {
            "give the network a larger subnet, or the container fewer replicas"
        },
    );
}
