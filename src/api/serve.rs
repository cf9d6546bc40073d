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

/// How many may be connected, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections from everywhere.
    pub all: usize,
    /// Connections from outside loopback: this machine's own tools always find room.
    pub guests: usize,
    /// Connections from one address outside loopback.
    pub one_guest: usize,
    /// How long each of them may last.
    pub patience: Patience,
}

/// How long a connection may last.
#[derive(Debug, Clone, Copy)]
pub enum Patience {
    /// Until so long nothing was said in either direction.
    Silence(Duration),
    /// So long, whatever is said.
    Whole(Duration),
}

/// How long answers under way may take once the registry leaves.
const FAREWELL: Duration = Duration::from_secs(3);

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Serves `router` on `listener` until `shutdown`; then answers under way have three seconds.
/// Connections beyond the `limits` are dropped.
///
/// # Errors
/// None today: a connection that fails ends alone, and a failing accept is tried again.
pub async fn serve(
    listener: TcpListener,
    router: axum::Router,
    limits: Limits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let listener = Guarded {
        listener,
        limits,
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
    limits: Limits,
    count: Arc<Mutex<Count>>,
}

#[derive(Default)]
struct Count {
    all: usize,
    guests: BTreeMap<IpAddr, usize>,
}

impl Count {
    /// Counts one more from `peer`, if there is room.
    fn enter(&mut self, peer: IpAddr, limits: &Limits) -> bool {
        if self.all >= limits.all {
            return false;
        }
        if !peer.is_loopback() {
            let guests: usize = self.guests.values().sum();
            let own = self.guests.get(&peer).copied().unwrap_or(0);
            if guests >= limits.guests || own >= limits.one_guest {
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
    fn take(peer: IpAddr, count: &Arc<Mutex<Count>>, limits: &Limits) -> Option<Place> {
        let entered = count
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .enter(peer, limits);
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
            let place = Place::take(peer.ip().to_canonical(), &self.count, &self.limits);
            if let Some(place) = place {
                // Answers are small and somebody waits for each; without it they only come later.
                stream.set_nodelay(true).ok();
                return (Connection::new(stream, self.limits.patience, place), peer);
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

/// A connection that ends when the patience with it does.
struct Connection {
    stream: TcpStream,
    patience: Patience,
    end: Pin<Box<Sleep>>,
    _place: Place,
}

impl Connection {
    fn new(stream: TcpStream, patience: Patience, place: Place) -> Self {
        let (Patience::Silence(longest) | Patience::Whole(longest)) = patience;
        Connection {
            stream,
            patience,
            end: Box::pin(tokio::time::sleep(longest)),
            _place: place,
        }
    }

    /// Passes `polled` on; a word restarts a silence, and what lasts too long is an error.
    fn heard<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Patience::Silence(longest) = self.patience
            && polled.is_ready()
        {
            self.end.as_mut().reset(Instant::now() + longest);
            return polled;
        }
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => polled,
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
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMITS: Limits = Limits {
        all: 1024,
        guests: 768,
        one_guest: 256,
        patience: Patience::Whole(Duration::from_millis(400)),
    };

    #[test]
    fn guests_never_take_every_place() {
        let (all, guests, one_guest) = (LIMITS.all, LIMITS.guests, LIMITS.one_guest);
        let mut count = Count::default();
        let mut enter = |peer| count.enter(peer, &LIMITS);
        let guest = |n: u8| IpAddr::from([10, 0, 0, n]);
        let taken = (0..2 * one_guest).filter(|_| enter(guest(1))).count();
        assert_eq!(taken, one_guest);
        let taken = (0..2 * guests)
            .filter(|n| enter(guest(2 + (n % 8) as u8)))
            .count();
        assert_eq!(taken, guests - one_guest);
        let local = IpAddr::from([127, 0, 0, 1]);
        let taken = (0..2 * all).filter(|_| enter(local)).count();
        assert_eq!(taken, all - guests);
        count.leave(guest(1));
        assert!(count.enter(guest(1), &LIMITS));
        for _ in 0..one_guest {
            count.leave(guest(1));
        }
        assert!(!count.guests.contains_key(&guest(1)));
    }

    /// Serves with these limits, and says where.
    async fn served(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new();
        tokio::spawn(serve(listener, router, limits, CancellationToken::new()));
        address
    }

    #[tokio::test]
    async fn who_says_a_word_now_and_then_does_not_stay_for_ever() {
        let address = served(LIMITS).await;
        let begin = Instant::now();
        let mut slow = TcpStream::connect(address).await.unwrap();
        let (mut reading, mut writing) = slow.split();
        let mut said = String::new();
        let telling = async {
            while writing.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            // Whether it is closed or reset is of no account.
            _ = reading.read_to_string(&mut said) => {}
            () = telling => {}
        }
        let lasted = begin.elapsed();
        assert!(lasted >= Duration::from_millis(300), "{lasted:?}");
        assert!(lasted < Duration::from_secs(10), "{lasted:?}");
    }

    #[tokio::test]
    async fn who_comes_beyond_the_limit_is_turned_away() {
        let limits = Limits {
            all: 2,
            patience: Patience::Whole(Duration::from_secs(60)),
            ..LIMITS
        };
        let address = served(limits).await;
        let mut there = Vec::new();
        for _ in 0..2 {
            there.push(TcpStream::connect(address).await.unwrap());
        }
        let mut third = TcpStream::connect(address).await.unwrap();
        let mut said = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(30), third.read_to_end(&mut said));
        assert!(read.await.is_ok(), "it was let in");
        assert!(said.is_empty());
    }
}
