//! The catalog over HTTP in Consul's form, as of Consul 1.8.
//!
//! Reads answer from memory; those of the catalog and of health block on an index as
//! Consul's do. Writes come from this machine's loopback, from a caller that knows the token,
//! or from a guest for its own address only. Nobody outside the spec changes what the stack
//! registered.

mod access;
mod agent;
mod decode;
mod duration;
mod fault;
mod query;
mod read;
mod route;
mod view;
mod write;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{Method, Request, Response, StatusCode, header};
use tokio_util::sync::CancellationToken;

pub use super::serve::Peer;

use crate::driver::Clock;
use crate::reconcile::shared::SharedCatalog;
use fault::Fault;
use query::Query;
use route::Verb;

/// The version of Consul whose API this is; clients compare it with what they need.
const SPOKEN: &str = "1.8.7";

/// What the API needs beside the catalog.
#[derive(Clone)]
pub struct Settings {
    /// Lifts the limits on callers from outside loopback.
    pub token: Token,
    /// For TTLs.
    pub clock: Arc<dyn Clock>,
    /// Ends blocking queries, each with an answer.
    pub shutdown: CancellationToken,
    /// Hatchery's own version, told beside the API's.
    pub version: String,
}

/// A token that may change, or go, while the API is served; by its hash, because comparing hashes
/// takes the same time wherever they differ.
#[derive(Clone, Default)]
pub struct Token(Arc<Mutex<Option<blake3::Hash>>>);

impl Token {
    /// From now on this one counts and no other. An empty one counts as none.
    pub fn set(&self, token: Option<&str>) {
        let token = token.filter(|token| !token.is_empty());
        let hash = token.map(|token| blake3::hash(token.as_bytes()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = hash;
    }

    /// Whether this is the one that counts.
    pub fn is(&self, given: &[u8]) -> bool {
        let token = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        token.is_some_and(|token| blake3::hash(given) == token)
    }
}

/// What every request sees.
struct Registry {
    shared: SharedCatalog,
    settings: Settings,
}

/// The API as a router; [`serve`](super::serve::serve) tells it who calls.
pub fn router(shared: SharedCatalog, settings: Settings) -> axum::Router {
    let registry = Arc::new(Registry { shared, settings });
    axum::Router::new().fallback(entrance).with_state(registry)
}

async fn entrance(
    State(registry): State<Arc<Registry>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    request: Request<Body>,
) -> Response<Body> {
    let answered = answer(&registry, peer, request).await;
    answered.unwrap_or_else(Fault::into_response)
}

async fn answer(
    registry: &Registry,
    peer: SocketAddr,
    request: Request<Body>,
) -> Result<Response<Body>, Fault> {
    let Some((route, verb)) = route::find(request.uri().path())? else {
        return Ok(empty(StatusCode::NOT_FOUND));
    };
    if request.method() == Method::OPTIONS {
        let mut response = empty(StatusCode::OK);
        let allow = header::HeaderValue::from_static(verb.allow());
        response.headers_mut().insert(header::ALLOW, allow);
        return Ok(response);
    }
    if *request.method() != verb.method() {
        return Err(Fault::method(request.method(), verb.allow()));
    }
    let query = Query::of(request.uri())?;
    let caller = registry.caller(peer.ip(), request.headers(), &query);
    match verb {
        Verb::Get => {
            registry.may_read(caller, request.headers())?;
            read::answer(registry, route, &query).await
        }
        Verb::Put => {
            registry.may_write(caller, request.headers())?;
            write::answer(registry, caller, route, &query, request.into_body()).await
        }
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
