//! The socket itself: private from the moment it exists, few connections, root's only.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections that are served at once; more wait in the socket's queue.
const MOST_CONNECTIONS: usize = 64;
/// After a failed accept (no file descriptors left, say).
const PAUSE: Duration = Duration::from_millis(100);

/// Binds `path` with mode 0600. What is left there of an earlier controller is replaced: the
/// caller holds the stack's lock, so nobody listens on it any more.
///
/// # Errors
/// What the kernel said.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    // The socket takes its name only once its mode is right; until then it lies in a folder
    // that nobody else may enter.
    let private = tempfile::Builder::new()
        .prefix(".control")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(folder)?;
    let fresh = private.path().join("s");
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}

/// Takes connections of root and of ourselves, and drops others.
pub(super) struct Guarded {
    listener: UnixListener,
    places: Arc<Semaphore>,
    own: u32,
}

impl Guarded {
    pub(super) fn new(listener: UnixListener) -> Self {
        Guarded {
            listener,
            places: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            own: nix::unistd::geteuid().as_raw(),
        }
    }

    fn trusted(&self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) => peer.uid() == 0 || peer.uid() == self.own,
            Err(_) => false,
        }
    }
}

impl Listener for Guarded {
    type Io = Connection;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Connection, Self::Addr) {
        loop {
            let Ok(place) = self.places.clone().acquire_owned().await else {
                // Nobody closes the semaphore; without it nothing may be accepted.
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, address)) if self.trusted(&stream) => {
                    let connection = Connection {
                        stream,
                        _place: place,
                    };
                    return (connection, address);
                }
                Ok(_) => tracing::warn!("refused a connection of another user"),
                Err(error) => {
                    tracing::warn!("cannot accept on the control socket: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that holds one of the places.
pub(super) struct Connection {
    stream: UnixStream,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
