//! The settings of the HTTP layer: the listener, limits and timeouts.
//!
//! Not the defaults: `config/default.toml` holds the only ones, and says what each setting means.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::access::AccessSettings;
use super::body::DECODER_BYTES;
use crate::model::series::PointLimits;
use crate::model::settings::{self, Settings, Violations};

/// The least that the HTTP parser needs to read any head.
const MIN_HEAD_BYTES: usize = 8192;

/// Everything that the router and the listener are built from. Each field is read from the section of its
/// name.
#[derive(Debug, Clone, Deserialize)]
pub struct HttpSettings {
    /// The listener.
    pub server: ServerSettings,
    /// How much.
    pub limits: LimitSettings,
    /// How long.
    pub timeouts: TimeoutSettings,
    /// Who.
    pub access: AccessSettings,
}

impl Settings for HttpSettings {
    fn check(&mut self, violations: &mut Violations) {
        self.limits.check(violations);
        self.timeouts.check(violations);
        self.access.check(violations);
        let listen = self.server.listen;
        violations.require(
            self.access.may_serve(listen),
            &["server.listen", "access.tokens", "access.open_to_the_network_without_tokens"],
            || {
                format!(
                    "{listen} is not a loopback address, and without access.tokens everybody there \
                     could read and delete everything; configure tokens, or set \
                     access.open_to_the_network_without_tokens = true"
                )
            },
        );
    }
}

/// `[server]`: the listener.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct ServerSettings {
    /// The address and port to listen on.
    pub listen: SocketAddr,
}

/// How much one request may ask for, and all of them together.
#[derive(Debug, Clone, Deserialize)]
pub struct LimitSettings {
    /// The largest body of a push of series, in bytes as sent.
    #[serde(deserialize_with = "settings::bytes")]
    pub series_body_bytes: usize,
    /// The largest body of a push of series, in bytes after decompression.
    #[serde(deserialize_with = "settings::bytes")]
    pub series_decoded_bytes: usize,
    /// The largest body of any other request, in bytes, before and after decompression.
    #[serde(deserialize_with = "settings::bytes")]
    pub body_bytes: usize,
    /// How many bytes of request bodies, of points that were read from them, and of large responses may lie in memory
    /// at a time, over all requests.
    #[serde(deserialize_with = "settings::bytes")]
    pub buffered_body_bytes: usize,
    /// How many requests may run at a time, beside pushes; those that wait for something do not count.
    #[serde(deserialize_with = "settings::count")]
    pub concurrent_requests: usize,
    /// How many renewals and releases of leases may run when no other request may.
    #[serde(deserialize_with = "settings::count")]
    pub reserved_requests: usize,
    /// How many pushes of series may run at a time, with the reading of their bodies.
    #[serde(deserialize_with = "settings::count")]
    pub concurrent_uploads: usize,
    /// How many requests may wait for changes at a time, and how many for a lease or a value.
    #[serde(deserialize_with = "settings::count")]
    pub waiting_requests: usize,
    /// How many scrapes of /metrics may run at a time.
    #[serde(deserialize_with = "settings::count")]
    pub concurrent_scrapes: usize,
    /// How many connections may be open at a time; more wait to be accepted.
    #[serde(deserialize_with = "settings::count")]
    pub connections: usize,
    /// The most of each of these numbers, and of the bytes in memory, that one client has, in percent.
    #[serde(deserialize_with = "settings::count")]
    pub client_percent: usize,
    /// The fewest bytes a second of a body that a client must send.
    #[serde(deserialize_with = "settings::bytes")]
    pub min_body_bytes_per_second: usize,
    /// The largest head of a request, in bytes; at least 8 KiB.
    #[serde(deserialize_with = "settings::bytes")]
    pub head_bytes: usize,
    /// The most keys of one batch of locks, generations or cached values.
    #[serde(deserialize_with = "settings::count")]
    pub batch_keys: usize,
    /// The most points of one push.
    #[serde(deserialize_with = "settings::count")]
    pub batch_points: usize,
    /// The largest body of a merge of aggregates, in bytes, before and after decompression.
    #[serde(deserialize_with = "settings::bytes")]
    pub merge_body_bytes: usize,
    /// The most updates of one merge.
    #[serde(deserialize_with = "settings::count")]
    pub batch_updates: usize,
    /// The most buckets that one request combines, over all its entities.
    #[serde(deserialize_with = "settings::count")]
    pub window_buckets: usize,
    /// The most selectors of one request.
    #[serde(deserialize_with = "settings::count")]
    pub selectors: usize,
    /// The most regular expressions in all selectors of one request.
    #[serde(deserialize_with = "settings::count")]
    pub selector_regexes: usize,
    /// The items of a page when the request names no `limit`.
    #[serde(deserialize_with = "settings::count")]
    pub page_items: usize,
    /// The most items of a page.
    #[serde(deserialize_with = "settings::count")]
    pub max_page_items: usize,
    /// The limits on one point.
    pub point: PointLimits,
}

impl LimitSettings {
    /// Why [`Self::can_buffer`] is false.
    pub const CAN_NOT_BUFFER: &str = "a compressed body, as sent and as decoded, and 8 MiB for its decoder must fit \
        into limits.buffered_body_bytes: it would always be refused";

