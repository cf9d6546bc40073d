//! Paths. A path is split before its parts are decoded, so that an encoded slash stays part
//! of a name.

use axum::http::Method;

use super::fault::Fault;
use crate::spec::model::Status;

/// What a path is about; names are decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Leader,
    Peers,
    Myself,
    Members,
    AgentServices,
    AgentChecks,
    Register,
    Deregister(String),
    /// A TTL's heartbeat; without a verdict the body has it.
    Heartbeat(Option<Status>, String),
    Datacenters,
    Nodes,
    Services,
    CatalogService(String),
    CatalogNode(String),
    HealthService(String),
    HealthState(String),
    HealthNode(String),
    HealthChecks(String),
}

/// What one does with a path; each has one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Put,
}

impl Verb {
    pub(super) fn method(self) -> Method {
        match self {
            Verb::Get => Method::GET,
            Verb::Put => Method::PUT,
        }
    }

    /// The `Allow` header, in Consul's order.
    pub(super) fn allow(self) -> &'static str {
        match self {
            Verb::Get => "OPTIONS,GET",
            Verb::Put => "OPTIONS,PUT",
        }
    }
}

/// Makes a route of the name at the end of its path.
type Named = fn(String) -> Route;

/// What the path is about; `None` when there is nothing.
pub(super) fn find(path: &str) -> Result<Option<(Route, Verb)>, Fault> {
    let Some(path) = path.strip_prefix("/v1/") else {
        return Ok(None);
    };
    if let Some(route) = whole(path) {
        let verb = match route {
            Route::Register => Verb::Put,
            _ => Verb::Get,
        };
        return Ok(Some((route, verb)));
    }
    let named: [(&str, Named, Verb); 11] = [
        ("agent/service/deregister/", Route::Deregister, Verb::Put),
        (
            "agent/check/pass/",
            |id| Route::Heartbeat(Some(Status::Passing), id),
            Verb::Put,
        ),
        (
            "agent/check/warn/",
            |id| Route::Heartbeat(Some(Status::Warning), id),
            Verb::Put,
        ),
        (
            "agent/check/fail/",
            |id| Route::Heartbeat(Some(Status::Critical), id),
            Verb::Put,
        ),
        (
            "agent/check/update/",
            |id| Route::Heartbeat(None, id),
            Verb::Put,
        ),
        ("catalog/service/", Route::CatalogService, Verb::Get),
        ("catalog/node/", Route::CatalogNode, Verb::Get),
        ("health/service/", Route::HealthService, Verb::Get),
        ("health/state/", Route::HealthState, Verb::Get),
        ("health/node/", Route::HealthNode, Verb::Get),
        ("health/checks/", Route::HealthChecks, Verb::Get),
    ];
    for (prefix, route, verb) in named {
        if let Some(raw) = path.strip_prefix(prefix) {
            return Ok(Some((route(decoded(raw)?), verb)));
        }
    }
    Ok(None)
}

fn whole(path: &str) -> Option<Route> {
    Some(match path {
        "status/leader" => Route::Leader,
        "status/peers" => Route::Peers,
        "agent/self" => Route::Myself,
        "agent/members" => Route::Members,
        "agent/services" => Route::AgentServices,
        "agent/checks" => Route::AgentChecks,
        "agent/service/register" => Route::Register,
        "catalog/datacenters" => Route::Datacenters,
        "catalog/nodes" => Route::Nodes,
        "catalog/services" => Route::Services,
        _ => return None,
    })
}

/// `%2F` and its like as the bytes that they stand for.
fn decoded(raw: &str) -> Result<String, Fault> {
    let wrong =
        || Fault::bad("cannot read the path: a `%` must be followed by two hex digits of UTF-8");
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(wrong());
        };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn names_are_decoded_after_the_path_is_split() {
        let (route, verb) = find("/v1/agent/check/pass/service%3Aweb%2F1")
            .unwrap()
            .unwrap();
        assert_eq!(verb, Verb::Put);
        assert_eq!(
            route,
            Route::Heartbeat(Some(Status::Passing), "service:web/1".into())
        );
        let (route, _) = find("/v1/health/service/w%C3%A9b").unwrap().unwrap();
        assert_eq!(route, Route::HealthService("wéb".into()));
    }

    #[test]
    fn broken_escapes_are_refused_and_unknown_paths_are_nothing() {
        for path in [
            "/v1/health/service/%",
            "/v1/health/service/%4",
            "/v1/health/service/%ff",
        ] {
            assert!(find(path).is_err(), "{path}");
        }
        for path in [
            "/",
            "/v1",
            "/v1/",
            "/v1/catalog/services/",
            "/v2/agent/self",
            "/v1/agent",
        ] {
            assert!(find(path).unwrap().is_none(), "{path}");
        }
    }
}
