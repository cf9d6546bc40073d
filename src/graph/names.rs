//! Names on the host: interfaces, namespaces, machines, registry ids. Pure functions of the
//! stack and the instance, so that what runs is found again.

use crate::spec::node::{Kind, NodeId};

/// Longest name of a network interface, in bytes: the kernel's IFNAMSIZ less its NUL.
const INTERFACE: usize = 15;

/// Longest name of a machine, in bytes: the kernel's bound of a hostname.
const MACHINE: usize = 64;

/// What stands behind an instance's name in that of its second seat. No name of a spec holds a
/// dot, so that a seat is never taken for an instance of its own.
const SECOND_SEAT: &str = ".b";

/// Names that mean something else where interfaces are configured.
const RESERVED: [&str; 3] = ["all", "default", "lo"];

/// The first `digits` hex digits of the hash of these words, told apart by their borders.
fn hash(words: &[&str], digits: usize) -> String {
    let mut hasher = blake3::Hasher::new();
    for word in words {
        hasher.update(word.as_bytes());
        hasher.update(&[0]);
    }
    let hex = hasher.finalize().to_hex();
    hex.chars().take(digits).collect()
}

/// `name` if it fits into `longest` bytes; else its beginning and a hash of the whole.
fn fit(name: String, longest: usize) -> String {
    if name.len() <= longest {
        return name;
    }
    let digest = hash(&[&name], 8);
    let room = longest.saturating_sub(digest.len().saturating_add(1));
    let mut start = String::new();
    for letter in name.chars() {
        if start.len().saturating_add(letter.len_utf8()) > room {
            break;
        }
        start.push(letter);
    }
    format!("{start}-{digest}")
}

/// The second seat of an instance that is replaced start-first: `prime1.b` of `prime1`. The
/// same for its endpoints.
pub fn second_seat(first: &NodeId) -> NodeId {
    NodeId::new(first.kind, format!("{}{SECOND_SEAT}", first.name))
}

/// Whether this is the name of a second seat.
pub(super) fn is_second_seat(name: &str) -> bool {
    name.ends_with(SECOND_SEAT)
}

/// The first seat of an instance, if `seat` is its second one.
pub fn first_seat(seat: &NodeId) -> Option<NodeId> {
    let first = seat.name.strip_suffix(SECOND_SEAT)?;
    Some(NodeId::new(seat.kind, first))
}

/// The instance whose seat has this name: `prime1` for `prime1.b` and for `prime1` itself.
pub fn instance_of(seat: &str) -> &str {
    seat.strip_suffix(SECOND_SEAT).unwrap_or(seat)
}

/// The interface name of a network's bridge: its own name where the kernel takes it.
pub(super) fn bridge(stack: &str, network: &str) -> String {
    let sane = network
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    let fits = (1..=INTERFACE).contains(&network.len());
    if sane && fits && !RESERVED.contains(&network) {
        network.to_owned()
    } else {
        format!("h{}", hash(&[stack, network], 12))
    }
}

/// The host's end of an instance's veth pair: `prime1-3f2a` where that fits, with a hash of the
/// stack, since every stack on the host may have a `prime1`.
pub(super) fn link(stack: &str, instance: &str) -> String {
    let readable = format!("{instance}-{}", hash(&[stack], 4));
    if readable.len() <= INTERFACE {
        readable
    } else {
        fit(format!("{instance}-{}", hash(&[stack], 16)), INTERFACE)
    }
}

/// The name of an instance's network namespace under `/run/netns`.
pub fn namespace(stack: &str, instance: &str) -> String {
    format!("hatchery-{stack}-{instance}")
}

/// The container whose namespace this is, if it is one of `stack`'s: the reverse of
/// [`namespace`].
pub fn container_of(stack: &str, namespace: &str) -> Option<NodeId> {
    namespace
        .strip_prefix("hatchery-")?
        .strip_prefix(stack)?
        .strip_prefix('-')
        .filter(|instance| !instance.is_empty())
        .map(|instance| NodeId::new(Kind::Containers, instance))
}

/// nspawn's name of an instance, which is global on the host.
pub(super) fn machine(stack: &str, instance: &str) -> String {
    fit(format!("{stack}-{instance}"), MACHINE)
}

/// The registry's id of an endpoint.
pub(super) fn service_id(stack: &str, service: &str, instance: &str) -> String {
    format!("{stack}-{service}-{instance}")
}

/// Whether the registry takes this as an id, name or tag: `[A-Za-z0-9._-]`, one at least.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Whether the registry takes this as an address: an IP, or what a hostname is made of.
pub(super) fn is_address(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok() || (text.len() <= 253 && is_word(text))
}

/// Whether this is `ADDRESS:PORT`, with brackets around an IPv6 address.
pub(super) fn is_endpoint(text: &str) -> bool {
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return address.port() != 0;
    }
    text.rsplit_once(':').is_some_and(|(host, port)| {
        is_word(host) && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}
