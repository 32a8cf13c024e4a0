//! What settings must be together, once each is valid alone.

use std::collections::BTreeSet;
use std::str::FromStr;

use config::{Map, Value};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::mistake::Mistake;
use super::sections::Token;
use super::{Config, Secret, floors, layers};
use crate::model::cursor::MAX_SHARDS;
use crate::model::leases::LeaseName;

/// The shortest secret that is accepted, in characters: shorter ones can be guessed.
const MIN_TOKEN_CHARS: usize = 16;
/// What hyper needs to read any head.
const MIN_HEAD_BYTES: usize = 8192;
const SHA256_HEX_CHARS: usize = 64;

/// Names what is wrong, and gives the configuration with the tokens' files read.
pub(super) fn check(
    mut config: Config,
    tree: &Map<String, Value>,
    bad: &BTreeSet<String>,
    mistakes: &mut Vec<Mistake>,
) -> Config {
    let mut check = Check { tree, bad, mistakes };
    check.limits(&config);
    check.cache(&config);
    check.timeouts(&config);
    check.series(&config);
    check.redis(&mut config);
    check.log(&config);
    check.tokens(&mut config);
    check.listener(&config);
    config
}

struct Check<'a> {
    tree: &'a Map<String, Value>,
    bad: &'a BTreeSet<String>,
    mistakes: &'a mut Vec<Mistake>,
}

