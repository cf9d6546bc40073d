//! What is there of a node beside its lives, in words: links, files, registrations.

use crate::graph::desired::Node;
use crate::plan::context::{Context, detail};
use crate::plan::model::Detail;
use crate::plan::network::id_of_bridge;
use crate::plan::world::{AttachmentView, BridgeView, FileView};
use crate::spec::node::NodeId;

/// What is there of a node beside its lives.
pub(super) fn there(context: &Context<'_>, id: &NodeId) -> Vec<Detail> {
    let mut details = Vec::new();
    let network = &context.observed.network;
    match context.desired.nodes.get(id) {
        Some(Node::Registry(_)) => {
            let http = context.observed.registry.http;
            details.extend(http.map(|http| detail("listens", http)));
        }
        Some(Node::Network(wanted)) => {
            let bridge = network.bridges.get(&wanted.bridge);
            details.push(bridge_words(&wanted.bridge, bridge));
        }
        Some(Node::Workload(workload)) => {
            if let Some(attachment) = &workload.attachment {
                let view = network.attachments.get(&attachment.namespace);
                details.extend(attachment_words(&attachment.namespace, view));
            }
            if let Some(container) = &workload.run.container {
                details.push(file_words(context, "hosts file", &container.hosts));
            }
            for path in &workload.watch {
                details.push(file_words(context, "watched file", path));
            }
        }
        Some(Node::Endpoint(endpoint)) => {
            let registered = context.observed.registered.get(&endpoint.service_id);
            let words = match registered {
                Some(_) => format!("as `{}`", endpoint.service_id),
                None => "no".to_owned(),
            };
            details.push(detail("registered", words));
        }
        Some(Node::Template(template)) => {
            details.push(file_words(context, "file", &template.destination));
        }
        Some(Node::Check) => {}
        None => {
            let bridge = network
                .bridges
                .iter()
                .find(|(name, _)| id_of_bridge(name) == *id);
            details.extend(bridge.map(|(name, view)| bridge_words(name, Some(view))));
        }
    }
    details
}

fn bridge_words(name: &str, view: Option<&BridgeView>) -> Detail {
    let words = match view {
        None => format!("`{name}` is not there"),
        Some(view) if !view.ours => format!("`{name}` is held by {}", view.holder),
        Some(view) => {
            let up = if view.up { "up" } else { "down" };
            let addresses: Vec<String> = view.addresses.iter().map(ToString::to_string).collect();
            format!("`{name}` is {up} with {}", addresses.join(", "))
        }
    };
    detail("bridge", words)
}

fn attachment_words(name: &str, view: Option<&AttachmentView>) -> Vec<Detail> {
    let Some(view) = view.filter(|view| view.namespace) else {
        return vec![detail("namespace", format!("`{name}` is not there"))];
    };
    let mut details = vec![match &view.foreign {
        Some(holder) => detail("namespace", format!("`{name}` is held by {holder}")),
        None => detail("namespace", format!("`{name}`")),
    }];
    let link = match &view.link {
        Some((link, Some(bridge))) => format!("`{link}` in bridge `{bridge}`"),
        Some((link, None)) => format!("`{link}` in no bridge"),
        None => "not there".to_owned(),
    };
    details.push(detail("link", link));
    details.extend(view.address.map(|address| detail("address", address)));
    let firewall = if view.firewall.is_some() {
        "set"
    } else {
        "none"
    };
    details.push(detail("firewall", firewall));
    details
}

fn file_words(context: &Context<'_>, what: &str, path: &std::path::Path) -> Detail {
    let state = match context.observed.files.get(path) {
        None | Some(FileView::Missing) => "is not there".to_owned(),
        Some(FileView::Unreadable(why)) => format!("cannot be read: {why}"),
        Some(FileView::File { mark: None, .. }) if what == "file" => {
            "was not written by hatchery".to_owned()
        }
        Some(FileView::File { hash, mark, .. }) => {
            let edited = mark.as_ref().is_some_and(|mark| mark.hash != *hash);
            let edited = if edited {
                ", edited since it was written"
            } else {
                ""
            };
            let short: String = hash.chars().take(16).collect();
            format!("is there ({short}{edited})")
        }
    };
    detail(what, format!("`{}` {state}", path.display()))
}
