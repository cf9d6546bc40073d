//! Where a repository's host says that something was pushed.
//!
//! It only begins a round: what was pushed is asked of the repository, so that a lie costs one
//! question. Still nobody is heard without the secret: GitHub's, Gitea's and Forgejo's hosts sign
//! the body with it (HMAC-SHA256), GitLab's send it as it is.
//! <https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries>
//! <https://docs.gitea.com/usage/webhooks>
//! <https://forgejo.org/docs/latest/user/webhooks/>
//! <https://docs.gitlab.com/user/project/integrations/webhooks/>
//!
//! Whoever may reach the address costs little: few connections at a time, each for a short time
//! and for one request, and nothing of a body is kept.

mod secret;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::{BodyExt, Limited};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::secret::Secret;

use self::secret::Proof;
use super::serve::{Limits, Patience, serve as serve_guarded};
use crate::reconcile::sync::Orders;

/// The largest body, in bytes. It is read to check its signature and looked at no further; a push
/// that takes more words is found by asking.
const BODY_LIMIT: usize = 1 << 20;
/// Hosts tell of a push by one connection at a time, as a rule.
const LIMITS: Limits = Limits {
    all: 16,
    guests: 12,
    one_guest: 4,
    patience: Patience::Whole(Duration::from_secs(10)),
};

struct Hook {
    secret: Secret,
    orders: Orders,
}

/// Hears pushes on `listener` until `shutdown`.
///
/// # Errors
/// None today, as [`serve`](super::serve::serve).
pub async fn serve(
    listener: TcpListener,
    secret: Secret,
    orders: Orders,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let hook = Arc::new(Hook { secret, orders });
    let router = Router::new()
        .route("/", post(pushed))
        .route("/{*path}", post(pushed))
        .with_state(hook);
    serve_guarded(listener, router, LIMITS, shutdown).await
}

async fn pushed(State(hook): State<Arc<Hook>>, request: Request) -> Response {
    let (status, words) = hear(&hook, request).await;
    // The time that a connection has is that of one request.
    (status, [(header::CONNECTION, "close")], words).into_response()
}

async fn hear(hook: &Hook, request: Request) -> (StatusCode, &'static str) {
    const UNPROVEN: (StatusCode, &str) = (
        StatusCode::UNAUTHORIZED,
        "the signature is missing or wrong\n",
    );
    let (head, body) = request.into_parts();
    let Some(proof) = hook.secret.proof(&head.headers) else {
        return UNPROVEN;
    };
    let signed = match signature(&hook.secret, body).await {
        Ok(signed) => signed,
        Err(refusal) => return refusal,
    };
    if let Proof::Signature(sent) = proof
        && !hook.secret.same(&signed, &sent)
    {
        return UNPROVEN;
    }
    hook.orders.pushed();
    (StatusCode::ACCEPTED, "the repository will be asked\n")
}

/// The signature of a body, which is worked out as it comes.
async fn signature(secret: &Secret, body: Body) -> Result<Vec<u8>, (StatusCode, &'static str)> {
    let mut signing = secret.signing();
    let mut body = Limited::new(body, BODY_LIMIT);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(
                |error| match error.is::<http_body_util::LengthLimitError>() {
                    true => (
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "the body is larger than 1 MiB; the repository is asked at its interval\n",
                    ),
                    false => (StatusCode::BAD_REQUEST, "the body cannot be read\n"),
                },
            )?;
        if let Some(bytes) = frame.data_ref() {
            signing.update(bytes);
        }
    }
    Ok(signing.sign().as_ref().to_vec())
}
