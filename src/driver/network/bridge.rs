//! Making and removing bridges.

use std::fs;
use std::io;

use ipnet::Ipv4Net;

use super::links::{self, Link, LinkChange};
use super::mark;
use super::socket::Socket;
use super::{Result, cannot, foreign};
use crate::graph::desired::NetworkNode;

/// The switch of IPv4 forwarding on the host.
pub(super) const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Makes the bridge of `network`, or mends it.
pub(super) fn create(host: &mut Socket, stack: &str, network: &NetworkNode) -> Result<()> {
    let name = network.bridge.as_str();
    let what = format!(
        "cannot make the bridge `{name}` of `networks/{}`",
        network.name
    );
    let failed = |error| cannot(&what, &error);
    let all = links::links(host).map_err(failed)?;
    let index = match all.iter().find(|link| link.name == name) {
        Some(link) if ours(link, stack) => {
            links::mend_bridge(host, link.index).map_err(failed)?;
            link.index
        }
        Some(link) => {
            let holder = mark::holder(link);
            return Err(foreign(format!(
                "{what}: the name is taken by {holder}; remove that link or rename the network"
            )));
        }
        None => draft(host, stack, name, &all).map_err(failed)?,
    };
    let alias = mark::alias(stack, &network.name);
    let settled = LinkChange {
        name: Some(name),
        alias: Some(&alias),
        up: true,
        ..LinkChange::default()
    };
    if let Err(error) = links::change(host, index, &settled) {
        // The name may have been taken meanwhile; the first error is the one that tells.
        let drafted = all.iter().all(|link| link.index != index);
        let _ = drafted.then(|| links::remove(host, index));
        return Err(failed(error));
    }
    let prefix = network.subnet.prefix_len();
    let address =
        Ipv4Net::new(network.gateway, prefix).map_err(|error| failed(io::Error::other(error)))?;
    links::set_address(host, index, address).map_err(failed)?;
    if network.forward && !forwards() {
        fs::write(FORWARD, "1").map_err(|error| {
            let what = format!("cannot turn on forwarding for `networks/{}`", network.name);
            cannot(&what, &error)
        })?;
    }
    Ok(())
}

/// Makes a bridge under the name that says that it is not complete; its number.
fn draft(host: &mut Socket, stack: &str, name: &str, all: &[Link]) -> io::Result<u32> {
    let draft = mark::draft(stack, name);
    if let Some(left) = all.iter().find(|link| link.name == draft) {
        links::remove(host, left.index)?;
    }
    links::make_bridge(host, &draft, mark::hardware(stack, name))?;
    links::index(host, &draft)
}

/// Removes a bridge of ours, whole or half-made. Its being gone is no error.
pub(super) fn remove(host: &mut Socket, stack: &str, bridge: &str) -> Result<()> {
    let what = format!("cannot remove the bridge `{bridge}`");
    let failed = |error| cannot(&what, &error);
    let all = links::links(host).map_err(failed)?;
    match all.iter().find(|link| link.name == bridge) {
        None => Ok(()),
        Some(link) if ours(link, stack) => links::remove(host, link.index).map_err(failed),
        Some(link) => {
            let holder = mark::holder(link);
            Err(foreign(format!("{what}: it belongs to {holder}")))
        }
    }
}

/// Whether this is a bridge of `stack`, whole or half-made.
pub(super) fn ours(link: &Link, stack: &str) -> bool {
    let drafted = link.name.starts_with(&mark::draft_prefix(stack)) && link.alias.is_none();
    link.is("bridge") && (drafted || mark::named(link, stack).is_some())
}

/// Whether the host forwards IPv4.
pub(super) fn forwards() -> bool {
    fs::read_to_string(FORWARD).is_ok_and(|text| text.trim() == "1")
}
