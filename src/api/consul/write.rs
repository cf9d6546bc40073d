//! Registrations and heartbeats.

use std::error::Error;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Response, StatusCode};
use http_body_util::LengthLimitError;

use super::access::Caller;
use super::fault::Fault;
use super::query::Query;
use super::route::Route;
use super::{Registry, decode, empty};
use crate::registry::{Catalog, CheckKind, Origin};
use crate::spec::model::Status;

/// The longest body, in bytes.
const LONGEST_BODY: usize = 512 * 1024;
/// How long a caller may take to send it.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// How many services one guest may hold.
const GUEST_SERVICES: usize = 64;

/// Carries out a write.
pub(super) async fn answer(
    registry: &Registry,
    caller: Caller,
    route: Route,
    query: &Query,
    body: Body,
) -> Result<Response<Body>, Fault> {
    match route {
        Route::Register => register(registry, caller, &whole(body).await?)?,
        Route::Deregister(id) => deregister(registry, caller, &id)?,
        Route::Heartbeat(Some(status), id) => {
            let note = query.get("note").unwrap_or("");
            heartbeat(registry, caller, &id, status, note)?;
        }
        Route::Heartbeat(None, id) => {
            let (status, output) = decode::verdict(&whole(body).await?)?;
            heartbeat(registry, caller, &id, status, &output)?;
        }
        _ => return Ok(empty(StatusCode::NOT_FOUND)),
    }
    Ok(empty(StatusCode::OK))
}

fn register(registry: &Registry, caller: Caller, body: &[u8]) -> Result<(), Fault> {
    let mut registration = decode::registration(body)?;
    if let Caller::Guest(peer) = caller {
        // Without an address it means the machine that the agent is on, which a guest takes
        // to be its own.
        if !registration.address.is_empty() {
            caller.may_change_at(&registration.address)?;
        }
        // One address in one spelling: it is counted by that.
        registration.address = peer.to_string();
        registration.origin = Origin::Guest;
        if registration.port == 0 {
            return Err(Fault::denied(format!(
                "`{peer}` may only register a service with a port without the token: what \
                 proxies read must be something that they can connect to"
            )));
        }
    }
    let now = registry.settings.clock.now();
    registry.shared.with(|catalog| {
        match catalog.entry(&registration.id) {
            Some(present) if present.registration.origin.is_outside() => {
                caller.may_change(present)?;
            }
            Some(_) => {}
            None => has_room(catalog, caller, &registration.address)?,
        }
        catalog.register(registration, now)?;
        Ok(())
    })
}

fn has_room(catalog: &Catalog, caller: Caller, address: &str) -> Result<(), Fault> {
    let Caller::Guest(_) = caller else {
        return Ok(());
    };
    let held = catalog.entries().map(|entry| &entry.registration);
    let held = held.filter(|own| own.origin.is_outside() && own.address == address);
    if held.count() < GUEST_SERVICES {
        return Ok(());
    }
    Err(Fault::new(
        StatusCode::TOO_MANY_REQUESTS,
        format!(
            "cannot register: `{address}` holds {GUEST_SERVICES} services already; deregister some first"
        ),
    ))
}

fn deregister(registry: &Registry, caller: Caller, id: &str) -> Result<(), Fault> {
    if id.is_empty() {
        return Err(Fault::bad("Missing service ID"));
    }
    registry.shared.with(|catalog| {
        let Some(entry) = catalog.entry(id) else {
            return Ok(());
        };
        if entry.registration.origin == Origin::Stack {
            return Err(Fault::denied(format!(
                "`{id}` belongs to the stack; take it out of the spec instead"
            )));
        }
        caller.may_change(entry)?;
        catalog.deregister(id);
        Ok(())
    })
}

fn heartbeat(
    registry: &Registry,
    caller: Caller,
    id: &str,
    status: Status,
    output: &str,
) -> Result<(), Fault> {
    let now = registry.settings.clock.now();
    registry.shared.with(|catalog| {
        let ttl = catalog.check(id).filter(|(_, check)| {
            // What we probe ourselves nobody else may call healthy.
            matches!(check.spec.kind, CheckKind::Ttl(_))
        });
        let Some((entry, _)) = ttl else {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            let text = format!("CheckID {id:?} does not have associated TTL");
            return Err(Fault::new(status, text));
        };
        caller.may_change(entry)?;
        catalog.set_check(id, status, output, now)?;
        Ok(())
    })
}

/// The whole body, if it is not too long and comes in time.
async fn whole(body: Body) -> Result<Bytes, Fault> {
    let read = axum::body::to_bytes(body, LONGEST_BODY);
    let Ok(read) = tokio::time::timeout(BODY_PATIENCE, read).await else {
        let text = "cannot read the body: it did not come within 30 s";
        return Err(Fault::new(StatusCode::REQUEST_TIMEOUT, text));
    };
    read.map_err(|error| {
        if error
            .source()
            .is_some_and(|source| source.is::<LengthLimitError>())
        {
            let text = format!("Request body too large, max size: {LONGEST_BODY} bytes");
            return Fault::new(StatusCode::PAYLOAD_TOO_LARGE, text);
        }
        Fault::bad(format!("cannot read the body: {error}"))
    })
}
