//! What is wrong with a configuration, in words for the one who wrote it.
//!
//! Invariant: a mistake never holds the value of a secret.

use std::fmt;

use config::{ConfigError, Map, Value};

use super::layers;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// The setting's full name; empty when the whole file is meant.
    pub setting: String,
    /// Where it was given.
    pub origin: String,
    /// What is wrong with it.
    pub what: String,
}

impl Mistake {
    pub(super) fn new(setting: &str, origin: &str, what: impl Into<String>) -> Self {
        Self { setting: setting.to_owned(), origin: origin.to_owned(), what: what.into() }
    }

    pub(super) fn of_file(origin: &str, what: impl Into<String>) -> Self {
        Self::new("", origin, what)
    }

    pub(super) fn unknown(setting: &str, origin: &str, defaults: &Map<String, Value>) -> Self {
        let meant = layers::names(defaults)
            .into_iter()
            .find(|known| known.replace('.', "_") == setting.replace('.', "_"))
            .map(|known| {
                let variable = known.to_uppercase().replace('.', "__");
                format!("; {known} is HOLDALL_{variable} in the environment")
            })
            .unwrap_or_default();
        Self::new(setting, origin, format!("is not a setting{meant}"))
    }

    pub(super) fn of_value(setting: &str, origin: &str, error: &ConfigError, secret: bool) -> Self {
        let what = if secret { without_value(error) } else { reason(error) };
        Self::new(setting, origin, what)
    }
}

/// Prints `server.listen: not an address (in holdall.toml)`.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.setting.as_str() {
            "" => write!(f, "{}: {}", self.origin, self.what),
            setting => write!(f, "{setting}: {} (from {})", self.what, self.origin),
        }
    }
}

/// Every mistake of a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

/// Prints one mistake a line.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} mistake(s)", self.0.len())?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for Mistakes {}

fn reason(error: &ConfigError) -> String {
    match error {
        ConfigError::At { error, .. } => reason(error),
        ConfigError::Type { unexpected, expected, .. } => {
            format!("expected {expected}, found {unexpected}")
        }
        ConfigError::Message(message) => message.clone(),
        other => other.to_string(),
    }
}

/// Says what was expected, and nothing of what stood there.
fn without_value(error: &ConfigError) -> String {
    const HARMLESS: [&str; 4] = ["missing field", "unknown field", "must be one of", "not a TOML"];
    let reason = reason(error);
    if HARMLESS.iter().any(|start| reason.starts_with(start)) {
        return reason;
    }
    match reason.rsplit_once("expected ") {
        Some((_, expected)) => format!("expected {expected}"),
        None => "is not valid".to_owned(),
    }
}
