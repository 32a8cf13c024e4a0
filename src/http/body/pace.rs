//! How slowly a body may arrive: a longest pause, and a least rate.
//!
//! The pause alone would let a client hold its permit for minutes with a few bytes. Invariant: reading a body ends in
//! bounded time after its client became slower than the least rate.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::http::problem::Problem;

/// How slowly a body may arrive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyPace {
    max_silence: Duration,
    window: Duration,
    /// How many bytes must arrive within each window.
    window_bytes: usize,
}

impl BodyPace {
    /// Makes a pace with this longest pause and least rate, which is measured over each `window`.
    pub(crate) fn new(max_silence: Duration, window: Duration, bytes_per_second: usize) -> Self {
        let millis = usize::try_from(window.as_millis()).unwrap_or(usize::MAX);
        let window_bytes = bytes_per_second.saturating_mul(millis) / 1000;
        Self { max_silence, window, window_bytes }
    }
}

/// A body that ends with a problem when it arrives too slowly.
pub(super) struct PacedBody {
    body: Body,
    pace: BodyPace,
    window_end: Instant,
    /// How many bytes of this window have not arrived yet.
    missing_bytes: usize,
}

impl PacedBody {
    pub(super) fn new(body: Body, pace: BodyPace) -> Self {
        let window_end = Instant::now() + pace.window;
        Self { body, pace, window_end, missing_bytes: pace.window_bytes }
    }

    /// Returns the next bytes; `None` at the end.
    ///
    /// # Errors
    /// 408 when they arrive too slowly, 400 when the body is cut off or malformed.
    pub(super) async fn data(&mut self) -> Result<Option<Bytes>, Problem> {
        let silence_end = Instant::now() + self.pace.max_silence;
        loop {
            let deadline = silence_end.min(self.window_end);
            // What has arrived already is taken first, however late this task runs.
            let Ok(frame) = timeout_at(deadline, self.body.frame()).await else {
                if deadline == silence_end || self.missing_bytes > 0 {
                    return Err(Problem::body_timeout());
                }
                self.window_end += self.pace.window;
                self.missing_bytes = self.pace.window_bytes;
                continue;
            };
            let Some(frame) = frame else { return Ok(None) };
            let broken = |_| Problem::invalid("the body was cut off or is malformed");
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                self.missing_bytes = self.missing_bytes.saturating_sub(data.len());
                return Ok(Some(data));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(20);

    /// Reads a body to its end; returns its length, or the status of the problem.
    async fn read(body: Body, pace: BodyPace) -> Result<usize, u16> {
        let (mut body, mut length) = (PacedBody::new(body, pace), 0);
        loop {
            match body.data().await {
                Ok(Some(data)) => length += data.len(),
                Ok(None) => return Ok(length),
                Err(problem) => return Err(problem.status().as_u16()),
            }
        }
    }

    /// A body that sends a byte, waits, and so on.
    fn dripping(pause: Duration, count: usize) -> Body {
        Body::from_stream(stream::unfold(count, move |left| async move {
            let left = left.checked_sub(1)?;
            tokio::time::sleep(pause).await;
            Some((Ok::<_, Infallible>("x"), left))
        }))
    }

    #[tokio::test]
    async fn a_silent_client_gets_408() {
        let silent = || Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert_eq!(read(silent(), BodyPace::new(SHORT, LONG, 0)).await, Err(408));
        assert_eq!(read(silent(), BodyPace::new(LONG, SHORT, 1000)).await, Err(408));
    }

    #[tokio::test]
    async fn a_client_that_sends_less_than_the_least_rate_gets_408() {
        // A byte each millisecond at most, and 100,000 a second are asked for.
        let endless = dripping(Duration::from_millis(1), usize::MAX);
        assert_eq!(read(endless, BodyPace::new(LONG, SHORT, 100_000)).await, Err(408));
    }

    #[tokio::test]
    async fn a_client_may_take_many_windows() {
        let some = dripping(SHORT, 5);
        assert_eq!(read(some, BodyPace::new(LONG, SHORT / 10, 0)).await, Ok(5));
    }
}
