//! `[aggregates]` and `[events]`, as far as the rules need them.

use std::time::Duration;

use serde::Deserialize;

use crate::model::settings;

/// `[aggregates]`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct AggregateRules {
    /// How far ahead of the server's clock an update may lie.
    #[serde(deserialize_with = "settings::duration")]
    pub max_future_skew: Duration,
}

impl Default for AggregateRules {
    fn default() -> Self {
        Self { max_future_skew: Duration::from_secs(600) }
    }
}

/// `[events]`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct EventRules {
    /// For how long an event id is remembered that no merge carries.
    #[serde(deserialize_with = "settings::duration")]
    pub dedup: Duration,
}

impl Default for EventRules {
    fn default() -> Self {
        Self { dedup: Duration::from_secs(24 * 3600) }
    }
}
