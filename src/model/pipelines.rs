//! Pipelines: what one kind of aggregates is, as it was declared.
//!
//! Not the settings that declare them, and nothing that is stored. Invariant: a pipeline that exists is whole: only
//! one with a window has a retention, and its buckets are at least [`MIN_GRANULARITY`] long.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Invalid;
use super::hooks::Hook;
use super::merge::Kind;
use super::time::format_duration;

/// The shortest bucket.
pub const MIN_GRANULARITY: Duration = Duration::from_secs(1);

/// The longest name of a pipeline, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The name of a pipeline, which is also a setting's name and a metric's label: lower-case letters, digits, `-`, and
/// `_` between others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipelineName(Arc<str>);

impl PipelineName {
    /// Makes a name.
    ///
    /// # Errors
    /// When it has other characters, or is too long. Two `_` in a row separate the parts of a name in the environment,
    /// so no name has them.
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        let is_plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_".contains(&c);
        let separates = name.contains("__") || name.starts_with('_') || name.ends_with('_');
        if name.is_empty()
            || name.len() > MAX_NAME_BYTES
            || separates
            || !name.bytes().all(is_plain)
        {
            return Err(Invalid::new(format!(
                "the name of a pipeline is 1 to {MAX_NAME_BYTES} lower-case letters, digits, '-' and single '_'"
            )));
        }
        Ok(Self(name.into()))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PipelineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the time is divided into buckets, each with a value of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The length of a bucket.
    pub granularity: Duration,
    /// How long a bucket's value lives after the bucket's end.
    pub retention: Duration,
}

/// A pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// Its name.
    pub name: PipelineName,
    /// What its values are, and how they are merged.
    pub kind: Kind,
    /// The buckets; `None` where an entity has one value for all time.
    pub window: Option<Window>,
    /// For how long event ids and producers are remembered; `None` where they are not.
    pub dedup: Option<Duration>,
    /// Who is told about its updates.
    pub hook: Option<Hook>,
}

impl Pipeline {
    /// Returns what must not change while values are stored: it says what they mean.
    pub fn signature(&self) -> String {
        let kind = self.kind.signature();
        match self.window {
            Some(window) => format!("{kind}; window={}", format_duration(window.granularity)),
            None => kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_that_can_also_stand_in_the_environment() {
        for name in ["views", "page_views", "a-b", "7d", &"x".repeat(MAX_NAME_BYTES)] {
            assert_eq!(PipelineName::parse(name).map(|n| n.to_string()).as_deref(), Ok(name));
        }
        for name in
            ["", "Views", "a b", "a__b", "_a", "a_", "a.b", "é", &"x".repeat(MAX_NAME_BYTES + 1)]
        {
            assert!(PipelineName::parse(name).is_err(), "{name}");
        }
    }
}
