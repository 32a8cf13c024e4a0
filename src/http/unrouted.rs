//! Responses that are made without the router: to heads that can't be parsed, and on connections that are one too many.
//!
//! hyper responds to a head that it can't parse with a status and no body, and has no hook for that. So the connection
//! replaces what hyper writes. It also lets hyper refuse heads that frame their bodies twice, see [`super::framing`]. Not
//! the checks of a head that was parsed, see [`super::head`]. Invariant: only what is written while no request is being
//! responded to is replaced, so no byte of another response ever is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::framing::Framing;
use super::problem::{Code, Problem};

/// For how long a client may read its refusal before the connection is closed. A connection that is closed while its
/// client still sends is reset, and the client may then not see the response.
const LINGER: Duration = Duration::from_secs(1);

/// Responds 503 on a connection that its client has no right to, and closes it within a second.
pub(super) async fn refuse_connection(mut stream: TcpStream) {
    let detail = "this address has its part of the connections";
    let text = text_of(Problem::overloaded(detail), b"");
    let respond = async {
        // Not before the request: some clients take what comes before it for an error of the connection.
        stream.peek(&mut [0]).await?;
        stream.write_all(&text).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    // A client that is gone, or takes too long, has lost its right to a response.
    let _ = tokio::time::timeout(LINGER, respond).await;
}

/// Returns `problem` as a whole response, after which the connection is closed; `headers` are lines of more headers.
fn text_of(problem: Problem, headers: &[u8]) -> Vec<u8> {
    let body = problem.to_json();
    let response = problem.into_response();
    let mut text = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(headers);
    let length = body.len();
    let end = format!("content-length: {length}\r\nconnection: close\r\n\r\n");
    text.extend_from_slice(end.as_bytes());
    text.extend_from_slice(&body);
    text
}

/// Returns the problem that takes the place of a head that hyper wrote itself; `None` for one that is no refusal.
/// `framed_twice` says whether it refuses such a request.
fn refusal_of(head: &[u8], framed_twice: bool) -> Option<Vec<u8>> {
    let problem = match head.strip_prefix(b"HTTP/1.1 ")?.get(..3)? {
        b"400" if framed_twice => {
            Problem::invalid("a request has one Content-Length, or Transfer-Encoding instead of it")
        }
        b"400" => Problem::invalid("the head of the request can't be parsed as HTTP/1.1"),
        // A target that is too long is a part of the head that is.
        b"414" | b"431" => Problem::new(Code::HeadTooLarge).detail(Code::HeadTooLarge.meaning()),
        _ => return None,
    };
    // hyper knows the date, and writes no more headers that are still true of the new response.
    let date = head.split_inclusive(|&b| b == b'\n').find(|line| line.starts_with(b"date: "));
    Some(text_of(problem, date.unwrap_or_default()))
}

/// Whether a request of a connection is being responded to.
#[derive(Debug, Default)]
pub(super) struct Exchange(AtomicU8);

impl Exchange {
    const NONE: u8 = 0;
    /// A handler runs, or its response is read.
    const RESPONDING: u8 = 1;
    /// The response was read to its end, and the rest of it is not sent yet.
    const SENDING_REST: u8 = 2;

    /// Records that a request came; its response has been read when the result is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Responding {
        self.0.store(Self::RESPONDING, Ordering::Relaxed);
        Responding(Arc::clone(self))
    }

    /// Records that hyper has sent all that it had.
    fn flushed(&self) {
        // One connection is one task: nothing comes in between.
        if self.0.load(Ordering::Relaxed) == Self::SENDING_REST {
            self.0.store(Self::NONE, Ordering::Relaxed);
        }
    }

    fn is_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::NONE
    }
}

/// A request is being responded to, until this is dropped.
#[derive(Debug)]
pub(super) struct Responding(Arc<Exchange>);

impl Drop for Responding {
    fn drop(&mut self) {
        self.0.0.store(Exchange::SENDING_REST, Ordering::Relaxed);
    }
}

/// The body of a response. hyper drops it when it has read all of it.
#[derive(Debug)]
pub(super) struct RespondingBody {
    body: Body,
    _responding: Responding,
}

impl RespondingBody {
    pub(super) fn new(body: Body, responding: Responding) -> Self {
        Self { body, _responding: responding }
    }
}

impl http_body::Body for RespondingBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection on which hyper's own refusals are problems.
pub(super) struct ProblemsOfParser<S> {
    stream: S,
    exchange: Arc<Exchange>,
    framing: Framing,
    refusal: Option<Refusal>,
}

/// What is sent in place of hyper's refusal, which is the last that it writes.
struct Refusal {
    text: Vec<u8>,
    sent: usize,
    /// Runs from the end of the response on.
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S> ProblemsOfParser<S> {
    pub(super) fn new(stream: S, exchange: Arc<Exchange>) -> Self {
        Self { stream, exchange, framing: Framing::default(), refusal: None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ProblemsOfParser<S> {
    /// Sends the problem instead of `head`, if hyper wrote that of its own accord; returns whether it did.
    fn poll_replace(&mut self, cx: &mut Context<'_>, head: &[u8]) -> Poll<io::Result<bool>> {
        if self.refusal.is_none() {
            let text = if self.exchange.is_none() {
                refusal_of(head, self.framing.has_refused())
            } else {
                None
            };
            let Some(text) = text else { return Poll::Ready(Ok(false)) };
            self.refusal = Some(Refusal { text, sent: 0, linger: None });
        }
        let Some(refusal) = &mut self.refusal else { return Poll::Ready(Ok(false)) };
        while let rest @ [_, ..] = &refusal.text[refusal.sent..] {
            refusal.sent += match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => sent,
            };
        }
        Poll::Ready(Ok(true))
    }

    /// Reads and discards what the client still sends, for a bounded time.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(refusal) = &mut self.refusal else { return Poll::Ready(()) };
        let linger = refusal.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut discarded = [0; 4096];
        while linger.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut discarded);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ProblemsOfParser<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        loop {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            let had_refused = this.framing.has_refused();
            let passed = this.framing.follow(&mut buffer.filled_mut()[before..]);
            let ended = buffer.filled().len() == before;
            buffer.set_filled(before + passed);
            // hyper refuses what it has by now, and reads what comes behind it to nobody.
            if !had_refused || ended {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ProblemsOfParser<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if ready!(self.poll_replace(cx, bytes))? {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A head is one slice, and a refusal is nothing but a head.
        if let [head] = slices
            && ready!(self.poll_replace(cx, head))?
        {
            return Poll::Ready(Ok(head.len()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.exchange.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let lingers = self.refusal.as_ref().is_some_and(|refusal| refusal.linger.is_some());
        if !lingers {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.poll_linger(cx).map(Ok)
    }
}
