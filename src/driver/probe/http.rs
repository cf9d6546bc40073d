//! An HTTP request on a connection of its own.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::OnceLock;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode, Url};

use super::{Said, plain, without_number};
use crate::health::OUTPUT_LIMIT;
use crate::spec::model::Status;

/// How much of a body is searched for the text that it must hold, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// What is sent, and what must come back.
pub(super) struct Request {
    pub url: String,
    pub method: String,
    pub headers: BTreeMap<String, String>,
    pub status: Vec<u16>,
    pub body: Option<String>,
}

impl Request {
    /// `HTTP GET http://10.50.0.2:8080/healthz`, without the password that a URL may carry.
    pub(super) fn title(&self) -> String {
        let mut shown = self.url.clone();
        if let Ok(mut url) = Url::parse(&self.url)
            && (url.password().is_some() || !url.username().is_empty())
            && url.set_password(None).is_ok()
            && url.set_username("").is_ok()
        {
            shown = url.into();
        }
        format!("HTTP {} {shown}", self.method)
    }
}

/// One client for plain connections and one for TLS, each built when it is first needed: the
/// roots of trust cost memory and need certificates on the host, which plain checks do not.
#[derive(Default)]
pub(super) struct Clients {
    plain: OnceLock<Result<Client, String>>,
    tls: OnceLock<Result<Client, String>>,
}

impl Clients {
    fn get(&self, url: &Url) -> Result<&Client, String> {
        let built = match url.scheme() {
            "http" => self.plain.get_or_init(|| build(false)),
            "https" => self.tls.get_or_init(|| build(true)),
            other => return Err(format!("cannot ask by `{other}`; use http or https")),
        };
        built.as_ref().map_err(Clone::clone)
    }

    /// Which of the two, plain and TLS, were built.
    #[cfg(test)]
    pub(super) fn built(&self) -> (bool, bool) {
        (self.plain.get().is_some(), self.tls.get().is_some())
    }
}

fn build(tls: bool) -> Result<Client, String> {
    // The library asks for a process-wide choice of cryptography even for plain connections;
    // that it was made before is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .user_agent(concat!("hatchery/", env!("CARGO_PKG_VERSION")));
    if !tls {
        builder = builder.tls_certs_only([]);
    }
    builder
        .build()
        .map_err(|error| format!("cannot set up the client: {}", innermost(&error)))
}

/// Passing when the status is one of those wanted (200 to 299 unless named) and the body holds
/// the text wanted, if any. 429 is a warning unless codes are named: it serves, but no more.
pub(super) async fn ask(clients: &Clients, request: &Request) -> Said {
    match exchange(clients, request).await {
        Ok(said) => said,
        Err(why) => (Status::Critical, why),
    }
}

async fn exchange(clients: &Clients, request: &Request) -> Result<Said, String> {
    let url = Url::parse(&request.url).map_err(|error| format!("not a URL: {error}"))?;
    let method = Method::from_bytes(request.method.as_bytes())
        .map_err(|_| format!("`{}` is not an HTTP method", request.method))?;
    let response = clients
        .get(&url)?
        .request(method, url)
        .headers(header_map(&request.headers)?)
        .send()
        .await
        .map_err(|error| innermost(&error))?;

    let code = response.status();
    let limit = request.body.as_ref().map_or(OUTPUT_LIMIT, |_| BODY_LIMIT);
    let body = read(response, limit).await?;
    let (status, remark) = judge(request, code, &body);
    let reason = code.canonical_reason().unwrap_or_default();
    let line = format!("{} {reason}", code.as_u16());
    let said = format!("{}{remark} Output: {}", line.trim_end(), body.trim_end());
    Ok((status, said))
}

fn judge(request: &Request, code: StatusCode, body: &str) -> (Status, String) {
    let accepted = if request.status.is_empty() {
        code.is_success()
    } else {
        request.status.contains(&code.as_u16())
    };
    if !accepted {
        let busy = request.status.is_empty() && code == StatusCode::TOO_MANY_REQUESTS;
        let status = if busy {
            Status::Warning
        } else {
            Status::Critical
        };
        return (status, String::new());
    }
    match &request.body {
        Some(text) if !body.contains(text.as_str()) => {
            (Status::Critical, format!(", but the body lacks `{text}`."))
        }
        _ => (Status::Passing, String::new()),
    }
}

fn header_map(headers: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    headers
        .iter()
        .map(|(name, value)| {
            let wrong = |what: &str| format!("the {what} of header `{name}` cannot be sent");
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("name"))?;
            // The value stays out of the words: it may be a token.
            let value = HeaderValue::from_str(value).map_err(|_| wrong("value"))?;
            Ok((key, value))
        })
        .collect()
}

/// The first `limit` bytes of the body; what follows is left unread.
async fn read(mut response: Response, limit: usize) -> Result<String, String> {
    let mut body = Vec::new();
    while body.len() < limit {
        let chunk = response
            .chunk()
            .await
            .map_err(|error| format!("cannot read the answer's body: {}", innermost(&error)))?;
        let Some(chunk) = chunk else { break };
        let room = limit - body.len();
        body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// What is at the bottom of a chain of errors, in plain words.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &(dyn Error + 'static) = error;
    loop {
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && io.raw_os_error().is_some()
        {
            return plain(io);
        }
        match cause.source() {
            Some(deeper) => cause = deeper,
            None => break,
        }
    }
    without_number(&cause.to_string())
}
