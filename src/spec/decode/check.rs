//! Checks, and the services that they watch.

use std::time::Duration;

use indexmap::IndexMap;

use super::Decoder;
use super::slot::{Fields, Slot};
use super::top::key_values;
use super::workload::{depends_on, reference};
use crate::spec::model::{Check, CheckRef, HttpProbe, Probe, Service};
use crate::spec::node::{Kind, NodeId};
use crate::spec::yaml::tree::shortened;

/// Between two probes unless the spec says.
const INTERVAL: Duration = Duration::from_secs(10);
/// For one probe unless the spec says.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The shortest interval: below it the probes would cost more than what they watch.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// The fields that say when a check is asked, in vain for one that is told.
const TIMING: [&str; 5] = [
    "interval",
    "timeout",
    "retries",
    "start_period",
    "start_interval",
];

pub(super) fn named_check(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<Check> {
    let mut fields = Fields::open(d, slot, owner)?;
    let chosen = fields.one_of(d, &["http", "tcp", "exec", "ttl"]);
    if let Some(("ttl", _)) = chosen
        && let [first, ..] = fields.given(&TIMING).as_slice()
    {
        d.error(
            fields
                .error_at(first, format!("`{first}` does nothing for a `ttl` check"))
                .help("remove it: somebody else says how the check stands, within its `ttl`"),
        );
    }
    let interval = fields.duration(d, "interval", LEAST_INTERVAL, INTERVAL);
    let timeout = fields.duration(d, "timeout", Duration::from_millis(1), TIMEOUT);
    let retries = fields
        .take(d, "retries")
        .and_then(|slot| slot.integer(d, 1, 1000))
        .unwrap_or(1);
    let start_period = fields.duration(d, "start_period", Duration::ZERO, Duration::ZERO);
    let start_interval = fields
        .take(d, "start_interval")
        .and_then(|slot| slot.duration(d, LEAST_INTERVAL));
    fields.finish(d);
    let (kind, slot) = chosen?;
    let probe = match kind {
        "http" => Probe::Http(http(d, &slot, owner)?),
        "tcp" => Probe::Tcp(slot.expr(d)?),
        "exec" => Probe::Exec(slot.command(d)?),
        _ => Probe::Ttl(slot.duration(d, LEAST_INTERVAL)?),
    };
    Some(Check {
        probe,
        interval,
        timeout,
        retries,
        start_period,
        start_interval,
    })
}

fn http(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<HttpProbe> {
    if slot.entries().is_none() {
        return Some(HttpProbe {
            url: slot.expr(d)?,
            method: "GET".to_owned(),
            headers: IndexMap::new(),
            status: Vec::new(),
            body: None,
        });
    }
    let mut fields = Fields::open(d, slot, format!("`http` of {owner}"))?;
    let url = fields
        .required(d, "url", "http://{{ address }}:{{ port }}/")
        .and_then(|slot| slot.expr(d));
    let method = fields
        .take(d, "method")
        .and_then(|slot| method(d, &slot))
        .unwrap_or_else(|| "GET".to_owned());
    let headers = fields
        .take(d, "headers")
        .and_then(|slot| key_values(d, &slot))
        .unwrap_or_default();
    let status = fields
        .take(d, "status")
        .and_then(|slot| {
            slot.list(d, "a list of status codes", |d, item| {
                let code = item.integer(d, 100, 599)?;
                u16::try_from(code).ok()
            })
        })
        .unwrap_or_default();
    let body = fields.take(d, "body").and_then(|slot| slot.text(d));
    fields.finish(d);
    Some(HttpProbe {
        url: url?,
        method,
        headers,
        status,
        body,
    })
}

fn method(d: &mut Decoder, slot: &Slot<'_>) -> Option<String> {
    let method = slot.filled(d)?;
    if method.len() > 16 || !method.bytes().all(|b| b.is_ascii_alphabetic()) {
        slot.expected(d, "an HTTP method like `GET`");
        return None;
    }
    Some(method.to_ascii_uppercase())
}

/// A check by name, or written in place; messages call the latter `owner`.
pub(super) fn check_ref(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<CheckRef> {
    if slot.entries().is_some() {
        return named_check(d, slot, owner).map(|check| CheckRef::Inline(Box::new(check)));
    }
    slot.filled(d).map(CheckRef::Named)
}

pub(super) fn service(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<Service> {
    let mut fields = Fields::open(d, slot, owner)?;
    let target = fields.take(d, "target").and_then(|slot| target(d, &slot));
    let address = fields.take(d, "address").and_then(|slot| {
        let address = slot.expr(d)?;
        if matches!(address.0.as_str(), "host" | "container") {
            d.error(
                slot.error(format!(
                    "`{}` as an address is reserved for fleets, not built yet",
                    address.0
                ))
                .help("remove it: a service has its target's address"),
            );
        }
        Some(address)
    });
    if !fields.has("target") && !fields.has("address") {
        fields.missing(d, "target", "containers/NAME");
    }
    let port = fields
        .required(d, "port", "8080")
        .and_then(|slot| slot.port(d));
    let tags = fields
        .take(d, "tags")
        .and_then(|slot| slot.list(d, "a list of tags", tag));
    let meta = fields
        .take(d, "meta")
        .and_then(|slot| key_values(d, &slot))
        .unwrap_or_default();
    let checks = fields.take(d, "checks").and_then(|slot| {
        let what = format!("a check of {owner}");
        slot.list(d, "a list of checks", |d, item| check_ref(d, item, &what))
    });
    let depends_on = depends_on(d, &mut fields);
    fields.finish(d);
    Some(Service {
        target,
        address,
        // Without a port it is faulty; what it refers to is looked at all the same.
        port: port.unwrap_or(1),
        tags: tags.unwrap_or_default(),
        meta,
        checks: checks.unwrap_or_default(),
        depends_on,
    })
}

fn target(d: &mut Decoder, slot: &Slot<'_>) -> Option<NodeId> {
    let text = slot.filled(d)?;
    let id = reference(d, &text, &slot.node.span, &slot.what)?;
    if !matches!(id.kind, Kind::Containers | Kind::Processes) {
        slot.expected(d, "`containers/NAME` or `processes/NAME`");
        return None;
    }
    Some(id)
}

/// Tags reach templates and thereby other programs' configuration: only these characters.
fn tag(d: &mut Decoder, slot: &Slot<'_>) -> Option<String> {
    let tag = slot.filled(d)?;
    let fits = tag
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if !fits || tag.len() > 128 {
        d.error(
            slot.error(format!("`{}` cannot be a tag", shortened(&tag)))
                .help("use letters, digits, `.`, `_` and `-`, at most 128"),
        );
        return None;
    }
    Some(tag)
}
