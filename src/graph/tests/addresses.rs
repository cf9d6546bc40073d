use super::*;

fn shown(desired: &Desired) -> Vec<String> {
    addresses(desired)
        .iter()
        .map(|(id, address)| format!("{} {address}", id.name))
        .collect()
}

fn again(spec: &Spec, before: &Desired) -> Desired {
    let held = CompileInputs {
        held: addresses(before),
        ..inputs()
    };
    compile_here(spec, &held).unwrap()
}

#[test]
fn instances_follow_the_gateway_in_spec_order() {
    let desired = compiled(&farm());
    assert_eq!(
        shown(&desired),
        [
            "prime1 10.50.0.2",
            "prime2 10.50.0.3",
            "prime3 10.50.0.4",
            "prime4 10.50.0.5"
        ]
    );
    let Node::Network(network) = node(&desired, "networks/prime0") else {
        panic!("it is no network");
    };
    assert_eq!(network.gateway.to_string(), "10.50.0.1");
}

#[test]
fn scaling_moves_nobody() {
    let mut spec = farm();
    spec.containers
        .insert("other".to_owned(), container(Some("prime0"), None));
    let first = compiled(&spec);
    let scale = |spec: &mut Spec, count| {
        spec.containers.get_mut("prime").unwrap().workload.replicas = Some(count);
    };
    scale(&mut spec, 6);
    let more = again(&spec, &first);
    assert_eq!(
        shown(&more),
        [
            "other 10.50.0.6",
            "prime1 10.50.0.2",
            "prime2 10.50.0.3",
            "prime3 10.50.0.4",
            "prime4 10.50.0.5",
            "prime5 10.50.0.7",
            "prime6 10.50.0.8"
        ]
    );
    scale(&mut spec, 2);
    let fewer = again(&spec, &more);
    assert_eq!(
        shown(&fewer),
        ["other 10.50.0.6", "prime1 10.50.0.2", "prime2 10.50.0.3"]
    );
}

#[test]
fn a_held_address_that_no_longer_fits_is_given_up() {
    let mut spec = farm();
    let first = compiled(&spec);
    spec.networks
        .insert("prime0".to_owned(), network("10.60.0.0/24"));
    let moved = again(&spec, &first);
    assert_eq!(shown(&moved).first().unwrap(), "prime1 10.60.0.2");
}

#[test]
fn fixed_addresses_come_before_held_and_free_ones() {
    let mut spec = farm();
    let first = compiled(&spec);
    let mut fixed = container(Some("prime0"), None);
    fixed.address = Some(expr("10.50.0.{{ vars.host }}"));
    spec.vars.insert("host".to_owned(), serde_json::json!(3));
    spec.containers.insert("fixed".to_owned(), fixed);
    assert_eq!(
        shown(&again(&spec, &first)),
        [
            "fixed 10.50.0.3",
            "prime1 10.50.0.2",
            "prime2 10.50.0.6",
            "prime3 10.50.0.4",
            "prime4 10.50.0.5"
        ]
    );
}

#[test]
fn fixed_addresses_are_judged() {
    for (address, wrong) in [
        (
            "10.50.0.1",
            "`10.50.0.1` is no address for a container in `10.50.0.0/24`",
        ),
        (
            "10.50.0.255",
            "`10.50.0.255` is no address for a container in `10.50.0.0/24`",
        ),
        (
            "10.51.0.2",
            "`10.51.0.2` is no address for a container in `10.50.0.0/24`",
        ),
        ("here", "`here` is not an IPv4 address"),
    ] {
        let mut spec = farm();
        let mut fixed = container(Some("prime0"), None);
        fixed.address = Some(expr(address));
        spec.containers.insert("fixed".to_owned(), fixed);
        assert_eq!(
            errors_at(&spec, &["containers.fixed.address"]),
            [(wrong.to_owned(), Some(0))]
        );
    }
}

#[test]
fn a_full_network_is_an_error_that_is_said_once() {
    let mut spec = farm();
    spec.networks
        .insert("prime0".to_owned(), network("10.50.0.0/30"));
    assert_eq!(
        errors_at(&spec, &["containers.prime"]),
        [(
            "network `prime0` has no address left in `10.50.0.0/30` for `containers/prime`"
                .to_owned(),
            Some(0)
        )]
    );
    spec.networks
        .insert("prime0".to_owned(), network("10.50.0.0/31"));
    assert_eq!(
        errors(&spec),
        ["subnet `10.50.0.0/31` of network `prime0` has no room for the host and a container"]
    );
}
