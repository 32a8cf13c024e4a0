//! A request's body that is read to its end also when nobody wants it.
//!
//! A client that is still sending when the server closes the connection sees a broken connection
//! instead of the answer (RFC 9112, 9.6), and one that reuses connections finds them
//! closed. Invariant: dropping a body unread neither breaks the answer nor, within a time, the
//! connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// For how long a body that nobody wants is still read.
const LINGER: Duration = Duration::from_secs(5);

/// The body of a request, see the module.
pub(crate) struct Lingering {
    /// `None` when it was read to its end.
    body: Option<Incoming>,
}

impl Lingering {
    /// Watches over `body`.
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
        // Outside a runtime the connection is gone as well.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let rest = async { while let Some(Ok(_)) = body.frame().await {} };
                // Who sends on for longer than that loses the connection.
                let _ = tokio::time::timeout(LINGER, rest).await;
            });
        }
    }
}
