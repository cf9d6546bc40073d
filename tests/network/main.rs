//! Networks on the real kernel: bridges, namespaces, links and firewalls.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod farm;
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hatchery::driver::{ErrorKind, Networks};
use hatchery::plan::firewall;
use hatchery::plan::world::AttachmentView;
use hatchery::spec::model::Firewall;
use nix::sched::{CloneFlags, setns};

use farm::*;

#[test]
fn two_namespaces_reach_each_other_and_the_host_reaches_both() {
    isolate!();
    let host = host(STACK);
    farm(&host, 2);
    let seen = view(&host);
    let bridge = &seen.bridges["front0"];
    assert!(bridge.ours && bridge.up, "{bridge:?}");
    assert_eq!(bridge.addresses, ["10.77.0.1/24".parse().unwrap()]);
    assert_eq!(seen.attachments.len(), 2);
    for number in 1..=2 {
        let attachment = attachment(number);
        assert_eq!(
            seen.attachments[&attachment.namespace],
            settled(&attachment)
        );
        serve(number, 80);
    }
    assert_eq!(ask(1, 80).unwrap(), "hello");
    assert_eq!(inside(2, || ask(1, 80)).unwrap(), "hello");
    assert_eq!(inside(1, || ask(2, 80)).unwrap(), "hello");
    let low_ports = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let low = inside(1, move || fs::read_to_string(low_ports).unwrap());
    assert_eq!(low.trim(), "0");
    assert_ne!(fs::read_to_string(low_ports).unwrap().trim(), "0");
    assert!(inside(1, || TcpListener::bind("127.0.0.1:0")).is_ok());
}

#[test]
fn asking_again_changes_nothing() {
    isolate!();
    let host = host(STACK);
    farm(&host, 2);
    let links = || {
        let inner = inside(1, || run("ip -o link; ip -o -4 address; ip route"));
        (run("ip -o link; ip -o -4 address; ip route"), inner)
    };
    let (before, seen) = (links(), view(&host));
    farm(&host, 2);
    assert_eq!(links(), before);
    assert_eq!(view(&host), seen);
}

#[test]
fn the_firewall_lets_in_only_what_it_names() {
    isolate!();
    let host = host(STACK);
    farm(&host, 2);
    let namespace = attachment(1).namespace;
    for port in [8080, 8081] {
        serve(1, port);
    }
    inside(1, || run("nft add table inet theirs"));
    let mut rules = Firewall {
        allow_tcp: vec![8080],
        allow_ping: true,
        ..Firewall::default()
    };
    let set = |rules: Option<&Firewall>| host.networks.firewall(&namespace, rules).unwrap();
    let hash = || view(&host).attachments[&namespace].firewall.clone();
    set(Some(&rules));
    assert_eq!(hash(), Some(firewall::hash(&rules)));
    assert_eq!(ask(1, 8080).unwrap(), "hello");
    assert!(refused(ask(1, 8081)));
    assert!(refused(inside(2, || ask(1, 8081))));
    // What goes out is not looked at, nor what comes back, nor what stays inside.
    serve(2, 9000);
    assert_eq!(inside(1, || ask(2, 9000)).unwrap(), "hello");
    assert_eq!(inside(1, || ask(1, 8081)).unwrap(), "hello");

    rules.allow_from = vec!["10.77.0.3/32".parse().unwrap()];
    set(Some(&rules));
    set(Some(&rules));
    assert_eq!(hash(), Some(firewall::hash(&rules)));
    assert_eq!(inside(2, || ask(1, 8081)).unwrap(), "hello");
    assert!(refused(ask(1, 8081)));

    set(None);
    set(None);
    assert_eq!(hash(), None);
    assert_eq!(ask(1, 8081).unwrap(), "hello");
    let tables = inside(1, || run("nft list tables"));
    assert_eq!(tables.trim(), "table inet theirs");
}

#[test]
fn a_ping_is_answered_only_where_it_is_allowed() {
    isolate!();
    let host = host(STACK);
    farm(&host, 1);
    let namespace = attachment(1).namespace;
    let ping = || ping(attachment(1).address);
    for allow_ping in [true, false] {
        let rules = Firewall {
            allow_ping,
            ..Firewall::default()
        };
        host.networks.firewall(&namespace, Some(&rules)).unwrap();
        assert_eq!(ping(), allow_ping);
    }
}

#[test]
fn who_has_no_privileges_in_a_namespace_can_ping() {
    isolate!();
    let host = host(STACK);
    farm(&host, 2);
    let script = "import socket\n\
                  ping = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)\n\
                  ping.settimeout(5)\n\
                  ping.sendto(bytes([8, 0, 0, 0, 0, 0, 0, 1]) + b'there?', ('ADDRESS', 0))\n\
                  print(ping.recv(100)[8:])";
    let script = script.replace("ADDRESS", &attachment(2).address.to_string());
    let line = format!("setpriv --reuid 4321 --clear-groups /usr/bin/python3 -c \"{script}\"");
    assert_eq!(inside(1, move || run(&line)), "b'there?'\n");
}

