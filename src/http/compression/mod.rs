//! Compression of responses, for clients that accept it.
//!
//! Not that of /metrics, whose pages are compressed before they are asked for. A client may take its response as slowly
//! as it likes, so what an encoder keeps until then is what a slow client costs. gzip keeps a checksum: each piece is
//! compressed on its own (see [`crate::exposition::gzip`]). A zstd frame has no such pieces, and many clients read only
//! the first frame of several, so an encoder of more than a megabyte is kept for each response; their number is limited.
//! Invariant: what all responses keep for encoders is bounded, whatever their number, and no request fails for lack of
//! an encoder: it gets its next best coding.

mod accepted;
mod body;

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, VARY,
};
use axum::middleware::Next;
use axum::response::Response;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub(super) use self::accepted::Accepted;
use self::accepted::Coding;
use self::body::{CompressedBody, Encoder};
use crate::exposition::gzip::Compressor;

/// Smaller responses are sent as they are.
const SMALLEST_BYTES: u64 = 1024;

/// The most responses that are compressed with zstd at a time. An encoder takes about 1.3 MiB.
const ZSTD_ENCODERS: usize = 16;

/// What responses are compressed with.
#[derive(Clone)]
pub(super) struct Encoders(Arc<Shared>);

struct Shared {
    /// Compressors of gzip that no thread uses right now; there are never more than threads.
    gzip: Mutex<Vec<Compressor>>,
    zstd: Arc<Semaphore>,
}

impl Default for Encoders {
    fn default() -> Self {
        let zstd = Arc::new(Semaphore::new(ZSTD_ENCODERS));
        Self(Arc::new(Shared { gzip: Mutex::default(), zstd }))
    }
}

/// Compresses the response of a handler as its client accepts it.
pub(super) async fn compress(
    State(encoders): State<Encoders>,
    request: Request,
    next: Next,
) -> Response {
    let accepted = Accepted::of(request.headers().get_all(ACCEPT_ENCODING));
    encoders.apply(accepted, next.run(request).await)
}

impl Encoders {
    fn apply(&self, accepted: Accepted, response: Response) -> Response {
        let size = response.body().size_hint();
        if size.upper().is_some_and(|upper| upper < SMALLEST_BYTES)
            || response.headers().contains_key(CONTENT_ENCODING)
        {
            return response;
        }
        let (mut head, body) = response.into_parts();
        // Also of a response that is sent as it is: with another header, it would not be.
        head.headers.append(VARY, HeaderValue::from_static("accept-encoding"));
        let Some((coding, encoder)) = self.choose(accepted, size.exact()) else {
            return Response::from_parts(head, body);
        };
        head.headers.remove(CONTENT_LENGTH);
        head.headers.remove(ACCEPT_RANGES);
        head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
        Response::from_parts(head, Body::new(CompressedBody::new(body, encoder)))
    }

    /// Returns an encoder of the best coding that is accepted and has one left; `None` for identity.
    fn choose(&self, accepted: Accepted, size_bytes: Option<u64>) -> Option<(Coding, Encoder)> {
        accepted.best_first().find_map(|coding| {
            let encoder = match coding {
                Coding::Gzip => Some(Encoder::gzip(self.clone())),
                Coding::Zstd => {
                    let slot = Arc::clone(&self.0.zstd).try_acquire_owned().ok();
                    slot.and_then(|slot| Encoder::zstd(slot, size_bytes))
                }
            };
            encoder.map(|encoder| (coding, encoder))
        })
    }

    /// Runs `work` with a compressor of gzip, which it uses alone.
    fn with_gzip<T>(&self, work: impl FnOnce(&mut Compressor) -> T) -> T {
        let idle = self.0.gzip.lock().pop();
        let mut compressor = idle.unwrap_or_default();
        let result = work(&mut compressor);
        self.0.gzip.lock().push(compressor);
        result
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    /// The response to a client that sends `accept`.
    fn response(encoders: &Encoders, accept: &str, bytes: usize) -> Response {
        let accept = [HeaderValue::from_str(accept).expect("a header")];
        encoders.apply(Accepted::of(&accept), Response::new(Body::from(vec![b'x'; bytes])))
    }

    fn coding(response: &Response) -> &str {
        response.headers().get(CONTENT_ENCODING).map_or("", |value| value.to_str().expect("text"))
    }

    #[test]
    fn small_and_compressed_responses_stay_as_they_are() {
        let encoders = Encoders::default();
        let small = response(&encoders, "gzip", 1023);
        assert_eq!((coding(&small), small.body().size_hint().exact()), ("", Some(1023)));
        assert_eq!(coding(&response(&encoders, "gzip", 1024)), "gzip");
        let mut compressed = Response::new(Body::from(vec![0; 5000]));
        compressed.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("br"));
        let accept = [HeaderValue::from_static("gzip")];
        let compressed = encoders.apply(Accepted::of(&accept), compressed);
        assert_eq!(compressed.body().size_hint().exact(), Some(5000));
        for accept in ["gzip", "identity"] {
            assert_eq!(response(&encoders, accept, 5000).headers()[VARY], "accept-encoding");
        }
    }

    #[tokio::test]
    async fn many_slow_clients_keep_few_encoders_and_none_of_them_fails() {
        let encoders = Encoders::default();
        let of = |accept| response(&encoders, accept, 3 * body::PIECE_BYTES);
        let mut both: Vec<_> = (0..1000).map(|_| of("gzip, zstd")).collect();
        let count = |of: &str, all: &[Response]| all.iter().filter(|r| coding(r) == of).count();
        assert_eq!(count("zstd", &both), ZSTD_ENCODERS);
        assert_eq!(count("gzip", &both), 1000 - ZSTD_ENCODERS);
        let zstd_alone = of("zstd");
        assert_eq!(coding(&zstd_alone), "", "it is sent as it is");
        // Each has taken its first piece, and takes no more.
        let held = allocation_counter::measure(|| {
            for response in both.iter_mut().filter(|response| coding(response) == "gzip") {
                let mut first = response.body_mut().frame();
                let first = futures_util::FutureExt::now_or_never(&mut first).flatten();
                assert!(first.is_some_and(|frame| frame.is_ok()));
            }
        });
        assert!(held.bytes_current < 1 << 20, "{held:?}");
        drop(both);
        assert_eq!(coding(&of("gzip, zstd")), "zstd", "all encoders were given back");
    }

    #[tokio::test]
    async fn an_encoder_is_free_when_the_last_byte_was_compressed() {
        let encoders = Encoders::default();
        let sent: Vec<_> = (0..2 * ZSTD_ENCODERS)
            .map(|_| {
                let mut response = response(&encoders, "zstd", 5000);
                assert_eq!(coding(&response), "zstd");
                let frame = futures_util::FutureExt::now_or_never(response.body_mut().frame());
                assert!(frame.flatten().is_some());
                response
            })
            .collect();
        assert!(sent.iter().all(|response| response.body().is_end_stream()));
    }
}