impl Check<'_> {
    /// Names a mistake of the first of `settings`, unless one of them is already known to be wrong.
    fn require(&mut self, holds: bool, settings: &[&str], what: impl FnOnce() -> String) {
        if holds || settings.iter().any(|setting| self.bad.contains(*setting)) {
            return;
        }
        let Some(first) = settings.first() else { return };
        let origin = layers::get(self.tree, first).and_then(Value::origin);
        let origin = origin.unwrap_or(layers::DEFAULT_ORIGIN);
        self.mistakes.push(Mistake::new(first, origin, what()));
    }

    fn limits(&mut self, config: &Config) {
        let limits = &config.limits;
        self.require(
            limits.page_items.0 <= limits.max_page_items.0,
            &["limits.page_items", "limits.max_page_items"],
            || "must not be larger than limits.max_page_items".to_owned(),
        );
        for (size, setting) in [
            (limits.series_body_bytes, "limits.series_body_bytes"),
            (limits.series_decoded_bytes, "limits.series_decoded_bytes"),
            (limits.body_bytes, "limits.body_bytes"),
            (config.cache.max_value_bytes, "cache.max_value_bytes"),
        ] {
            self.require(
                size.0 <= limits.buffered_body_bytes.0,
                &[setting, "limits.buffered_body_bytes"],
                || "must not be larger than limits.buffered_body_bytes".to_owned(),
            );
        }
        self.require(limits.head_bytes.0 >= MIN_HEAD_BYTES, &["limits.head_bytes"], || {
            format!("must be at least {MIN_HEAD_BYTES}")
        });
    }

    fn cache(&mut self, config: &Config) {
        let cache = &config.cache;
        self.require(
            cache.namespace_max_bytes.0 <= cache.max_bytes.0,
            &["cache.namespace_max_bytes", "cache.max_bytes"],
            || "must not be larger than cache.max_bytes".to_owned(),
        );
        let largest = config.embedded().largest_cached_value();
        self.require(
            cache.max_value_bytes.0 <= largest,
            &["cache.max_value_bytes", "cache.namespace_max_bytes", "cache.max_bytes"],
            || {
                format!(
                    "must be at most {largest}: cache.namespace_max_bytes holds a value along with its \
                     names, and a sixteenth of it is kept for newcomers"
                )
            },
        );
        if let Some(redis) = config.redis() {
            let largest = redis.largest_cached_value();
            self.require(
                cache.max_value_bytes.0 <= largest,
                &["cache.max_value_bytes", "cache.namespace_max_bytes", "store.redis.index_shards"],
                || {
                    format!(
                        "must be at most {largest}: each of store.redis.index_shards holds its part of \
                         cache.namespace_max_bytes, and a value lies in one of them"
                    )
                },
            );
        }
        self.require(
            cache.fill_ttl.0 <= cache.max_fill_ttl.0,
            &["cache.fill_ttl", "cache.max_fill_ttl"],
            || "must not be longer than cache.max_fill_ttl".to_owned(),
        );
    }

    fn timeouts(&mut self, config: &Config) {
        let timeouts = &config.timeouts;
        self.require(
            timeouts.upload.0 >= timeouts.request.0,
            &["timeouts.upload", "timeouts.request"],
            || "must not be shorter than timeouts.request".to_owned(),
        );
    }

    fn series(&mut self, config: &Config) {
        let series = &config.series;
        self.require(!series.guards.is_empty(), &["series.guards"], || {
            "names no role, so nobody could write".to_owned()
        });
        let lease = series.leader_lease.as_str();
        let role = series.leader_role.as_str();
        self.require(
            lease.is_empty() || LeaseName::parse(lease).is_ok(),
            &["series.leader_lease"],
            || "is too long for a lease's name".to_owned(),
        );
        self.require(
            lease.is_empty() || series.guards.contains_key(role),
            &["series.leader_role", "series.guards"],
            || format!("{role:?} is not a role of series.guards"),
        );
    }

    fn redis(&mut self, config: &mut Config) {
        let redis = &mut config.store.redis;
        self.require(
            redis.password.expose().is_empty() || redis.password_file.as_os_str().is_empty(),
            &["store.redis.password_file", "store.redis.password"],
            || "is given beside store.redis.password".to_owned(),
        );
        if !redis.password_file.as_os_str().is_empty() {
            match std::fs::read_to_string(&redis.password_file) {
                Ok(text) => redis.password = Secret::from(text.trim_end().to_owned()),
                Err(error) => {
                    let why = format!("{} can't be read: {error}", redis.password_file.display());
                    self.require(false, &["store.redis.password_file"], || why);
                }
            }
        }
        let braces = redis.namespace.contains(['{', '}']);
        self.require(!redis.namespace.is_empty() && !braces, &["store.redis.namespace"], || {
            "must not be empty, nor hold braces".to_owned()
        });
        self.require(redis.index_shards.0 <= MAX_SHARDS, &["store.redis.index_shards"], || {
            format!("must be at most {MAX_SHARDS}")
        });
        self.require(
            redis.cluster.0.is_empty() || redis.database == 0,
            &["store.redis.database", "store.redis.cluster"],
            || "must be 0: a cluster has no other".to_owned(),
        );
        let urls = redis.cluster.0.iter().chain([&redis.url]);
        let schemes = ["redis://", "rediss://", "unix://", "redis+unix://"];
        for url in urls {
            let known = schemes.iter().any(|scheme| url.expose().starts_with(scheme));
            self.require(known, &["store.redis.url", "store.redis.cluster"], || {
                "must begin with redis:// or rediss://".to_owned()
            });
        }
    }

    fn log(&mut self, config: &Config) {
        let level = &config.log.level;
        let filter = EnvFilter::try_new(level).is_ok();
        // A filter takes any single word for the name of a module, and a typing error would silence
        // the log.
        let word = !level.contains(['=', ',', ':']);
        let known = LevelFilter::from_str(level.trim()).is_ok();
        self.require(filter && (known || !word), &["log.level"], || {
            format!("{level:?} is neither a level nor a filter")
        });
    }

    fn tokens(&mut self, config: &mut Config) {
        let roles: Vec<String> = config.series.guards.keys().cloned().collect();
        let (mut names, mut hashes) = (BTreeSet::new(), BTreeSet::new());
        for (index, token) in config.access.tokens.0.iter_mut().enumerate() {
            let which = format!("number {} ({:?})", index + 1, token.name);
            self.token(token, &roles, &which);
            if let Some(hash) = floors::sha256(token) {
                self.require(hashes.insert(hash), &["access.tokens"], || {
                    format!("{which} is the same token as an earlier one")
                });
            }
            let new = names.insert(token.name.clone());
            self.require(new && !token.name.is_empty(), &["access.tokens"], || {
                format!("{which} needs a name of its own")
            });
        }
    }

    fn token(&mut self, token: &mut Token, roles: &[String], which: &str) {
        const SETTING: &[&str] = &["access.tokens"];
        let ways =
            [token.token.is_some(), token.token_sha256.is_some(), token.token_file.is_some()];
        let ways = ways.into_iter().filter(|given| *given).count();
        self.require(ways == 1, SETTING, || {
            format!("{which} needs exactly one of token, token_sha256, token_file")
        });
        self.require(!token.scopes.0.is_empty(), SETTING, || format!("{which} has no scopes"));
        if let Some(role) = &token.role {
            self.require(roles.contains(role), &["access.tokens", "series.guards"], || {
                format!("{which}: {role:?} is not a role of series.guards")
            });
        }
        if let Some(path) = &token.token_file {
            match std::fs::read_to_string(path) {
                Ok(text) => token.token = Some(Secret::from(text.trim_end().to_owned())),
                Err(error) => self.require(false, SETTING, || {
                    format!("{which}: {} can't be read: {error}", path.display())
                }),
            }
        }
        if let Some(secret) = &token.token {
            let text = secret.expose();
            self.require(text.chars().count() >= MIN_TOKEN_CHARS, SETTING, || {
                format!("{which} is shorter than {MIN_TOKEN_CHARS} characters")
            });
            self.require(text.bytes().all(|b| b.is_ascii_graphic()), SETTING, || {
                format!("{which} holds characters that no Authorization header can carry")
            });
        }
        if let Some(hash) = &token.token_sha256 {
            self.require(floors::parse_hash(hash).is_some(), SETTING, || {
                format!("{which}: token_sha256 has {SHA256_HEX_CHARS} hexadecimal digits")
            });
        }
    }

    fn listener(&mut self, config: &Config) {
        let listen = config.server.listen;
        let access = &config.access;
        self.require(
            listen.ip().is_loopback()
                || !access.tokens.0.is_empty()
                || access.open_to_the_network_without_tokens,
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
