//! The registry's listener, bridges, and what stands against them.

use super::context::{Context, Level, Planned, detail, status};
use super::model::{Change, Gate, Item, NodeState, Step};
use super::world::{AttachmentView, BridgeView, RegistryView};
use crate::graph::desired::{Attachment, NetworkNode, WorkloadNode};
use crate::spec::model::Registry;
use crate::spec::node::{Kind, NodeId};

/// Plans the registry.
pub(super) fn plan_registry(context: &Context<'_>, id: &NodeId, registry: &Registry) -> Planned {
    let view = &context.observed.registry;
    let mut running = status(id, NodeState::Running, "");
    running.address = view.http.map(|address| address.to_string());
    let wanted = RegistryView::opened(registry);
    if *view == wanted {
        return Planned::idle(running, Level::FULL);
    }
    let mut details = vec![detail("kind", "embedded")];
    if let Some(http) = registry.http {
        details.push(detail("http", http));
    }
    let (change, reason) = match view.http {
        Some(_) if view.http != wanted.http => (Change::Change, "its address changed"),
        Some(_) if view.token_file != wanted.token_file => {
            (Change::Change, "its token is in another file")
        }
        Some(_) => (Change::Change, "its token changed"),
        None if view.up => (Change::Add, "it does not listen"),
        None => (Change::Add, "not running"),
    };
    // Readers from outside must not take an adopted stack, not registered again or not asked
    // yet, for one that has nothing to offer.
    let blind = context.probes_unanswered();
    let item = Item {
        node: id.clone(),
        change,
        reason: reason.to_owned(),
        gate: if blind {
            Gate::Waiting(vec!["the first answers after the adoption".to_owned()])
        } else {
            Gate::Ready
        },
        steps: if blind {
            Vec::new()
        } else {
            vec![Step::OpenRegistry(registry.clone())]
        },
        details,
        diff: None,
    };
    // The catalog itself serves the stack even while its address is being moved.
    let level = if view.up {
        Level::FULL
    } else {
        Level::default()
    };
    Planned {
        status: status(id, NodeState::Waiting, reason),
        item: Some(item),
        level,
        wake: None,
    }
}

/// Plans one bridge.
pub(super) fn plan_network(context: &Context<'_>, id: &NodeId, network: &NetworkNode) -> Planned {
    let view = context.observed.network.bridges.get(&network.bridge);
    if let Some(why) = taken(context, network, view) {
        return stopped_by(id, network, why);
    }
    let whole = view.is_some_and(|view| {
        view.up
            && view
                .addresses
                .iter()
                .any(|address| is_gateway(network, address))
    });
    let forward = !network.forward || context.observed.network.forward;
    if whole && forward {
        let mut running = status(id, NodeState::Running, "");
        running.address = Some(network.subnet.to_string());
        return Planned::idle(running, Level::FULL);
    }
    let (change, reason) = match view {
        None => (Change::Add, "not there"),
        Some(_) if !forward && whole => (Change::Change, "net.ipv4.ip_forward is off"),
        Some(_) => (Change::Change, "it is not up with its address"),
    };
    let mut details = vec![
        detail("bridge", &network.bridge),
        detail("subnet", network.subnet),
        detail("address", network.gateway),
    ];
    if network.forward {
        details.push(detail("forward", true));
    }
    let mut waits = context.lacking(id);
    waits.dedup();
    let (gate, steps) = if waits.is_empty() {
        (Gate::Ready, vec![Step::CreateNetwork(network.clone())])
    } else {
        (Gate::Waiting(waits), Vec::new())
    };
    let item = Item {
        node: id.clone(),
        change,
        reason: reason.to_owned(),
        gate,
        steps,
        details,
        diff: None,
    };
    Planned {
        status: status(id, NodeState::Waiting, reason),
        item: Some(item),
        level: Level::default(),
        wake: None,
    }
}

fn is_gateway(network: &NetworkNode, address: &ipnet::Ipv4Net) -> bool {
    address.addr() == network.gateway && address.prefix_len() == network.subnet.prefix_len()
}

