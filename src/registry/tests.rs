#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod guests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::spec::model::Status;
use crate::spec::time::Time;

const FIRST: u64 = 1000;

fn catalog() -> Catalog {
    let config = Config {
        node: "n1".into(),
        address: "10.0.0.9".into(),
        datacenter: "dc1".into(),
    };
    Catalog::new(config, FIRST)
}

fn at(seconds: u64) -> Time {
    Time(0) + Duration::from_secs(seconds)
}

fn service(id: &str, name: &str) -> Registration {
    Registration {
        id: id.into(),
        service: name.into(),
        address: "10.0.0.1".into(),
        port: 80,
        tags: vec!["a".into()],
        meta: BTreeMap::new(),
        checks: Vec::new(),
        origin: Origin::Stack,
        hash: "h".into(),
    }
}

fn check(id: &str, kind: CheckKind) -> CheckSpec {
    CheckSpec {
        id: id.into(),
        name: id.into(),
        kind,
        initial: Status::Critical,
        notes: String::new(),
        deregister_after: None,
    }
}

fn ttl(id: &str, seconds: u64) -> CheckSpec {
    check(id, CheckKind::Ttl(Duration::from_secs(seconds)))
}

#[test]
fn registering_twice_changes_nothing_and_keeps_states() {
    let mut catalog = catalog();
    let mut web = service("web1", "web");
    web.checks = vec![check("c", CheckKind::Probed), ttl("t", 10)];
    assert!(catalog.register(web.clone(), at(0)).unwrap());
    assert!(
        catalog
            .set_check("c", Status::Passing, "ok", at(1))
            .unwrap()
    );
    let index = catalog.index();

    web.hash = "another mark".into();
    assert!(!catalog.register(web.clone(), at(2)).unwrap());
    assert_eq!(catalog.index(), index);
    assert_eq!(catalog.check_status("c"), Some((Status::Passing, "ok")));
    assert_eq!(catalog.registered()["web1"].0, "another mark");

    web.tags.push("b".into());
    web.checks.pop();
    assert!(catalog.register(web, at(3)).unwrap());
    assert_eq!(catalog.check_status("c"), Some((Status::Passing, "ok")));
    assert_eq!(catalog.check_status("t"), None);
    assert_eq!(catalog.service_index("web"), catalog.index());
}

#[test]
fn only_a_flip_moves_the_index() {
    let mut catalog = catalog();
    let mut web = service("web1", "web");
    web.checks = vec![ttl("t", 10)];
    catalog.register(web, at(0)).unwrap();
    let before = catalog.index();
    assert!(
        catalog
            .set_check("t", Status::Passing, "one", at(1))
            .unwrap()
    );
    assert_eq!(catalog.index(), before + 1);
    assert!(
        !catalog
            .set_check("t", Status::Passing, "two", at(2))
            .unwrap()
    );
    assert_eq!(catalog.index(), before + 1);
    assert_eq!(catalog.check_status("t"), Some((Status::Passing, "two")));
}

#[test]
fn silence_is_critical_once() {
    let mut catalog = catalog();
    let mut web = service("web1", "web");
    web.checks = vec![ttl("t", 10)];
    catalog.register(web, at(0)).unwrap();
    catalog
        .set_check("t", Status::Passing, "fine", at(5))
        .unwrap();
    assert_eq!(catalog.next_expiry(), Some(at(15)));
    assert!(catalog.expire(at(14)).is_empty());
    let expired = catalog.expire(at(15));
    assert_eq!(expired.len(), 1);
    assert!(!expired[0].removed);
    let (status, output) = catalog.check_status("t").unwrap();
    assert_eq!(status, Status::Critical);
    assert_eq!(
        output,
        "TTL expired (last output before timeout follows): fine"
    );
    assert_eq!(catalog.next_expiry(), None);
    assert!(catalog.expire(at(99)).is_empty());
    catalog
        .set_check("t", Status::Passing, "back", at(100))
        .unwrap();
    assert_eq!(catalog.next_expiry(), Some(at(110)));
}

#[test]
fn an_outsiders_critical_service_leaves_and_the_stacks_stays() {
    for origin in [Origin::Client, Origin::Stack] {
        let mut catalog = catalog();
        let mut web = service("web1", "web");
        web.origin = origin;
        web.checks = vec![ttl("t", 10)];
        web.checks[0].deregister_after = Some(Duration::from_secs(60));
        catalog.register(web, at(0)).unwrap();
        catalog.set_check("t", Status::Passing, "", at(0)).unwrap();
        catalog.expire(at(10));
        catalog.expire(at(69));
        assert!(catalog.entry("web1").is_some());
        let leaving = catalog.expire(at(70));
        assert_eq!(catalog.entry("web1").is_none(), origin == Origin::Client);
        assert_eq!(
            leaving.iter().any(|one| one.removed),
            origin == Origin::Client
        );
    }
}

