#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::registry::{CheckKind, CheckSpec, Config, Origin, Registration};
use crate::spec::model::Status;
use crate::spec::time::Time;

fn shared() -> SharedCatalog {
    let config = Config {
        node: "n1".into(),
        address: "10.0.0.9".into(),
        datacenter: "dc1".into(),
    };
    SharedCatalog::new(Catalog::new(config, 1000))
}

fn web(ttl: Duration) -> Registration {
    Registration {
        id: "web1".into(),
        service: "web".into(),
        address: "10.0.0.1".into(),
        port: 80,
        tags: Vec::new(),
        meta: BTreeMap::new(),
        checks: vec![CheckSpec {
            id: "c".into(),
            name: "c".into(),
            kind: CheckKind::Ttl(ttl),
            initial: Status::Passing,
            notes: String::new(),
            deregister_after: None,
        }],
        origin: Origin::Stack,
        hash: String::new(),
    }
}

#[tokio::test]
async fn only_a_moved_index_wakes() {
    let shared = shared();
    let mut changed = shared.changed();
    shared.with(|catalog| catalog.deregister("nobody"));
    assert!(!changed.has_changed().unwrap());
    shared.with(|catalog| {
        catalog
            .register(web(Duration::from_secs(9)), Time(0))
            .unwrap()
    });
    assert!(changed.has_changed().unwrap());
    assert_eq!(*changed.borrow_and_update(), 1001);
}

#[test]
fn a_snapshot_is_made_once_for_each_index() {
    let shared = shared();
    let first = shared.snapshot();
    assert!(Arc::ptr_eq(&first, &shared.snapshot()));
    shared.with(|catalog| {
        catalog
            .register(web(Duration::from_secs(9)), Time(0))
            .unwrap()
    });
    let second = shared.snapshot();
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!(second.services.len(), 1);
}

#[test]
fn a_panic_under_the_lock_does_not_end_the_catalog() {
    let shared = shared();
    let other = shared.clone();
    let ended = std::thread::spawn(move || other.read(|_| panic!("on purpose"))).join();
    assert!(ended.is_err());
    assert_eq!(shared.read(Catalog::index), 1000);
}