#[test]
fn what_was_undone_by_hand_is_seen_and_mended() {
    isolate!();
    let host = host(STACK);
    farm(&host, 2);
    serve(2, 80);
    let one = attachment(1);
    let within = |line: &str| {
        let line = line.to_owned();
        inside(1, move || run(&line));
    };
    let damages: [&dyn Fn(); 12] = [
        &|| drop(run("ip link del w1-abcd")),
        &|| drop(run("ip link set w1-abcd down")),
        &|| drop(run("ip link set w1-abcd nomaster")),
        &|| drop(run("ip link set w1-abcd name elsewhere")),
        &|| drop(run("ip netns del hatchery-farm-w1")),
        &|| drop(run("umount /run/netns/hatchery-farm-w1")),
        &|| within("ip link set eth0 down"),
        &|| within("ip address flush dev eth0"),
        &|| within("ip address add 10.77.0.99/24 dev eth0"),
        &|| within("ip route del default"),
        &|| within("ip link set eth0 name gone0"),
        &|| drop(run("ip link del front0")),
    ];
    for (number, damage) in damages.iter().enumerate() {
        damage();
        let seen = view(&host);
        let whole = seen.bridges.contains_key("front0")
            && seen.attachments.get(&one.namespace) == Some(&settled(&one));
        assert!(!whole, "damage {number} is not seen: {seen:?}");
        farm(&host, 2);
        let seen = view(&host);
        assert_eq!(
            seen.attachments.get(&one.namespace),
            Some(&settled(&one)),
            "damage {number} is not mended"
        );
        assert_eq!(inside(1, || ask(2, 80)).unwrap(), "hello", "{number}");
    }
    // The bridge's own parts.
    run(
        "ip link set front0 down; ip address add 10.78.0.1/24 dev front0; \
         ip link set front0 type bridge stp_state 1",
    );
    let bridge = view(&host).bridges["front0"].clone();
    assert!(!bridge.up && bridge.addresses.len() == 2, "{bridge:?}");
    farm(&host, 2);
    let bridge = view(&host).bridges["front0"].clone();
    assert!(bridge.up && bridge.addresses.len() == 1, "{bridge:?}");
    assert_eq!(inside(1, || ask(2, 80)).unwrap(), "hello");
}

#[test]
fn a_running_namespace_that_lost_its_name_gives_up_its_link() {
    isolate!();
    let host = host(STACK);
    farm(&host, 1);
    let one = attachment(1);
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let path = format!("/run/netns/{}", one.namespace);
    let namespace: OwnedFd = File::open(path).unwrap().into();
    let holder = std::thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let _ = wait.recv();
    });
    run("ip netns del hatchery-farm-w1");
    let seen = view(&host).attachments[&one.namespace].clone();
    assert!(!seen.namespace && seen.link.is_some(), "{seen:?}");
    host.networks.attach(&one).unwrap();
    assert_eq!(view(&host).attachments[&one.namespace], settled(&one));
    drop(done);
    holder.join().unwrap();
}

#[test]
fn what_others_made_is_named_and_left_alone() {
    isolate!();
    let host = host(STACK);
    run(
        "ip link add front0 type bridge; ip link set front0 alias lab; \
         ip address add 10.77.0.200/16 dev front0; ip link set front0 up",
    );
    let error = host.networks.create(&network()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Foreign);
    assert!(error.message.contains("`lab`"), "{error}");
    let error = host.networks.remove("front0").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Foreign);
    let seen = view(&host);
    assert!(!seen.bridges["front0"].ours, "{seen:?}");
    let held = ("front0".to_owned(), "10.77.0.200/16".parse().unwrap());
    assert!(seen.foreign.contains(&held), "{seen:?}");
    run("ip link del front0");

    host.networks.create(&network()).unwrap();
    run("ip link add w1-abcd type veth peer name other; ip netns add hatchery-farm-w2");
    for number in 1..=2 {
        let error = host.networks.attach(&attachment(number)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Foreign, "{error}");
    }
    let seen = view(&host);
    assert!(!seen.bridges["w1-abcd"].ours, "{seen:?}");
    assert_eq!(
        seen.bridges["w1-abcd"].holder,
        "a veth that this stack did not make"
    );
    let two = attachment(2).namespace;
    assert!(seen.attachments[&two].foreign.is_some(), "{seen:?}");
    for outcome in [
        host.networks.detach(&two),
        host.networks.firewall(&two, None),
    ] {
        assert_ne!(outcome.unwrap_err().kind, ErrorKind::Failed);
    }
    run("ip link show w1-abcd; ip netns exec hatchery-farm-w2 true");
}

