//! A container's firewall as an nftables ruleset. Its table's name holds its hash, so what is
//! in force can be read from the list of tables.

use std::collections::BTreeSet;
use std::fmt::Display;

use ipnet::Ipv4Net;

use crate::spec::model::Firewall;

/// What the names of our tables begin with; the hash follows.
pub const TABLE_PREFIX: &str = "hatchery_";

/// Hash of what a firewall lets in, 16 hex digits. The order in which ports and networks are
/// written does not count.
pub fn hash(firewall: &Firewall) -> String {
    let rules = ruleset(firewall, "");
    let hash = blake3::hash(rules.as_bytes()).to_hex();
    hash.chars().take(16).collect()
}

/// The nft script that makes `table` (of the family `inet`) with this firewall. Only what
/// comes in is looked at.
pub fn ruleset(firewall: &Firewall, table: &str) -> String {
    let mut rules = vec![
        "iif \"lo\" accept".to_owned(),
        // Covers the ICMP errors that belong to connections from inside.
        "ct state { established, related } accept".to_owned(),
        // Without neighbour discovery the namespace's own IPv6 connections would fail.
        "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept".to_owned(),
    ];
    if firewall.allow_ping {
        rules.push("icmp type echo-request accept".to_owned());
        rules.push("icmpv6 type echo-request accept".to_owned());
    }
    let ports = |ports: &[u16]| ports.iter().copied().collect::<BTreeSet<_>>();
    rules.extend(accept("tcp dport", ports(&firewall.allow_tcp)));
    rules.extend(accept("udp dport", ports(&firewall.allow_udp)));
    // Overlapping networks in one set are an error to nft.
    let networks = Ipv4Net::aggregate(&firewall.allow_from);
    rules.extend(accept("ip saddr", networks));
    let rules: String = rules.iter().map(|rule| format!("\t\t{rule}\n")).collect();
    format!(
        "table inet {table} {{\n\
         \tchain input {{\n\
         \t\ttype filter hook input priority filter; policy drop;\n\
         {rules}\
         \t}}\n\
         }}\n"
    )
}

/// The rule that accepts any of `values`; none without values, as nft knows no empty set.
fn accept(what: &str, values: impl IntoIterator<Item = impl Display>) -> Option<String> {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    (!values.is_empty()).then(|| format!("{what} {{ {} }} accept", values.join(", ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn firewall(tcp: &[u16], from: &[&str]) -> Firewall {
        Firewall {
            allow_tcp: tcp.to_vec(),
            allow_udp: Vec::new(),
            allow_ping: true,
            allow_from: from.iter().map(|net| net.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn the_order_of_what_is_allowed_does_not_change_the_hash() {
        let one = firewall(&[80, 8080], &["10.0.0.0/24", "192.168.0.1/32"]);
        let other = firewall(&[8080, 80, 80], &["192.168.0.1/32", "10.0.0.0/24"]);
        assert_eq!(hash(&one), hash(&other));
        assert_eq!(hash(&one).len(), 16);
    }

    #[test]
    fn every_part_changes_the_hash() {
        let base = firewall(&[80], &[]);
        let mut silent = base.clone();
        silent.allow_ping = false;
        let mut udp = base.clone();
        udp.allow_udp = vec![80];
        let all = [
            hash(&base),
            hash(&silent),
            hash(&udp),
            hash(&firewall(&[81], &[])),
            hash(&firewall(&[80], &["10.0.0.0/8"])),
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn everything_that_is_not_allowed_is_dropped() {
        let text = ruleset(&firewall(&[8080], &["10.0.0.0/25", "10.0.0.128/25"]), "t");
        assert!(text.starts_with("table inet t {"), "{text}");
        assert!(text.contains("policy drop;"), "{text}");
        assert!(text.contains("tcp dport { 8080 } accept"), "{text}");
        assert!(text.contains("ip saddr { 10.0.0.0/24 } accept"), "{text}");
        assert!(!text.contains("udp"), "{text}");
    }
}
