//! What guests may not take from the stack.

use super::*;

#[test]
fn a_name_of_the_stack_is_no_guests() {
    let from = |origin: Origin, id: &str, name: &str| Registration {
        origin,
        ..service(id, name)
    };
    let mut catalog = catalog();
    for (origin, id) in [(Origin::Guest, "early"), (Origin::Client, "token")] {
        catalog.register(from(origin, id, "web"), at(0)).unwrap();
    }
    catalog.register(service("web1", "web"), at(0)).unwrap();
    let ids = |catalog: &Catalog| -> Vec<String> {
        let entries = catalog.instances("web");
        entries.map(|entry| entry.registration.id.clone()).collect()
    };
    assert_eq!(ids(&catalog), ["token", "web1"]);
    catalog.deregister("token");
    catalog.deregister("web1");
    // Nor once it has none there, however many names come and go.
    for n in 0..5000 {
        let name = format!("s{n}");
        let guest = from(Origin::Guest, "guest", &name);
        catalog.register(guest, at(1)).unwrap();
    }
    let refused = catalog.register(from(Origin::Guest, "guest", "web"), at(1));
    assert!(
        matches!(refused, Err(CatalogError::Reserved { .. })),
        "{refused:?}"
    );
    let allowed = catalog.register(from(Origin::Client, "token", "web"), at(1));
    assert_eq!(allowed, Ok(true));
}

#[test]
fn what_a_client_of_the_host_holds_is_named_and_stays() {
    let mut own = service("own", "web");
    own.checks = vec![ttl("own-check", 10)];
    for (id, check) in [("own", "other"), ("theirs", "own-check")] {
        let mut catalog = catalog();
        let mut theirs = service(id, "lab");
        theirs.origin = Origin::Client;
        theirs.checks = vec![ttl(check, 10)];
        catalog.register(theirs.clone(), at(0)).unwrap();
        let refused = catalog.register(own.clone(), at(0)).unwrap_err();
        assert!(matches!(refused, CatalogError::Held { .. }), "{refused}");
        let words = refused.to_string();
        assert!(words.contains("service `lab` at"), "{words}");
        assert!(words.contains(&format!("as `{id}`")), "{words}");
        assert_eq!(catalog.entry(id).unwrap().registration, theirs);
        catalog.deregister(id);
        catalog.register(own.clone(), at(0)).unwrap();
    }
}
