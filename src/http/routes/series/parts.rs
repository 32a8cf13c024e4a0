//! Long responses, made part by part as the client takes them.
//!
//! Series are read from the store in parts of bounded number, and written in chunks of bounded size, so a slow reader
//! of a large page or delta costs as much memory as one of a small one. Not what is read: each source knows that.
//! Invariant: the JSON ends only where its source ended; a failure in the middle breaks the connection.

use std::future::Future;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;

use crate::http::body::{BodyBudget, Share};
use crate::http::extract::json_response;
use crate::http::problem::Problem;

/// The most series that are read from the store at a time.
pub(super) const PART_SERIES: usize = 512;

/// How much text is made at a time; the last series of a chunk may exceed it.
const CHUNK_BYTES: usize = 64 << 10;

/// What a response of several chunks takes while it is sent: a chunk that is made, one that is sent, and the series of a
/// part, whose texts the store shares.
const SENDING_BYTES: usize = 192 << 10;

/// Where the items of a response come from.
pub(super) trait Source: Send + 'static {
    /// What the response lists.
    type Item: Send;

    /// Reads the next items; not called after [`Self::at_end`].
    fn read(&mut self) -> impl Future<Output = Result<Vec<Self::Item>, Problem>> + Send;

    /// Returns whether there is nothing left to read.
    fn at_end(&self) -> bool;

    /// Writes an item as JSON.
    fn write(item: &Self::Item, out: &mut Vec<u8>);

    /// Returns the text after the last item, from the end of the list on.
    fn tail(&self) -> String;
}

/// A text with a list of items, made chunk by chunk.
pub(super) struct Parts<S: Source> {
    source: S,
    /// The items that were read and not written yet.
    items: std::vec::IntoIter<S::Item>,
    /// The text before the list; taken with the first chunk.
    head: Option<String>,
    /// Whether the list has an item already.
    begun: bool,
    ended: bool,
}

impl<S: Source> Parts<S> {
    /// Starts with what was read already; `head` is the text up to the start of the list.
    pub(super) fn new(source: S, items: Vec<S::Item>, head: impl Into<String>) -> Self {
        let (items, head) = (items.into_iter(), Some(head.into()));
        Self { source, items, head, begun: false, ended: false }
    }

    /// Returns whether the last chunk was made.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Makes the next chunk.
    ///
    /// # Errors
    /// Those of the source; nothing more can be made then.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, Problem> {
        let mut out = Vec::new();
        if let Some(head) = self.head.take() {
            out.extend_from_slice(head.as_bytes());
        }
        loop {
            self.write_items(&mut out);
            if out.len() >= CHUNK_BYTES {
                break;
            }
            if self.source.at_end() {
                out.extend_from_slice(self.source.tail().as_bytes());
                self.ended = true;
                break;
            }
            self.items = self.source.read().await?.into_iter();
        }
        Ok(out)
    }

    fn write_items(&mut self, out: &mut Vec<u8>) {
        out.reserve(CHUNK_BYTES.min(256 * self.items.len()));
        while out.len() < CHUNK_BYTES
            && let Some(item) = self.items.next()
        {
            if std::mem::replace(&mut self.begun, true) {
                out.push(b',');
            }
            S::write(&item, out);
        }
    }
}

/// Makes the response of JSON. A response of one chunk counts by its size; a longer one counts by what it takes while it
/// is sent.
///
/// # Errors
/// Those of the source before the first chunk is whole, and 503 when the budget is spent.
pub(super) async fn respond<S: Source>(
    mut parts: Parts<S>,
    budget: &BodyBudget,
) -> Result<Response, Problem> {
    let first = parts.next().await?;
    if parts.has_ended() {
        return Ok(json_response(budget.cover_response(first.len())?.hold(first)?));
    }
    let share = cover_sending(budget)?;
    let sending = Sending { first: Some(first), parts, _share: share };
    let chunks = stream::try_unfold(sending, |mut sending| async move {
        let chunk = sending.next().await.map_err(|problem| Broken(problem.code().as_str()))?;
        Ok::<_, Broken>(chunk.map(|chunk| (chunk, sending)))
    });
    Ok(json_response(Body::from_stream(chunks)))
}

