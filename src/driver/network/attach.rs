//! Making and removing a container's place in a network.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;

use super::links::{self, Link, LinkChange};
use super::namespace::{self, Found, Namespace};
use super::{ErrorKind, HostNetworks, Result, bridge, cannot, error, foreign, mark};
use crate::graph::desired::Attachment;

/// How long a new link may take until packets pass; a millisecond on an idle machine, tens of
/// them on a busy one.
const CARRIER_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at it.
const CARRIER_PAUSE: Duration = Duration::from_millis(1);

impl HostNetworks {
    /// Makes or mends all that belongs to `attachment`.
    pub(super) fn settle(&self, attachment: &Attachment) -> Result<()> {
        let what = format!(
            "cannot attach `{}` to `networks/{}`",
            attachment.namespace, attachment.network
        );
        let failed = |error| cannot(&what, &error);
        let bridge = self.check_links(attachment, &what)?;
        let inside = self.settle_namespace(&attachment.namespace, &what)?;
        let pair = self.settle_pair(attachment, &inside).map_err(failed)?;
        let (outer, inner) = pair;
        if !outer.up || outer.master != Some(bridge) {
            let change = LinkChange {
                master: Some(bridge),
                up: true,
                ..LinkChange::default()
            };
            links::change(&mut self.host(), outer.index, &change).map_err(failed)?;
        }
        let up = LinkChange {
            up: true,
            ..LinkChange::default()
        };
        let address = Ipv4Net::new(attachment.address, attachment.prefix)
            .map_err(|error| failed(io::Error::other(error)))?;
        {
            let mut route = inside.route();
            links::change(&mut route, inner, &up).map_err(failed)?;
            links::set_address(&mut route, inner, address).map_err(failed)?;
            links::set_gateway(&mut route, inner, attachment.gateway).map_err(failed)?;
        }
        self.wait_for_carrier(&inside, outer.index, bridge)
            .map_err(failed)
    }

