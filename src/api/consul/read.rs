//! Reads, and how they wait.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use tokio::time::Instant;

use super::fault::Fault;
use super::query::Query;
use super::route::Route;
use super::{Registry, agent, empty, view};
use crate::registry::{Catalog, ServiceEntry};
use crate::spec::model::Status;

/// Answers a read.
pub(super) async fn answer(
    registry: &Registry,
    route: Route,
    query: &Query,
) -> Result<Response<Body>, Fault> {
    if let Some(list) = List::of(&route, query)? {
        return held(registry, &list, query).await;
    }
    let pretty = query.has("pretty");
    query.no_filter()?;
    let body = registry.shared.read(|catalog| {
        let config = catalog.config();
        match route {
            Route::Leader => view::encoded(&agent::leader(config), pretty),
            Route::Peers => view::encoded(&[agent::leader(config)], pretty),
            Route::Myself => {
                view::encoded(&agent::myself(catalog, &registry.settings.version), pretty)
            }
            Route::Members => {
                view::encoded(&[agent::member(config, &registry.settings.version)], pretty)
            }
            Route::AgentServices => view::encoded(&agent::services(catalog), pretty),
            Route::AgentChecks => view::encoded(&agent::checks(catalog), pretty),
            Route::Datacenters => view::encoded(&[&config.datacenter], pretty),
            _ => Ok(Vec::new()),
        }
    });
    Ok(json(body.map_err(unwritable)?))
}

/// A list that can be waited for.
enum List {
    Nodes,
    Services,
    CatalogService(Wanted),
    CatalogNode(String),
    HealthService(Wanted),
    HealthState(Option<Status>, bool),
    HealthNode(String),
    HealthChecks(String),
}

/// Which instances of a service.
struct Wanted {
    name: String,
    tags: Vec<String>,
    passing: bool,
}

impl Wanted {
    fn of(name: &str, query: &Query, passing: bool) -> Self {
        let tags = query.all("tag").filter(|tag| !tag.is_empty());
        Wanted {
            name: name.to_owned(),
            tags: tags.map(str::to_owned).collect(),
            passing,
        }
    }

    fn instances<'a>(&'a self, catalog: &'a Catalog) -> impl Iterator<Item = &'a ServiceEntry> {
        let entries = catalog.instances(&self.name);
        entries.filter(|entry| {
            let has = |tag: &String| {
                let mut tags = entry.registration.tags.iter();
                tags.any(|own| own.eq_ignore_ascii_case(tag))
            };
            self.tags.iter().all(has) && (!self.passing || entry.status() == Status::Passing)
        })
    }
}

impl List {
    /// `None` for what is no list.
    fn of(route: &Route, query: &Query) -> Result<Option<List>, Fault> {
        let given = |name: &str, what: &str| {
            if name.is_empty() {
                return Err(Fault::bad(format!("Missing {what}")));
            }
            Ok(name.to_owned())
        };
        Ok(Some(match route {
            Route::Nodes => List::Nodes,
            Route::Services => List::Services,
            Route::CatalogService(name) => {
                let name = given(name, "service name")?;
                List::CatalogService(Wanted::of(&name, query, false))
            }
            Route::CatalogNode(name) => List::CatalogNode(given(name, "node name")?),
            Route::HealthService(name) => {
                let name = given(name, "service name")?;
                List::HealthService(Wanted::of(&name, query, query.flag("passing")?))
            }
            Route::HealthState(state) => match given(state, "check state")?.as_str() {
                "any" => List::HealthState(None, true),
                "passing" => List::HealthState(Some(Status::Passing), true),
                "warning" => List::HealthState(Some(Status::Warning), true),
                "critical" => List::HealthState(Some(Status::Critical), true),
                _ => List::HealthState(None, false),
            },
            Route::HealthNode(name) => List::HealthNode(given(name, "node name")?),
            Route::HealthChecks(name) => List::HealthChecks(given(name, "service name")?),
            _ => return Ok(None),
        }))
    }

    /// The index of its last change.
    fn index(&self, catalog: &Catalog) -> u64 {
        match self {
            List::Nodes => catalog.nodes_index(),
            List::Services => catalog.names_index(),
            List::CatalogService(wanted) | List::HealthService(wanted) => {
                catalog.service_index(&wanted.name)
            }
            List::CatalogNode(_) => catalog.entries_index(),
            List::HealthState(..) | List::HealthNode(_) => catalog.checks_index(),
            List::HealthChecks(name) => catalog.service_index(name),
        }
    }

