//! What others on the host hold before a workload begins: its ports, its address.

use super::standing::{SECOND, check, converged, item, nginx, prime};
use super::*;

#[test]
fn what_a_process_serves_by_its_services_needs_its_port_as_well() {
    let mut world = converged(farm(1, "python3"));
    world.exit(&nginx(), Exit::Code(1));
    world.now = world.now + 2 * SECOND;
    if let Some(Node::Workload(node)) = world.desired.nodes.get_mut(&nginx()) {
        let url = "http://127.0.0.1:8081/ready?x=1".to_owned();
        let probe = ProbeNode::Http {
            url,
            method: "GET".to_owned(),
            headers: Default::default(),
            status: Vec::new(),
            body: None,
        };
        let check = CheckNode {
            probe,
            ..check("ready")
        };
        let timeout = SECOND;
        node.ready = ReadyNode::Check { check, timeout };
    }
    let id = NodeId::endpoint("prime", "prime1");
    let Some(Node::Endpoint(endpoint)) = world.desired.nodes.get(&id).cloned() else {
        panic!("the farm has an endpoint");
    };
    let served = EndpointNode {
        target: Some(nginx()),
        address: "127.0.0.1".to_owned(),
        port: 80,
        ..endpoint
    };
    let id = NodeId::endpoint("web", "nginx");
    world.desired.nodes.insert(id, Node::Endpoint(served));
    let plan = world.plan();
    let steps = &item(&plan, &nginx()).steps;
    let asked: Vec<String> = steps
        .iter()
        .filter_map(|step| match step {
            Step::PortFree(address) => Some(address.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(asked, ["127.0.0.1:80", "127.0.0.1:8081"]);
}

#[test]
fn an_address_that_a_link_of_the_host_has_stops_its_workload_alone() {
    let mut world = converged(farm(2, "python3"));
    world.exit(&prime(1), Exit::Code(1));
    world.now = world.now + 2 * SECOND;
    let Some(Node::Workload(node)) = world.desired.nodes.get(&prime(1)) else {
        panic!("the farm has prime1");
    };
    let address = node.attachment.as_ref().unwrap().address;
    let theirs = ipnet::Ipv4Net::new(address, 32).unwrap();
    world
        .observed
        .network
        .foreign
        .push(("tun0".to_owned(), theirs));
    let plan = world.plan();
    let gate = &item(&plan, &prime(1)).gate;
    let said = format!("cannot use address {address}: it is held by link `tun0`");
    assert!(
        matches!(gate, Gate::Blocked(why) if why.starts_with(&said)),
        "{gate:?}"
    );
    assert!(plan.items.iter().all(|item| item.node != prime(2)));
}
