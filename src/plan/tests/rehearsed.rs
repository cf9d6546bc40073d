//! The host in the mind on which a spec is rehearsed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::farm::each_container;
use super::*;
use crate::plan::rehearsal::Rehearsal;
use crate::spec::model::Firewall;

const SOURCE: &str =
    "{% for i in service('prime') %}server {{ i.address }}:{{ i.port }};\n{% endfor %}";

fn nobody(path: &Path) -> Result<String, String> {
    Err(format!("nobody has {}", path.display()))
}

/// The farm with all that a host may have to do for it.
fn whole(replicas: u32, grace: u64) -> Desired {
    let mut desired = farm(replicas, "python3");
    each_container(&mut desired, |node| {
        node.stop_grace_period = Duration::from_secs(grace);
        let attachment = node.attachment.as_mut().unwrap();
        attachment.firewall = Some(Firewall {
            allow_tcp: vec![8080],
            ..Firewall::default()
        });
    });
    let network = NodeId::new(Kind::Networks, "prime0");
    if let Some(Node::Network(network)) = desired.nodes.get_mut(&network) {
        network.forward = true;
    }
    desired
}

fn rehearsed(desired: Desired) -> Rehearsal {
    let sources = [(PathBuf::from("/spec/upstream.j2"), Ok(SOURCE.to_owned()))];
    let mut host = Rehearsal::new(desired, sources.into());
    assert!(host.converge(100, &nobody));
    host
}

fn file(host: &Rehearsal) -> &str {
    &host.contents[Path::new("/etc/upstream.conf")]
}

#[test]
fn a_spec_is_in_force_when_it_was_rehearsed() {
    let mut host = rehearsed(whole(2, 10));
    assert!(host.plan().is_empty());
    assert_eq!(
        file(&host),
        "server 10.50.0.2:8080;\nserver 10.50.0.3:8080;\n"
    );
    for (replicas, grace) in [(2, 20), (3, 20), (1, 20), (1, 10)] {
        host.edit(whole(replicas, grace));
        assert!(!host.plan().is_empty());
        let before = host.now;
        assert!(host.converge(100, &nobody), "{replicas} {grace}");
        assert!(host.now > before);
        let containers = host.observed.lives.iter();
        let containers = containers.filter(|life| life.id.node.kind == Kind::Containers);
        assert_eq!(containers.count(), replicas as usize);
    }
    assert_eq!(file(&host), "server 10.50.0.2:8080;\n");
    assert!(host.memory.asked.is_empty(), "what is gone is forgotten");
}

#[test]
fn a_spec_that_cannot_come_to_rest_is_found_out() {
    let mut desired = whole(1, 10);
    let nginx = NodeId::new(Kind::Processes, "nginx");
    let missing = Need {
        on: NodeId::new(Kind::Processes, "missing"),
        condition: crate::spec::model::Condition::Started,
    };
    desired.needs.get_mut(&nginx).unwrap().push(missing);
    let mut host = Rehearsal::new(desired, BTreeMap::new());
    assert!(!host.converge(100, &nobody));
}

#[test]
fn a_file_of_somebody_else_is_seen() {
    let mut host = rehearsed(whole(1, 10));
    let path = Path::new("/etc/upstream.conf");
    host.put(path, "mine");
    assert!(matches!(
        &host.observed.files[path],
        FileView::File { mark: None, .. }
    ));
    assert_eq!(file(&host), "mine");
    assert!(!host.plan().is_empty());
}
