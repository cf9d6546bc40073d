//! A TCP connection, opened and closed.

use tokio::net::TcpStream;

use super::{Said, plain};
use crate::spec::model::Status;

pub(super) fn title(address: &str) -> String {
    format!("TCP connect {address}")
}

/// Passing when a connection to `HOST:PORT` opens.
pub(super) async fn ask(address: &str) -> Said {
    match TcpStream::connect(address).await {
        Ok(_) => (Status::Passing, "success".to_owned()),
        Err(error) => (Status::Critical, plain(&error)),
    }
}
