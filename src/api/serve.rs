//! The listener: who may connect, how many, and for how long without a word.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

/// Connections from everywhere.
const ALL: usize = 1024;
/// Connections from outside loopback: this machine's own tools always find room.
const GUESTS: usize = 768;
/// Connections from one address outside loopback.
const ONE_GUEST: usize = 256;
/// How long answers under way may take once the registry leaves.
const FAREWELL: Duration = Duration::from_secs(3);

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Serves `router` on `listener` until `shutdown`; then answers under way have three seconds.
/// A connection ends after `silence` without a word in either direction.
///
/// # Errors
/// None today: a connection that fails ends alone, and a failing accept is tried again.
pub async fn serve(
    listener: TcpListener,
    router: axum::Router,
    silence: Duration,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let listener = Guarded {
        listener,
        silence,
        count: Arc::new(Mutex::new(Count::default())),
    };
    let service = router.into_make_service_with_connect_info::<Peer>();
    let leaving = shutdown.clone();
    let server = axum::serve(listener, service)
        .with_graceful_shutdown(async move { leaving.cancelled().await });
    let farewell = async {
        shutdown.cancelled().await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        ended = server => ended,
        () = farewell => Ok(()),
    }
}

/// A listener that drops connections beyond the limits.
struct Guarded {
    listener: TcpListener,
    silence: Duration,
    count: Arc<Mutex<Count>>,
}

#[derive(Default)]
struct Count {
    all: usize,
    guests: BTreeMap<IpAddr, usize>,
}

impl Count {
    /// Counts one more from `peer`, if there is room.
    fn enter(&mut self, peer: IpAddr) -> bool {
        if self.all >= ALL {
            return false;
        }
        if !peer.is_loopback() {
            let guests: usize = self.guests.values().sum();
            let own = self.guests.get(&peer).copied().unwrap_or(0);
            if guests >= GUESTS || own >= ONE_GUEST {
                return false;
            }
            self.guests.insert(peer, own + 1);
        }
        self.all += 1;
        true
    }

    fn leave(&mut self, peer: IpAddr) {
        self.all = self.all.saturating_sub(1);
        if let Some(own) = self.guests.get_mut(&peer) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.guests.remove(&peer);
            }
        }
    }
}

/// One counted place, free again when dropped.
struct Place {
    peer: IpAddr,
    count: Arc<Mutex<Count>>,
}

impl Place {
    fn take(peer: IpAddr, count: &Arc<Mutex<Count>>) -> Option<Place> {
        let entered = count
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .enter(peer);
        entered.then(|| Place {
            peer,
            count: Arc::clone(count),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        count.leave(self.peer);
    }
}

impl Listener for Guarded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let (stream, peer) = Listener::accept(&mut self.listener).await;
            if let Some(place) = Place::take(peer.ip().to_canonical(), &self.count) {
                // Answers are small and somebody waits for each; without it they only come later.
                stream.set_nodelay(true).ok();
                return (Connection::new(stream, self.silence, place), peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Guarded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Guarded>) -> Self {
        Peer(*stream.remote_addr())
    }
}

/// A connection that ends after a long silence in both directions.
struct Connection {
    stream: TcpStream,
    longest: Duration,
    silence: Pin<Box<Sleep>>,
    _place: Place,
}

impl Connection {
    fn new(stream: TcpStream, longest: Duration, place: Place) -> Self {
        Connection {
            stream,
            longest,
            silence: Box::pin(tokio::time::sleep(longest)),
            _place: place,
        }
    }

    /// Passes `polled` on; a word restarts the silence, and too long a one is an error.
    fn heard<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            let end = Instant::now() + self.longest;
            self.silence.as_mut().reset(end);
            return polled;
        }
        match self.silence.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.heard(context, polled)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.heard(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.heard(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_never_take_every_place() {
        let mut count = Count::default();
        let guest = |n: u8| IpAddr::from([10, 0, 0, n]);
        let taken = (0..2 * ONE_GUEST).filter(|_| count.enter(guest(1))).count();
        assert_eq!(taken, ONE_GUEST);
        let taken = (0..2 * GUESTS)
            .filter(|n| count.enter(guest(2 + (n % 8) as u8)))
            .count();
        assert_eq!(taken, GUESTS - ONE_GUEST);
        let local = IpAddr::from([127, 0, 0, 1]);
        let taken = (0..2 * ALL).filter(|_| count.enter(local)).count();
        assert_eq!(taken, ALL - GUESTS);
        count.leave(guest(1));
        assert!(count.enter(guest(1)));
        for _ in 0..ONE_GUEST {
            count.leave(guest(1));
        }
        assert!(!count.guests.contains_key(&guest(1)));
    }
}
