//! What is there now, read from the kernel each time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use ipnet::Ipv4Net;

use super::links::{self, Link};
use super::namespace::{self, Found, Namespace};
use super::{HostNetworks, attach, bridge, filter, mark};
use crate::plan::world::{AttachmentView, BridgeView, NetworkView};

impl HostNetworks {
    /// All that carries the stack's mark, and whatever has one of `names`.
    pub(super) fn view(&self, names: &[String]) -> io::Result<NetworkView> {
        let (all, addresses) = {
            let mut host = self.host();
            (links::links(&mut host)?, links::addresses(&mut host)?)
        };
        let spaces = self.names_of_interest(names, &all)?;
        // What has lost its name is let go, so that it can end.
        self.opened().retain(|name, _| spaces.contains(name));
        let mut attachments = foldhash::HashMap::default();
        for space in spaces {
            let wanted = names.contains(&space);
            if let Some(view) = self.attachment(&space, wanted, &all)? {
                attachments.insert(space, view);
            }
        }
        Ok(NetworkView {
            bridges: self.bridges(names, &all, &addresses),
            attachments,
            foreign: self.foreign_networks(&all, &addresses),
            forward: bridge::forwards(),
        })
    }

    /// The namespaces that may be ours: named in our way, asked for, or at the other end of a
    /// link of ours.
    fn names_of_interest(&self, names: &[String], all: &[Link]) -> io::Result<BTreeSet<String>> {
        let prefix = format!("hatchery-{}-", self.stack);
        let present = namespace::names()?
            .into_iter()
            .filter(|name| name.starts_with(&prefix) || names.contains(name));
        let linked = all
            .iter()
            .filter(|link| link.is("veth"))
            .filter_map(|link| mark::named(link, &self.stack))
            .map(str::to_owned);
        Ok(present.chain(linked).collect())
    }

    fn bridges(
        &self,
        names: &[String],
        all: &[Link],
        addresses: &[(u32, Ipv4Net)],
    ) -> BTreeMap<String, BridgeView> {
        let mut bridges = BTreeMap::new();
        for link in all {
            let ours = bridge::ours(link, &self.stack);
            let in_the_way = names.contains(&link.name) && mark::named(link, &self.stack).is_none();
            if !ours && !in_the_way {
                continue;
            }
            let view = BridgeView {
                ours,
                up: link.is("bridge") && link.up,
                addresses: addresses
                    .iter()
                    .filter_map(|(index, address)| (*index == link.index).then_some(*address))
                    .collect(),
                holder: mark::holder(link),
            };
            bridges.insert(link.name.clone(), view);
        }
        bridges
    }

    /// Who else holds which network.
    fn foreign_networks(
        &self,
        all: &[Link],
        addresses: &[(u32, Ipv4Net)],
    ) -> Vec<(String, Ipv4Net)> {
        let others: BTreeMap<u32, &Link> = all
            .iter()
            .filter(|link| mark::named(link, &self.stack).is_none())
            .map(|link| (link.index, link))
            .collect();
        let mut networks: Vec<(String, Ipv4Net)> = addresses
            .iter()
            .filter_map(|(index, address)| {
                let link = others.get(index)?;
                Some((link.name.clone(), *address))
            })
            .collect();
        networks.sort();
        networks.dedup();
        networks
    }

    /// How one attachment is; `None` for somebody else's that nobody asked for.
    fn attachment(
        &self,
        name: &str,
        wanted: bool,
        all: &[Link],
    ) -> io::Result<Option<AttachmentView>> {
        let outer = self.host_ends(all, name).next();
        let mut view = AttachmentView {
            // An end that is down, or one of several, is as good as none: it is to be mended.
            link: outer
                .filter(|end| end.up && self.host_ends(all, name).count() == 1)
                .map(|end| (end.name.clone(), master(end, all))),
            ..AttachmentView::default()
        };
        let inside = match self.namespace(name)? {
            Ok(inside) => inside,
            Err(Found::Other) => {
                view.foreign = Some("a file that is no namespace".to_owned());
                return Ok(wanted.then_some(view));
            }
            Err(_) => return Ok(Some(view)),
        };
        let within = links::links(&mut inside.route())?;
        if !self.owns(name, &within, all) {
            self.opened().remove(name);
            view.foreign = Some(stranger(&within));
            return Ok(wanted.then_some(view));
        }
        view.namespace = true;
        look_inside(&inside, &within, outer, &mut view)?;
        Ok(Some(view))
    }
}

/// Fills in what is inside the namespace.
fn look_inside(
    inside: &Namespace,
    within: &[Link],
    outer: Option<&Link>,
    view: &mut AttachmentView,
) -> io::Result<()> {
    if let Some(socket) = inside.filter().as_mut() {
        let hashes = filter::in_force(socket)?;
        // More than one is none of those that may be wanted.
        view.firewall = (!hashes.is_empty()).then(|| hashes.join("+"));
    }
    let usable = |inner: &&Link| inner.up && outer.is_some_and(|end| attach::paired(end, inner));
    let Some(inner) = attach::eth0(within).filter(usable) else {
        return Ok(());
    };
    let mut route = inside.route();
    let mut held = links::addresses(&mut route)?
        .into_iter()
        .filter_map(|(index, address)| (index == inner.index).then_some(address));
    // A second address is as wrong as a missing one.
    view.address = held.next().filter(|_| held.next().is_none());
    view.gateway = links::gateway(&mut route, inner.index)?;
    Ok(())
}

fn master(link: &Link, all: &[Link]) -> Option<String> {
    let master = all.iter().find(|other| Some(other.index) == link.master)?;
    Some(master.name.clone())
}

/// Whose a namespace is that is not ours.
fn stranger(within: &[Link]) -> String {
    let alias = within
        .iter()
        .find_map(|link| link.alias.as_ref().filter(|_| link.name == "lo"));
    match alias {
        Some(alias) => format!("the namespace `{alias}`"),
        None => "a namespace that this stack did not make".to_owned(),
    }
}