    /// Waits until packets pass. Whoever connected earlier would lose the first packet, and a
    /// second until it is sent again.
    fn wait_for_carrier(&self, inside: &Namespace, outer: u32, bridge: u32) -> io::Result<()> {
        let deadline = Instant::now() + CARRIER_PATIENCE;
        loop {
            let all = links::links(&mut self.host())?;
            let within = links::links(&mut inside.route())?;
            let find = |index| all.iter().find(|link| link.index == index);
            let out = find(outer).is_some_and(|link| link.running && link.forwarding);
            let through = find(bridge).is_some_and(|link| link.running);
            if out && through && eth0(&within).is_some_and(|link| link.running) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let message = format!(
                    "the link passes no packets after {} s",
                    CARRIER_PATIENCE.as_secs()
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            thread::sleep(CARRIER_PAUSE);
        }
    }

    /// Refuses somebody else's link of the wanted name; the bridge's number.
    fn check_links(&self, attachment: &Attachment, what: &str) -> Result<u32> {
        let all = links::links(&mut self.host()).map_err(|error| cannot(what, &error))?;
        let find = |name: &str| all.iter().find(|link| link.name == name);
        let taken = find(&attachment.link)
            .filter(|link| mark::named(link, &self.stack) != Some(&attachment.namespace));
        if let Some(link) = taken {
            return Err(foreign(format!(
                "{what}: the link `{}` belongs to {}; remove that link or rename the container",
                link.name,
                mark::holder(link)
            )));
        }
        let bridge = find(&attachment.bridge).filter(|link| bridge::ours(link, &self.stack));
        bridge.map(|link| link.index).ok_or_else(|| {
            let message = format!("{what}: this stack has no bridge `{}`", attachment.bridge);
            error(ErrorKind::Gone, message)
        })
    }

    /// The namespace, made anew if there is none.
    fn settle_namespace(&self, name: &str, what: &str) -> Result<Arc<Namespace>> {
        let failed = |error| cannot(what, &error);
        match self.owned(name).map_err(failed)? {
            Ok(inside) => {
                inside.mend().map_err(failed)?;
                return Ok(inside);
            }
            Err(Found::Absent) => {}
            Err(Found::Stale) => namespace::remove(name).map_err(failed)?,
            Err(Found::Other | Found::Live(..)) => return Err(taken(what, name)),
        }
        namespace::make(name, &mark::alias(&self.stack, name)).map_err(failed)?;
        match self.owned(name).map_err(failed)? {
            Ok(inside) => Ok(inside),
            Err(_) => Err(taken(what, name)),
        }
    }

    /// The host end, and the number of `eth0`; both new unless they belong together.
    fn settle_pair(&self, attachment: &Attachment, inside: &Namespace) -> io::Result<(Link, u32)> {
        let name = attachment.namespace.as_str();
        // Held throughout, so that no other thread takes a half-made pair for a leftover.
        let mut host = self.host();
        let all = links::links(&mut host)?;
        let within = links::links(&mut inside.route())?;
        let hardware = mark::hardware(&self.stack, &attachment.address.to_string());
        let mut outer = self.host_ends(&all, name);
        if let (Some(end), Some(inner)) = (outer.next(), eth0(&within)) {
            let alone = self.host_ends(&all, name).count() == 1;
            let same = end.name == attachment.link && inner.hardware == Some(hardware);
            if alone && same && paired(end, inner) {
                return Ok((end.clone(), inner.index));
            }
        }
        let draft = mark::draft(&self.stack, name);
        let drafts = all.iter().filter(|link| link.name == draft);
        for end in self.host_ends(&all, name).chain(drafts) {
            links::remove(&mut host, end.index)?;
        }
        // Its other end may be anywhere; removing a host end above took the right one along.
        let within = links::links(&mut inside.route())?;
        if let Some(inner) = eth0(&within) {
            links::remove(&mut inside.route(), inner.index)?;
        }
        links::make_pair(&mut host, &draft, hardware, inside.descriptor())?;
        let index = links::index(&mut host, &draft)?;
        let alias = mark::alias(&self.stack, name);
        let change = LinkChange {
            name: Some(&attachment.link),
            alias: Some(&alias),
            ..LinkChange::default()
        };
        links::change(&mut host, index, &change)?;
        let outer = links::links(&mut host)?
            .into_iter()
            .find(|link| link.index == index);
        let within = links::links(&mut inside.route())?;
        match (outer, eth0(&within)) {
            (Some(outer), Some(inner)) => Ok((outer, inner.index)),
            _ => Err(io::Error::other("the new link is gone again")),
        }
    }

    /// Removes the namespace `name` and its link. Their being gone is no error.
    pub(super) fn release(&self, name: &str) -> Result<()> {
        let what = format!("cannot remove the namespace `{name}`");
        let failed = |error| cannot(&what, &error);
        let found = self.owned(name).map_err(failed)?;
        {
            let mut host = self.host();
            let all = links::links(&mut host).map_err(failed)?;
            for end in self.host_ends(&all, name) {
                links::remove(&mut host, end.index).map_err(failed)?;
            }
        }
        match found {
            Ok(inside) => {
                let mut route = inside.route();
                let within = links::links(&mut route).map_err(failed)?;
                if let Some(inner) = eth0(&within) {
                    links::remove(&mut route, inner.index).map_err(failed)?;
                }
            }
            Err(Found::Absent | Found::Stale) => {}
            Err(Found::Other | Found::Live(..)) => return Err(taken(&what, name)),
        }
        self.opened().remove(name);
        namespace::remove(name).map_err(failed)
    }

    /// The live namespace `name` if it is this stack's, or what is there instead.
    pub(super) fn owned(
        &self,
        name: &str,
    ) -> io::Result<std::result::Result<Arc<Namespace>, Found>> {
        let inside = match self.namespace(name)? {
            Ok(inside) => inside,
            Err(found) => return Ok(Err(found)),
        };
        let within = links::links(&mut inside.route())?;
        let all = links::links(&mut self.host())?;
        if self.owns(name, &within, &all) {
            return Ok(Ok(inside));
        }
        self.opened().remove(name);
        Ok(Err(Found::Other))
    }

    /// Whether the namespace `name`, with the links `within`, is this stack's: its loopback
    /// says so, or the pair does whose host end carries our mark.
    pub(super) fn owns(&self, name: &str, within: &[Link], all: &[Link]) -> bool {
        let alias = mark::alias(&self.stack, name);
        let marked = within
            .iter()
            .any(|link| link.name == "lo" && link.alias.as_ref() == Some(&alias));
        let linked = eth0(within)
            .is_some_and(|inner| self.host_ends(all, name).any(|end| paired(end, inner)));
        marked || linked
    }

    /// The host ends that are marked as the namespace's.
    pub(super) fn host_ends<'a>(
        &'a self,
        all: &'a [Link],
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Link> {
        all.iter().filter(move |link| {
            link.is("veth") && mark::named(link, &self.stack) == Some(namespace)
        })
    }
}

/// The link inside that leads out.
pub(super) fn eth0(within: &[Link]) -> Option<&Link> {
    within.iter().find(|link| link.name == "eth0")
}

/// Whether each is the other's peer.
pub(super) fn paired(outer: &Link, inner: &Link) -> bool {
    outer.peer == Some(inner.index) && inner.peer == Some(outer.index)
}

fn taken(what: &str, name: &str) -> super::DriverError {
    foreign(format!(
        "{what}: `{}/{name}` was not made by this stack; remove it or rename the container",
        namespace::FOLDER
    ))
}
