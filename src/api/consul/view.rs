//! What Consul's JSON looks like, borrowed from the catalog. Fields stand in Consul's order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;
use serde_json::ser::PrettyFormatter;

use crate::registry::{Catalog, CheckEntry, CheckKind, Config, NODE_CHECK, ServiceEntry};
use crate::spec::model::Status;

/// An object without fields.
#[derive(Serialize)]
pub(super) struct Nothing {}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Weights {
    passing: u32,
    warning: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Proxy {
    mesh_gateway: Nothing,
    expose: Nothing,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Place<'a> {
    address: &'a str,
    port: u16,
}

const WEIGHTS: Weights = Weights {
    passing: 1,
    warning: 1,
};
const PROXY: Proxy = Proxy {
    mesh_gateway: Nothing {},
    expose: Nothing {},
};

type Places<'a> = BTreeMap<&'static str, Place<'a>>;
type Meta<'a> = BTreeMap<&'static str, &'a str>;

/// A service as the agent shows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AgentService<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    service: &'a str,
    tags: &'a [String],
    meta: &'a BTreeMap<String, String>,
    port: u16,
    address: &'a str,
    #[serde(skip_serializing_if = "Places::is_empty")]
    tagged_addresses: Places<'a>,
    weights: Weights,
    enable_tag_override: bool,
}

/// A service as `catalog/node` and `health/service` show it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NodeService<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    service: &'a str,
    tags: &'a [String],
    address: &'a str,
    #[serde(skip_serializing_if = "Places::is_empty")]
    tagged_addresses: Places<'a>,
    meta: &'a BTreeMap<String, String>,
    port: u16,
    weights: Weights,
    enable_tag_override: bool,
    proxy: Proxy,
    connect: Nothing,
    create_index: u64,
    modify_index: u64,
}

/// A service with its node, as `catalog/service` shows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CatalogService<'a> {
    #[serde(rename = "ID")]
    id: String,
    node: &'a str,
    address: &'a str,
    datacenter: &'a str,
    tagged_addresses: Meta<'a>,
    node_meta: Meta<'a>,
    service_kind: &'static str,
    #[serde(rename = "ServiceID")]
    service_id: &'a str,
    service_name: &'a str,
    service_tags: &'a [String],
    service_address: &'a str,
    #[serde(skip_serializing_if = "Places::is_empty")]
    service_tagged_addresses: Places<'a>,
    service_weights: Weights,
    service_meta: &'a BTreeMap<String, String>,
    service_port: u16,
    service_enable_tag_override: bool,
    service_proxy: Proxy,
    service_connect: Nothing,
    create_index: u64,
    modify_index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Node<'a> {
    #[serde(rename = "ID")]
    id: String,
    node: &'a str,
    address: &'a str,
    datacenter: &'a str,
    tagged_addresses: Meta<'a>,
    meta: Meta<'a>,
    create_index: u64,
    modify_index: u64,
}

/// A node with all its services.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NodeServices<'a> {
    node: Node<'a>,
    services: BTreeMap<&'a str, NodeService<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Check<'a> {
    node: &'a str,
    #[serde(rename = "CheckID")]
    check_id: &'a str,
    name: &'a str,
    status: Status,
    notes: &'a str,
    output: &'a str,
    #[serde(rename = "ServiceID")]
    service_id: &'a str,
    service_name: &'a str,
    service_tags: &'a [String],
    #[serde(rename = "Type")]
    kind: &'static str,
    definition: Nothing,
    create_index: u64,
    modify_index: u64,
}

impl Check<'_> {
    /// Whether its status is this one.
    pub(super) fn stands(&self, status: Status) -> bool {
        self.status == status
    }
}

/// An instance with its node and checks.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Health<'a> {
    node: Node<'a>,
    service: NodeService<'a>,
    checks: Vec<Check<'a>>,
}

pub(super) fn agent_service(entry: &ServiceEntry) -> AgentService<'_> {
    let own = &entry.registration;
    AgentService {
        id: &own.id,
        service: &own.service,
        tags: &own.tags,
        meta: &own.meta,
        port: own.port,
        address: &own.address,
        tagged_addresses: places(entry),
        weights: WEIGHTS,
        enable_tag_override: false,
    }
}

fn node_service(entry: &ServiceEntry) -> NodeService<'_> {
    let own = &entry.registration;
    NodeService {
        id: &own.id,
        service: &own.service,
        tags: &own.tags,
        address: &own.address,
        tagged_addresses: places(entry),
        meta: &own.meta,
        port: own.port,
        weights: WEIGHTS,
        enable_tag_override: false,
        proxy: PROXY,
        connect: Nothing {},
        create_index: entry.create_index,
        modify_index: entry.modify_index,
    }
}

