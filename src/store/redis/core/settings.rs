//! The settings of the Redis backend, `[store.redis]`.
//!
//! What the settings mean is said in `config/default.toml`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::model::cursor::MAX_SHARDS;
use crate::model::settings::{self, Secret, Settings, Violations};

const SCHEMES: [&str; 4] = ["redis://", "rediss://", "unix://", "redis+unix://"];

/// How to reach the Redis, and how the data is laid out in it.
#[derive(Debug, Clone, Deserialize)]
pub struct RedisSettings {
    /// The URL of the server, where it is not a cluster. Like those of `cluster` it may hold a password.
    pub url: Secret,
    /// The URLs of some nodes of the cluster; empty where it is not a cluster.
    #[serde(deserialize_with = "settings::list")]
    pub cluster: Vec<Secret>,
    /// Overrides the user in the URLs.
    #[serde(deserialize_with = "settings::optional")]
    pub username: Option<String>,
    /// Overrides the password in the URLs.
    #[serde(deserialize_with = "settings::optional")]
    pub password: Option<Secret>,
    /// A file that holds the password.
    #[serde(deserialize_with = "settings::optional")]
    pub password_file: Option<PathBuf>,
    /// Overrides the database in the URL, unless it is 0; a cluster has only 0.
    #[serde(deserialize_with = "settings::whole")]
    pub database: i64,
    /// The certificates that TLS trusts, as PEM; the system's where `None`.
    #[serde(deserialize_with = "settings::optional")]
    pub ca_file: Option<PathBuf>,
    /// The prefix of all keys.
    pub namespace: String,
    /// The number of shards. It must stay the same while data exists.
    #[serde(deserialize_with = "settings::count")]
    pub index_shards: usize,
    /// How long it may take to connect.
    #[serde(deserialize_with = "settings::duration")]
    pub connect_timeout: Duration,
    /// How long a reply may take.
    #[serde(deserialize_with = "settings::duration")]
    pub timeout: Duration,
}

impl RedisSettings {
    /// The settings that hold secrets.
    pub const SECRETS: &[&str] =
        &["store.redis.url", "store.redis.cluster", "store.redis.password"];

    /// Returns settings for tests: of one server, or of a cluster where there are several URLs.
    pub fn for_tests(urls: &[String], namespace: &str) -> Self {
        let secret = |url: &String| Secret::from(url.clone());
        let cluster = if urls.len() > 1 { urls.iter().map(secret).collect() } else { Vec::new() };
        Self {
            url: urls.first().map_or_else(|| Secret::from(String::new()), secret),
            cluster,
            username: None,
            password: None,
            password_file: None,
            database: 0,
            ca_file: None,
            namespace: namespace.to_owned(),
            index_shards: 4,
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(20),
        }
    }

    /// Returns the URLs to connect to: that of the server, or those of the cluster's nodes.
    pub(super) fn urls(&self) -> &[Secret] {
        if self.is_cluster() { &self.cluster } else { std::slice::from_ref(&self.url) }
    }

    /// Returns whether the URLs are of a cluster's nodes.
    pub(super) fn is_cluster(&self) -> bool {
        !self.cluster.is_empty()
    }

    /// Reads the password's file, in place of the password.
    fn read_password(&mut self, violations: &mut Violations) {
        let Some(path) = &self.password_file else { return };
        violations.require(
            self.password.is_none(),
            &["store.redis.password_file", "store.redis.password"],
            || "is given beside store.redis.password".to_owned(),
        );
        match std::fs::read_to_string(path) {
            Ok(text) => self.password = Some(Secret::from(text.trim_end().to_owned())),
            Err(error) => violations.require(false, &["store.redis.password_file"], || {
                format!("{} can't be read: {error}", path.display())
            }),
        }
    }
}

impl Settings for RedisSettings {
    fn check(&mut self, violations: &mut Violations) {
        self.read_password(violations);
        // Braces in a key mark its hash tag, which each shard makes from the namespace.
        let braces = self.namespace.contains(['{', '}']);
        violations.require(
            !self.namespace.is_empty() && !braces,
            &["store.redis.namespace"],
            || "must not be empty, nor contain braces".to_owned(),
        );
        violations.require(self.index_shards <= MAX_SHARDS, &["store.redis.index_shards"], || {
            format!("must be at most {MAX_SHARDS}")
        });
        violations.require(
            !self.is_cluster() || self.database == 0,
            &["store.redis.database", "store.redis.cluster"],
            || "must be 0: a cluster has no other".to_owned(),
        );
        for url in self.cluster.iter().chain([&self.url]) {
            let known = SCHEMES.iter().any(|scheme| url.expose().starts_with(scheme));
            violations.require(known, &["store.redis.url", "store.redis.cluster"], || {
                "must begin with redis:// or rediss://".to_owned()
            });
        }
    }
}
