//! `vars`, `requires`, `registry`, `networks`.

use std::net::SocketAddr;
use std::path::PathBuf;

use indexmap::IndexMap;
use ipnet::{IpNet, Ipv4Net};
use serde_json::Value as Json;

use super::Decoder;
use super::scalar::MAX_ITEMS;
use super::slot::{Fields, Slot};
use super::workload::depends_on;
use crate::spec::model::{Expr, Needed, Network, Registry, Requirement};
use crate::spec::yaml::tree::{Node, NodeKind, Value, shortened};

/// A free value.
pub(super) fn variable(d: &mut Decoder, slot: &Slot<'_>) -> Option<Json> {
    free(d, slot.node, slot)
}

fn free(d: &mut Decoder, node: &Node, top: &Slot<'_>) -> Option<Json> {
    match &node.kind {
        NodeKind::Broken | NodeKind::Instead(_) => {
            d.fault();
            None
        }
        NodeKind::List(items) => items.iter().map(|item| free(d, item, top)).collect(),
        NodeKind::Map(entries) => {
            let mut map = serde_json::Map::new();
            for entry in entries {
                map.insert(entry.key.to_string(), free(d, &entry.value, top)?);
            }
            Some(Json::Object(map))
        }
        NodeKind::Scalar(scalar) => match scalar.value() {
            Value::Null => Some(Json::Null),
            Value::Bool(value) => Some(Json::Bool(value)),
            Value::Number(number) => Some(Json::Number(number)),
            Value::Text(text) => Some(Json::String(text.to_owned())),
            Value::OddNumber => {
                let slot = Slot::new(node, top.what.clone());
                slot.expected(d, "a finite number");
                None
            }
        },
    }
}

pub(super) fn requirement(d: &mut Decoder, slot: &Slot<'_>) -> Option<Requirement> {
    let mut fields = Fields::open(d, slot, "an item of `requires`")?;
    let what = fields.one_of(d, &["command", "python", "path"]);
    let debian = fields.take(d, "debian").and_then(|slot| package(d, &slot));
    fields.finish(d);
    let (kind, slot) = what?;
    let text = slot.filled(d)?;
    let what = match kind {
        "command" => Needed::Command(text),
        "python" => Needed::Python(text),
        _ => Needed::Path(PathBuf::from(text)),
    };
    Some(Requirement { what, debian })
}

/// A Debian package's name goes onto apt's command line, so that only names may pass
/// (Debian policy, 5.6.1).
fn package(d: &mut Decoder, slot: &Slot<'_>) -> Option<String> {
    let name = slot.filled(d)?;
    let fits = name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.')
        });
    if !fits {
        slot.expected(d, "the name of a Debian package");
        return None;
    }
    Some(name)
}

pub(super) fn registry(d: &mut Decoder, slot: &Slot<'_>) -> Option<Registry> {
    let mut fields = Fields::open(d, slot, "`registry`")?;
    let embedded = fields.take_nullable("embedded");
    fields.finish(d);
    let Some(slot) = embedded.filter(|slot| !slot.node.is_null()) else {
        return Some(Registry::default());
    };
    let mut fields = Fields::open(d, &slot, "the embedded registry")?;
    let http = fields.take(d, "http").and_then(|slot| {
        slot.parsed::<SocketAddr>(d, "an address and a port like `127.0.0.1:8500`")
    });
    let token_file = fields
        .take(d, "token_file")
        .and_then(|slot| slot.filled(d))
        .map(PathBuf::from);
    let datacenter = fields
        .take(d, "datacenter")
        .and_then(|slot| datacenter(d, &slot));
    fields.finish(d);
    Some(Registry {
        http,
        token_file,
        datacenter,
    })
}

fn datacenter(d: &mut Decoder, slot: &Slot<'_>) -> Option<String> {
    let name = slot.filled(d)?;
    let fits = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !fits || name.len() > 64 {
        slot.expected(d, "a name of letters, digits, `-` and `_`");
        return None;
    }
    Some(name)
}

pub(super) fn network(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<Network> {
    let mut fields = Fields::open(d, slot, owner)?;
    let subnet = fields
        .required(d, "subnet", "10.50.0.0/24")
        .and_then(|slot| subnet(d, &slot));
    let forward = fields.boolean(d, "forward", false);
    let depends_on = depends_on(d, &mut fields);
    fields.finish(d);
    Some(Network {
        subnet: subnet?,
        forward,
        depends_on,
    })
}

fn subnet(d: &mut Decoder, slot: &Slot<'_>) -> Option<Ipv4Net> {
    const EXPECTED: &str = "an IPv4 network like `10.50.0.0/24`";
    let net = match slot.parsed::<IpNet>(d, EXPECTED)? {
        IpNet::V4(net) => net,
        IpNet::V6(_) => {
            slot.expected_but(d, EXPECTED, |diagnostic| {
                diagnostic.help("IPv6 is not supported by this version")
            });
            return None;
        }
    };
    if net.addr() != net.network() {
        let meant = net.trunc().to_string();
        slot.expected_but(d, "a network, not an address in one", |diagnostic| {
            diagnostic.did_you_mean(Some(&meant))
        });
        return None;
    }
    if !(8..=30).contains(&net.prefix_len()) {
        slot.expected(d, "a network from /8 to /30");
        return None;
    }
    let address = net.addr();
    if address.is_loopback() || address.is_multicast() || address.octets()[0] == 0 {
        slot.expected(d, "a network of addresses that hosts can have");
        return None;
    }
    Some(net)
}

/// Networks and single addresses, as IPv4 networks.
pub(super) fn sources(d: &mut Decoder, slot: &Slot<'_>) -> Option<Vec<Ipv4Net>> {
    slot.list(d, "a list of networks", |d, item| {
        let written = item.written().unwrap_or_default().trim();
        if let Ok(address) = written.parse::<std::net::Ipv4Addr>() {
            return Some(Ipv4Net::from(address));
        }
        let net = item.parsed::<Ipv4Net>(d, "an IPv4 address or network like `10.0.0.0/8`")?;
        if net.addr() != net.network() {
            let meant = net.trunc().to_string();
            d.error(
                item.error(format!(
                    "`{}` has bits beyond its prefix",
                    shortened(written)
                ))
                .did_you_mean(Some(&meant)),
            );
            return None;
        }
        Some(net)
    })
}

/// `K=V` items or a mapping; see compose's `environment`.
pub(super) fn key_values<'n>(d: &mut Decoder, slot: &Slot<'n>) -> Option<IndexMap<String, Expr>> {
    let Some(items) = slot.items() else {
        return slot.map(d, |d, value| {
            if value.node.is_null() {
                d.error(
                    value
                        .error(format!("{} has no value", value.what))
                        .help("write `\"\"` for an empty one, or an expression for ours"),
                );
                return None;
            }
            value.text(d).map(Expr)
        });
    };
    if items.len() > MAX_ITEMS {
        d.error(slot.error(format!("{} has more than {MAX_ITEMS} items", slot.what)));
        return None;
    }
    let mut map = IndexMap::new();
    for item in items {
        let text = item.text(d)?;
        let Some((key, value)) = text.split_once('=') else {
            item.expected(d, "of the form `NAME=VALUE`");
            return None;
        };
        if map.insert(key.to_owned(), Expr(value.to_owned())).is_some() {
            d.error(item.error(format!(
                "`{}` is given twice in {}",
                shortened(key),
                slot.what
            )));
            return None;
        }
    }
    Some(map)
}
