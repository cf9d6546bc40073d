//! Who listens on a port, from `/proc/net/tcp` and `/proc/PID/fd` (proc(5)).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `TCP_LISTEN` in the kernel's table.
const LISTENING: &str = "0A";

/// The process that listens on `address`, or on all addresses at its port.
pub(super) fn holder(address: SocketAddr) -> Option<String> {
    let mut inodes = Vec::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(listeners(&text, address));
    }
    if inodes.is_empty() {
        return None;
    }
    Some(process_with(&inodes).unwrap_or_else(|| "a process that is not visible here".to_owned()))
}

/// The inodes of the sockets in a kernel table that stand in the way of `address`.
fn listeners(table: &str, address: SocketAddr) -> Vec<String> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let local = parse(fields.get(1)?)?;
            let listens = *fields.get(3)? == LISTENING;
            (listens && collide(local, address)).then(|| fields.get(9).map(|f| (*f).to_owned()))?
        })
        .filter(|inode| inode != "0")
        .collect()
}

fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// `0100007F:0050`: each group of four bytes is a number in the machine's own byte order.
fn parse(field: &str) -> Option<SocketAddr> {
    let (address, port) = field.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0u8; 16];
            for (at, group) in bytes.chunks_exact_mut(4).enumerate() {
                group.copy_from_slice(&word(at)?);
            }
            IpAddr::from(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The first process, by its number, that has one of these sockets open: of a server with
/// workers that is most often the master.
fn process_with(inodes: &[String]) -> Option<String> {
    let wanted: Vec<String> = inodes.iter().map(|i| format!("socket:[{i}]")).collect();
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let pid = pids.into_iter().find(|pid| has_open(*pid, &wanted))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (pid {pid})", name.trim()))
}

fn has_open(pid: u32, wanted: &[String]) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| {
            wanted
                .iter()
                .any(|name| target.as_os_str() == name.as_str())
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_of_ours_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let holder = holder(address).unwrap();
        let me = format!("(pid {})", std::process::id());
        assert!(holder.ends_with(&me), "{holder}");
        let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        assert!(super::holder(everywhere).is_some());
        drop(listener);
        // Another test's child may hold a copy until its exec.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while super::holder(address).is_some() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_tables_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n\
            1: 0100007F:0051 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n\
            garbage\n";
        let ask = |text: &str| listeners(table, text.parse().unwrap());
        assert_eq!(ask("127.0.0.1:80"), ["4711"]);
        assert_eq!(ask("0.0.0.0:80"), ["4711"]);
        assert_eq!(ask("127.0.0.2:80"), Vec::<String>::new());
        assert_eq!(ask("127.0.0.1:81"), Vec::<String>::new(), "not listening");
        let v6 = parse("00000000000000000000000001000000:1F90").unwrap();
        assert_eq!(v6, "[::1]:8080".parse().unwrap());
        let mapped = parse("0000000000000000FFFF00000100007F:1F90").unwrap();
        assert!(collide(mapped, "127.0.0.1:8080".parse().unwrap()));
        assert_eq!(parse("zz:1"), None);
        assert_eq!(parse("0100007:1"), None);
    }
}
