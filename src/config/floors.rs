//! Hands each floor the settings that it asks for.

use sha2::{Digest as _, Sha256};

use super::sections::{Backend, Scope, Token};
use super::{Config, Secret};
use crate::engine::EngineSettings;
use crate::engine::cache::CacheRules;
use crate::engine::series::SeriesRules;
use crate::http::{
    self, AccessSettings, HttpSettings, LimitSettings, TimeoutSettings, TokenSettings,
};
use crate::store::CacheSettings;
use crate::store::embedded::EmbeddedSettings;
use crate::store::redis::RedisSettings;

impl Config {
    /// Returns the settings of the HTTP floor.
    pub fn http(&self) -> HttpSettings {
        let limits = &self.limits;
        let timeouts = &self.timeouts;
        HttpSettings {
            limits: LimitSettings {
                series_body_bytes: limits.series_body_bytes.0,
                series_decoded_bytes: limits.series_decoded_bytes.0,
                body_bytes: limits.body_bytes.0,
                buffered_body_bytes: limits.buffered_body_bytes.0,
                concurrent_requests: limits.concurrent_requests.0,
                waiting_requests: limits.waiting_requests.0,
                concurrent_scrapes: limits.concurrent_scrapes.0,
                connections: limits.connections.0,
                head_bytes: limits.head_bytes.0,
                batch_keys: limits.batch_keys.0,
                batch_points: limits.batch_points.0,
                selectors: limits.selectors.0,
                selector_regexes: limits.selector_regexes.0,
                page_items: limits.page_items.0,
                max_page_items: limits.max_page_items.0,
            },
            timeouts: TimeoutSettings {
                request: timeouts.request.0,
                upload: timeouts.upload.0,
                body: timeouts.body.0,
                idle: timeouts.idle.0,
                write: timeouts.write.0,
                max_wait: timeouts.max_wait.0,
                heartbeat: timeouts.heartbeat.0,
                shutdown: timeouts.shutdown.0,
            },
            access: AccessSettings {
                tokens: self.access.tokens.0.iter().filter_map(token).collect(),
                metrics_allow: self.access.metrics_allow.0.iter().map(|net| net.0).collect(),
            },
            points: limits.point,
        }
    }

    /// Returns the settings of the rules.
    pub fn engine(&self) -> EngineSettings {
        let series = &self.series;
        let guards = series.guards.iter().map(|(role, sources)| (role.clone(), sources.0.clone()));
        EngineSettings {
            series: SeriesRules {
                guards: guards.collect(),
                leader_role: series.leader_role.clone(),
                leader_lease: Some(series.leader_lease.clone()).filter(|lease| !lease.is_empty()),
                max_future_skew: series.max_future_skew.0,
            },
            cache: CacheRules {
                max_value_bytes: self.cache.max_value_bytes.0,
                ttl: self.cache.ttl.0,
                fill_ttl: self.cache.fill_ttl.0,
                max_fill_ttl: self.cache.max_fill_ttl.0,
                max_namespaces: self.cache.max_namespaces.0,
            },
        }
    }

    /// Returns the settings of the embedded store, which is also the one in memory.
    pub fn embedded(&self) -> EmbeddedSettings {
        EmbeddedSettings {
            path: match self.store.backend {
                Backend::Embedded => Some(self.store.path.clone()),
                Backend::Memory | Backend::Redis => None,
            },
            sync: self.store.sync,
            series_retention: self.series.retention.0,
            max_series: self.series.max_series.0,
            max_tombstones: self.series.max_tombstones.0,
            checkpoint_retention: self.checkpoints.retention.0,
            flush_threshold: self.flush.threshold.0,
            cache: CacheSettings {
                max_bytes: self.cache.max_bytes.0,
                namespace_max_bytes: self.cache.namespace_max_bytes.0,
                max_namespaces: self.cache.max_namespaces.0,
            },
        }
    }
}

impl Config {
    /// Returns the settings of the Redis store; `None` where another backend is configured.
    pub fn redis(&self) -> Option<RedisSettings> {
        if self.store.backend != Backend::Redis {
            return None;
        }
        let redis = &self.store.redis;
        let seeds: Vec<String> =
            redis.cluster.0.iter().map(|url| url.expose().to_owned()).collect();
        let cluster = !seeds.is_empty();
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Some(RedisSettings {
            urls: if cluster { seeds } else { vec![redis.url.expose().to_owned()] },
            cluster,
            username: given(&redis.username),
            password: given(redis.password.expose()),
            database: Some(redis.database).filter(|database| *database != 0),
            ca_file: Some(redis.ca_file.clone()).filter(|path| !path.as_os_str().is_empty()),
            namespace: redis.namespace.clone(),
            index_shards: redis.index_shards.0,
            connect_timeout: redis.connect_timeout.0,
            timeout: redis.timeout.0,
            series_retention: self.series.retention.0,
            max_series: self.series.max_series.0,
            max_tombstones: self.series.max_tombstones.0,
            checkpoint_retention: self.checkpoints.retention.0,
            cache: self.embedded().cache,
            clock: None,
        })
    }
}

/// Returns a token as its hash; `None` for one without a secret, which no valid configuration holds.
fn token(token: &Token) -> Option<TokenSettings> {
    let scopes = token.scopes.0.iter().map(|scope| match scope {
        Scope::Read => http::Scope::Read,
        Scope::Write => http::Scope::Write,
        Scope::Metrics => http::Scope::Metrics,
        Scope::Admin => http::Scope::Admin,
    });
    Some(TokenSettings {
        name: token.name.clone(),
        sha256: sha256(token)?,
        scopes: scopes.collect(),
        role: token.role.clone(),
    })
}

/// Returns the SHA-256 that a token is known by.
pub(super) fn sha256(token: &Token) -> Option<[u8; 32]> {
    match (&token.token, &token.token_sha256) {
        (Some(secret), _) => Some(Sha256::digest(secret.expose().as_bytes()).into()),
        (None, Some(hash)) => parse_hash(hash),
        (None, None) => None,
    }
}

/// Reads the 64 hexadecimal digits of a SHA-256.
pub(super) fn parse_hash(hash: &Secret) -> Option<[u8; 32]> {
    let digits = hash.expose().as_bytes();
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let bytes = pairs.iter().map(|pair| {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        u8::try_from(high * 16 + low).ok()
    });
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}