pub(super) fn catalog_service<'a>(
    catalog: &'a Catalog,
    entry: &'a ServiceEntry,
) -> CatalogService<'a> {
    let (config, own) = (catalog.config(), &entry.registration);
    CatalogService {
        id: node_id(config),
        node: &config.node,
        address: &config.address,
        datacenter: &config.datacenter,
        tagged_addresses: node_addresses(config),
        node_meta: node_meta(),
        service_kind: "",
        service_id: &own.id,
        service_name: &own.service,
        service_tags: &own.tags,
        service_address: &own.address,
        service_tagged_addresses: places(entry),
        service_weights: WEIGHTS,
        service_meta: &own.meta,
        service_port: own.port,
        service_enable_tag_override: false,
        service_proxy: PROXY,
        service_connect: Nothing {},
        create_index: entry.create_index,
        modify_index: entry.modify_index,
    }
}

pub(super) fn node(catalog: &Catalog) -> Node<'_> {
    let config = catalog.config();
    Node {
        id: node_id(config),
        node: &config.node,
        address: &config.address,
        datacenter: &config.datacenter,
        tagged_addresses: node_addresses(config),
        meta: node_meta(),
        create_index: catalog.nodes_index(),
        modify_index: catalog.nodes_index(),
    }
}

pub(super) fn node_services(catalog: &Catalog) -> NodeServices<'_> {
    let entries = catalog.entries();
    NodeServices {
        node: node(catalog),
        services: entries
            .map(|entry| (entry.registration.id.as_str(), node_service(entry)))
            .collect(),
    }
}

pub(super) fn health<'a>(catalog: &'a Catalog, entry: &'a ServiceEntry) -> Health<'a> {
    let mut checks = vec![node_check(catalog)];
    checks.extend(checks_of(catalog, entry));
    Health {
        node: node(catalog),
        service: node_service(entry),
        checks,
    }
}

/// The node's own check, which passes for as long as somebody answers.
pub(super) fn node_check(catalog: &Catalog) -> Check<'_> {
    Check {
        node: &catalog.config().node,
        check_id: NODE_CHECK,
        name: "Serf Health Status",
        status: Status::Passing,
        notes: "",
        output: "Agent alive and reachable",
        service_id: "",
        service_name: "",
        service_tags: &[],
        kind: "",
        definition: Nothing {},
        create_index: catalog.nodes_index(),
        modify_index: catalog.nodes_index(),
    }
}

/// A service's checks.
pub(super) fn checks_of<'a>(
    catalog: &'a Catalog,
    entry: &'a ServiceEntry,
) -> impl Iterator<Item = Check<'a>> {
    let checks = entry.checks.iter();
    checks.map(|check| one_check(&catalog.config().node, entry, check))
}

fn one_check<'a>(node: &'a str, entry: &'a ServiceEntry, check: &'a CheckEntry) -> Check<'a> {
    Check {
        node,
        check_id: &check.spec.id,
        name: &check.spec.name,
        status: check.status,
        notes: &check.spec.notes,
        output: &check.output,
        service_id: &entry.registration.id,
        service_name: &entry.registration.service,
        service_tags: &entry.registration.tags,
        kind: match check.spec.kind {
            CheckKind::Ttl(_) => "ttl",
            CheckKind::Probed => "",
        },
        definition: Nothing {},
        create_index: check.create_index,
        modify_index: check.modify_index,
    }
}

/// Names of services with their tags.
pub(super) fn names(catalog: &Catalog) -> BTreeMap<&str, BTreeSet<&str>> {
    catalog.names()
}

/// A service's address under the keys that tell its family; host names have none.
fn places(entry: &ServiceEntry) -> Places<'_> {
    let own = &entry.registration;
    let keys = match own.address.parse() {
        Ok(IpAddr::V4(_)) => ["lan_ipv4", "wan_ipv4"],
        Ok(IpAddr::V6(_)) => ["lan_ipv6", "wan_ipv6"],
        Err(_) => return Places::new(),
    };
    let place = |key| {
        let (address, port) = (own.address.as_str(), own.port);
        (key, Place { address, port })
    };
    keys.into_iter().map(place).collect()
}

fn node_addresses(config: &Config) -> Meta<'_> {
    let family: &[&str] = match config.address.parse() {
        Ok(IpAddr::V4(_)) => &["lan", "lan_ipv4", "wan", "wan_ipv4"],
        Ok(IpAddr::V6(_)) => &["lan", "lan_ipv6", "wan", "wan_ipv6"],
        Err(_) => &["lan", "wan"],
    };
    let address = config.address.as_str();
    family.iter().map(|key| (*key, address)).collect()
}

fn node_meta() -> Meta<'static> {
    Meta::from([("consul-network-segment", "")])
}

/// An id in the form of a UUID, always the same for the same node.
pub(super) fn node_id(config: &Config) -> String {
    let hash = blake3::hash(config.node.as_bytes()).to_hex();
    let part = |from: usize, to: usize| hash.get(from..to).unwrap_or_default();
    let parts = [
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32),
    ];
    parts.join("-")
}

/// As JSON; with `pretty` as Consul indents it.
pub(super) fn encoded(value: &impl Serialize, pretty: bool) -> serde_json::Result<Vec<u8>> {
    if !pretty {
        return serde_json::to_vec(value);
    }
    let mut text = Vec::new();
    let indent = PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, indent);
    value.serialize(&mut serializer)?;
    text.push(b'\n');
    Ok(text)
}
