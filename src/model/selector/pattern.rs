//! A regular expression of a selector, as Prometheus understands it: anchored, and `.` matches line feeds too.
//!
//! Not its syntax, which is in `re2.rs`. Invariant: matching takes time linear in the text, and a compiled expression
//! takes bounded memory.

use regex::{Regex, RegexBuilder};

use super::re2;
use crate::model::Invalid;

/// The most memory that one compiled expression may take, in bytes.
const MAX_REGEX_BYTES: usize = 256 * 1024;

/// A compiled expression, with its text.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// When it is invalid for Prometheus, too large, or one of the few that can't be matched as Prometheus does.
    pub fn compile(text: String) -> Result<Self, Invalid> {
        let bad = |error: &dyn std::fmt::Display| {
            Invalid::new(format!("an invalid regular expression: {error}"))
        };
        // Each opened group is closed in there, so it can't reach beyond the anchors.
        let translated = re2::translate(&text).map_err(|error| bad(&error))?;
        let regex = RegexBuilder::new(&format!("^(?s:{translated})$"))
            .size_limit(MAX_REGEX_BYTES)
            .dfa_size_limit(MAX_REGEX_BYTES)
            .build()
            .map_err(|error| bad(&error))?;
        Ok(Self { text, regex })
    }

    /// Returns whether the whole `value` matches.
    pub fn matches(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }

    /// Returns the values that match, if the expression is a list of literal ones, such as `a|b`.
    pub fn literals(&self) -> Option<Vec<&str>> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'|');
        self.text.bytes().all(plain).then(|| self.text.split('|').collect())
    }
}