#[test]
fn indexes_of_services_that_are_gone_or_never_were() {
    let mut catalog = catalog();
    assert_eq!(catalog.service_index("none"), FIRST);
    catalog.register(service("web1", "web"), at(0)).unwrap();
    assert_eq!(catalog.service_index("none"), FIRST);
    assert!(catalog.deregister("web1"));
    assert!(!catalog.deregister("web1"));
    assert_eq!(catalog.service_index("web"), catalog.index());
    let gone = catalog.service_index("web");
    for n in 0..5000 {
        catalog
            .register(service("x", &format!("s{n}")), at(0))
            .unwrap();
    }
    // Forgotten by now, and still not lower than what was seen.
    assert!(catalog.service_index("web") >= gone);
    assert!(catalog.service_index("none") >= FIRST);
    assert!(catalog.service_index("none") < catalog.index());
}

#[test]
fn an_id_that_moves_to_another_service_wakes_both() {
    let mut catalog = catalog();
    catalog.register(service("x", "old"), at(0)).unwrap();
    catalog.register(service("x", "new"), at(0)).unwrap();
    assert_eq!(catalog.service_index("old"), catalog.index());
    assert_eq!(catalog.service_index("new"), catalog.index());
    assert_eq!(catalog.instances("old").count(), 0);
    assert_eq!(catalog.names_index(), catalog.index());
}

#[test]
fn outsiders_neither_change_the_stacks_services_nor_keep_them_out() {
    let mut catalog = catalog();
    let mut own = service("own", "web");
    own.checks = vec![ttl("own-check", 10)];
    catalog.register(own.clone(), at(0)).unwrap();

    let mut theirs = service("own", "evil");
    theirs.origin = Origin::Client;
    let refused = catalog.register(theirs.clone(), at(0));
    assert_eq!(refused, Err(CatalogError::Owned { id: "own".into() }));
    theirs.id = "evil".into();
    theirs.checks = vec![ttl("own-check", 10)];
    let refused = catalog.register(theirs.clone(), at(0));
    assert!(matches!(refused, Err(CatalogError::CheckTaken { .. })));

    // The other way round, a guest takes the names first, and the stack gets them all the same.
    catalog.deregister("own");
    theirs.origin = Origin::Guest;
    catalog.register(theirs.clone(), at(0)).unwrap();
    theirs.id = "own".into();
    theirs.checks.clear();
    catalog.register(theirs, at(0)).unwrap();
    catalog.register(own.clone(), at(0)).unwrap();
    assert_eq!(catalog.entry("own").unwrap().registration, own);
    assert!(catalog.entry("evil").is_none());
    assert_eq!(catalog.instances("evil").count(), 0);
}

#[test]
fn nothing_enters_that_a_configuration_file_would_act_upon() {
    let mut catalog = catalog();
    let spoil: [fn(&mut Registration); 16] = [
        |it| it.id = "a b".into(),
        |it| it.id = String::new(),
        |it| it.service = "x; } server {".into(),
        |it| it.service = "n".repeat(129),
        |it| it.tags = vec!["a;".into()],
        |it| it.tags = vec![String::new()],
        |it| it.tags = vec!["a".into(); MAX_TAGS + 1],
        |it| it.address = "10.0.0.1;".into(),
        |it| it.address = "0.0.0.0".into(),
        |it| it.address = "::".into(),
        |it| it.address = "fe80::1%eth0".into(),
        |it| it.address = "a..b".into(),
        |it| it.meta = BTreeMap::from([("k\n".into(), String::new())]),
        |it| it.meta = BTreeMap::from([("k".into(), "line\nbreak".into())]),
        |it| it.checks = vec![ttl("a b", 1)],
        |it| it.checks = vec![ttl(NODE_CHECK, 1)],
    ];
    for spoil in spoil {
        let mut registration = service("ok", "ok");
        spoil(&mut registration);
        let refused = catalog.register(registration.clone(), at(0)).unwrap_err();
        assert!(
            refused.to_string().starts_with("cannot register `"),
            "{refused}"
        );
        assert!(!refused.to_string().contains('\n'));
    }
    assert_eq!(catalog.index(), FIRST);
    for address in ["", "::1", "10.1.2.3", "db.example.org", "under_score"] {
        let mut registration = service("ok", "ok");
        registration.address = address.into();
        catalog.register(registration, at(0)).unwrap();
    }
    let twice = vec![ttl("c", 1), ttl("c", 2)];
    let mut registration = service("ok", "ok");
    registration.checks = twice;
    assert!(catalog.register(registration, at(0)).is_err());
}

