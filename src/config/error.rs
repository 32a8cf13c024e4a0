//! What is wrong with a configuration, for whoever wrote it.
//!
//! Invariant: an error never holds the value of a secret.

use std::fmt;

use config::ConfigError;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SettingError {
    /// The setting's full name; empty when the whole file is meant.
    pub setting: String,
    /// Where it was given.
    pub origin: String,
    /// What is wrong with it.
    pub what: String,
}

impl SettingError {
    pub(super) fn new(setting: &str, origin: &str, what: impl Into<String>) -> Self {
        Self { setting: setting.to_owned(), origin: origin.to_owned(), what: what.into() }
    }

    pub(super) fn of_file(origin: &str, what: impl Into<String>) -> Self {
        Self::new("", origin, what)
    }

    pub(super) fn of_value(setting: &str, origin: &str, error: &ConfigError, secret: bool) -> Self {
        let what = if secret { without_value(error) } else { reason(error) };
        Self::new(setting, origin, what)
    }
}

/// Prints `server.listen: not an address (in holdall.toml)`.
impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.setting.as_str() {
            "" => write!(f, "{}: {}", self.origin, self.what),
            setting => write!(f, "{setting}: {} (from {})", self.what, self.origin),
        }
    }
}

/// Every error of a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingErrors(pub Vec<SettingError>);

/// Prints one error a line.
impl fmt::Display for SettingErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let errors = if count == 1 { "error" } else { "errors" };
        write!(f, "the configuration has {count} {errors}")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for SettingErrors {}

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
