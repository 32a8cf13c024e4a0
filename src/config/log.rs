//! `[log]`: what is logged, and in which format.

use std::str::FromStr;

use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::model::settings::{Settings, Violations, one_of};

/// The log.
#[derive(Debug, Clone, Deserialize)]
pub struct LogSettings {
    /// How lines are written.
    pub format: LogFormat,
    /// A level, or a filter of `tracing`.
    pub level: String,
}

/// How log lines are written.
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

impl Settings for LogSettings {
    fn check(&mut self, violations: &mut Violations) {
        let level = &self.level;
        let is_filter = EnvFilter::try_new(level).is_ok();
        // A filter takes any single word for the name of a module, so a misspelt level would silence the log.
        let is_word = !level.contains(['=', ',', ':']);
        let is_level = LevelFilter::from_str(level.trim()).is_ok();
        violations.require(is_filter && (is_level || !is_word), &["log.level"], || {
            format!("{level:?} is neither a level nor a filter")
        });
    }
}
