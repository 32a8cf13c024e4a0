//! The line to Redis or Valkey: one server or a cluster, with time-outs, counted.
//!
//! Two connections (to each node of a cluster), each shared by all requests: one for what is
//! small, one for series, so that no lock waits behind a snapshot. Invariant: whatever Redis
//! does, a call ends in time, and what went wrong is one of the kinds of [`StoreError`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    Client, Cmd, ConnectionInfo, IntoConnectionInfo, RedisError, ServerErrorKind, TlsCertificates,
    Value,
};
use tokio::sync::Mutex;

use super::RedisSettings;
use crate::store::{ErrorKind, LinkStatus, StoreError, StoreResult};

/// Upper ends of the classes that round trips are counted in, in seconds.
pub(super) const ROUND_TRIP_SECONDS: [f64; 10] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

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
    light: Line,
    heavy: Line,
    timeout: Duration,
    totals: LinkTotals,
}

enum Line {
    Single(Box<ConnectionManager>),
    Cluster { client: Box<ClusterClient>, connection: Mutex<Option<ClusterConnection>> },
}

impl Link {
    /// Makes the line. It connects when it is first used, and again whenever it has to.
    ///
    /// # Errors
    /// When the settings make no sense.
    pub(super) fn new(settings: &RedisSettings) -> StoreResult<Arc<Self>> {
        Ok(Arc::new(Self {
            light: line(settings)?,
            heavy: line(settings)?,
            timeout: settings.timeout,
            totals: LinkTotals::default(),
        }))
    }

    /// Gives what was counted.
    pub(super) fn status(&self) -> LinkStatus {
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
        LinkStatus {
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
        let started = Instant::now();
        self.totals.begun.fetch_add(1, Ordering::Relaxed);
        let answer = tokio::time::timeout(self.timeout, line.send(command)).await;
        let outcome = match answer {
            Ok(answer) => answer.and_then(Value::extract_error).map_err(|e| CallError::of(&e)),
            Err(_) => Err(CallError::Store(StoreError::new(
                ErrorKind::Timeout,
                format!("redis did not answer within {:?}", self.timeout),
            ))),
        };
        self.count(started.elapsed(), matches!(outcome, Err(CallError::Store(_))));
        outcome
    }

    fn count(&self, took: Duration, failed: bool) {
        let seconds = took.as_secs_f64();
        let class = ROUND_TRIP_SECONDS.iter().position(|end| seconds <= *end);
        let class = class.unwrap_or(ROUND_TRIP_SECONDS.len());
        self.totals.ended[class].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.totals.micros.fetch_add(micros, Ordering::Relaxed);
        self.totals.failed.fetch_add(u64::from(failed), Ordering::Relaxed);
    }
}

impl Line {
    async fn send(&self, command: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::Single(connection) => connection.clone().req_packed_command(command).await,
            Self::Cluster { client, connection } => {
                let known = connection.lock().await.clone();
                let mut known = match known {
                    Some(known) => known,
                    // Everybody tries for themselves, so that nobody waits for somebody's time-out.
                    None => {
                        let fresh = client.get_async_connection().await?;
                        connection.lock().await.get_or_insert(fresh).clone()
                    }
                };
                known.req_packed_command(command).await
            }
        }
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
        (Redis::Io, _) if !error.is_connection_refusal() => ErrorKind::Timeout,
        (
            Redis::Io
            | Redis::ClusterConnectionNotFound
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

fn line(settings: &RedisSettings) -> StoreResult<Line> {
    let wrong = |error: RedisError| StoreError::new(ErrorKind::Unavailable, error.to_string());
    let nodes = nodes(settings).map_err(wrong)?;
    let tcp = TcpSettings::default().set_nodelay(true);
    let certificates = certificates(settings)?;
    if settings.cluster {
        let mut builder = ClusterClientBuilder::new(nodes)
            .connection_timeout(settings.connect_timeout)
            .response_timeout(settings.timeout)
            .retries(3)
            .min_retry_wait(20)
            .max_retry_wait(200)
            .tcp_settings(tcp);
        if let Some(certificates) = certificates {
            builder = builder.certs(certificates);
        }
        if let Some(user) = &settings.username {
            builder = builder.username(user);
        }
        if let Some(password) = &settings.password {
            builder = builder.password(password);
        }
        let client = Box::new(builder.build().map_err(wrong)?);
        return Ok(Line::Cluster { client, connection: Mutex::default() });
    }
    let node = nodes
        .into_iter()
        .next()
        .ok_or_else(|| StoreError::new(ErrorKind::Unavailable, "no redis server is configured"))?;
    let node = node.set_tcp_settings(tcp);
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(node, certificates),
        None => Client::open(node),
    };
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(0)
        .set_connection_timeout(Some(settings.connect_timeout))
        .set_response_timeout(Some(settings.timeout));
    let manager = client.and_then(|client| client.get_connection_manager_lazy(config));
    Ok(Line::Single(Box::new(manager.map_err(wrong)?)))
}

fn nodes(settings: &RedisSettings) -> Result<Vec<ConnectionInfo>, RedisError> {
    let node = |url: &String| {
        let info = url.as_str().into_connection_info()?;
        let mut redis = info.redis_settings().clone();
        if let Some(user) = &settings.username {
            redis = redis.set_username(user);
        }
        if let Some(password) = &settings.password {
            redis = redis.set_password(password);
        }
        if let Some(database) = settings.database {
            redis = redis.set_db(database);
        }
        Ok(info.set_redis_settings(redis))
    };
    settings.urls.iter().map(node).collect()
}

fn certificates(settings: &RedisSettings) -> StoreResult<Option<TlsCertificates>> {
    let Some(path) = &settings.ca_file else { return Ok(None) };
    let root_cert = std::fs::read(path).map_err(|error| {
        StoreError::new(ErrorKind::Unavailable, format!("{}: {error}", path.display()))
    })?;
    Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(root_cert) }))
}
