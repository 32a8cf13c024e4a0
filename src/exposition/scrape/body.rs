//! The body of the response to a scrape: pre-rendered chunks.
//!
//! Not their rendering. Invariant: the length is known before the first byte is sent, and the chunks are
//! immutable, so that a refresh in between does not change what is being sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

/// Chunks below this size are joined before they are sent, in bytes.
const SMALL_BYTES: usize = 4 * 1024;
/// The size at which a frame of joined chunks is sent, in bytes.
const FRAME_BYTES: usize = 64 * 1024;

/// The body of one response.
#[derive(Debug, Clone)]
pub struct ScrapeBody {
    before: Option<Bytes>,
    chunks: Arc<[Bytes]>,
    next: usize,
    after: Option<Bytes>,
    remaining: u64,
}

impl ScrapeBody {
    /// Makes the body of `before`, `chunks` (of `chunk_bytes` in all) and `after`.
    pub(super) fn new(before: Bytes, chunks: Arc<[Bytes]>, chunk_bytes: u64, after: Bytes) -> Self {
        let remaining = before.len() as u64 + chunk_bytes + after.len() as u64;
        Self { before: Some(before), chunks, next: 0, after: Some(after), remaining }
    }

    /// Returns the number of bytes that are still to be sent.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Returns the next frame to send; `None` at the end. A frame is never empty.
    pub fn next_frame(&mut self) -> Option<Bytes> {
        let first = self.next_chunk()?;
        if first.len() >= SMALL_BYTES || !self.next_is_small() {
            self.remaining = self.remaining.saturating_sub(first.len() as u64);
            return Some(first);
        }
        let mut frame = BytesMut::with_capacity(FRAME_BYTES);
        frame.extend_from_slice(&first);
        while frame.len() < FRAME_BYTES && self.next_is_small() {
            let Some(chunk) = self.next_chunk() else { break };
            frame.extend_from_slice(&chunk);
        }
        self.remaining = self.remaining.saturating_sub(frame.len() as u64);
        Some(frame.freeze())
    }

    fn next_chunk(&mut self) -> Option<Bytes> {
        loop {
            let chunk = if let Some(before) = self.before.take() {
                before
            } else if let Some(chunk) = self.chunks.get(self.next) {
                self.next += 1;
                chunk.clone()
            } else {
                self.after.take()?
            };
            if !chunk.is_empty() {
                return Some(chunk);
            }
        }
    }

    fn next_is_small(&self) -> bool {
        let next = self.before.as_ref().or_else(|| self.chunks.get(self.next));
        next.or(self.after.as_ref()).is_some_and(|chunk| chunk.len() < SMALL_BYTES)
    }
}

impl Body for ScrapeBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next_frame().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_chunks_are_joined_and_the_length_is_exact() {
        let mut chunks: Vec<Bytes> = vec![Bytes::from_static(b"small"); 30_000];
        chunks.push(vec![b'x'; SMALL_BYTES].into());
        chunks.extend([Bytes::new(), Bytes::from_static(b"end")]);
        let bytes = chunks.concat().len() as u64;
        let mut body = ScrapeBody::new("<".into(), chunks.into(), bytes, ">".into());
        let expected = bytes + 2;
        assert_eq!(body.size_hint().exact(), Some(expected));
        let (mut sent, mut frames) = (0, 0);
        while let Some(frame) = body.next_frame() {
            assert!(!frame.is_empty());
            sent += frame.len() as u64;
            frames += 1;
            assert_eq!(body.remaining(), expected - sent);
        }
        assert!(body.is_end_stream());
        assert_eq!((sent, frames), (expected, 5));
    }
}