#[test]
fn outputs_are_cut_between_characters() {
    let mut catalog = catalog();
    let mut web = service("web1", "web");
    web.checks = vec![ttl("t", 10)];
    catalog.register(web, at(0)).unwrap();
    let long = format!("x{}", "é".repeat(MAX_OUTPUT));
    catalog
        .set_check("t", Status::Passing, &long, at(0))
        .unwrap();
    let (_, output) = catalog.check_status("t").unwrap();
    assert_eq!(output.len(), MAX_OUTPUT - 1);
}

#[test]
fn outsiders_have_a_limit_of_their_own() {
    let mut catalog = catalog();
    let mut theirs = service("x", "x");
    theirs.origin = Origin::Client;
    for n in 0..MAX_CLIENT_SERVICES {
        theirs.id = format!("x{n}");
        catalog.register(theirs.clone(), at(0)).unwrap();
    }
    theirs.id = "one-more".into();
    let refused = catalog.register(theirs.clone(), at(0));
    assert!(matches!(refused, Err(CatalogError::Full { .. })));
    catalog.deregister("x0");
    catalog.register(theirs, at(0)).unwrap();
    catalog.register(service("own", "own"), at(0)).unwrap();
}

#[test]
fn the_first_index_leaves_room_below_the_limit() {
    let config = catalog().config().clone();
    let high = Catalog::new(config.clone(), u64::MAX);
    assert!(high.index() < INDEX_LIMIT);
    assert_eq!(Catalog::new(config, 0).index(), 1);
}

#[test]
fn a_snapshot_names_the_worst_check_and_the_nodes_address() {
    let mut catalog = catalog();
    let mut web = service("web1", "web");
    web.address = String::new();
    web.checks = vec![check("a", CheckKind::Probed), check("b", CheckKind::Probed)];
    catalog.register(web, at(0)).unwrap();
    catalog.set_check("a", Status::Passing, "", at(0)).unwrap();
    catalog.set_check("b", Status::Warning, "", at(0)).unwrap();
    let snapshot = catalog.snapshot();
    let instance = &snapshot.services["web"][0];
    assert_eq!(instance.status, Status::Warning);
    assert_eq!(instance.address, "10.0.0.9");
    assert_eq!(snapshot.nodes[0].name, "n1");
}

/// What somebody does to the catalog.
#[derive(Debug, Clone)]
enum Act {
    Register {
        id: u8,
        name: u8,
        tag: u8,
        checks: u8,
        client: bool,
    },
    Deregister(u8),
    Set(u8, Status, u8),
    Expire,
}

fn act() -> impl Strategy<Value = Act> {
    let status = prop_oneof![
        Just(Status::Passing),
        Just(Status::Warning),
        Just(Status::Critical)
    ];
    prop_oneof![
        (0..4u8, 0..3u8, 0..2u8, 0..4u8, any::<bool>()).prop_map(
            |(id, name, tag, checks, client)| Act::Register {
                id,
                name,
                tag,
                checks,
                client
            }
        ),
        (0..4u8).prop_map(Act::Deregister),
        (0..4u8, status, 0..2u8).prop_map(|(id, status, text)| Act::Set(id, status, text)),
        Just(Act::Expire),
    ]
}

fn perform(catalog: &mut Catalog, act: &Act, now: Time) {
    match act {
        Act::Register {
            id,
            name,
            tag,
            checks,
            client,
        } => {
            let mut registration = service(&format!("i{id}"), &format!("s{name}"));
            registration.tags = vec![format!("t{tag}")];
            registration.checks = (0..*checks)
                .map(|n| match n {
                    0 => ttl(&format!("c{id}"), 3),
                    n => check(&format!("c{id}:{n}"), CheckKind::Probed),
                })
                .collect();
            if *client {
                registration.origin = match id % 2 {
                    0 => Origin::Guest,
                    _ => Origin::Client,
                };
                for check in &mut registration.checks {
                    check.deregister_after = Some(Duration::from_secs(4));
                }
            }
            // Refusals of the stack's ids are part of the game.
            catalog.register(registration, now).ok();
        }
        Act::Deregister(id) => {
            catalog.deregister(&format!("i{id}"));
        }
        Act::Set(id, status, text) => {
            let output = format!("says {text}");
            catalog
                .set_check(&format!("c{id}"), *status, &output, now)
                .ok();
        }
        Act::Expire => {
            catalog.expire(now);
        }
    }
}

