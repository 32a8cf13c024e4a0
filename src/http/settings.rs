//! The settings of this floor, as plain values. Not how they are written: `config` reads
//! them, and `config/default.toml` holds the only defaults.
//!
//! Invariant: every limit is a number that somebody can read and change.

use std::time::Duration;

use super::access::AccessSettings;
use crate::model::series::PointLimits;

/// How much one request may ask for, and all of them together.
#[derive(Debug, Clone)]
pub struct LimitSettings {
    /// The largest body of a push of series, in bytes as sent.
    pub series_body_bytes: usize,
    /// The largest body of a push of series, in bytes after decompression.
    pub series_decoded_bytes: usize,
    /// The largest body of any other request, in bytes, before and after decompression.
    pub body_bytes: usize,
    /// How many bytes of request bodies, and of points that were read from them, may lie in memory
    /// at a time, over all requests.
    pub buffered_body_bytes: usize,
    /// How many requests may run at a time; those that wait for something do not count.
    pub concurrent_requests: usize,
    /// How many requests may wait for changes at a time, and how many for a lease or a value.
    pub waiting_requests: usize,
    /// How many scrapes of /metrics may be answered at a time.
    pub concurrent_scrapes: usize,
    /// How many connections may be open at a time; more wait to be accepted.
    pub connections: usize,
    /// The largest head of a request, in bytes; at least 8 KiB.
    pub head_bytes: usize,
    /// The most keys of one batch of locks, generations or cached values.
    pub batch_keys: usize,
    /// The most points of one push.
    pub batch_points: usize,
    /// The most selectors of one request.
    pub selectors: usize,
    /// The most regular expressions in all selectors of one request.
    pub selector_regexes: usize,
    /// The items of a page when the request names no `limit`.
    pub page_items: usize,
    /// The most items of a page.
    pub max_page_items: usize,
}

/// How long things may take.
#[derive(Debug, Clone)]
pub struct TimeoutSettings {
    /// How long a request may take, beside what it asked to wait for.
    pub request: Duration,
    /// How long a push of series may take, with the reading of its body.
    pub upload: Duration,
    /// How long a client may stay silent in the middle of a body.
    pub body: Duration,
    /// How long a connection may be idle, or take to send the head of a request.
    pub idle: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub write: Duration,
    /// The longest `wait` that a request may ask for.
    pub max_wait: Duration,
    /// How often a stream with no changes shows that it is alive.
    pub heartbeat: Duration,
    /// How long running requests may go on after the server was told to stop.
    pub shutdown: Duration,
}

/// Everything that the router and the listener are built from.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// How much.
    pub limits: LimitSettings,
    /// How long.
    pub timeouts: TimeoutSettings,
    /// Who.
    pub access: AccessSettings,
    /// The limits on one point of a push.
    pub points: PointLimits,
}

/// Settings for tests of this floor.
#[cfg(test)]
pub(crate) fn for_tests() -> HttpSettings {
    let second = Duration::from_secs(1);
    HttpSettings {
        limits: LimitSettings {
            series_body_bytes: 4 << 20,
            series_decoded_bytes: 4 << 20,
            body_bytes: 64 << 10,
            buffered_body_bytes: 16 << 20,
            concurrent_requests: 64,
            waiting_requests: 64,
            concurrent_scrapes: 8,
            connections: 64,
            head_bytes: 32 << 10,
            batch_keys: 100,
            batch_points: 100_000,
            selectors: 10,
            selector_regexes: 10,
            page_items: 100,
            max_page_items: 1000,
        },
        timeouts: TimeoutSettings {
            request: second * 30,
            upload: second * 60,
            body: second * 30,
            idle: second * 30,
            write: second * 30,
            max_wait: second * 60,
            heartbeat: second,
            shutdown: second * 5,
        },
        access: AccessSettings::default(),
        points: PointLimits::default(),
    }
}
