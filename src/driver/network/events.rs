//! Tells the loop when the host's links or addresses change.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockFlag, SockProtocol, recv};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::socket;
use crate::driver::Event;

/// The multicast groups of links and of IPv4 addresses.
const GROUPS: u32 = (libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR) as u32;

/// Listens in the calling thread's network namespace until nobody hears it any more.
pub(super) fn listen(
    runtime: &Handle,
    events: UnboundedSender<Event>,
) -> io::Result<JoinHandle<()>> {
    let flags = SockFlag::SOCK_NONBLOCK;
    let socket = socket::open(SockProtocol::NetlinkRoute, GROUPS, flags)?;
    let _inside = runtime.enter();
    // SAFETY: an `OwnedFd` answers with the same open descriptor for as long as it lives, and
    // the `AsyncFd` owns it.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    let socket = registered.map_err(|error| error.into_parts().1)?;
    Ok(runtime.spawn(forward(socket, events)))
}

async fn forward(socket: AsyncFd<OwnedFd>, events: UnboundedSender<Event>) {
    loop {
        let Ok(mut ready) = socket.readable().await else {
            return;
        };
        // One event stands for all that waits: it says only that it is time to look.
        drain(socket.get_ref());
        ready.clear_ready();
        if events.send(Event::Network).is_err() {
            return;
        }
    }
}

/// Reads and drops what is there. An overrun counts as news like any other.
fn drain(socket: &OwnedFd) {
    let mut buffer = [0; 64];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS) => {}
            Err(_) => return,
        }
    }
}
