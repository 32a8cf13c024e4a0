//! Lingering: a request's body is read to its end even when its handler drops it, as on a refusal.
//!
//! A client that is still sending when the server closes the connection sees a reset connection instead of the
//! response (RFC 9112, 9.6), and a client that reuses connections loses them. Invariant: dropping a body unread breaks
//! neither the response nor, for a bounded time, the connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// For how long a dropped body is still read.
const LINGER: Duration = Duration::from_secs(5);

/// The body of a request. Dropping it unread starts a task that reads and discards the rest.
pub(crate) struct Lingering {
    /// `None` when the body was read to its end.
    body: Option<Incoming>,
}

impl Lingering {
    /// Wraps `body`.
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body: Some(body).filter(|body| !body.is_end_stream()) }
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        // Outside a runtime there is no connection to keep either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let rest = async { while let Some(Ok(_)) = body.frame().await {} };
                // After that the rest of the body is dropped, and hyper closes the connection.
                let _ = tokio::time::timeout(LINGER, rest).await;
            });
        }
    }
}
