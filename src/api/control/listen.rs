//! The socket itself: private from the moment it exists, few connections, root's only.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::spec::generation::User;

/// Connections that are served at once; more wait in the socket's queue.
const MOST_CONNECTIONS: usize = 64;
/// After a failed accept (no file descriptors left, say).
const PAUSE: Duration = Duration::from_millis(100);

/// How the names of folders begin in which a socket becomes what it is to be.
const UNFINISHED: &str = ".control";

/// Binds `path` with mode 0600. What is left there of an earlier controller is replaced, and what
/// it had half made goes: the caller holds the stack's lock, so nobody listens on it any more.
///
/// # Errors
/// What the kernel said.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    for entry in std::fs::read_dir(folder)?.flatten() {
        let unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
        if unfinished && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // What stays is in nobody's way, and is tried again by the next one.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    // The socket takes its name only once its mode is right; until then it lies in a folder
    // that nobody else may enter.
    let private = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(folder)?;
    let fresh = private.path().join("s");
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    uid: u32,
}

impl Peer {
    /// Its name too, as far as there is one.
    pub(super) async fn user(self) -> User {
        let uid = self.uid;
        // Names may come from a server.
        let named = tokio::task::spawn_blocking(move || user(uid)).await;
        named.unwrap_or(User { uid, name: None })
    }
}

impl Connected<IncomingStream<'_, Guarded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Guarded>) -> Self {
        *stream.remote_addr()
    }
}

/// The user with this number. It may block: names may come from a server.
pub fn user(uid: u32) -> User {
    let known = nix::unistd::User::from_uid(uid.into());
    User {
        uid,
        name: known.ok().flatten().map(|user| user.name),
    }
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

    /// Who is there, if it is somebody whom we serve.
    fn trusted(&self, stream: &UnixStream) -> Option<Peer> {
        let uid = stream.peer_cred().ok()?.uid();
        (uid == 0 || uid == self.own).then_some(Peer { uid })
    }
}

impl Listener for Guarded {
    type Io = Connection;
    type Addr = Peer;

    async fn accept(&mut self) -> (Connection, Self::Addr) {
        loop {
            let Ok(place) = self.places.clone().acquire_owned().await else {
                // Nobody closes the semaphore; without it nothing may be accepted.
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => match self.trusted(&stream) {
                    Some(peer) => {
                        let connection = Connection {
                            stream,
                            _place: place,
                        };
                        return (connection, peer);
                    }
                    None => tracing::warn!("refused a connection of another user"),
                },
                Err(error) => {
                    tracing::warn!("cannot accept on the control socket: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(Peer { uid: self.own })
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
