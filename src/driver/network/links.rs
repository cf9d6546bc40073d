//! Links, addresses and routes of one network namespace, over its routing socket
//! (`linux/rtnetlink.h`).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::RawFd;

use ipnet::Ipv4Net;

use super::socket::Socket;
use super::wire::{Message, attributes, ifla, number, text};

const REQUEST: i32 = libc::NLM_F_REQUEST;
const CHANGE: i32 = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
const MAKE: i32 = CHANGE | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
const SET: i32 = CHANGE | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
const DUMP: i32 = REQUEST | libc::NLM_F_DUMP;
const UP: u32 = libc::IFF_UP as u32;
const INET: u8 = libc::AF_INET as u8;

/// A link, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number, unique in its namespace while it lives.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its alias.
    pub alias: Option<String>,
    /// `bridge`, `veth` …; `None` for hardware and loopback.
    pub kind: Option<String>,
    /// Whether it is up.
    pub up: bool,
    /// Whether packets pass: the kernel sets this going shortly after a link is taken up, and
    /// drops what is sent before.
    pub running: bool,
    /// Whether the bridge that it is in passes its packets on.
    pub forwarding: bool,
    /// The bridge that it is in.
    pub master: Option<u32>,
    /// For one end of a pair, the number of the other, in the other's namespace.
    pub peer: Option<u32>,
    /// Its hardware address, where it is one of six bytes.
    pub hardware: Option<[u8; 6]>,
}

impl Link {
    /// Whether it is of this kind.
    pub fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }
}

/// What of a link is to change.
#[derive(Debug, Default, Clone)]
pub(super) struct LinkChange<'a> {
    /// A new name.
    pub name: Option<&'a str>,
    /// A new alias.
    pub alias: Option<&'a str>,
    /// The bridge that it is to be in.
    pub master: Option<u32>,
    /// Whether it is to be taken up; `false` leaves it as it is.
    pub up: bool,
}

/// All links.
pub(super) fn links(socket: &mut Socket) -> io::Result<Vec<Link>> {
    let ask = Message::new(libc::RTM_GETLINK, DUMP, &link_header(0, 0))
        .number(ifla::EXT_MASK, ifla::FILTER_SKIP_STATS);
    let bodies = socket.dump(&ask, libc::RTM_NEWLINK)?;
    Ok(bodies.iter().filter_map(|body| link(body)).collect())
}

/// The number of the link called `name`.
pub(super) fn index(socket: &mut Socket, name: &str) -> io::Result<u32> {
    let found = links(socket)?.into_iter().find(|link| link.name == name);
    let link = found.ok_or_else(|| io::Error::other(format!("the link `{name}` is gone again")))?;
    Ok(link.index)
}

/// All IPv4 addresses, each with the number of its link.
pub(super) fn addresses(socket: &mut Socket) -> io::Result<Vec<(u32, Ipv4Net)>> {
    let ask = Message::new(libc::RTM_GETADDR, DUMP, &[INET, 0, 0, 0, 0, 0, 0, 0]);
    let bodies = socket.dump(&ask, libc::RTM_NEWADDR)?;
    Ok(bodies.iter().filter_map(|body| address(body)).collect())
}

/// The gateway of the default route through the link `index`; the one that the kernel
/// prefers if there are several.
pub(super) fn gateway(socket: &mut Socket, index: u32) -> io::Result<Option<Ipv4Addr>> {
    let ask = Message::new(libc::RTM_GETROUTE, DUMP, &route_header(0));
    let bodies = socket.dump(&ask, libc::RTM_NEWROUTE)?;
    let routes = bodies.iter().filter_map(|body| route(body));
    let best = routes
        .filter(|route| route.link == index)
        .min_by_key(|route| route.priority);
    Ok(best.map(|route| route.gateway))
}

/// Makes a bridge without spanning tree, so that its ports forward at once.
pub(super) fn make_bridge(socket: &mut Socket, name: &str, hardware: [u8; 6]) -> io::Result<()> {
    let message = Message::new(libc::RTM_NEWLINK, MAKE, &link_header(0, 0))
        .text(ifla::IFNAME, name)
        .attribute(ifla::ADDRESS, &hardware);
    let settings = [(ifla::BR_STP_STATE, 0), (ifla::BR_FORWARD_DELAY, 0)];
    socket.change(bridge_settings(message, &settings))
}

