//! The server's side: each route asks the loop and answers what it said.

use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::net::UnixListener;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::listen::{Guarded, Peer};
use super::{Apply, BODY_LIMIT, Down, Explain, Operate, Refusal, SyncOrder, Taken, Version};
use crate::reconcile::handle::{Ended, Handle, Happening, Proposal, SpecText};
use crate::reconcile::sync::SourceStatus;
use crate::spec::generation::Cause;

/// How long answers that are under way may take once the controller ends.
const LINGER: Duration = Duration::from_secs(2);

/// The control socket failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve the control socket: {0}")]
pub struct ServeError(#[from] std::io::Error);

#[derive(Clone)]
struct Shared {
    handle: Handle,
    shutdown: CancellationToken,
}

/// Serves a socket from [`bind`](super::bind) until `shutdown`; answers under way then have two
/// seconds left.
///
/// # Errors
/// What the kernel said about the socket.
pub async fn serve(
    listener: UnixListener,
    handle: Handle,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let shared = Shared {
        handle,
        shutdown: shutdown.clone(),
    };
    let stop = shutdown.clone();
    let service = router(shared).into_make_service_with_connect_info::<Peer>();
    let serving = axum::serve(Guarded::new(listener), service)
        .with_graceful_shutdown(async move { stop.cancelled().await });
    let late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        served = async { serving.await } => Ok(served?),
        () = late => Ok(()),
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/plan", post(plan))
        .route("/v1/proposal", post(proposal))
        .route("/v1/explain", post(explain))
        .route("/v1/apply", post(apply))
        .route("/v1/down", post(down))
        .route("/v1/operate", post(operate))
        .route("/v1/sync", post(sync))
        .route("/v1/events", get(events))
        .route("/v1/version", get(version))
        .route("/v1/reload", post(reload))
        .route("/v1/leave", post(leave))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(shared)
}

/// An answer that says what went wrong.
struct Failure(StatusCode, Refusal);

impl Failure {
    fn new(code: StatusCode, error: impl Into<String>, hint: Option<&str>) -> Self {
        Failure(
            code,
            Refusal {
                error: error.into(),
                hint: hint.map(str::to_owned),
            },
        )
    }

    fn refused(error: String) -> Self {
        Failure::new(StatusCode::UNPROCESSABLE_ENTITY, error, None)
    }
}

impl From<Ended> for Failure {
    fn from(ended: Ended) -> Self {
        let hint = "start one with `hatchery up SPEC`";
        Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ended.to_string(),
            Some(hint),
        )
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        let hint = (rejection.status() == StatusCode::PAYLOAD_TOO_LARGE)
            .then_some("a request may have 8 MiB");
        Failure::new(rejection.status(), rejection.body_text(), hint)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

type Body1<T> = Result<Json<T>, JsonRejection>;
type Answer<T> = Result<Json<T>, Failure>;

async fn status(State(shared): State<Shared>) -> Answer<crate::reconcile::handle::StackStatus> {
    Ok(Json(shared.handle.status().await?))
}

async fn plan(
    State(shared): State<Shared>,
    spec: Body1<SpecText>,
) -> Answer<crate::plan::view::PlanView> {
    let Json(spec) = spec?;
    let planned = shared.handle.plan(spec).await?;
    planned
        .map(|proposal| Json(proposal.view))
        .map_err(Failure::refused)
}

async fn proposal(State(shared): State<Shared>, spec: Body1<SpecText>) -> Answer<Proposal> {
    let Json(spec) = spec?;
    let planned = shared.handle.plan(spec).await?;
    planned.map(Json).map_err(Failure::refused)
}

async fn explain(
    State(shared): State<Shared>,
    body: Body1<Explain>,
) -> Answer<crate::plan::explain::Explanation> {
    let Json(Explain { spec, name }) = body?;
    let told = shared.handle.explain(spec, name).await?;
    told.map(Json).map_err(Failure::refused)
}

async fn apply(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body1<Apply>,
) -> Answer<Taken> {
    let Json(Apply {
        spec,
        allow_empty,
        saved,
        rollback_to,
    }) = body?;
    let by = peer.user().await;
    let cause = match rollback_to {
        Some(to) => Cause::Rollback { to, by: Some(by) },
        None => Cause::Apply { by },
    };
    let taken = shared.handle.apply(spec, allow_empty, saved, cause).await?;
    taken
        .map(|generation| Json(Taken { generation }))
        .map_err(|fault| Failure::refused(fault.to_string()))
}

async fn down(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body1<Down>,
) -> Answer<()> {
    let Json(Down { purge, kill }) = body?;
    let by = peer.user().await;
    let gone = shared.handle.down(purge, kill, by).await?;
    gone.map(Json).map_err(Failure::refused)
}

async fn operate(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body1<Operate>,
) -> Answer<Vec<crate::spec::node::NodeId>> {
    let Json(Operate { verb, names }) = body?;
    let by = peer.user().await;
    let meant = shared.handle.operate(verb, names, by).await?;
    meant.map(Json).map_err(Failure::refused)
}

async fn sync(State(shared): State<Shared>, body: Body1<SyncOrder>) -> Answer<SourceStatus> {
    let Json(SyncOrder { word }) = body?;
    let Some(orders) = shared.handle.orders() else {
        let error = "the stack follows no repository";
        let hint = "`hatchery up --git URL` brings up one that does";
        return Err(Failure::new(StatusCode::CONFLICT, error, Some(hint)));
    };
    let mut source = orders.give(word).await.ok_or(Ended)?;
    let status = shared.handle.status().await?;
    source.judge(&status);
    Ok(Json(source))
}

async fn reload(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Answer<Taken> {
    let by = peer.user().await;
    let taken = shared.handle.reload(by).await?;
    taken
        .map(|generation| Json(Taken { generation }))
        .map_err(Failure::refused)
}

async fn version() -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
    })
}

async fn leave(State(shared): State<Shared>) -> Answer<()> {
    shared.handle.leave().await?;
    Ok(Json(()))
}

async fn unknown() -> Failure {
    let hint = "the routes are /v1/status, plan, proposal, explain, apply, down, operate, sync, \
                events, version, reload and leave";
    Failure::new(StatusCode::NOT_FOUND, "there is no such route", Some(hint))
}

async fn wrong_method() -> Failure {
    Failure::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this route does not take this method",
        None,
    )
}

/// The story from now on, one JSON object a line. The first line is empty: when it is there,
/// nothing that happens from then on is missed.
async fn events(State(shared): State<Shared>) -> Response {
    let lines = story(shared.handle.happenings(), shared.shutdown);
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::from_stream(lines)).into_response()
}

fn story(
    happenings: broadcast::Receiver<Happening>,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let first = stream::once(async { Ok(Bytes::from_static(b"\n")) });
    let rest = stream::unfold((happenings, shutdown), |(mut happenings, shutdown)| async {
        let next = tokio::select! {
            biased;
            next = happenings.recv() => next,
            () = shutdown.cancelled() => Err(RecvError::Closed),
        };
        let line = match next {
            Ok(happening) => line(&happening),
            Err(RecvError::Lagged(lost)) => line(&gap(lost)),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(line), (happenings, shutdown)))
    });
    futures_util::StreamExt::chain(first, rest)
}

/// A listener that reads too slowly is told so.
fn gap(lost: u64) -> Happening {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let at_ms = since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    });
    let text = format!("{lost} lines were lost: they came faster than they were read");
    Happening::warning(at_ms, text)
}

fn line(value: &impl Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}
