//! How many clients still talk to a port, as sock_diag(7) tells it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;

use nix::sys::socket::SockProtocol;

use super::namespace;
use super::socket::Socket;
use super::wire::Message;

/// Enough to know that somebody is there: beyond it nobody counts on.
const MOST: u32 = 100_000;

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
const DUMP: i32 = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
/// Length of `struct inet_diag_sockid` of `linux/inet_diag.h`.
const SOCKET_ID: usize = 48;
/// Where the local port begins in `struct inet_diag_msg`.
const LOCAL_PORT: usize = 4;

/// The states, by their numbers in `net/tcp_states.h`, in which a client still talks to us: from
/// the handshake until our last word, the FIN, has been acknowledged.
///
/// A client may close its side first and wait for the answer (CLOSE_WAIT, then LAST_ACK); an
/// answer may be on its way after the program closed (FIN_WAIT1, CLOSING), and would be lost
/// with the namespace. In FIN_WAIT2 the client has all of it. LISTEN and TIME_WAIT are no
/// conversations, and a handshake that is under way becomes one soon or never.
const TALKING: u32 =
    1 << ESTABLISHED | 1 << FIN_WAIT1 | 1 << CLOSE_WAIT | 1 << LAST_ACK | 1 << CLOSING;
const ESTABLISHED: u32 = 1;
const FIN_WAIT1: u32 = 4;
const CLOSE_WAIT: u32 = 8;
const LAST_ACK: u32 = 9;
const CLOSING: u32 = 11;

/// The TCP connections, of both IP versions, to any of these local ports in a namespace; at
/// most 100,000 are counted for each port.
pub(in crate::driver) fn connections(network: &File, ports: &BTreeSet<u16>) -> io::Result<u32> {
    if ports.is_empty() {
        return Ok(0);
    }
    let mut socket = namespace::enter(network, || Socket::open(SockProtocol::NetlinkSockDiag))?;
    let mut sum: u32 = 0;
    for port in ports {
        sum = sum.saturating_add(count(&mut socket, libc::AF_INET, *port)?);
        let newer = match count(&mut socket, libc::AF_INET6, *port) {
            // A kernel without IPv6 has nobody to answer.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => 0,
            counted => counted?,
        };
        sum = sum.saturating_add(newer);
    }
    Ok(sum)
}

fn count(socket: &mut Socket, family: i32, port: u16) -> io::Result<u32> {
    let ask = Message::new(BY_FAMILY, DUMP, &request(family, port));
    let mut count: u32 = 0;
    // A list that changes while it is read is as good as any: the next moment it differs anyway.
    socket.each(ask, BY_FAMILY, |body| {
        let local = body.get(LOCAL_PORT..LOCAL_PORT + 2);
        // Old kernels do not look at the port that was asked for.
        if local == Some(&port.to_be_bytes()) {
            count = count.saturating_add(1);
        }
        count < MOST
    })?;
    Ok(count)
}

/// A `struct inet_diag_req_v2`.
fn request(family: i32, port: u16) -> Vec<u8> {
    let byte = |number: i32| u8::try_from(number).unwrap_or(0);
    let mut bytes = vec![byte(family), byte(libc::IPPROTO_TCP), 0, 0];
    bytes.extend_from_slice(&TALKING.to_ne_bytes());
    let id = bytes.len();
    bytes.resize(id + SOCKET_ID, 0);
    bytes.splice(id..id + 2, port.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_kernels_layout() {
        let bytes = request(libc::AF_INET6, 8080);
        assert_eq!(bytes.len(), 56);
        assert_eq!(bytes[..4], [10, 6, 0, 0]);
        assert_eq!(bytes[4..8], 0b1011_0001_0010_u32.to_ne_bytes());
        assert_eq!(bytes[8..10], [0x1f, 0x90]);
        assert!(bytes[10..].iter().all(|byte| *byte == 0));
    }
}