#[test]
fn a_stack_whose_name_begins_with_anothers_is_another_stack() {
    isolate!();
    let short = host("farm");
    let long = host("farm-w");
    let names = ["front0".to_owned()];
    let mut other = attachment(1);
    other.namespace = "hatchery-farm-w-1".to_owned();
    long.networks.create(&network()).unwrap();
    long.networks.attach(&other).unwrap();
    let seen = short.networks.observe(&names).unwrap();
    assert!(seen.attachments.is_empty(), "{seen:?}");
    assert!(!seen.bridges["front0"].ours, "{seen:?}");
    let error = short.networks.detach(&other.namespace).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Foreign);
    let seen = long.networks.observe(&names).unwrap();
    assert_eq!(seen.attachments[&other.namespace], settled(&other));
}

#[test]
fn stale_namespace_files_are_replaced_or_removed() {
    isolate!();
    let host = host(STACK);
    for number in 1..=2 {
        let path = format!("/run/netns/{}", attachment(number).namespace);
        fs::write(path, "").unwrap();
    }
    let seen = view(&host);
    assert_eq!(seen.attachments.len(), 2);
    assert!(
        seen.attachments
            .values()
            .all(|view| *view == AttachmentView::default())
    );
    farm(&host, 1);
    let one = attachment(1);
    assert_eq!(view(&host).attachments[&one.namespace], settled(&one));
    let two = attachment(2).namespace;
    host.networks.detach(&two).unwrap();
    assert!(!view(&host).attachments.contains_key(&two));
    // A file with something in it is nobody's namespace, and not ours to remove.
    let kept = format!("/run/netns/{two}");
    fs::write(&kept, "mine").unwrap();
    let error = host.networks.attach(&attachment(2)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Foreign);
    assert_eq!(fs::read_to_string(&kept).unwrap(), "mine");
}

#[test]
fn nothing_is_left_when_all_is_removed() {
    isolate!();
    let state = || run("ip -o link; ip -o address; ls /run/netns; nft list tables; ip route");
    let before = state();
    let mounts = || fs::read_to_string("/proc/self/mounts").unwrap();
    let mounted = mounts();
    {
        let host = host(STACK);
        farm(&host, 3);
        let rules = Firewall::default();
        let first = attachment(1).namespace;
        host.networks.firewall(&first, Some(&rules)).unwrap();
        view(&host);
    }
    // Another life of the program finds all of it by the marks alone.
    let host = host(STACK);
    let seen = host.networks.observe(&[]).unwrap();
    assert_eq!(seen.attachments.len(), 3);
    for namespace in seen.attachments.keys() {
        host.networks.detach(namespace).unwrap();
        host.networks.detach(namespace).unwrap();
    }
    for bridge in seen.bridges.keys() {
        host.networks.remove(bridge).unwrap();
        host.networks.remove(bridge).unwrap();
    }
    assert_eq!(state(), before);
    assert_eq!(mounts(), mounted);
    let seen = host.networks.observe(&[]).unwrap();
    assert!(seen.attachments.is_empty() && seen.bridges.is_empty());
}

#[test]
fn a_change_of_links_or_addresses_is_told() {
    isolate!();
    let mut host = host(STACK);
    let told = |host: &mut Host, what: &str| {
        support::wait_for(what, Duration::from_secs(5), || host.events.try_recv().ok());
        // What follows at once belongs to the same change.
        let quiet = Duration::from_millis(100);
        let mut last = Instant::now();
        while last.elapsed() < quiet {
            if host.events.try_recv().is_ok() {
                last = Instant::now();
            }
            std::thread::yield_now();
        }
    };
    run("ip link add lab0 type bridge");
    told(&mut host, "a new link");
    run("ip address add 10.1.0.1/24 dev lab0");
    told(&mut host, "a new address");
    run("ip link del lab0");
    told(&mut host, "a link that went");
    assert!(host.events.try_recv().is_err());
}

#[test]
fn forwarding_is_turned_on_and_never_off() {
    isolate!();
    let host = host(STACK);
    host.networks.create(&network()).unwrap();
    assert!(!view(&host).forward);
    let mut forwarding = network();
    forwarding.forward = true;
    host.networks.create(&forwarding).unwrap();
    assert!(view(&host).forward);
    host.networks.create(&network()).unwrap();
    host.networks.remove("front0").unwrap();
    assert!(view(&host).forward);
}

#[test]
fn many_at_once_come_up_whole() {
    isolate!();
    let host = host(STACK);
    host.networks.create(&network()).unwrap();
    std::thread::scope(|scope| {
        for number in 1..=3 {
            let networks = &host.networks;
            scope.spawn(move || networks.attach(&attachment(number)).unwrap());
        }
        let watching = scope.spawn(|| {
            for _ in 0..50 {
                view(&host);
            }
        });
        watching.join().unwrap();
    });
    let seen = view(&host);
    for number in 1..=3 {
        let attachment = attachment(number);
        assert_eq!(
            seen.attachments[&attachment.namespace],
            settled(&attachment)
        );
    }
}
