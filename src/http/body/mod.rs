//! Reading a request's body, with limits on its bytes, on its time, and on all bodies together.
//!
//! Not parsing it. Invariant: whatever clients send, and however slowly, the bodies in memory and what was read from
//! them never take more than the budget, see [`budget`].

mod budget;
mod pace;

use std::io::Read;

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, Request};
use bytes::Bytes;

pub(crate) use self::budget::{BodyBudget, Share};
pub(crate) use self::pace::BodyPace;
use self::pace::PacedBody;
use super::problem::Problem;

/// Bodies from this size on are decoded off the threads that serve connections.
pub(crate) const LARGE_BYTES: usize = 64 << 10;

/// After this much of a body has arrived, memory for all of its announced length is reserved at once. Not before: a
/// head that announces a large body costs its sender nothing.
const PROVEN_BYTES: usize = 1 << 20;

/// The largest window of a zstd stream, as a power of two: 8 MiB, which RFC 8878 recommends decoders to support.
const ZSTD_WINDOW_LOG: u32 = 23;

/// The most bytes that decoding a body takes beside the body, as sent and as decoded.
pub(crate) const DECODER_BYTES: usize = 1 << ZSTD_WINDOW_LOG;

/// How large one body may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimit {
    /// As sent, in bytes.
    pub(crate) sent_bytes: usize,
    /// After decompression, in bytes.
    pub(crate) decoded_bytes: usize,
}

/// A body that was read whole, with its share of the budget.
pub(crate) struct WholeBody {
    /// The bytes, decompressed.
    pub(crate) bytes: Bytes,
    /// Its share of the budget.
    pub(crate) share: Share,
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(Encoding::Identity) };
    if values.next().is_some() {
        return Err(Problem::unsupported_media("Content-Encoding must be one encoding"));
    }
    match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Encoding::Identity),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        "zstd" => Ok(Encoding::Zstd),
        _ => Err(Problem::unsupported_media("Content-Encoding must be gzip, zstd or identity")),
    }
}

/// Reads the body of `request` whole.
///
/// # Errors
/// 413 over the limit, 415 for an unknown encoding, 408 when it arrives too slowly, 503 when the budget is
/// spent, 400 when the body is cut off or malformed.
pub(crate) async fn read_whole(
    request: Request<Body>,
    limit: BodyLimit,
    budget: &BodyBudget,
    pace: BodyPace,
) -> Result<WholeBody, Problem> {
    let budget = &budget.of(request.extensions());
    let (encoding, sent, mut share) = collect_within(request, limit, budget, pace).await?;
    if encoding == Encoding::Identity {
        return Ok(WholeBody { bytes: sent, share });
    }
    let budget = budget.clone();
    let decode = move || {
        let bytes = decompress(encoding, &sent, limit.decoded_bytes, &mut share, &budget)?;
        Ok(WholeBody { bytes, share })
    };
    // Always off the threads that serve connections: a small body may decompress into a large one.
    tokio::task::spawn_blocking(decode).await.map_err(|error| {
        tracing::error!(cause = %error, "decompressing a request failed");
        Problem::internal()
    })?
}

async fn collect_within(
    request: Request<Body>,
    limit: BodyLimit,
    budget: &BodyBudget,
    pace: BodyPace,
) -> Result<(Encoding, Bytes, Share), Problem> {
    let encoding = encoding(request.headers())?;
    let sent_limit = match encoding {
        Encoding::Identity => limit.sent_bytes.min(limit.decoded_bytes),
        Encoding::Gzip | Encoding::Zstd => limit.sent_bytes,
    };
    let announced = announced_length(request.headers());
    if announced.is_some_and(|length| length > sent_limit) {
        return Err(Problem::too_large(sent_limit));
    }
    let mut share = Share::new(budget);
    let announced = announced.unwrap_or(0);
    let body = request.into_body();
    let sent = collect(body, sent_limit, announced, &mut share, pace).await?;
    Ok((encoding, sent, share))
}

