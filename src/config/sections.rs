//! The settings, section by section, as they stand in `default.toml`.
//!
//! What a setting means is said there, once. Invariant: no field here has a default of its
//! own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use super::secret::Secret;
use super::values::{Count, List, Network, OptionalSpan, Size, Span, one_of};
use crate::model::series::PointLimits;
use crate::store::embedded::SyncMode;

/// `[server]`: the listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each setting means, once")]
pub struct Server {
    pub listen: SocketAddr,
}

/// `[limits]`: how much one request may ask for, and all of them together.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each setting means, once")]
pub struct Limits {
    pub series_body_bytes: Size,
    pub series_decoded_bytes: Size,
    pub body_bytes: Size,
    pub buffered_body_bytes: Size,
    pub concurrent_requests: Count,
    pub waiting_requests: Count,
    pub concurrent_scrapes: Count,
    pub connections: Count,
    pub head_bytes: Size,
    pub batch_keys: Count,
    pub batch_points: Count,
    pub selectors: Count,
    pub selector_regexes: Count,
    pub page_items: Count,
    pub max_page_items: Count,
    pub point: PointLimits,
}

/// `[timeouts]`: how long things may take.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each setting means, once")]
pub struct Timeouts {
    pub request: Span,
    pub upload: Span,
    pub body: Span,
    pub idle: Span,
    pub write: Span,
    pub max_wait: Span,
    pub heartbeat: Span,
    pub shutdown: Span,
}

/// `[access]`: who may do what.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each setting means, once")]
pub struct Access {
    pub tokens: List<Token>,
    pub metrics_allow: List<Network>,
    pub open_to_the_network_without_tokens: bool,
}

/// One of `[[access.tokens]]`, as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each setting means, once")]
pub struct Token {
    pub name: String,
    pub token: Option<Secret>,
    pub token_sha256: Option<Secret>,
    pub token_file: Option<PathBuf>,
    pub scopes: List<Scope>,
    pub role: Option<String>,
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Scope {
    /// To read the resources.
    Read,
    /// To change the resources.
    Write,
    /// To read /metrics.
    Metrics,
    /// To operate the server.
    Admin,
}

impl TryFrom<String> for Scope {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        one_of(
            &text,
            &[
                ("read", Self::Read),
                ("write", Self::Write),
                ("metrics", Self::Metrics),
                ("admin", Self::Admin),
            ],
        )
    }
}

/// `[store]`: where everything is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each setting means, once")]
pub struct Store {
    pub backend: Backend,
    pub path: PathBuf,
    #[serde(deserialize_with = "sync_mode")]
    pub sync: SyncMode,
    pub redis: Redis,
}

/// `[store.redis]`: the Redis or Valkey that replicas share.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each setting means, once")]
pub struct Redis {
    pub url: Secret,
    pub cluster: List<Secret>,
    pub username: String,
    pub password: Secret,
    pub password_file: PathBuf,
    pub database: i64,
    pub ca_file: PathBuf,
    pub namespace: String,
    pub index_shards: Count,
    pub connect_timeout: Span,
    pub timeout: Span,
}

fn sync_mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SyncMode, D::Error> {
    let text = String::deserialize(deserializer)?;
    one_of(&text, &[("full", SyncMode::Full), ("normal", SyncMode::Normal)])
        .map_err(serde::de::Error::custom)
}

/// The backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Backend {
    /// Files of one machine.
    Embedded,
    /// Nothing outlives the process.
    Memory,
    /// A Redis or Valkey that replicas share.
    Redis,
}

impl TryFrom<String> for Backend {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        one_of(
            &text,
            &[("embedded", Self::Embedded), ("memory", Self::Memory), ("redis", Self::Redis)],
        )
    }
}

/// `[series]`: what is kept, and who may write.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each setting means, once")]
pub struct Series {
    pub retention: Span,
    pub max_series: Count,
    pub max_future_skew: Span,
    pub max_tombstones: Count,
    pub leader_role: String,
    pub leader_lease: String,
    pub guards: BTreeMap<String, List<String>>,
}

/// `[checkpoints]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each setting means, once")]
pub struct Checkpoints {
    pub retention: Span,
}

/// `[generations]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each setting means, once")]
pub struct Generations {
    pub retention: OptionalSpan,
    pub cleanup_interval: OptionalSpan,
}

/// `[cache]`: how much is cached, and for how long.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each setting means, once")]
pub struct Cache {
    pub max_bytes: Size,
    pub namespace_max_bytes: Size,
    pub max_namespaces: Count,
    pub max_value_bytes: Size,
    pub ttl: Span,
    pub fill_ttl: Span,
    pub max_fill_ttl: Span,
}

/// `[flush]`: when buffered writes are brought to disk.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each setting means, once")]
pub struct Flush {
    pub interval: Span,
    pub threshold: Count,
}

/// `[refresh]` and `[gc]`: work that comes back.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each setting means, once")]
pub struct Periodic {
    pub interval: Span,
}

/// `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each setting means, once")]
pub struct Log {
    pub format: LogFormat,
    pub level: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl TryFrom<String> for LogFormat {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        one_of(&text, &[("text", Self::Text), ("json", Self::Json)])
    }
}
