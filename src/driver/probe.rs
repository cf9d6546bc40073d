//! Health probes on the real host: HTTP, TCP, and commands in a workload's namespaces.

use std::fmt::Display;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Probes;
use crate::graph::desired::{CheckNode, ProbeNode};
use crate::health::{Answer, OUTPUT_LIMIT};
use crate::spec::model::Status;
use crate::spec::node::Kind;

mod exec;
mod http;
mod tcp;
#[cfg(test)]
mod tests;

/// Makes the command that runs `command` in all namespaces of the container whose main process
/// is the given one, or says why it cannot. Its standard streams are set by the caller; a process
/// group of its own it makes itself, as it begins a session.
pub type Enter = Arc<dyn Fn(i32, &[String]) -> Result<Command, String> + Send + Sync>;

/// The real [`Probes`].
pub struct HostProbes {
    http: Arc<http::Clients>,
    enter: Enter,
}

impl HostProbes {
    /// Probes that enter containers by `enter`. Nothing is opened or loaded before the first
    /// probe that needs it.
    pub fn new(enter: Enter) -> Self {
        HostProbes {
            http: Arc::default(),
            enter,
        }
    }
}

impl Probes for HostProbes {
    /// Asks once, for at most the check's time-out, reading the answer included. A probe that is
    /// dropped takes its connection or its command with it.
    fn probe(&self, check: &CheckNode, pid: Option<i32>) -> BoxFuture<'static, Answer> {
        let limit = check.timeout;
        match &check.probe {
            ProbeNode::Http {
                url,
                method,
                headers,
                status,
                body,
            } => {
                let clients = self.http.clone();
                let request = http::Request {
                    url: url.clone(),
                    method: method.clone(),
                    headers: headers.clone(),
                    status: status.clone(),
                    body: body.clone(),
                };
                within(limit, request.title(), async move {
                    http::ask(&clients, &request).await
                })
            }
            ProbeNode::Tcp(address) => {
                let address = address.clone();
                within(limit, tcp::title(&address), async move {
                    tcp::ask(&address).await
                })
            }
            ProbeNode::Exec { command, target } => {
                let contained = target
                    .as_ref()
                    .is_some_and(|target| target.kind == Kind::Containers);
                let prepared = match (contained, pid) {
                    (false, _) => exec::on_host(command),
                    (true, Some(pid)) => (self.enter)(pid, command),
                    (true, None) => Err("its container does not run".to_owned()),
                };
                within(limit, exec::title(command), exec::ask(prepared))
            }
            ProbeNode::Ttl(_) => {
                let answer = critical("a check with a `ttl` is answered by its service, not asked");
                async { answer }.boxed()
            }
        }
    }
}

/// What one kind of probe says: how it stands, and why in words.
type Said = (Status, String);

/// Bounds a probe in time, and puts what was asked before what was said.
fn within(
    limit: Duration,
    title: String,
    asking: impl Future<Output = Said> + Send + 'static,
) -> BoxFuture<'static, Answer> {
    async move {
        let (status, said) = match tokio::time::timeout(limit, asking).await {
            Ok(said) => said,
            Err(_) => (
                Status::Critical,
                format!("timed out after {}", humantime::format_duration(limit)),
            ),
        };
        Answer {
            status,
            output: truncate(format!("{title}: {said}")),
        }
    }
    .boxed()
}

fn critical(said: impl Display) -> Answer {
    Answer {
        status: Status::Critical,
        output: truncate(said.to_string()),
    }
}

fn truncate(text: String) -> String {
    truncate_to(OUTPUT_LIMIT, text)
}

/// Keeps the first `limit` bytes, whole characters only.
fn truncate_to(limit: usize, mut text: String) -> String {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// An I/O error in plain words, without the number.
fn plain(error: &std::io::Error) -> String {
    use std::io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => "connection refused".to_owned(),
        Kind::ConnectionReset => "connection reset".to_owned(),
        Kind::ConnectionAborted => "connection aborted".to_owned(),
        Kind::BrokenPipe | Kind::UnexpectedEof => "connection closed early".to_owned(),
        Kind::HostUnreachable => "no route to host".to_owned(),
        Kind::NetworkUnreachable => "network unreachable".to_owned(),
        Kind::AddrNotAvailable => "address not available".to_owned(),
        Kind::TimedOut => "timed out".to_owned(),
        Kind::NotFound => "not found".to_owned(),
        Kind::PermissionDenied => "permission denied".to_owned(),
        _ => without_number(&error.to_string()),
    }
}

/// Drops what std adds to the kernel's words: " (os error 97)".
fn without_number(text: &str) -> String {
    let end = text.find(" (os error").unwrap_or(text.len());
    text.get(..end).unwrap_or(text).to_lowercase()
}
