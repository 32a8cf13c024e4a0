//! A response that lists values: its JSON text, bounded in bytes, and counted towards the limit on bytes in memory.
//!
//! Not which values. Invariant: no more values are in memory at a time than a part of the response has, and what they
//! take is covered before they are read.

use axum::response::Response;
use serde::Serialize;

use crate::http::body::Share;
use crate::http::extract::json_response;
use crate::http::offload::offload;
use crate::http::problem::{Code, Problem};
use crate::http::state::AppState;

/// The most bytes of a response.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// The most bytes of the values that are read at a time. One value is always read.
const PART_BYTES: usize = 16 << 20;

/// About how many bytes an item takes beside its value.
const ITEM_BYTES: usize = 512;

/// Up to so many bytes of values are written on the threads that serve connections.
const SMALL_BYTES: usize = 64 << 10;

/// Writes the items of a list.
pub(super) struct ItemWriter {
    out: Vec<u8>,
    share: Share,
    /// The most bytes of one item in memory.
    item_bytes: usize,
    is_empty: bool,
}

impl ItemWriter {
    /// Begins an object with a list called `name`, of items whose values have `value_bytes` at most.
    ///
    /// # Errors
    /// 503 when there are too many bytes in memory.
    pub(super) fn new(state: &AppState, name: &str, value_bytes: usize) -> Result<Self, Problem> {
        let share = state.budget.cover_response(0)?;
        let out = format!("{{\"{name}\":[").into_bytes();
        Ok(Self { out, share, item_bytes: value_bytes.saturating_add(ITEM_BYTES), is_empty: true })
    }

    /// Returns how many of `items` may be read at a time.
    pub(super) fn part(&self, items: usize) -> usize {
        items.min((PART_BYTES / self.item_bytes).max(1))
    }

    /// Covers a part, before it is read.
    ///
    /// # Errors
    /// 503 when there are too many bytes in memory.
    pub(super) fn cover(&mut self, items: usize) -> Result<(), Problem> {
        // Each value is there once as it was read, and once as text.
        let bytes = items.saturating_mul(self.item_bytes).saturating_mul(2);
        self.share.cover_reading(self.out.capacity(), bytes)
    }

    /// Writes items: `show` makes each of them.
    ///
    /// # Errors
    /// 413 when the response becomes too large, and those of `show`.
    pub(super) async fn write<T: Send + 'static, I: Serialize>(
        mut self,
        items: Vec<T>,
        show: impl Fn(T) -> Result<I, Problem> + Send + 'static,
    ) -> Result<Self, Problem> {
        let is_small = items.len().saturating_mul(self.item_bytes) <= SMALL_BYTES;
        let work = move || {
            for item in items {
                self.push(&show(item)?)?;
            }
            Ok(self)
        };
        if is_small { work() } else { offload("writing aggregates", work).await? }
    }

    fn push(&mut self, item: &impl Serialize) -> Result<(), Problem> {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(b',');
        }
        serde_json::to_writer(&mut self.out, item).map_err(|error| {
            tracing::error!(cause = %error, "a response could not be written as JSON");
            Problem::internal()
        })?;
        if self.out.len() > MAX_RESPONSE_BYTES {
            return Err(Problem::new(Code::ResponseTooLarge)
                .detail(format!("the response would have more than {MAX_RESPONSE_BYTES} bytes")));
        }
        Ok(())
    }

    /// Ends the list and the object, with the members of `rest`, which are those of an object.
    ///
    /// # Errors
    /// 503 when there are too many bytes in memory.
    pub(super) fn finish(mut self, rest: &impl Serialize) -> Result<Response, Problem> {
        self.out.push(b']');
        let rest = serde_json::to_vec(rest).map_err(|error| {
            tracing::error!(cause = %error, "a response could not be written as JSON");
            Problem::internal()
        })?;
        // An object without members is `{}`.
        if rest.len() > 2 {
            self.out.push(b',');
        }
        self.out.extend_from_slice(rest.get(1..).unwrap_or(b"}"));
        Ok(json_response(self.share.hold(self.out)?))
    }
}
