//! The line to Redis or Valkey: one server or a cluster, with time-outs, counted.
//!
//! Two connections (to each node of a cluster), each shared by all requests: one for what is
//! small, one for series, so that no lock waits behind a snapshot. Invariant: whatever Redis
//! does, a call ends in time, and what went wrong is one of the kinds of [`StoreError`].

mod connection;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::{Cmd, RedisError, ServerErrorKind, Value};

use self::connection::{Connector, Failure};
use super::RedisSettings;
use crate::store::{ClientStatus, ErrorKind, StoreError, StoreResult};

/// Upper ends of the classes that round trips are counted in, in seconds.
pub(super) const ROUND_TRIP_SECONDS: [f64; 10] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

/// How long a command waits before it is sent again that a cluster's node did not carry out, because
/// its slot is moving or has no master: about a second together.
const PAUSES_MS: [u64; 7] = [5, 10, 25, 60, 150, 300, 500];

/// What a call is, which says over which connection it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// Small question, small answer.
    Light,
    /// Many series.
    Heavy,
}

/// What was counted of the line.
#[derive(Debug, Default)]
pub(super) struct LinkTotals {
    /// Round trips that were begun.
    pub(super) begun: AtomicU64,
    /// Round trips that ended, by class; the last class has no upper end.
    pub(super) ended: [AtomicU64; ROUND_TRIP_SECONDS.len() + 1],
    /// How long they took together, in microseconds.
    pub(super) micros: AtomicU64,
    /// Those that failed.
    pub(super) failed: AtomicU64,
}

/// The line.
pub(super) struct Link {
    light: Connector,
    heavy: Connector,
    timeout: Duration,
    totals: LinkTotals,
}

impl Link {
    /// Makes the line. It connects when it is first used, and again whenever it has to.
    ///
    /// # Errors
    /// When the settings make no sense.
    pub(super) fn new(settings: &RedisSettings) -> StoreResult<Arc<Self>> {
        Ok(Arc::new(Self {
            light: Connector::new(settings)?,
            heavy: Connector::new(settings)?,
            timeout: settings.timeout,
            totals: LinkTotals::default(),
        }))
    }

    /// Returns what was counted.
    pub(super) fn status(&self) -> ClientStatus {
        let totals = &self.totals;
        let mut round_trips = 0;
        let mut classes = totals.ended.iter().map(|class| {
            round_trips += class.load(Ordering::Relaxed);
            round_trips
        });
        let within_seconds = ROUND_TRIP_SECONDS.into_iter().zip(&mut classes).collect();
        // The class without an upper end.
        let all = classes.next().unwrap_or(0);
        let begun = totals.begun.load(Ordering::Relaxed);
        ClientStatus {
            in_flight: begun.saturating_sub(all),
            failures: totals.failed.load(Ordering::Relaxed),
            within_seconds,
            round_trips: all,
            seconds: Duration::from_micros(totals.micros.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }

    /// Sends one command and waits for its answer; in a cluster it goes to the master of its
    /// first key.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when no answer came in time: it may have been carried out.
    pub(super) async fn call(&self, weight: Weight, command: &Cmd) -> Result<Value, CallError> {
        let line = match weight {
            Weight::Light => &self.light,
            Weight::Heavy => &self.heavy,
        };
        let mut trip = RoundTrip::begin(&self.totals);
        let outcome = self.send(line, command, trip.started + self.timeout).await;
        trip.failed = matches!(outcome, Err(CallError::Store(_)));
        outcome
    }

    async fn send(
        &self,
        line: &Connector,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Value, CallError> {
        let mut pauses_ms = PAUSES_MS.into_iter();
        loop {
            let in_time = tokio::time::timeout_at(deadline.into(), line.send(command)).await;
            let Ok(answer) = in_time else {
                // Nobody knows what the connection is good for any more.
                line.give_up();
                return Err(CallError::Store(StoreError::new(
                    ErrorKind::Timeout,
                    format!("redis did not answer within {:?}", self.timeout),
                )));
            };
            return match answer {
                Ok(value) => Ok(value),
                // The connection was closed before anything was sent.
                Err(Failure::Closed) => continue,
                Err(Failure::NotSent(error)) => Err(CallError::Store(StoreError::new(
                    ErrorKind::Unavailable,
                    error.to_string(),
                ))),
                Err(Failure::NotDone(error)) => match pauses_ms.next() {
                    Some(pause_ms) => {
                        let pause = Instant::now() + Duration::from_millis(pause_ms);
                        tokio::time::sleep_until(pause.min(deadline).into()).await;
                        continue;
                    }
                    None => Err(CallError::of(&error)),
                },
                Err(Failure::Sent(error)) => Err(CallError::of(&error)),
            };
        }
    }
}

/// A round trip that is counted when it ends, also when nobody waits for it any more.
struct RoundTrip<'a> {
    totals: &'a LinkTotals,
    started: Instant,
    failed: bool,
}

impl<'a> RoundTrip<'a> {
    fn begin(totals: &'a LinkTotals) -> Self {
        totals.begun.fetch_add(1, Ordering::Relaxed);
        Self { totals, started: Instant::now(), failed: false }
    }
}

impl Drop for RoundTrip<'_> {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let class = ROUND_TRIP_SECONDS.iter().position(|end| took.as_secs_f64() <= *end);
        let class = class.unwrap_or(ROUND_TRIP_SECONDS.len());
        self.totals.ended[class].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.totals.micros.fetch_add(micros, Ordering::Relaxed);
        self.totals.failed.fetch_add(u64::from(self.failed), Ordering::Relaxed);
    }
}

/// How a call failed.
#[derive(Debug, Clone)]
pub(super) enum CallError {
    /// The script is not known there.
    NoScript,
    /// The script found that its shard was never used, or was wiped.
    Unborn,
    /// Anything else.
    Store(StoreError),
}

impl CallError {
    fn of(error: &RedisError) -> Self {
        if error.code() == Some("UNBORN") {
            return Self::Unborn;
        }
        if error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript) {
            return Self::NoScript;
        }
        Self::Store(StoreError::new(kind(error), error.to_string()))
    }
}

fn kind(error: &RedisError) -> ErrorKind {
    use redis::ErrorKind as Redis;
    if error.is_timeout() {
        return ErrorKind::Timeout;
    }
    match (error.kind(), error.code()) {
        (_, Some("OOM")) => ErrorKind::Full,
        (_, Some("BUSY")) => ErrorKind::Throttled,
        // A connection that was cut while an answer was on its way.
        (Redis::Io, _) => ErrorKind::Timeout,
        (
            Redis::ClusterConnectionNotFound
            | Redis::AuthenticationFailed
            | Redis::Parse
            | Redis::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::NoPerm,
            ),
            _,
        )
        | (_, Some("MISCONF" | "NOREPLICAS" | "NOAUTH" | "WRONGPASS")) => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}
