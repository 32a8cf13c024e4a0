//! The listener: accepts connections, limits their number and how long each may be idle or stalled, stops gracefully.
//!
//! Not what is served on them. Invariant: a client that neither sends nor receives loses its connection, so that no
//! number of such clients keeps the server's connections for ever.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::clients::{Addresses, Peer};
use super::linger::Lingering;
use super::settings::HttpSettings;
use super::unrouted::{Exchange, ProblemsOfParser, RespondingBody, refuse_connection};

/// How long to wait before accepting again after the system refused, for lack of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many connections that are one too many get a response at a time; more are closed without one.
const REFUSALS: usize = 64;

/// Serves `router` on `listener` until `stop` is cancelled; then accepts no more connections, and lets the running
/// requests finish for up to the configured time before it closes their connections.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: &HttpSettings,
    stop: CancellationToken,
) {
    let addresses = Arc::new(Addresses::default());
    let most_of_address = settings.limits.part_of_client(settings.limits.connections);
    let slots = Arc::new(Semaphore::new(settings.limits.connections.min(Semaphore::MAX_PERMITS)));
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let builder = connections(settings);
    let graceful = GracefulShutdown::new();
    let cut = CancellationToken::new();
    loop {
        let accepted = async {
            // The slot comes first: beyond the limit, connections wait in the listener's backlog.
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(cause = %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(connected) = addresses.connect(peer.ip(), most_of_address) else {
            tracing::debug!(%peer, "a connection was refused: its address has its part of them");
            // It takes no slot of the others, and ends within a second.
            if let Ok(refusal) = Arc::clone(&refusals).try_acquire_owned() {
                tokio::spawn(async move {
                    refuse_connection(stream).await;
                    drop(refusal);
                });
            }
            continue;
        };
        let peer = connected.peer().clone();
        let exchange = Arc::<Exchange>::default();
        let io = StallLimited::new(stream, settings.timeouts.write, Arc::clone(&peer.waits));
        let io = ProblemsOfParser::new(io, Arc::clone(&exchange));
        let service = service(router.clone(), peer, exchange);
        let connection = builder.serve_connection(TokioIo::new(io), service);
        let connection = graceful.watch(connection);
        let cut = cut.clone();
        tokio::spawn(async move {
            // Free again when the connection ends.
            let _held = (slot, connected);
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(cause = %error, "a connection ended early");
                },
                () = cut.cancelled() => {}
            }
        });
    }
    // New clients are refused at once and try the next replica.
    drop(listener);
    if tokio::time::timeout(settings.timeouts.shutdown, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests did not finish in time and were aborted");
    }
    cut.cancel();
}

fn connections(settings: &HttpSettings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // A client may close its sending side after its request, and gets its response. See `StallLimited` for
        // requests that wait.
        .half_close(true)
        .timer(TokioTimer::new())
        // Starts at the end of the previous request, so it also limits how long a connection may be idle.
        .header_read_timeout(settings.timeouts.idle)
        // The read buffer holds the whole head, and refuses a larger one when it is full; hyper's minimum is 8 KiB.
        .max_buf_size(settings.limits.head_bytes.max(8192) + 1);
    builder
}

fn service(
    router: Router,
    peer: Peer,
    exchange: Arc<Exchange>,
) -> impl hyper::service::Service<
    hyper::Request<Incoming>,
    Response = hyper::Response<RespondingBody>,
    Error = Infallible,
    Future = impl Future<Output = Result<hyper::Response<RespondingBody>, Infallible>> + Send,
> {
    hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let responding = exchange.begin();
        let mut request = request.map(|body| Body::new(Lingering::new(body)));
        peer.waits.store(false, Ordering::Relaxed);
        request.extensions_mut().insert(peer.clone());
        // A router is always ready.
        let response = router.clone().call(request);
        async move { Ok(response.await?.map(|body| RespondingBody::new(body, responding))) }
    })
}

/// A connection that fails when its client receives nothing for a set time while there is something to send, and when
/// its client closes its sending side while its request waits.
///
/// hyper has no such time-out. Linux' `TCP_USER_TIMEOUT` is one, but other systems have none that ends a connection
/// whose receive window stays closed. It costs one branch for each write: the timer exists only while a write stalls.
struct StallLimited {
    stream: TcpStream,
    max_stall: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    waits: Arc<AtomicBool>,
}

impl StallLimited {
    fn new(stream: TcpStream, max_stall: Duration, waits: Arc<AtomicBool>) -> Self {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(cause = %error, "TCP_NODELAY could not be set");
        }
        Self { stream, max_stall, stalled: None, waits }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        // Any progress restarts the time, so that slow clients are served.
        if sent.is_ready() {
            self.stalled = None;
            return sent;
        }
        let max_stall = self.max_stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(max_stall)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl StallLimited {
    /// Returns whether the client has closed its sending side; wakes the task when it does. Bytes that it sent before
    /// that, such as a further request, hide the end.
    fn has_ended(&self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        match self.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(peeked) => peeked.map_or(true, |length| length == 0),
            Poll::Pending => false,
        }
    }
}

impl AsyncRead for StallLimited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for StallLimited {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper does not read while a response is due, but flushes whenever it polls the connection.
        if self.waits.load(Ordering::Relaxed) && self.has_ended(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
