//! A small farm on one bridge, and what the tests do with it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;

use hatchery::driver::network::HostNetworks;
use hatchery::driver::{Event, Networks};
use hatchery::graph::desired::{Attachment, NetworkNode};
use hatchery::plan::firewall;
use hatchery::plan::world::{AttachmentView, NetworkView};
use nix::sched::{CloneFlags, setns};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub const STACK: &str = "farm";
/// Packets to a dropped port vanish; so long does a connection wait.
pub const DROPPED: Duration = Duration::from_millis(300);

pub struct Host {
    pub networks: HostNetworks,
    pub events: UnboundedReceiver<Event>,
    _runtime: Runtime,
}

pub fn host(stack: &str) -> Host {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (send, events) = unbounded_channel();
    let networks = HostNetworks::new(stack, runtime.handle().clone(), send).unwrap();
    Host {
        networks,
        events,
        _runtime: runtime,
    }
}

pub fn network() -> NetworkNode {
    NetworkNode {
        name: "front".to_owned(),
        bridge: "front0".to_owned(),
        subnet: "10.77.0.0/24".parse().unwrap(),
        gateway: Ipv4Addr::new(10, 77, 0, 1),
        forward: false,
    }
}

pub fn attachment(number: u8) -> Attachment {
    Attachment {
        network: "front".to_owned(),
        bridge: "front0".to_owned(),
        namespace: format!("hatchery-{STACK}-w{number}"),
        link: format!("w{number}-abcd"),
        address: Ipv4Addr::new(10, 77, 0, number + 1),
        prefix: 24,
        gateway: Ipv4Addr::new(10, 77, 0, 1),
        firewall: None,
    }
}

/// What a settled attachment looks like.
pub fn settled(attachment: &Attachment) -> AttachmentView {
    AttachmentView {
        namespace: true,
        link: Some((attachment.link.clone(), Some(attachment.bridge.clone()))),
        address: Some(
            format!("{}/{}", attachment.address, attachment.prefix)
                .parse()
                .unwrap(),
        ),
        gateway: Some(attachment.gateway),
        firewall: attachment.firewall.as_ref().map(firewall::hash),
        foreign: None,
    }
}

pub fn view(host: &Host) -> NetworkView {
    let mut names = vec!["front0".to_owned()];
    for number in 1..=3 {
        names.push(attachment(number).link);
        names.push(attachment(number).namespace);
    }
    host.networks.observe(&names).unwrap()
}

pub fn farm(host: &Host, count: u8) {
    host.networks.create(&network()).unwrap();
    for number in 1..=count {
        host.networks.attach(&attachment(number)).unwrap();
    }
}

pub fn run(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{line}`: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Does `work` inside the namespace of an attachment, in a thread of its own.
pub fn inside<T: Send + 'static>(number: u8, work: impl FnOnce() -> T + Send + 'static) -> T {
    let path = format!("/run/netns/{}", attachment(number).namespace);
    let thread = std::thread::spawn(move || {
        let namespace: OwnedFd = File::open(path).unwrap().into();
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    });
    thread.join().unwrap()
}

/// Something that answers `hello` to each connection, until the test ends.
pub fn serve(number: u8, port: u16) {
    let listener = inside(number, move || {
        TcpListener::bind(("0.0.0.0", port)).unwrap()
    });
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"hello");
        }
    });
}

pub fn ask(number: u8, port: u16) -> io::Result<String> {
    let address = SocketAddr::from((attachment(number).address, port));
    let mut stream = TcpStream::connect_timeout(&address, DROPPED)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

pub fn refused(outcome: io::Result<String>) -> bool {
    outcome.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// Whether an echo request is answered: over the kernel's own ping socket, which any group
/// may open where `ping_group_range` says so.
pub fn ping(address: Ipv4Addr) -> bool {
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, sockopt};
    let socket =
        rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP)).unwrap();
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(DROPPED)).unwrap();
    let request = [8, 0, 0, 0, 0, 0, 0, 1];
    let target = SocketAddr::from((address, 0));
    rustix::net::sendto(&socket, &request, SendFlags::empty(), &target).unwrap();
    let mut answer = [0; 64];
    rustix::net::recv(&socket, &mut answer, RecvFlags::empty()).is_ok()
}
