//! Prometheus series selectors: `name{label="value", other=~"re.*"}`.
//!
//! The grammar is that of PromQL's instant vector selectors without offsets
//! (<https://prometheus.io/docs/prometheus/latest/querying/basics/>); `parse.rs` reads it. Regular expressions are
//! Prometheus' own, too: `re2.rs` translates them for the `regex` crate, which runs in linear time as well.
//! Invariant: as in Prometheus, a selector has at least one matcher that does not match the
//! empty value, so that no selector means "everything" by accident.

mod parse;
mod pattern;
mod re2;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use self::parse::{Operator, ParsedMatcher};
pub use self::pattern::Pattern;
use super::Invalid;
use super::series::{split_canonical, unescape_label_value};

/// The longest text of a selector, in bytes.
pub const MAX_SELECTOR_BYTES: usize = 8 * 1024;

/// The most matchers of one selector, its name included.
pub const MAX_MATCHERS: usize = 64;

/// The label that means the metric name.
const NAME_LABEL: &str = "__name__";

/// One condition on one label.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The label's name, or `__name__`.
    pub label: String,
    /// The condition.
    pub condition: Condition,
}

/// What a label's value must be. A label that is absent has the empty value.
#[derive(Debug, Clone)]
pub enum Condition {
    /// `=`
    Equal(String),
    /// `!=`
    NotEqual(String),
    /// `=~`, anchored at both ends
    Matches(Pattern),
    /// `!~`, anchored at both ends
    NotMatches(Pattern),
}

impl Condition {
    /// Returns whether the unescaped `value` satisfies the condition.
    pub fn holds(&self, value: &str) -> bool {
        match self {
            Self::Equal(wanted) => value == wanted,
            Self::NotEqual(unwanted) => value != unwanted,
            Self::Matches(pattern) => pattern.matches(value),
            Self::NotMatches(pattern) => !pattern.matches(value),
        }
    }
}

/// A selector that was parsed, but whose regular expressions are not compiled yet: parsing is cheap,
/// compiling may take milliseconds for each expression.
#[derive(Debug, Clone)]
pub struct SelectorText {
    parsed: Vec<ParsedMatcher>,
}

impl SelectorText {
    /// Reads a selector such as `name`, `name{a="b", c!~"d|e"}` or `{__name__=~"x.*"}`.
    ///
    /// # Errors
    /// When the text is not an instant vector selector, or exceeds [`MAX_SELECTOR_BYTES`] or
    /// [`MAX_MATCHERS`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > MAX_SELECTOR_BYTES {
            return Err(Invalid::new(format!(
                "a selector of more than {MAX_SELECTOR_BYTES} bytes"
            )));
        }
        Ok(Self { parsed: parse::matchers(text)? })
    }

    /// Returns how many regular expressions there are to compile.
    pub fn regexes(&self) -> usize {
        let is_regex = |matcher: &&ParsedMatcher| {
            matches!(matcher.operator, Operator::Matches | Operator::NotMatches)
        };
        self.parsed.iter().filter(is_regex).count()
    }

    /// Compiles the expressions.
    ///
    /// # Errors
    /// When one is invalid or too large, or when the selector matches the empty label set.
    pub fn compile(self) -> Result<Selector, Invalid> {
        let matcher = |ParsedMatcher { label, operator, value }| {
            let condition = match operator {
                Operator::Equal => Condition::Equal(value),
                Operator::NotEqual => Condition::NotEqual(value),
                Operator::Matches => Condition::Matches(Pattern::compile(value)?),
                Operator::NotMatches => Condition::NotMatches(Pattern::compile(value)?),
            };
            Ok(Matcher { label, condition })
        };
        let matchers: Vec<Matcher> =
            self.parsed.into_iter().map(matcher).collect::<Result<_, Invalid>>()?;
        if matchers.iter().all(|matcher| matcher.condition.holds("")) {
            return Err(Invalid::new(
                "a selector needs at least one matcher that does not match the empty value",
            ));
        }
        Ok(Selector { matchers })
    }
}

/// The conditions of one selector, all of which must hold.
#[derive(Debug, Clone)]
pub struct Selector {
    /// The conditions.
    pub matchers: Vec<Matcher>,
}

impl Selector {
    /// Reads and compiles a selector, see [`SelectorText`].
    ///
    /// # Errors
    /// When the text is not an instant vector selector, matches the empty label set,
    /// contains an expression that is invalid or too large, or exceeds
    /// [`MAX_SELECTOR_BYTES`] or [`MAX_MATCHERS`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        SelectorText::parse(text)?.compile()
    }

    /// Returns whether the series with this metric name and these canonical labels is selected.
    pub fn matches(&self, name: &str, canonical_labels: &str) -> bool {
        self.matchers.iter().all(|matcher| {
            if matcher.label == NAME_LABEL {
                return matcher.condition.holds(name);
            }
            matcher.condition.holds(&label_value(canonical_labels, &matcher.label))
        })
    }

    /// Returns whether a series with this metric name can be selected.
    pub fn matches_name(&self, name: &str) -> bool {
        self.matchers
            .iter()
            .all(|matcher| matcher.label != NAME_LABEL || matcher.condition.holds(name))
    }

    /// Returns the metric names that all selected series have one of, if the selector lists them: by equality, or
    /// as an expression of literal alternatives such as `a|b`.
    pub fn names(&self) -> Option<Vec<&str>> {
        let listed = self.matchers.iter().filter(|matcher| matcher.label == NAME_LABEL);
        let listed = listed.filter_map(|matcher| match &matcher.condition {
            Condition::Equal(name) => Some(vec![name.as_str()]),
            Condition::Matches(pattern) => pattern.literals(),
            Condition::NotEqual(_) | Condition::NotMatches(_) => None,
        });
        listed.min_by_key(Vec::len)
    }
}

/// Returns the label's value; the empty one if the label is absent. Allocates only for the rare
/// value that contains an escape.
fn label_value<'a>(canonical_labels: &'a str, label: &str) -> Cow<'a, str> {
    match split_canonical(canonical_labels).find(|(name, _)| *name == label) {
        None => Cow::Borrowed(""),
        Some((_, escaped)) if escaped.contains('\\') => Cow::Owned(unescape_label_value(escaped)),
        Some((_, plain)) => Cow::Borrowed(plain),
    }
}