/// Who holds the bridge's name or its subnet, if somebody else does.
fn taken(
    context: &Context<'_>,
    network: &NetworkNode,
    view: Option<&BridgeView>,
) -> Option<String> {
    if let Some(view) = view.filter(|view| !view.ours) {
        return Some(format!(
            "cannot make bridge `{}`: the name is taken by {}; rename the network",
            network.bridge, view.holder
        ));
    }
    if view.is_some() {
        return None;
    }
    let (link, theirs) = context
        .observed
        .network
        .foreign
        .iter()
        .find(|(_, theirs)| {
            theirs.contains(&network.subnet.network()) || network.subnet.contains(&theirs.network())
        })?;
    Some(format!(
        "cannot make bridge `{}`: its subnet {} overlaps with {} of link `{link}`; choose \
         another `subnet`",
        network.bridge,
        network.subnet,
        theirs.trunc()
    ))
}

fn stopped_by(id: &NodeId, network: &NetworkNode, why: String) -> Planned {
    let item = Item {
        node: id.clone(),
        change: Change::Add,
        reason: why.clone(),
        gate: Gate::Blocked(why.clone()),
        steps: Vec::new(),
        details: vec![detail("subnet", network.subnet)],
        diff: None,
    };
    Planned {
        status: status(id, NodeState::Failed, why),
        item: Some(item),
        level: Level::default(),
        wake: None,
    }
}

/// Whether a namespace, its link, address and route are as wanted.
pub(super) fn attached(view: &AttachmentView, wanted: &Attachment) -> bool {
    let link = view.link.as_ref().is_some_and(|(link, bridge)| {
        *link == wanted.link && bridge.as_ref() == Some(&wanted.bridge)
    });
    let address = view.address.is_some_and(|address| {
        address.addr() == wanted.address && address.prefix_len() == wanted.prefix
    });
    view.namespace && link && address && view.gateway == Some(wanted.gateway)
}

/// Who holds the address of a workload, or the name of its namespace, if somebody else does.
pub(super) fn blocked(context: &Context<'_>, node: &WorkloadNode) -> Option<String> {
    let attachment = node.attachment.as_ref()?;
    let address = attachment.address;
    let foreign = &context.observed.network.foreign;
    if let Some((link, _)) = foreign.iter().find(|(_, theirs)| theirs.addr() == address) {
        return Some(format!(
            "cannot use address {address}: it is held by link `{link}`; give it another `address`, \
             or its network another `subnet`"
        ));
    }
    let view = context
        .observed
        .network
        .attachments
        .get(&attachment.namespace)?;
    let holder = view.foreign.as_ref()?;
    Some(format!(
        "cannot use namespace `{}`: it is held by {holder}",
        attachment.namespace
    ))
}

/// Which other instance of this stack has the address that a workload is to get: two of them
/// would answer in turn.
pub(super) fn address_taken(context: &Context<'_>, node: &WorkloadNode) -> Option<String> {
    let attachment = node.attachment.as_ref()?;
    let holder = context.holders().get(&attachment.address)?;
    let other = holder.iter().find(|name| **name != attachment.namespace)?;
    let other = crate::graph::container_of(&context.desired.stack, other)
        .map_or_else(|| format!("`{other}`"), |node| node.to_string());
    Some(format!("{other} to give up {}", attachment.address))
}

/// Whether nobody is in a namespace that has another address than it is to have, one that another
/// instance waits for.
pub(super) fn in_the_way(context: &Context<'_>, due: &Attachment, view: &AttachmentView) -> bool {
    let Some(address) = view.address.map(|address| address.addr()) else {
        return false;
    };
    let node = crate::graph::container_of(&context.desired.stack, &due.namespace);
    address != due.address
        && node.is_some_and(|node| context.current(&node).is_none() && !context.is_busy(&node))
        && context.is_due(address)
}

/// The old link of an instance that is about to start, where it has to go first.
pub(super) fn old_link(context: &Context<'_>, node: &WorkloadNode) -> Option<String> {
    let due = node.attachment.as_ref()?;
    let attachments = &context.observed.network.attachments;
    let view = attachments.get(&due.namespace)?;
    in_the_way(context, due, view).then(|| "its old link to go".to_owned())
}

/// The id of a bridge that left the spec.
pub(super) fn id_of_bridge(bridge: &str) -> NodeId {
    NodeId::new(Kind::Networks, bridge)
}
