//! Where a repository's host says that something was pushed.
//!
//! It only begins a round: what was pushed is asked of the repository, so that a lie costs one
//! question. Still nobody is heard without the secret: GitHub's and Gitea's hosts sign the body
//! with it (HMAC-SHA256), GitLab's send it as it is.
//! <https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries>
//! <https://docs.gitea.com/usage/webhooks>
//! <https://docs.gitlab.com/user/project/integrations/webhooks/>

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use ring::hmac;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::serve::serve as serve_guarded;
use crate::reconcile::sync::Orders;

/// The largest body, in bytes: hosts send at most 25 MB, and what they say of one push is far
/// smaller. It is read to check its signature and looked at no further.
const BODY_LIMIT: usize = 4 << 20;
/// The shortest secret, in bytes.
const LEAST_SECRET: usize = 16;
/// A caller says all it has to say without such a pause.
const SILENCE: Duration = Duration::from_secs(30);

/// What the host and we know.
pub struct Secret {
    key: hmac::Key,
    plain: Vec<u8>,
}

impl Secret {
    /// The secret in the text of a file; one line end after it is no part of it.
    ///
    /// # Errors
    /// When it is too short to be one.
    pub fn new(text: &[u8]) -> Result<Secret, String> {
        let plain = text.strip_suffix(b"\n").unwrap_or(text);
        if plain.len() < LEAST_SECRET {
            return Err(format!(
                "the secret must have at least {LEAST_SECRET} bytes; `openssl rand -hex 32` \
                 makes a good one"
            ));
        }
        Ok(Secret {
            key: hmac::Key::new(hmac::HMAC_SHA256, plain),
            plain: plain.to_vec(),
        })
    }

    /// Whether whoever sent this knows it. Takes as long for every wrong answer.
    fn is_known(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let header = |name: &str| headers.get(name).map(|value| value.as_bytes());
        if let Some(signature) = header("x-hub-signature-256") {
            let hex = signature.strip_prefix(b"sha256=");
            return hex.is_some_and(|hex| self.signed(hex, body));
        }
        if let Some(signature) = header("x-gitea-signature") {
            return self.signed(signature, body);
        }
        // What is compared are two hashes under one key, so that no byte of it can be guessed.
        header("x-gitlab-token").is_some_and(|token| {
            let sent = hmac::sign(&self.key, token);
            hmac::verify(&self.key, &self.plain, sent.as_ref()).is_ok()
        })
    }

    fn signed(&self, hex: &[u8], body: &[u8]) -> bool {
        let bytes: Option<Vec<u8>> = hex
            .chunks(2)
            .map(|pair| {
                let text = std::str::from_utf8(pair).ok()?;
                u8::from_str_radix(text, 16)
                    .ok()
                    .filter(|_| pair.len() == 2)
            })
            .collect();
        bytes.is_some_and(|bytes| hmac::verify(&self.key, body, &bytes).is_ok())
    }
}

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
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(hook);
    serve_guarded(listener, router, SILENCE, shutdown).await
}

async fn pushed(
    State(hook): State<Arc<Hook>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    if !hook.secret.is_known(&headers, &body) {
        return (
            StatusCode::UNAUTHORIZED,
            "the signature is missing or wrong\n",
        );
    }
    hook.orders.pushed();
    (StatusCode::ACCEPTED, "the repository will be asked\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef\n";
    const BODY: &[u8] = b"{\"ref\":\"refs/heads/main\"}";

    fn sent(name: &'static str, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        Secret::new(SECRET).unwrap().is_known(&headers, BODY)
    }

    /// Worked out by `openssl dgst -sha256 -hmac`.
    const SIGNATURE: &str = "5715eeea6c3a336d03de9b3b592479dbc3d1a82717f482b431bbc4d47b10e641";

    #[test]
    fn each_hosts_way_is_known() {
        assert!(sent("x-hub-signature-256", &format!("sha256={SIGNATURE}")));
        assert!(sent("x-gitea-signature", SIGNATURE));
        assert!(sent("x-gitlab-token", "0123456789abcdef0123456789abcdef"));
    }

    #[test]
    fn nothing_else_is() {
        for wrong in [
            "",
            "sha256=",
            "sha256=00",
            "sha1=00",
            SIGNATURE,
            "sha256=zz",
            "sha256=0",
        ] {
            assert!(!sent("x-hub-signature-256", wrong), "{wrong}");
        }
        let flipped = format!("f{}", &SIGNATURE[1..]);
        assert_ne!(flipped, SIGNATURE);
        assert!(!sent("x-gitea-signature", &flipped));
        for wrong in ["", "0123456789abcdef0123456789abcdeg", "0123456789abcdef"] {
            assert!(!sent("x-gitlab-token", wrong), "{wrong}");
        }
        assert!(!sent("authorization", "0123456789abcdef0123456789abcdef"));
    }

    #[test]
    fn a_secret_is_long_enough() {
        assert!(Secret::new(b"short\n").is_err());
        assert!(Secret::new(b"").is_err());
    }
}
