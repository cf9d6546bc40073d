//! What the agent says of itself, as far as clients ask for it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::{SPOKEN, view};
use crate::registry::{Catalog, CheckKind, Config};

type Strings = BTreeMap<&'static str, String>;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Configuration<'a> {
    datacenter: &'a str,
    node_name: &'a str,
    #[serde(rename = "NodeID")]
    node_id: String,
    revision: &'static str,
    server: bool,
    version: &'static str,
}

/// A member of the cluster: there is one.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Member<'a> {
    name: &'a str,
    addr: &'a str,
    port: u16,
    tags: Strings,
    status: u8,
    protocol_min: u8,
    protocol_max: u8,
    protocol_cur: u8,
    delegate_min: u8,
    delegate_max: u8,
    delegate_cur: u8,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Myself<'a> {
    config: Configuration<'a>,
    member: Member<'a>,
    stats: BTreeMap<&'static str, Strings>,
    meta: Strings,
}

/// Where Consul's servers would talk to each other; clients only look whether there is one.
pub(super) fn leader(config: &Config) -> String {
    match config.address.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:8300"),
        Ok(IpAddr::V4(_)) | Err(_) => format!("{}:8300", config.address),
    }
}

pub(super) fn member<'a>(config: &'a Config, version: &str) -> Member<'a> {
    Member {
        name: &config.node,
        addr: &config.address,
        port: 8301,
        tags: Strings::from([
            ("acls", "0".to_owned()),
            ("build", format!("{SPOKEN}:hatchery-{version}")),
            ("dc", config.datacenter.clone()),
            ("id", view::node_id(config)),
            ("port", "8300".to_owned()),
            ("raft_vsn", "3".to_owned()),
            ("role", "consul".to_owned()),
            ("segment", String::new()),
            ("vsn", "2".to_owned()),
            ("vsn_max", "3".to_owned()),
            ("vsn_min", "2".to_owned()),
        ]),
        status: 1,
        protocol_min: 1,
        protocol_max: 5,
        protocol_cur: 2,
        delegate_min: 2,
        delegate_max: 5,
        delegate_cur: 4,
    }
}

pub(super) fn myself<'a>(catalog: &'a Catalog, version: &str) -> Myself<'a> {
    let config = catalog.config();
    Myself {
        config: Configuration {
            datacenter: &config.datacenter,
            node_name: &config.node,
            node_id: view::node_id(config),
            revision: "",
            server: true,
            version: SPOKEN,
        },
        member: member(config, version),
        stats: stats(catalog, version),
        meta: Strings::from([
            ("consul-network-segment", String::new()),
            ("hatchery-version", version.to_owned()),
        ]),
    }
}

fn stats(catalog: &Catalog, version: &str) -> BTreeMap<&'static str, Strings> {
    let (mut probed, mut ttls) = (0_usize, 0_usize);
    for check in catalog.entries().flat_map(|entry| &entry.checks) {
        match check.spec.kind {
            CheckKind::Probed => probed += 1,
            CheckKind::Ttl(_) => ttls += 1,
        }
    }
    let agent = Strings::from([
        ("check_monitors", probed.to_string()),
        ("check_ttls", ttls.to_string()),
        ("checks", (probed + ttls).to_string()),
        ("services", catalog.entries().count().to_string()),
    ]);
    let build = Strings::from([
        ("prerelease", format!("hatchery-{version}")),
        ("revision", String::new()),
        ("version", SPOKEN.to_owned()),
    ]);
    let consul = Strings::from([
        ("acl", "disabled".to_owned()),
        ("bootstrap", "true".to_owned()),
        ("known_datacenters", "1".to_owned()),
        ("leader", "true".to_owned()),
        ("leader_addr", leader(catalog.config())),
        ("server", "true".to_owned()),
    ]);
    let raft = Strings::from([
        ("applied_index", catalog.index().to_string()),
        ("commit_index", catalog.index().to_string()),
        ("last_log_index", catalog.index().to_string()),
        ("num_peers", "0".to_owned()),
        ("state", "Leader".to_owned()),
    ]);
    let runtime = Strings::from([
        ("arch", std::env::consts::ARCH.to_owned()),
        ("os", std::env::consts::OS.to_owned()),
    ]);
    BTreeMap::from([
        ("agent", agent),
        ("build", build),
        ("consul", consul),
        ("raft", raft),
        ("runtime", runtime),
    ])
}

/// Every service by its id.
pub(super) fn services(catalog: &Catalog) -> BTreeMap<&str, view::AgentService<'_>> {
    let entries = catalog.entries();
    entries
        .map(|entry| (entry.registration.id.as_str(), view::agent_service(entry)))
        .collect()
}

/// Every check of a service by its id.
pub(super) fn checks(catalog: &Catalog) -> BTreeMap<&str, view::Check<'_>> {
    let entries = catalog.entries();
    entries
        .flat_map(|entry| {
            let ids = entry.checks.iter().map(|check| check.spec.id.as_str());
            ids.zip(view::checks_of(catalog, entry))
        })
        .collect()
}