/// Sets what [`make_bridge`] sets on a bridge that exists.
pub(super) fn mend_bridge(socket: &mut Socket, index: u32) -> io::Result<()> {
    // One after the other: the kernel takes no such delay while the spanning tree is on.
    for setting in [(ifla::BR_STP_STATE, 0), (ifla::BR_FORWARD_DELAY, 0)] {
        let message = Message::new(libc::RTM_NEWLINK, CHANGE, &link_header(index, 0));
        socket.change(bridge_settings(message, &[setting]))?;
    }
    Ok(())
}

fn bridge_settings(message: Message, settings: &[(u16, u32)]) -> Message {
    message.nested(ifla::LINKINFO, |info| {
        info.text(ifla::INFO_KIND, "bridge")
            .nested(ifla::INFO_DATA, |data| {
                let set = |data: Message, (kind, value): &(u16, u32)| data.number(*kind, *value);
                settings.iter().fold(data, set)
            })
    })
}

/// Makes a pair: `name` here, `eth0` with the address `hardware` in the namespace behind
/// the open file `namespace`.
pub(super) fn make_pair(
    socket: &mut Socket,
    name: &str,
    hardware: [u8; 6],
    namespace: RawFd,
) -> io::Result<()> {
    let peer = |data: Message| {
        data.nested(ifla::VETH_PEER, |peer| {
            peer.fixed(&link_header(0, 0))
                .text(ifla::IFNAME, "eth0")
                .attribute(ifla::ADDRESS, &hardware)
                .attribute(ifla::NET_NS_FD, &namespace.to_ne_bytes())
        })
    };
    let message = Message::new(libc::RTM_NEWLINK, MAKE, &link_header(0, 0))
        .text(ifla::IFNAME, name)
        .nested(ifla::LINKINFO, |pair| {
            pair.text(ifla::INFO_KIND, "veth")
                .nested(ifla::INFO_DATA, peer)
        });
    socket.change(message)
}

/// Changes a link. One message is one change: nobody sees half of it.
pub(super) fn change(socket: &mut Socket, index: u32, change: &LinkChange<'_>) -> io::Result<()> {
    let flags = if change.up { UP } else { 0 };
    let mut message = Message::new(libc::RTM_SETLINK, CHANGE, &link_header(index, flags));
    if let Some(name) = change.name {
        message = message.text(ifla::IFNAME, name);
    }
    if let Some(alias) = change.alias {
        message = message.text(ifla::IFALIAS, alias);
    }
    if let Some(master) = change.master {
        message = message.number(ifla::MASTER, master);
    }
    socket.change(message)
}

/// Removes a link; it is no error when it is gone already.
pub(super) fn remove(socket: &mut Socket, index: u32) -> io::Result<()> {
    let message = Message::new(libc::RTM_DELLINK, CHANGE, &link_header(index, 0));
    match socket.change(message) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        outcome => outcome,
    }
}

/// Gives the link `index` exactly this IPv4 address.
pub(super) fn set_address(socket: &mut Socket, index: u32, wanted: Ipv4Net) -> io::Result<()> {
    let held: Vec<Ipv4Net> = addresses(socket)?
        .into_iter()
        .filter_map(|(link, address)| (link == index).then_some(address))
        .collect();
    for address in held.iter().filter(|address| **address != wanted) {
        let message = address_message(libc::RTM_DELADDR, CHANGE, index, *address);
        match socket.change(message) {
            // The kernel removes a subnet's second address along with its first.
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {}
            outcome => outcome?,
        }
    }
    let message = address_message(libc::RTM_NEWADDR, SET, index, wanted)
        .attribute(libc::IFA_BROADCAST, &wanted.broadcast().octets());
    socket.change(message)
}