fn announced_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn collect(
    body: Body,
    limit_bytes: usize,
    announced_bytes: usize,
    share: &mut Share,
    pace: BodyPace,
) -> Result<Bytes, Problem> {
    let mut body = PacedBody::new(body, pace);
    let mut first: Option<Bytes> = None;
    let mut joined = Vec::new();
    let mut length = 0;
    while let Some(data) = body.data().await? {
        length += data.len();
        // Checked as the bytes arrive: Content-Length may be absent.
        if length > limit_bytes {
            return Err(Problem::too_large(limit_bytes));
        }
        // Most bodies arrive as one frame, which is then returned without copying it.
        if first.is_none() && joined.is_empty() {
            share.cover(length)?;
            first = Some(data);
            continue;
        }
        // One reservation instead of doubling again and again, which would copy a large body several times.
        let proven = length >= PROVEN_BYTES && announced_bytes > length;
        let wanted = if proven { announced_bytes } else { length };
        let missing = wanted - joined.len();
        share.make_room(&mut joined, missing, limit_bytes, 0)?;
        if let Some(first) = first.take() {
            joined.extend_from_slice(&first);
        }
        joined.extend_from_slice(&data);
    }
    Ok(first.unwrap_or_else(|| joined.into()))
}

fn decompress(
    encoding: Encoding,
    sent: &[u8],
    limit_bytes: usize,
    share: &mut Share,
    budget: &BodyBudget,
) -> Result<Bytes, Problem> {
    let broken = |_| Problem::invalid("the body is not what its Content-Encoding says");
    let _window;
    let mut reader: Box<dyn Read> = match encoding {
        Encoding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(sent)),
        Encoding::Zstd => {
            // Counted as long as the decoder lives, which allocates what the sender asks for.
            _window = budget.cover_response(DECODER_BYTES)?;
            let mut decoder = zstd::stream::read::Decoder::with_buffer(sent).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
            Box::new(decoder)
        }
        Encoding::Identity => Box::new(sent),
    };
    let mut out = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let read = reader.read(&mut chunk).map_err(broken)?;
        if read == 0 {
            return Ok(out.into());
        }
        // Checked chunk by chunk, so that a decompression bomb costs one chunk more than the limit at most.
        if out.len() + read > limit_bytes {
            return Err(Problem::too_large(limit_bytes));
        }
        share.make_room(&mut out, read, limit_bytes, sent.len())?;
        out.extend_from_slice(&chunk[..read]);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    const LIMIT: BodyLimit = BodyLimit { sent_bytes: 1 << 20, decoded_bytes: 1 << 20 };

    async fn read(request: Request<Body>, budget: usize) -> Result<Bytes, u16> {
        let budget = BodyBudget::new(budget, budget);
        let pace = BodyPace::new(Duration::from_secs(60), Duration::from_secs(60), 1);
        read_whole(request, LIMIT, &budget, pace)
            .await
            .map(|whole| whole.bytes)
            .map_err(|problem| problem.status().as_u16())
    }

    fn encoded(encoding: &str, bytes: Vec<u8>) -> Request<Body> {
        let request = Request::builder().header(CONTENT_ENCODING, encoding);
        request.body(Body::from(bytes)).expect("a request")
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("to memory");
        encoder.finish().expect("to memory")
    }

    #[tokio::test]
    async fn compressed_bodies_are_read() {
        let text = b"some text, some text".repeat(100);
        assert_eq!(read(encoded("gzip", gzip(&text)), 1 << 20).await.expect("valid"), text);
        let zstd = zstd::encode_all(&text[..], 3).expect("to memory");
        assert_eq!(read(encoded("zstd", zstd), 1 << 20).await.expect("valid"), text);
        assert_eq!(read(encoded("br", text.clone()), 1 << 20).await, Err(415));
        let twice = Request::builder().header(CONTENT_ENCODING, "gzip");
        let twice = twice.header(CONTENT_ENCODING, "gzip").body(Body::from(gzip(&text)));
        assert_eq!(read(twice.expect("a request"), 1 << 20).await, Err(415));
        assert_eq!(read(encoded("gzip", text), 1 << 20).await, Err(400));
    }

    #[tokio::test]
    async fn a_decompression_bomb_is_refused_at_the_limit() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < LIMIT.sent_bytes);
        assert_eq!(read(encoded("gzip", bomb), 1 << 30).await, Err(413));
    }

    #[tokio::test]
    async fn the_budget_holds_for_bodies_as_sent_and_as_decoded() {
        let body = vec![b'x'; 512 << 10];
        assert_eq!(read(encoded("gzip", gzip(&body)), 64 << 10).await, Err(503));
        assert_eq!(read(encoded("identity", body.clone()), 64 << 10).await, Err(503));
        assert_eq!(read(encoded("identity", body), 1 << 20).await.map(|b| b.len()), Ok(512 << 10));
        assert_eq!(read(encoded("identity", vec![0; 2 << 20]), 1 << 30).await, Err(413));
    }
}
