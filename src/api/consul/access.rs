//! Who may do what.
//!
//! Loopback is this machine: root's own tools. Anybody else is a guest, who reads, and
//! changes what is at its own address; the token lifts that. Two more rules keep web pages
//! out that a browser on this machine happens to show: a write that carries an `Origin` is
//! refused, and loopback answers to no foreign host name (one that was made to resolve to it).

use std::net::IpAddr;

use axum::http::{HeaderMap, header};

use super::Registry;
use super::fault::Fault;
use super::query::Query;
use crate::registry::ServiceEntry;

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// On loopback, without the token.
    Local,
    /// With the token.
    Token,
    /// From elsewhere.
    Guest(IpAddr),
}

impl Registry {
    pub(super) fn caller(&self, peer: IpAddr, headers: &HeaderMap, query: &Query) -> Caller {
        let peer = peer.to_canonical();
        if self.knows_token(headers, query) {
            Caller::Token
        } else if peer.is_loopback() {
            Caller::Local
        } else {
            Caller::Guest(peer)
        }
    }

    fn knows_token(&self, headers: &HeaderMap, query: &Query) -> bool {
        let header = headers.get("x-consul-token").map(|value| value.as_bytes());
        let bearer = headers.get(header::AUTHORIZATION);
        let bearer = bearer.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let query = query.get("token").map(str::as_bytes);
        let mut given = [header, bearer, query].into_iter().flatten();
        given.any(|given| self.settings.token.is(given))
    }

    pub(super) fn may_read(&self, caller: Caller, headers: &HeaderMap) -> Result<(), Fault> {
        if caller != Caller::Local {
            return Ok(());
        }
        let Some(host) = headers.get(header::HOST) else {
            return Ok(());
        };
        let host = host.to_str().unwrap_or("");
        let own = self
            .shared
            .read(|catalog| catalog.config().node == host_name(host));
        if own || is_local_name(host_name(host)) {
            return Ok(());
        }
        Err(Fault::denied(
            "on loopback the host must be an address, a name without dots or this node's name",
        ))
    }

    pub(super) fn may_write(&self, caller: Caller, headers: &HeaderMap) -> Result<(), Fault> {
        if headers.contains_key(header::ORIGIN) {
            return Err(Fault::denied("a web page may not change the registry"));
        }
        self.may_read(caller, headers)
    }
}

impl Caller {
    /// Whether the caller may change what is registered at `address`.
    pub(super) fn may_change_at(self, address: &str) -> Result<(), Fault> {
        match self {
            Caller::Local | Caller::Token => Ok(()),
            Caller::Guest(peer) => {
                let there = address.parse::<IpAddr>().map(|ip| ip.to_canonical());
                if there.is_ok_and(|there| there == peer) {
                    return Ok(());
                }
                Err(Fault::denied(format!(
                    "`{peer}` may only change services at its own address without the token"
                )))
            }
        }
    }

    /// Whether the caller may change this service.
    pub(super) fn may_change(self, entry: &ServiceEntry) -> Result<(), Fault> {
        self.may_change_at(&entry.registration.address)
    }
}

/// A `Host` header without its port and brackets.
fn host_name(host: &str) -> &str {
    if let Some((inside, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return inside;
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

fn is_local_name(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok() || !name.contains('.') || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_loopback_answers_to() {
        for host in [
            "127.0.0.1:8500",
            "[::1]:8500",
            "localhost",
            "localhost:8500",
            "box",
            "",
            "a.localhost",
        ] {
            assert!(is_local_name(host_name(host)), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8500",
            "127.0.0.1.evil.example:80",
        ] {
            assert!(!is_local_name(host_name(host)), "{host}");
        }
    }
}