/// All that a reader of one service sees, indexes and outputs left aside.
fn seen(catalog: &Catalog, name: &str) -> Vec<String> {
    let entries = catalog.instances(name);
    entries
        .map(|entry| {
            let own = &entry.registration;
            let checks = entry.checks.iter();
            let checks: Vec<_> = checks.map(|one| (&one.spec.id, one.status)).collect();
            format!("{} {:?} {:?}", own.id, own.tags, checks)
        })
        .collect()
}

fn all_checks(catalog: &Catalog) -> BTreeSet<String> {
    let entries = catalog.entries();
    entries
        .flat_map(|entry| {
            let own = &entry.registration;
            entry.checks.iter().map(move |one| {
                format!(
                    "{} {} {:?} {:?}",
                    one.spec.id, own.service, own.tags, one.status
                )
            })
        })
        .collect()
}

proptest! {
    #[test]
    fn an_index_moves_exactly_with_what_its_reader_sees(
        acts in prop::collection::vec(act(), 1..60)
    ) {
        let mut catalog = catalog();
        for (step, act) in acts.iter().enumerate() {
            let before = catalog.clone();
            perform(&mut catalog, act, at(step as u64));
            prop_assert!(catalog.index() >= before.index());
            for name in ["s0", "s1", "s2", "never"] {
                let moved = catalog.service_index(name) > before.service_index(name);
                prop_assert!(catalog.service_index(name) >= before.service_index(name));
                let differs = seen(&catalog, name) != seen(&before, name);
                // An outsider's service that is displaced by an equal one of the stack is the
                // one change that cannot be seen.
                let displaced = matches!(act, Act::Register { client: false, .. });
                prop_assert!(moved == differs || (moved && displaced), "{name} after {act:?}");
            }
            let relisted = catalog.names() != before.names();
            let moved = catalog.names_index() > before.names_index();
            let displacing = matches!(act, Act::Register { client: false, .. });
            prop_assert!(relisted == moved || (moved && displacing));
            prop_assert!(
                all_checks(&catalog) == all_checks(&before)
                    || catalog.checks_index() > before.checks_index()
            );
            let lists = [catalog.names_index(), catalog.entries_index(), catalog.checks_index()];
            prop_assert!(lists.iter().all(|index| *index <= catalog.index()));
        }
    }

    #[test]
    fn a_snapshot_agrees_with_the_entries(acts in prop::collection::vec(act(), 1..60)) {
        let mut catalog = catalog();
        for (step, act) in acts.iter().enumerate() {
            perform(&mut catalog, act, at(step as u64));
        }
        let snapshot = catalog.snapshot();
        let listed: usize = snapshot.services.values().map(Vec::len).sum();
        prop_assert_eq!(listed, catalog.entries().count());
        for (name, instances) in &snapshot.services {
            let ids: Vec<&str> = instances.iter().map(|one| one.id.as_str()).collect();
            let expected: Vec<&str> =
                catalog.instances(name).map(|entry| entry.registration.id.as_str()).collect();
            prop_assert_eq!(ids, expected);
            for instance in instances {
                let entry = catalog.entry(&instance.id).unwrap();
                prop_assert_eq!(instance.status, entry.status());
            }
        }
        for check in catalog.entries().flat_map(|entry| &entry.checks) {
            prop_assert!(catalog.check(&check.spec.id).is_some());
        }
        let names: Vec<&str> = snapshot.services.keys().map(String::as_str).collect();
        prop_assert_eq!(names, catalog.names().into_keys().collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_due_before_the_next_expiry(acts in prop::collection::vec(act(), 1..60)) {
        let mut catalog = catalog();
        for (step, act) in acts.iter().enumerate() {
            perform(&mut catalog, act, at(step as u64));
        }
        let mut rounds = 0;
        while let Some(moment) = catalog.next_expiry() {
            prop_assert!(catalog.clone().expire(moment - Duration::from_nanos(1)).is_empty()
                || moment <= at(acts.len() as u64));
            prop_assert!(!catalog.expire(moment).is_empty());
            rounds += 1;
            prop_assert!(rounds < 100);
        }
    }
}
