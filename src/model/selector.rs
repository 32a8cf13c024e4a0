//! Prometheus series selectors: `name{label="value", other=~"re.*"}`.
//!
//! The grammar is that of PromQL's instant vector selectors without offsets
//! (<https://prometheus.io/docs/prometheus/latest/querying/basics/>).
//! Invariant: as in Prometheus, a selector has at least one matcher that does not match the
//! empty value, so that no selector means "everything" by accident.

use regex::Regex;

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
    Matches(Regex),
    /// `!~`, anchored at both ends
    NotMatches(Regex),
}

/// All conditions of one selector; they must hold together.
#[derive(Debug, Clone)]
pub struct Selector {
    /// The conditions.
    pub matchers: Vec<Matcher>,
}
