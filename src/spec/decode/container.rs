//! Containers.

use super::Decoder;
use super::slot::{Fields, Slot};
use super::top::sources;
use super::workload::workload;
use crate::spec::model::{Container, Expr, Firewall, Mount, NetworkMode, Root, RootMode};
use crate::spec::text::split_colons;
use crate::spec::yaml::tree::Value;

pub(super) fn container(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<Container> {
    let mut fields = Fields::open(d, slot, owner)?;
    let workload = workload(d, &mut fields);
    let root = fields
        .take(d, "root")
        .and_then(|slot| root(d, &slot, owner))
        .unwrap_or(Root::Host);
    let network = fields
        .take(d, "network")
        .and_then(|slot| slot.filled(d))
        .map_or(NetworkMode::Host, |name| match name.as_str() {
            "host" => NetworkMode::Host,
            "none" => NetworkMode::None,
            _ => NetworkMode::Bridge(name),
        });
    let address = fields.take(d, "address").and_then(|slot| slot.expr(d));
    let mounts = fields
        .take(d, "mounts")
        .and_then(|slot| slot.list(d, "a list of mounts like `./x:/x:ro`", mount));
    let tmpfs = fields.exprs(d, "tmpfs");
    let firewall = fields
        .take(d, "firewall")
        .and_then(|slot| firewall(d, &slot, owner));
    fields.finish(d);
    Some(Container {
        workload: workload?,
        root,
        network,
        address,
        mounts: mounts.unwrap_or_default(),
        tmpfs,
        firewall,
    })
}

fn root(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<Root> {
    if slot.entries().is_none() {
        if slot.value() == Some(Value::Text("host")) {
            return Some(Root::Host);
        }
        let path = match slot.value() {
            Some(Value::Text(text)) if text.contains('/') => Some(text),
            _ => None,
        };
        slot.expected_but(
            d,
            "`host` or `{ path: DIRECTORY }`",
            |diagnostic| match path {
                Some(path) => diagnostic
                    .help("name the directory as `path`")
                    .replace(format!("{{ path: {path} }}")),
                None => diagnostic,
            },
        );
        return None;
    }
    let mut fields = Fields::open(d, slot, format!("`root` of {owner}"))?;
    let path = match fields.take(d, "path") {
        Some(slot) => slot.expr(d),
        None => {
            // `image` and its like have their own message.
            if fields.given(&["path", "image", "nix", "oci"]).is_empty() {
                fields.missing(d, "path", "./root");
            }
            None
        }
    };
    let read_only = fields.boolean(d, "read_only", false);
    let ephemeral = fields.boolean(d, "ephemeral", false);
    if read_only && ephemeral {
        d.error(
            fields
                .error_at(
                    "ephemeral",
                    format!("`root` of {owner} cannot be both `read_only` and `ephemeral`"),
                )
                .help("keep `read_only` to share it unchanged, `ephemeral` to write to a copy"),
        );
    }
    fields.finish(d);
    let mode = match (read_only, ephemeral) {
        (true, _) => RootMode::ReadOnly,
        (false, true) => RootMode::Ephemeral,
        (false, false) => RootMode::Persistent,
    };
    Some(Root::Path { path: path?, mode })
}

fn mount(d: &mut Decoder, slot: &Slot<'_>) -> Option<Mount> {
    if slot.entries().is_some() {
        return long_mount(d, slot);
    }
    let text = slot.filled(d)?;
    let parts = split_colons(&text);
    let (source, destination, access) = match parts.as_slice() {
        [source, destination] => (*source, *destination, "rw"),
        [source, destination, access] => (*source, *destination, *access),
        _ => ("", "", "rw"),
    };
    let read_only = match access {
        "ro" => true,
        "rw" => false,
        _ => {
            slot.expected_but(d, "a mount `SOURCE:DESTINATION[:ro|rw]`", |diagnostic| {
                diagnostic.label("it ends neither in `ro` nor in `rw`")
            });
            return None;
        }
    };
    if source.is_empty() || destination.is_empty() {
        slot.expected(d, "a mount `SOURCE:DESTINATION[:ro|rw]`");
        return None;
    }
    Some(Mount {
        source: Expr(source.to_owned()),
        destination: Expr(destination.to_owned()),
        read_only,
    })
}

fn long_mount(d: &mut Decoder, slot: &Slot<'_>) -> Option<Mount> {
    let mut fields = Fields::open(d, slot, "a mount")?;
    let source = fields
        .required(d, "source", "./x")
        .and_then(|slot| slot.expr(d));
    let destination = fields
        .required(d, "target", "/x")
        .and_then(|slot| slot.expr(d));
    let read_only = fields.boolean(d, "read_only", false);
    fields.finish(d);
    Some(Mount {
        source: source?,
        destination: destination?,
        read_only,
    })
}

fn firewall(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<Firewall> {
    let mut fields = Fields::open(d, slot, format!("`firewall` of {owner}"))?;
    let mut ports = |fields: &mut Fields<'_>, field| {
        fields
            .take(d, field)
            .and_then(|slot| slot.list(d, "a list of ports", |d, item| item.port(d)))
            .unwrap_or_default()
    };
    let allow_tcp = ports(&mut fields, "allow_tcp");
    let allow_udp = ports(&mut fields, "allow_udp");
    let allow_ping = fields.boolean(d, "allow_ping", true);
    let allow_from = fields
        .take(d, "allow_from")
        .and_then(|slot| sources(d, &slot))
        .unwrap_or_default();
    fields.finish(d);
    Some(Firewall {
        allow_tcp,
        allow_udp,
        allow_ping,
        allow_from,
    })
}