    /// Returns how many of `count` permits or bytes one client has at most: its part, rounded up.
    pub fn part_of_client(&self, count: usize) -> usize {
        // Divided first, so that no product overflows.
        let percent = self.client_percent.min(100);
        count / 100 * percent + (count % 100 * percent).div_ceil(100)
    }

    /// Returns whether a body that is this large as sent, and as decoded, fits into an unused budget.
    pub fn can_buffer(&self, sent_bytes: usize, decoded_bytes: usize) -> bool {
        let bytes = sent_bytes.saturating_add(decoded_bytes).saturating_add(DECODER_BYTES);
        bytes <= self.buffered_body_bytes
    }
}

impl Settings for LimitSettings {
    fn check(&mut self, violations: &mut Violations) {
        violations.require(
            self.page_items <= self.max_page_items,
            &["limits.page_items", "limits.max_page_items"],
            || "must not be larger than limits.max_page_items".to_owned(),
        );
        let bodies: [(bool, &[&str]); 3] = [
            (
                self.can_buffer(self.series_body_bytes, self.series_decoded_bytes),
                &[
                    "limits.series_body_bytes",
                    "limits.series_decoded_bytes",
                    "limits.buffered_body_bytes",
                ],
            ),
            (
                self.can_buffer(self.body_bytes, self.body_bytes),
                &["limits.body_bytes", "limits.buffered_body_bytes"],
            ),
            (
                self.can_buffer(self.merge_body_bytes, self.merge_body_bytes),
                &["limits.merge_body_bytes", "limits.buffered_body_bytes"],
            ),
        ];
        violations.require(
            (1..=100).contains(&self.client_percent),
            &["limits.client_percent"],
            || "must be from 1 to 100".to_owned(),
        );
        for (can, settings) in bodies {
            violations.require(can, settings, || Self::CAN_NOT_BUFFER.to_owned());
        }
        violations.require(self.head_bytes >= MIN_HEAD_BYTES, &["limits.head_bytes"], || {
            format!("must be at least {MIN_HEAD_BYTES}")
        });
    }
}

/// How long things may take.
#[derive(Debug, Clone, Deserialize)]
pub struct TimeoutSettings {
    /// How long a request may take, beside what it asked to wait for.
    #[serde(deserialize_with = "settings::duration")]
    pub request: Duration,
    /// How long a push of series may take, with the reading of its body.
    #[serde(deserialize_with = "settings::duration")]
    pub upload: Duration,
    /// How long a client may stay silent in the middle of a body.
    #[serde(deserialize_with = "settings::duration")]
    pub body: Duration,
    /// Over which time `limits.min_body_bytes_per_second` is measured.
    #[serde(deserialize_with = "settings::duration")]
    pub body_window: Duration,
    /// How long a connection may be idle, or take to send the head of a request.
    #[serde(deserialize_with = "settings::duration")]
    pub idle: Duration,
    /// How long a client may take nothing of what is sent to it.
    #[serde(deserialize_with = "settings::duration")]
    pub write: Duration,
    /// The longest `wait` that a request may ask for.
    #[serde(deserialize_with = "settings::duration")]
    pub max_wait: Duration,
    /// How often a stream with no changes shows that it is alive.
    #[serde(deserialize_with = "settings::duration")]
    pub heartbeat: Duration,
    /// How long running requests may go on after the server was told to stop.
    #[serde(deserialize_with = "settings::duration")]
    pub shutdown: Duration,
}

impl Settings for TimeoutSettings {
    fn check(&mut self, violations: &mut Violations) {
        violations.require(
            self.upload >= self.request,
            &["timeouts.upload", "timeouts.request"],
            || "must not be shorter than timeouts.request".to_owned(),
        );
    }
}

/// Settings for tests of this layer.
#[cfg(test)]
pub(crate) fn for_tests() -> HttpSettings {
    let second = Duration::from_secs(1);
    HttpSettings {
        server: ServerSettings { listen: ([127, 0, 0, 1], 0).into() },
        limits: LimitSettings {
            series_body_bytes: 4 << 20,
            series_decoded_bytes: 4 << 20,
            body_bytes: 64 << 10,
            buffered_body_bytes: 16 << 20,
            concurrent_requests: 64,
            reserved_requests: 8,
            concurrent_uploads: 64,
            waiting_requests: 64,
            concurrent_scrapes: 8,
            connections: 64,
            client_percent: 100,
            min_body_bytes_per_second: 1,
            head_bytes: 32 << 10,
            batch_keys: 100,
            batch_points: 100_000,
            merge_body_bytes: 1 << 20,
            batch_updates: 2000,
            window_buckets: 20_000,
            selectors: 10,
            selector_regexes: 10,
            page_items: 100,
            max_page_items: 1000,
            point: PointLimits::default(),
        },
        timeouts: TimeoutSettings {
            request: second * 30,
            upload: second * 60,
            body: second * 30,
            body_window: second * 30,
            idle: second * 30,
            write: second * 30,
            max_wait: second * 60,
            heartbeat: second,
            shutdown: second * 5,
        },
        access: AccessSettings::default(),
    }
}
