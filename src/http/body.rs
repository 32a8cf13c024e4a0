//! Reading a request's body, with limits on its bytes, on its time, and on all bodies together.
//!
//! Not parsing it. Invariant: whatever clients send, and however slowly, the bodies in memory and what was read from
//! them never take more than the budget, apart from the first few KiB of each running request. Responses that are
//! much larger than their requests count against the budget too.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, Request};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// How many bytes a body may have before it counts against the budget: the number of such bodies is bounded by the
/// permits to run.
const FREE_BYTES: usize = 16 << 10;

/// The budget counts in units of this many bytes.
const UNIT_BYTES: usize = 4096;

/// Bodies from this size on are decoded off the threads that serve connections.
pub(crate) const LARGE_BYTES: usize = 64 << 10;

/// After this much of a body has arrived, memory for all of its announced length is reserved at once. Not before: a
/// head that announces a large body costs its sender nothing.
const PROVEN_BYTES: usize = 1 << 20;

/// How large one body may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimit {
    /// As sent, in bytes.
    pub(crate) sent_bytes: usize,
    /// After decompression, in bytes.
    pub(crate) decoded_bytes: usize,
}

/// How many bytes of bodies may be in memory at a time, over all requests.
#[derive(Debug, Clone)]
pub(crate) struct BodyBudget {
    units: Arc<Semaphore>,
    all_bytes: usize,
}

impl BodyBudget {
    /// Makes a budget of about `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)), all_bytes: units * UNIT_BYTES }
    }

    /// Takes the share of a response of `bytes`, to be kept until it is sent. A response that is larger than the whole
    /// budget takes all of it.
    ///
    /// # Errors
    /// 503 when the budget is spent.
    pub(crate) fn cover_response(&self, bytes: usize) -> Result<Share, Problem> {
        let mut share = Share::new(self);
        share.cover_reading(0, bytes)?;
        Ok(share)
    }
}

/// What one body has taken of the budget. Dropping it gives it back.
pub(crate) struct Share {
    budget: BodyBudget,
    permit: Option<OwnedSemaphorePermit>,
    covered_bytes: usize,
}

impl Share {
    fn new(budget: &BodyBudget) -> Self {
        Self { budget: budget.clone(), permit: None, covered_bytes: FREE_BYTES }
    }

    /// Extends the share to cover `bytes`. What it covers already is not taken again.
    fn cover(&mut self, bytes: usize) -> Result<(), Problem> {
        let Some(missing) = bytes.checked_sub(self.covered_bytes).filter(|m| *m > 0) else {
            return Ok(());
        };
        let units = u32::try_from(missing.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.budget.units).try_acquire_many_owned(units).map_err(|_| {
            Problem::overloaded("too many bytes of requests and responses are in memory")
        })?;
        self.covered_bytes += units as usize * UNIT_BYTES;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }

    /// Covers a body of `bytes` and what will be read from it, which takes `more_bytes`. A body that alone exceeds the
    /// budget takes all of it instead: it would get 503 for ever otherwise.
    ///
    /// # Errors
    /// 503 when the budget is spent.
    pub(crate) fn cover_reading(&mut self, bytes: usize, more_bytes: usize) -> Result<(), Problem> {
        let coverable = self.budget.all_bytes.saturating_add(FREE_BYTES).max(bytes);
        self.cover(bytes.saturating_add(more_bytes).min(coverable))
    }
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
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(Encoding::Identity) };
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
/// 413 over the limit, 415 for an unknown encoding, 408 when nothing arrives for `max_silence`, 503 when the budget is
/// spent, 400 when the body is cut off or malformed.
pub(crate) async fn read_whole(
    request: Request<Body>,
    limit: BodyLimit,
    budget: &BodyBudget,
    max_silence: Duration,
) -> Result<WholeBody, Problem> {
    let (encoding, sent, mut share) = collect_within(request, limit, budget, max_silence).await?;
    if encoding == Encoding::Identity {
        return Ok(WholeBody { bytes: sent, share });
    }
    let decode = move || {
        let bytes = decompress(encoding, &sent, limit.decoded_bytes, &mut share)?;
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
    max_silence: Duration,
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
    let sent = collect(body, sent_limit, announced, &mut share, max_silence).await?;
    Ok((encoding, sent, share))
}

fn announced_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn collect(
    mut body: Body,
    limit_bytes: usize,
    announced_bytes: usize,
    share: &mut Share,
    max_silence: Duration,
) -> Result<Bytes, Problem> {
    let mut first: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    let mut length = 0;
    loop {
        let frame = tokio::time::timeout(max_silence, body.frame());
        let Some(frame) = frame.await.map_err(|_| Problem::body_timeout())? else { break };
        let frame = frame.map_err(|_| Problem::invalid("the body was cut off or is malformed"))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        // Checked as the bytes arrive: Content-Length may be absent.
        if length > limit_bytes {
            return Err(Problem::too_large(limit_bytes));
        }
        share.cover(length)?;
        // Most bodies arrive as one frame, which is then returned without copying it.
        if first.is_none() && joined.is_empty() {
            first = Some(data);
            continue;
        }
        if let Some(first) = first.take() {
            joined.extend_from_slice(&first);
        }
        // One reservation instead of doubling again and again, which would copy a large body several times.
        if joined.capacity() < length && length >= PROVEN_BYTES && announced_bytes > length {
            share.cover(announced_bytes)?;
            joined.reserve(announced_bytes - joined.len());
        }
        joined.extend_from_slice(&data);
    }
    Ok(first.unwrap_or_else(|| joined.freeze()))
}

fn decompress(
    encoding: Encoding,
    sent: &[u8],
    limit_bytes: usize,
    share: &mut Share,
) -> Result<Bytes, Problem> {
    let broken = |_| Problem::invalid("the body is not what its Content-Encoding says");
    let mut reader: Box<dyn Read> = match encoding {
        Encoding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(sent)),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(sent).map_err(broken)?;
            // A window of 8 MiB, which RFC 8878 recommends decoders to support, and no more.
            decoder.window_log_max(23).map_err(broken)?;
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
        share.cover(sent.len() + out.len() + read)?;
        out.extend_from_slice(&chunk[..read]);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LIMIT: BodyLimit = BodyLimit { sent_bytes: 1 << 20, decoded_bytes: 1 << 20 };

    async fn read(request: Request<Body>, budget: usize) -> Result<Bytes, u16> {
        let budget = BodyBudget::new(budget);
        read_whole(request, LIMIT, &budget, Duration::from_secs(5))
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

    #[tokio::test]
    async fn a_silent_client_gets_408() {
        let body = Body::from_stream(futures_util::stream::pending::<Result<Bytes, String>>());
        let request = Request::new(body);
        let budget = BodyBudget::new(1 << 20);
        let max_silence = Duration::from_millis(10);
        let read = read_whole(request, LIMIT, &budget, max_silence).await;
        assert_eq!(read.map(|_| ()).map_err(|p| p.status().as_u16()), Err(408));
    }
}
