//! Holding something, such as a permit, until a response has been sent.
//!
//! Invariant: it is dropped with the response's body, whether the body was sent whole or the client went away.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// Responses from this size on keep their permit until they are sent: what a slow client leaves unsent counts. Smaller
/// ones fit into the buffers of the connection.
const HELD_BYTES: u64 = 64 << 10;

/// Keeps `permit` until a large or endless response has been sent; gives it back now for any other.
pub(super) fn hold_while_large<T>(response: Response, permit: Option<T>) -> Response
where
    T: Unpin + Send + 'static,
{
    let Some(permit) = permit else { return response };
    // A stream has no upper bound.
    if response.body().size_hint().upper().is_some_and(|upper| upper < HELD_BYTES) {
        return response;
    }
    keep_until_sent(response, permit)
}

/// Drops `kept` when the response has been sent, or its client went away.
fn keep_until_sent<T>(response: Response, kept: T) -> Response
where
    T: Unpin + Send + 'static,
{
    response.map(|inner| Body::new(KeepingBody { inner, _kept: kept }))
}

struct KeepingBody<T> {
    inner: Body,
    _kept: T,
}

impl<T: Unpin> HttpBody for KeepingBody<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