    fn encoded(&self, catalog: &Catalog, here: bool, pretty: bool) -> serde_json::Result<Vec<u8>> {
        let this_node = |name: &str| name.eq_ignore_ascii_case(&catalog.config().node);
        match self {
            List::Nodes => listed(here.then(|| view::node(catalog)).into_iter(), pretty),
            List::Services if here => view::encoded(&view::names(catalog), pretty),
            List::Services => view::encoded(&view::Nothing {}, pretty),
            List::CatalogService(wanted) => {
                let instances = wanted.instances(catalog).filter(|_| here);
                listed(
                    instances.map(|entry| view::catalog_service(catalog, entry)),
                    pretty,
                )
            }
            List::CatalogNode(name) if this_node(name) => {
                view::encoded(&view::node_services(catalog), pretty)
            }
            List::CatalogNode(_) => view::encoded(&None::<()>, pretty),
            List::HealthService(wanted) => {
                let instances = wanted.instances(catalog).filter(|_| here);
                listed(instances.map(|entry| view::health(catalog, entry)), pretty)
            }
            List::HealthState(state, known) => {
                let known = here && *known;
                let own = [view::node_check(catalog)].into_iter();
                let services = catalog.entries();
                let all = own.chain(services.flat_map(|entry| view::checks_of(catalog, entry)));
                let wanted =
                    |check: &view::Check<'_>| state.is_none_or(|state| check.stands(state));
                listed(all.filter(|check| known && wanted(check)), pretty)
            }
            List::HealthNode(name) => {
                let here = this_node(name);
                let own = [view::node_check(catalog)].into_iter();
                let services = catalog.entries();
                let all = own.chain(services.flat_map(|entry| view::checks_of(catalog, entry)));
                listed(all.filter(|_| here), pretty)
            }
            List::HealthChecks(name) => {
                let entries = catalog.instances(name).filter(|_| here);
                listed(
                    entries.flat_map(|entry| view::checks_of(catalog, entry)),
                    pretty,
                )
            }
        }
    }
}

fn listed(items: impl Iterator<Item: Serialize>, pretty: bool) -> serde_json::Result<Vec<u8>> {
    view::encoded(&items.collect::<Vec<_>>(), pretty)
}

/// Answers once the list is newer than the caller's index, at the end of the wait, or when
/// the registry leaves.
async fn held(registry: &Registry, list: &List, query: &Query) -> Result<Response<Body>, Fault> {
    let datacenter = registry
        .shared
        .read(|catalog| catalog.config().datacenter.clone());
    let consistency = query.consistency(&datacenter)?;
    let hold = query.hold()?;
    let (here, pretty) = (query.wants_this_node(), query.has("pretty"));
    let shutdown = &registry.settings.shutdown;
    let end = Instant::now() + hold.jittered();
    let mut changed = registry.shared.changed();
    let (index, body) = loop {
        // Marked as seen before it is looked at: a change in between wakes the wait below.
        changed.borrow_and_update();
        let over = hold.index == 0 || Instant::now() >= end || shutdown.is_cancelled();
        let (index, body) = registry.shared.read(|catalog| {
            let index = list.index(catalog);
            let ready = over || index > hold.index;
            (index, ready.then(|| list.encoded(catalog, here, pretty)))
        });
        if let Some(body) = body {
            break (index, body.map_err(unwritable)?);
        }
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(end) => {}
            () = shutdown.cancelled() => {}
        }
    };
    let mut response = json(body);
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("x-consul-index"), index.into());
    for (name, value) in [
        ("x-consul-knownleader", "true"),
        ("x-consul-lastcontact", "0"),
        ("x-consul-effective-consistency", consistency),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if query.has("cached") {
        headers.insert(
            HeaderName::from_static("x-cache"),
            HeaderValue::from_static("HIT"),
        );
        headers.insert(header::AGE, HeaderValue::from_static("0"));
    }
    Ok(response)
}

fn json(body: Vec<u8>) -> Response<Body> {
    let mut response = empty(StatusCode::OK);
    *response.body_mut() = Body::from(body);
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn unwritable(error: serde_json::Error) -> Fault {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Fault::new(status, format!("cannot write the answer as JSON: {error}"))
}
