//! The settings of this layer.

use std::time::Duration;

use serde::Deserialize;

use crate::model::settings::{self, Settings, Violations};

/// Each field is read from the section of its name.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct ExpositionSettings {
    /// When the pages of /metrics are brought up to date.
    pub refresh: RefreshSettings,
}

impl Settings for ExpositionSettings {
    fn check(&mut self, _: &mut Violations) {}
}

/// `[refresh]`: when the pages of /metrics are brought up to date.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct RefreshSettings {
    /// The time between two refreshes.
    #[serde(deserialize_with = "settings::duration")]
    pub interval: Duration,
}