/// Takes the share of a text of several chunks.
///
/// # Errors
/// 503 when the budget is spent.
pub(super) fn cover_sending(budget: &BodyBudget) -> Result<Share, Problem> {
    budget.cover_response(SENDING_BYTES)
}

/// A response that is being sent.
struct Sending<S: Source> {
    first: Option<Vec<u8>>,
    parts: Parts<S>,
    _share: Share,
}

impl<S: Source> Sending<S> {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first.into()));
        }
        if self.parts.has_ended() {
            return Ok(None);
        }
        self.parts.next().await.map(|chunk| Some(chunk.into()))
    }
}

/// Why a response broke off, by its code.
#[derive(Debug, thiserror::Error)]
#[error("the response broke off: {0}")]
struct Broken(&'static str);

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;
    use crate::http::problem::Code;

    /// Numbers, in parts of 100, that may fail after some of them.
    struct Numbers {
        next: usize,
        end: usize,
        fails_at: usize,
        most_read: usize,
    }

    impl Source for Numbers {
        type Item = usize;

        async fn read(&mut self) -> Result<Vec<usize>, Problem> {
            if self.next >= self.fails_at {
                return Err(Problem::new(Code::StoreUnavailable));
            }
            let part: Vec<usize> = (self.next..self.end.min(self.next + 100)).collect();
            self.next += part.len();
            self.most_read = self.most_read.max(part.len());
            Ok(part)
        }

        fn at_end(&self) -> bool {
            self.next == self.end
        }

        fn write(item: &usize, out: &mut Vec<u8>) {
            out.extend_from_slice(format!("\"{item:0>1000}\"").as_bytes());
        }

        fn tail(&self) -> String {
            "],\"end\":true}".to_owned()
        }
    }

    fn numbers(end: usize, fails_at: usize) -> Parts<Numbers> {
        Parts::new(Numbers { next: 0, end, fails_at, most_read: 0 }, Vec::new(), "{\"list\":[")
    }

    #[tokio::test]
    async fn a_long_response_is_made_in_chunks_of_bounded_size_and_counts_while_it_is_sent() {
        for count in [0, 1, 63, 66, 1000] {
            let budget = BodyBudget::new(1 << 20, 1 << 20);
            let response = respond(numbers(count, usize::MAX), &budget).await;
            let response = response.unwrap_or_else(|problem| panic!("{problem:?}"));
            if count == 1000 {
                let more = budget.cover_response((1 << 20) - SENDING_BYTES + (64 << 10));
                assert!(more.is_err(), "the response counts");
            }
            let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
            let json: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
            assert_eq!(json["list"].as_array().map(Vec::len), Some(count));
            assert_eq!(json["end"], true);
            drop(bytes);
            assert!(budget.cover_response(1 << 20).is_ok(), "nothing is left over");
        }
        let mut parts = numbers(1000, usize::MAX);
        while !parts.has_ended() {
            let chunk = parts.next().await.unwrap_or_else(|problem| panic!("{problem:?}"));
            assert!(chunk.len() < CHUNK_BYTES + 1100, "{}", chunk.len());
        }
        assert_eq!(parts.source.most_read, 100);
    }

    #[tokio::test]
    async fn a_failure_is_a_status_at_the_start_and_breaks_the_response_in_the_middle() {
        let budget = BodyBudget::new(1 << 20, 1 << 20);
        let refused = respond(numbers(1000, 0), &budget).await;
        assert_eq!(refused.err().map(|problem| problem.status().as_u16()), Some(503));
        let response = respond(numbers(1000, 500), &budget).await;
        let response = response.unwrap_or_else(|problem| panic!("{problem:?}"));
        assert!(to_bytes(response.into_body(), usize::MAX).await.is_err());
        let spent = budget.cover_response(1 << 20);
        let refused = respond(numbers(1000, usize::MAX), &budget).await;
        assert_eq!(refused.err().map(|problem| problem.code()), Some(Code::Overloaded));
        drop(spent);
    }
}