/// Sets the default route.
pub(super) fn set_gateway(socket: &mut Socket, index: u32, gateway: Ipv4Addr) -> io::Result<()> {
    let message = Message::new(libc::RTM_NEWROUTE, SET, &route_header(libc::RT_TABLE_MAIN))
        .attribute(libc::RTA_GATEWAY, &gateway.octets())
        .number(libc::RTA_OIF, index);
    socket.change(message)
}

fn address_message(kind: u16, flags: i32, index: u32, address: Ipv4Net) -> Message {
    let [a, b, c, d] = index.to_ne_bytes();
    let header = [INET, address.prefix_len(), 0, 0, a, b, c, d];
    let octets = address.addr().octets();
    Message::new(kind, flags, &header)
        .attribute(libc::IFA_LOCAL, &octets)
        .attribute(libc::IFA_ADDRESS, &octets)
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    let fields = index.to_ne_bytes().into_iter();
    // The flags, and then the mask that says which of them count.
    let fields = fields.chain(flags.to_ne_bytes()).chain(flags.to_ne_bytes());
    for (slot, byte) in header.iter_mut().skip(4).zip(fields) {
        *slot = byte;
    }
    header
}

/// `struct rtmsg` of an IPv4 default route.
fn route_header(table: u8) -> [u8; 12] {
    let [scope, protocol, kind] = if table == 0 {
        [0, 0, 0]
    } else {
        [
            libc::RT_SCOPE_UNIVERSE,
            libc::RTPROT_BOOT,
            libc::RTN_UNICAST,
        ]
    };
    [INET, 0, 0, 0, table, protocol, scope, kind, 0, 0, 0, 0]
}

fn link(body: &[u8]) -> Option<Link> {
    let mut link = Link {
        index: number(body, 4)?,
        name: String::new(),
        alias: None,
        kind: None,
        up: number(body, 8)? & UP != 0,
        running: false,
        forwarding: false,
        master: None,
        peer: None,
        hardware: None,
    };
    let (mut operating, mut queueing) = (false, false);
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            ifla::IFNAME => link.name = text(value),
            ifla::IFALIAS => link.alias = Some(text(value)).filter(|alias| !alias.is_empty()),
            ifla::MASTER => link.master = number(value, 0),
            ifla::ADDRESS => link.hardware = value.try_into().ok(),
            ifla::LINK => link.peer = number(value, 0),
            ifla::OPERSTATE => operating = value == [ifla::OPER_UP],
            // `noop` is the queue that drops everything.
            ifla::QDISC => queueing = text(value) != "noop",
            ifla::LINKINFO => nature(&mut link, value),
            _ => {}
        }
    }
    link.running = operating && queueing;
    Some(link)
}

/// What kind of link it is, and how it is as a bridge's port.
fn nature(link: &mut Link, value: &[u8]) {
    for (kind, value) in attributes(value) {
        match kind {
            ifla::INFO_KIND => link.kind = Some(text(value)),
            ifla::INFO_PORT_DATA => {
                link.forwarding = attributes(value)
                    .any(|part| part == (ifla::PORT_STATE, &[ifla::PORT_FORWARDING]));
            }
            _ => {}
        }
    }
}

fn address(body: &[u8]) -> Option<(u32, Ipv4Net)> {
    let prefix = *body.get(1)?;
    let index = number(body, 4)?;
    let (_, value) = attributes(body.get(8..)?).find(|(kind, _)| *kind == libc::IFA_LOCAL)?;
    Some((index, Ipv4Net::new(ipv4(value)?, prefix).ok()?))
}

struct Route {
    link: u32,
    gateway: Ipv4Addr,
    priority: u32,
}

/// A default route of the main table; `None` for every other.
fn route(body: &[u8]) -> Option<Route> {
    let (length, table) = (*body.get(1)?, *body.get(4)?);
    if length != 0 || table != libc::RT_TABLE_MAIN {
        return None;
    }
    let (mut link, mut gateway, mut priority) = (None, None, 0);
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            libc::RTA_OIF => link = number(value, 0),
            libc::RTA_GATEWAY => gateway = ipv4(value),
            libc::RTA_PRIORITY => priority = number(value, 0)?,
            _ => {}
        }
    }
    Some(Route {
        link: link?,
        gateway: gateway?,
        priority,
    })
}

fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = value.get(..4)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets))
}
