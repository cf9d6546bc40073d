//! Refusals, as Consul words them: plain text with a status.

use axum::body::Body;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};

use crate::registry::CatalogError;

/// A request that is answered with an error.
#[derive(Debug)]
pub(super) struct Fault {
    status: StatusCode,
    text: String,
    allow: Option<&'static str>,
}

impl Fault {
    /// Any refusal.
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Fault {
            status,
            text: text.into(),
            allow: None,
        }
    }

    /// What was sent makes no sense.
    pub(super) fn bad(text: impl Into<String>) -> Self {
        Fault::new(StatusCode::BAD_REQUEST, text)
    }

    /// The body makes no sense.
    pub(super) fn decode(why: impl std::fmt::Display) -> Self {
        Fault::bad(format!("Request decode failed: {why}"))
    }

    /// The caller may not do this.
    pub(super) fn denied(why: impl std::fmt::Display) -> Self {
        Fault::new(StatusCode::FORBIDDEN, format!("Permission denied: {why}"))
    }

    /// The path exists, and this is not what one does with it.
    pub(super) fn method(method: &Method, allow: &'static str) -> Self {
        Fault {
            status: StatusCode::METHOD_NOT_ALLOWED,
            text: format!("method {method} not allowed"),
            allow: Some(allow),
        }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, plain);
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl From<CatalogError> for Fault {
    fn from(error: CatalogError) -> Self {
        let status = match error {
            CatalogError::Invalid { .. } => StatusCode::BAD_REQUEST,
            CatalogError::Full { .. } => StatusCode::TOO_MANY_REQUESTS,
            CatalogError::Owned { .. }
            | CatalogError::Reserved { .. }
            | CatalogError::Held { .. }
            | CatalogError::CheckTaken { .. } => StatusCode::FORBIDDEN,
            CatalogError::UnknownCheck { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Fault::new(status, error.to_string())
    }
}
