//! The hosts file of a container.

use std::fmt::Write;

use super::desired::{Desired, Node, WorkloadNode};
use super::names::instance_of;
use crate::spec::node::NodeId;

/// What stands for a name where it has no address of its own; Debian's custom.
const OWN_NAME: &str = "127.0.1.1";

/// The text of `workload`'s `/etc/hosts`: itself, and every instance of the stack that has an
/// address, by its own name and its group's. A group's name so has all its addresses. Seats have
/// their instance's name; one that is `spare` is left out.
pub fn hosts_text(
    desired: &Desired,
    workload: &WorkloadNode,
    spare: &dyn Fn(&NodeId) -> bool,
) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    if workload.attachment.is_none() {
        let _ = writeln!(text, "{OWN_NAME} {}", instance_of(&workload.id.name));
    }
    for node in desired.nodes.values() {
        let Node::Workload(other) = node else {
            continue;
        };
        let Some(attachment) = &other.attachment else {
            continue;
        };
        if spare(&other.id) {
            continue;
        }
        let name = instance_of(&other.id.name);
        let _ = write!(text, "{} {name}", attachment.address);
        if other.group != name {
            let _ = write!(text, " {}", other.group);
        }
        text.push('\n');
    }
    text
}
