//! The client of Redis or Valkey, one server or a cluster: timeouts, retries, kinds of errors, counters.
//!
//! It has three connections (to each node of a cluster), each shared by all requests: for small commands, for
//! cached values, and for many series, so that neither a lock nor a value waits behind a snapshot. Invariant: whatever Redis
//! does, a call ends in time, and its failure is one of the kinds of [`StoreError`].

mod clock;
mod connection;
mod errors;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use self::clock::ServerClocks;
use self::connection::{Connector, Failure};
pub(crate) use self::errors::CallError;
use super::settings::RedisSettings;
use crate::store::{ClientStatus, ErrorKind, StoreError, StoreResult};

/// Upper bounds of the histogram of round trips, in seconds.
pub(crate) const ROUND_TRIP_SECONDS: [f64; 10] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

/// The pauses before a command is sent again that a node of a cluster did not carry out because its
/// slot is moving or has no master. After them the last one is repeated, until the caller's deadline.
const PAUSES_MS: [u64; 6] = [5, 10, 25, 60, 150, 300];
const LAST_PAUSE_MS: u64 = 500;

/// What a call transfers, which selects its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// A small command with a small reply.
    Small,
    /// Cached values.
    Values,
    /// Many series.
    Bulk,
}

/// Counters of the client's round trips.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Round trips that started.
    pub(crate) begun: AtomicU64,
    /// Round trips that ended, by class of duration; the last class has no upper bound.
    pub(crate) ended: [AtomicU64; ROUND_TRIP_SECONDS.len() + 1],
    /// Their total duration in microseconds.
    pub(crate) micros: AtomicU64,
    /// Round trips that failed.
    pub(crate) failed: AtomicU64,
}

/// The client.
pub(crate) struct Client {
    small: Arc<Connector>,
    values: Arc<Connector>,
    bulk: Arc<Connector>,
    timeout: Duration,
    clocks: ServerClocks,
    totals: Totals,
}

impl Client {
    /// Makes the client. It connects when it is first used, and again whenever it has to.
    ///
    /// # Errors
    /// When the settings are invalid.
    pub(crate) fn new(settings: &RedisSettings) -> StoreResult<Arc<Self>> {
        Ok(Arc::new(Self {
            small: Connector::new(settings)?,
            values: Connector::new(settings)?,
            bulk: Connector::new(settings)?,
            timeout: settings.timeout,
            // Each shard may be on a node of its own, and move to another one.
            clocks: ServerClocks::new(if settings.is_cluster() {
                settings.index_shards
            } else {
                1
            }),
            totals: Totals::default(),
        }))
    }

    /// Returns the counters.
    pub(crate) fn status(&self) -> ClientStatus {
        let totals = &self.totals;
        let mut round_trips = 0;
        let mut classes = totals.ended.iter().map(|class| {
            round_trips += class.load(Ordering::Relaxed);
            round_trips
        });
        let within_seconds = ROUND_TRIP_SECONDS.into_iter().zip(&mut classes).collect();
        // The class without an upper bound.
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

    /// Returns when a call that begins now has to end.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Returns `deadline` as the server of a shard tells the time, in microseconds since 1970: never later than the
    /// deadline itself. 0 where nothing is known of that server's clock; its refusal tells it.
    pub(crate) fn deadline_us(&self, shard: usize, deadline: Instant) -> i64 {
        self.clocks.deadline_us(shard, deadline)
    }

    /// Notes the time of the server of a shard, from a reply to a command that was sent at `sent`.
    pub(crate) fn note_time(&self, shard: usize, sent: Instant, server_us: i64) {
        self.clocks.note(shard, sent, Instant::now(), server_us);
    }

    /// Sends one command and waits for its reply; in a cluster it goes to the master of its first key.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when no reply came by `deadline`: Redis may have carried the command out.
    pub(crate) async fn call(
        &self,
        traffic: Traffic,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Value, CallError> {
        let connector = match traffic {
            Traffic::Small => &self.small,
            Traffic::Values => &self.values,
            Traffic::Bulk => &self.bulk,
        };
        let mut trip = RoundTrip::begin(&self.totals);
        let outcome = self.send(connector, command, deadline).await;
        trip.failed = matches!(outcome, Err(CallError::Store(_)));
        outcome
    }

    async fn send(
        &self,
        connector: &Arc<Connector>,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Value, CallError> {
        let mut pauses_ms = PAUSES_MS.into_iter();
        loop {
            let before = connector.made();
            let reply = connector.send(command, deadline).await;
            // Another server may be behind the address, whose clock is not known.
            if before > 0 && connector.made() != before {
                self.clocks.forget();
            }
            return match reply {
                Ok(value) => Ok(value),
                // The connection was closed before anything was sent.
                Err(Failure::Closed) => continue,
                Err(Failure::NotSent(error)) => Err(CallError::Store(StoreError::caused_by(
                    ErrorKind::Unavailable,
                    "there is no connection to redis",
                    error,
                ))),
                Err(Failure::NotDone(error)) => {
                    let pause = Duration::from_millis(pauses_ms.next().unwrap_or(LAST_PAUSE_MS));
                    let again = Instant::now() + pause;
                    if again < deadline {
                        tokio::time::sleep_until(again.into()).await;
                        continue;
                    }
                    Err(CallError::of(error))
                }
                Err(Failure::Sent(error)) => Err(CallError::of(error)),
                Err(Failure::NoReply) => Err(CallError::no_reply(self.timeout)),
            };
        }
    }
}

/// A round trip that is counted when it ends, also when its caller was cancelled.
struct RoundTrip<'a> {
    totals: &'a Totals,
    started: Instant,
    failed: bool,
}

impl<'a> RoundTrip<'a> {
    fn begin(totals: &'a Totals) -> Self {
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
