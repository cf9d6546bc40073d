//! The hosts files of containers.

use std::fmt::Write;
use std::sync::Arc;

use super::desired::{Desired, Node, WorkloadNode};
use super::names::instance_of;
use crate::spec::node::NodeId;

/// What stands for a name where it has no address of its own; Debian's custom.
const OWN_NAME: &str = "127.0.1.1";

/// What the hosts files of all containers have in common: every instance of the stack that has
/// an address, by its own name and its group's. A group's name so has all its addresses. Seats
/// have their instance's name; one that is spare is left out.
///
/// A stack of n containers has n such files of n lines. They are made and hashed once, and only
/// the few bytes in which they differ are added for each.
pub struct Hosts {
    text: Arc<str>,
    hasher: blake3::Hasher,
    hash: String,
}

impl Hosts {
    /// Names everybody but those that are `spare`.
    pub fn of(desired: &Desired, spare: &dyn Fn(&NodeId) -> bool) -> Hosts {
        let mut text =
            String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
        let named = desired.nodes.values().filter_map(|node| match node {
            Node::Workload(workload) => Some((workload.attachment.as_ref()?.address, workload)),
            _ => None,
        });
        let mut named: Vec<_> = named.collect();
        // The order of the spec is not told: it may change while everybody runs.
        named.sort_by_key(|(address, _)| *address);
        for (address, workload) in named {
            if spare(&workload.id) {
                continue;
            }
            let name = instance_of(&workload.id.name);
            let _ = write!(text, "{address} {name}");
            if workload.group != name {
                let _ = write!(text, " {}", workload.group);
            }
            text.push('\n');
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(text.as_bytes());
        Hosts {
            hash: hasher.finalize().to_hex().to_string(),
            text: text.into(),
            hasher,
        }
    }

    /// The text of `workload`'s `/etc/hosts`.
    pub fn text(&self, workload: &WorkloadNode) -> Arc<str> {
        match own_line(workload) {
            Some(own) => format!("{}{own}", self.text).into(),
            None => Arc::clone(&self.text),
        }
    }

    /// Whether `hash` (blake3, hex) is that of `workload`'s `/etc/hosts`.
    pub fn is_hash(&self, workload: &WorkloadNode, hash: &str) -> bool {
        match own_line(workload) {
            Some(own) => {
                let mut hasher = self.hasher.clone();
                hasher.update(own.as_bytes());
                hasher.finalize().to_hex().as_str() == hash
            }
            None => self.hash == hash,
        }
    }
}

/// The line that names a container which has no address that would name it.
fn own_line(workload: &WorkloadNode) -> Option<String> {
    let alone = workload.attachment.is_none();
    alone.then(|| format!("{OWN_NAME} {}\n", instance_of(&workload.id.name)))
}
