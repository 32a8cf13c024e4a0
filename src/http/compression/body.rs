//! The body of a compressed response: each piece is compressed when the client takes it.
//!
//! Not which coding it has. Invariant: what has been sent is not kept, and what has not been read from the inner body
//! is not compressed yet.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::Frame;
use tokio::sync::OwnedSemaphorePermit;

use super::Encoders;
use crate::exposition::gzip::{Checksum, HEADER};

/// How much of the plain body is compressed at a time.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// Level 1 of both codings: responses are compressed for each client anew, and on the threads that serve all.
const ZSTD_LEVEL: i32 = 1;

/// A body that is compressed piece by piece.
pub(super) struct CompressedBody {
    inner: Body,
    /// What was read from the inner body, and is not compressed yet.
    plain: Bytes,
    /// `None` after the end.
    encoder: Option<Encoder>,
}

impl CompressedBody {
    pub(super) fn new(inner: Body, encoder: Encoder) -> Self {
        Self { inner, plain: Bytes::new(), encoder: Some(encoder) }
    }
}

impl HttpBody for CompressedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        while let Some(encoder) = &mut this.encoder {
            let mut ended = false;
            if this.plain.is_empty() {
                match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                    // The bodies of handlers have no trailers.
                    Some(Ok(frame)) => this.plain = frame.into_data().unwrap_or_default(),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => ended = true,
                }
            }
            let piece = this.plain.split_to(this.plain.len().min(PIECE_BYTES));
            // The end is not awaited where it is known, so that no encoder waits for a client to take its last piece.
            ended |= this.plain.is_empty() && this.inner.is_end_stream();
            let compressed = encoder.compress(&piece, ended).map_err(axum::Error::new);
            if ended {
                this.encoder = None;
            }
            match compressed {
                Ok(nothing) if nothing.is_empty() => {}
                compressed => return Poll::Ready(Some(compressed.map(Frame::data))),
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none()
    }
}

/// What compresses one response.
pub(super) enum Encoder {
    /// One gzip member.
    Gzip(Member),
    /// One zstd frame.
    Zstd {
        /// `None` after the end.
        frame: Option<Box<zstd::stream::write::Encoder<'static, Vec<u8>>>>,
        /// Its place among those that there may be.
        _slot: OwnedSemaphorePermit,
    },
}

/// What is known of a gzip member that has begun.
pub(super) struct Member {
    encoders: Encoders,
    /// Whether the header was made.
    begun: bool,
    sum: Checksum,
    plain_bytes: u64,
}

impl Encoder {
    pub(super) fn gzip(encoders: Encoders) -> Self {
        Self::Gzip(Member { encoders, begun: false, sum: Checksum::default(), plain_bytes: 0 })
    }

    /// Makes an encoder of a body of `size_bytes`; `None` when that fails.
    pub(super) fn zstd(slot: OwnedSemaphorePermit, size_bytes: Option<u64>) -> Option<Self> {
        let mut frame = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).ok()?;
        // An encoder of a short body takes less memory.
        frame.set_pledged_src_size(size_bytes).ok()?;
        Some(Self::Zstd { frame: Some(Box::new(frame)), _slot: slot })
    }

    /// Compresses the next piece, and ends the response if it is the last. The result may be empty: zstd collects.
    fn compress(&mut self, piece: &[u8], ends: bool) -> io::Result<Bytes> {
        match self {
            Self::Gzip(member) => Ok(member.compress(piece, ends)),
            Self::Zstd { frame, .. } => {
                let Some(mut encoder) = frame.take() else { return Ok(Bytes::new()) };
                encoder.write_all(piece)?;
                if ends {
                    return encoder.finish().map(Bytes::from);
                }
                let compressed = std::mem::take(encoder.get_mut());
                *frame = Some(encoder);
                Ok(compressed.into())
            }
        }
    }
}

impl Member {
    fn compress(&mut self, piece: &[u8], ends: bool) -> Bytes {
        // A first piece may be empty.
        let begins = !std::mem::replace(&mut self.begun, true);
        let fragment = self.encoders.with_gzip(|compressor| compressor.compress(piece));
        self.sum.add(&fragment);
        self.plain_bytes += fragment.plain_bytes;
        if !begins && !ends {
            return fragment.bytes;
        }
        let header: &[u8] = if begins { &HEADER } else { &[] };
        let trailer = if ends { self.sum.trailer(self.plain_bytes) } else { Bytes::new() };
        [header, &fragment.bytes, &trailer].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Read;
    use std::sync::Arc;

    use futures_util::stream;
    use http_body_util::BodyExt;
    use proptest::prelude::{any, prop, proptest};
    use tokio::sync::Semaphore;

    use super::*;

    fn zstd_encoder(size_bytes: Option<u64>) -> Encoder {
        let slot = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a permit");
        Encoder::zstd(slot, size_bytes).expect("there is memory")
    }

    fn whole(body: Body, encoder: Encoder) -> Vec<u8> {
        let body = CompressedBody::new(body, encoder).collect();
        let body = futures_util::FutureExt::now_or_never(body).expect("nothing waits");
        body.expect("a body").to_bytes().to_vec()
    }

    /// Expects one gzip member, and nothing behind it.
    fn gunzip(mut compressed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut decoder = flate2::bufread::GzDecoder::new(&mut compressed);
        decoder.read_to_end(&mut plain).expect("a whole member");
        assert!(compressed.is_empty());
        plain
    }

    /// Expects one zstd frame, and nothing behind it.
    fn unzstd(compressed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let decoder = zstd::stream::read::Decoder::with_buffer(compressed).expect("a decoder");
        let mut decoder = decoder.single_frame();
        decoder.read_to_end(&mut plain).expect("a whole frame");
        assert!(decoder.finish().is_empty());
        plain
    }

    fn stream_of(frames: &[Vec<u8>]) -> Body {
        let frames: Vec<_> = frames.iter().cloned().map(Ok::<_, Infallible>).collect();
        Body::from_stream(stream::iter(frames))
    }

    proptest! {
        #[test]
        fn clients_read_what_was_compressed(
            seeds in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..900), 0..5),
            repeat in 1_usize..300,
        ) {
            let frames: Vec<_> = seeds.iter().map(|seed| seed.repeat(repeat)).collect();
            let plain = frames.concat();
            let size = Some(plain.len() as u64);
            let gzip = || Encoder::gzip(Encoders::default());
            assert_eq!(gunzip(&whole(stream_of(&frames), gzip())), plain);
            assert_eq!(gunzip(&whole(Body::from(plain.clone()), gzip())), plain);
            assert_eq!(unzstd(&whole(stream_of(&frames), zstd_encoder(None))), plain);
            assert_eq!(unzstd(&whole(Body::from(plain.clone()), zstd_encoder(size))), plain);
        }
    }

    #[test]
    fn a_response_that_breaks_off_is_not_ended() {
        let frames = [Ok(vec![b'x'; 100_000]), Err(io::Error::other("broken"))];
        for encoder in [Encoder::gzip(Encoders::default()), zstd_encoder(None)] {
            let body = Body::from_stream(stream::iter(
                frames
                    .iter()
                    .map(|frame| {
                        frame.as_ref().cloned().map_err(|error| io::Error::other(error.to_string()))
                    })
                    .collect::<Vec<_>>(),
            ));
            let body = CompressedBody::new(body, encoder).collect();
            let body = futures_util::FutureExt::now_or_never(body).expect("nothing waits");
            assert!(body.is_err());
        }
    }
}
