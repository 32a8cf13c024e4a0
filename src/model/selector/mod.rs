//! Prometheus series selectors: `name{label="value", other=~"re.*"}`.
//!
//! The grammar is that of PromQL's instant vector selectors without offsets
//! (<https://prometheus.io/docs/prometheus/latest/querying/basics/>); `parse.rs` reads it. Regular expressions are those of the `regex` crate, which run in
//! linear time like Prometheus' RE2.
//! Invariant: as in Prometheus, a selector has at least one matcher that does not match the
//! empty value, so that no selector means "everything" by accident.

mod parse;

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

use self::parse::{Operator, ParsedMatcher};
use super::Invalid;
use super::series::{split_canonical, unescape_label_value};

/// The longest text of a selector, in bytes.
pub const MAX_SELECTOR_BYTES: usize = 8 * 1024;

/// The most matchers of one selector, its name included.
pub const MAX_MATCHERS: usize = 64;

/// The most memory that one compiled expression may take, in bytes.
const MAX_REGEX_BYTES: usize = 256 * 1024;

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
    Matches(Regex),
    /// `!~`, anchored at both ends
    NotMatches(Regex),
}

impl Condition {
    /// Returns whether the unescaped `value` satisfies the condition.
    pub fn holds(&self, value: &str) -> bool {
        match self {
            Self::Equal(wanted) => value == wanted,
            Self::NotEqual(unwanted) => value != unwanted,
            Self::Matches(regex) => regex.is_match(value),
            Self::NotMatches(regex) => !regex.is_match(value),
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
                Operator::Matches => Condition::Matches(compile(&value)?),
                Operator::NotMatches => Condition::NotMatches(compile(&value)?),
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

    /// Returns the metric name of all selected series, if the selector names one.
    pub fn exact_name(&self) -> Option<&str> {
        self.matchers.iter().find_map(|matcher| match &matcher.condition {
            Condition::Equal(name) if matcher.label == NAME_LABEL => Some(name.as_str()),
            _ => None,
        })
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

/// Compiles an expression as Prometheus does: anchored, and `.` matches line feeds too.
fn compile(pattern: &str) -> Result<Regex, Invalid> {
    let bad = |error: &dyn std::fmt::Display| {
        Invalid::new(format!("an invalid regular expression: {error}"))
    };
    // Parsed on its own first: `a)|(b` is invalid, but would compile between the anchors, and then match
    // without them.
    regex_syntax::ast::parse::Parser::new().parse(pattern).map_err(|error| bad(&error))?;
    RegexBuilder::new(&format!("^(?s:{pattern})$"))
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_REGEX_BYTES)
        .build()
        .map_err(|error| bad(&error))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, prop_oneof};
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::{Condition, MAX_MATCHERS, MAX_SELECTOR_BYTES, Selector, SelectorText};
    use crate::model::series::{PointLimits, canonicalize};

    fn selects(selector: &str, name: &str, labels: &str) -> bool {
        Selector::parse(selector)
            .unwrap_or_else(|error| panic!("{selector}: {error}"))
            .matches(name, labels)
    }

    #[test]
    fn every_spelling_of_a_selector_is_accepted() {
        for text in [
            "up",
            " up ",
            "job:rate5m",
            "up{}",
            "up{job=\"a\"}",
            "up { job = 'a' , }",
            "{__name__=~\"u.*\"}",
            "{__name__=`up`,job!=\"\"}",
            "up{job!~\"b|c\",\n\tinstance=\"\",}",
            "{\"up\"}",
            "{\"up\", \"job\"=\"a\"}",
        ] {
            assert!(selects(text, "up", "job=\"a\"") || text.starts_with("job:"), "{text}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "  ",
            "{}",
            "{a=\"\"}",
            "{a!=\"b\"}",
            "{a=~\".*\"}",
            "{a!~\".+\"}",
            "up{",
            "up}",
            "up{a}",
            "up{a=}",
            "up{a=b}",
            "up{,}",
            "up{a=\"b\",,}",
            "up{a=\"b\" c=\"d\"}",
            "up{a==\"b\"}",
            "up{a~\"b\"}",
            "up{a=\"b}",
            "up{a=\"b\n\"}",
            "up{a='b\"}",
            "up{a=\"\\d\"}",
            "up{a=\"\\'\"}",
            "up{a=\"\\x8\"}",
            "up{a=\"\\xff\"}",
            "up{a=\"\\ud800\"}",
            "up{0a=\"b\"}",
            "up{a:b=\"c\"}",
            "0up",
            "up offset 5m",
            "up[5m]",
            "up @ 5",
            "up up",
            "up{__name__=\"down\"}",
            "{\"up\",\"down\"}",
            "up{a=~\"(\"}",
            "up{a=~\"a)|(b\"}",
            "up{a=~\"((a{500}){500}){500}\"}",
        ] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_are_enforced() {
        let long = format!("up{{a=\"{}\"}}", "x".repeat(MAX_SELECTOR_BYTES));
        assert!(Selector::parse(&long).is_err());
        let many = |n: usize| format!("up{{{}}}", "a=\"b\",".repeat(n));
        assert!(Selector::parse(&many(MAX_MATCHERS - 1)).is_ok());
        assert!(Selector::parse(&many(MAX_MATCHERS)).is_err());
    }

    #[test]
    fn expressions_are_counted_before_they_are_compiled_and_are_bounded() {
        let text = SelectorText::parse("up{a=~\"(\",b!~\"c\",d=\"e\",f!=\"g\"}").expect("readable");
        assert_eq!(text.regexes(), 2);
        assert!(text.compile().is_err());
        assert!(Selector::parse("up{a=~\"[a-z]{1000}\"}").is_ok());
        // Half a MiB.
        assert!(Selector::parse("up{a=~\"[a-z]{10000}\"}").is_err());
    }

    #[test]
    fn an_absent_label_has_the_empty_value() {
        assert!(selects("up{job=\"\"}", "up", ""));
        assert!(selects("up{job!=\"a\"}", "up", ""));
        assert!(selects("up{job=~\"a|\"}", "up", ""));
        assert!(!selects("up{job!=\"\"}", "up", ""));
        assert!(!selects("up{job=~\".+\"}", "up", "instance=\"job\""));
    }

    #[test]
    fn expressions_are_anchored_and_match_line_feeds() {
        assert!(!selects("up{a=~\"b\"}", "up", "a=\"abc\""));
        assert!(!selects("up{a=~\"a|b\"}", "up", "a=\"ab\""));
        assert!(selects("up{a=~\"a.b\"}", "up", "a=\"a\\nb\""));
        assert!(selects("up{a!~\"b\"}", "up", "a=\"abc\""));
    }

    #[test]
    fn escapes_are_those_of_go() {
        let labels = "a=\"q\\\"b\\\\n\\n\u{e9}\u{1f600}\"";
        assert!(selects(r#"up{a="q\"b\\n\n\u00e9\U0001f600"}"#, "up", labels));
        assert!(selects(r#"up{a='q"\x62\134n\012é😀'}"#, "up", labels));
        assert!(selects("up{a=`q\"b\\n\né😀`}", "up", labels));
        assert!(selects(r#"up{a='\'\t\xc3\xa9'}"#, "up", "a=\"'\té\""));
    }

    #[test]
    fn a_selector_returns_the_name_that_it_requires() {
        let exact = |text| Selector::parse(text).expect("valid").exact_name().map(str::to_owned);
        assert_eq!(exact("up{a=\"b\"}").as_deref(), Some("up"));
        assert_eq!(exact("{a=\"b\",__name__=\"up\"}").as_deref(), Some("up"));
        assert_eq!(exact("{__name__=~\"up\"}"), None);
        assert_eq!(exact("{a=\"up\"}"), None);
    }

    /// Values that collide often, with all that is escaped.
    fn value() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), "[ab\"\\\\\n,={}é]{0,3}"]
    }

    fn quoted(value: &str) -> String {
        format!("{value:?}").replace("\\u{e9}", "é")
    }

    proptest! {
        #[test]
        fn matching_agrees_with_a_naive_model(
            series in [value(), value(), value()],
            wanted in proptest::collection::vec(("[abcd]", 0_u8..4, value()), 1..5),
        ) {
            let mut labels: Vec<(&str, &str)> =
                ["a", "b", "c"].into_iter().zip(series.iter().map(String::as_str)).collect();
            let mut canonical = String::new();
            canonicalize(&mut labels, &PointLimits::default(), &mut canonical).expect("valid");

            let mut text = String::from("up{");
            let mut expected = true;
            for (label, operator, value) in &wanted {
                let held = match label.as_str() {
                    "a" => &series[0],
                    "b" => &series[1],
                    "c" => &series[2],
                    _ => "",
                };
                expected &= (held == value) == operator.is_multiple_of(2);
                let literal = if *operator < 2 { value.clone() } else { regex::escape(value) };
                let operator = ["=", "!=", "=~", "!~"][usize::from(*operator)];
                text.push_str(&format!("{label} {operator} {},", quoted(&literal)));
            }
            text.push('}');
            let selector = Selector::parse(&text).expect("a selector");
            prop_assert_eq!(selector.matches("up", &canonical), expected, "{} {}", text, canonical);
            prop_assert!(!selector.matches("down", &canonical));
        }

        #[test]
        fn a_string_reads_back_as_it_was_quoted(value in "\\PC*|[\\x00-\\x7f]{0,20}") {
            let escaped: String = value.chars().map(|c| format!("\\U{:08x}", c as u32)).collect();
            let text = format!("{{a=\"x{escaped}\"}}");
            let selector = Selector::parse(&text).expect("a selector");
            let Condition::Equal(read) = &selector.matchers[0].condition else {
                panic!("an equality was written")
            };
            prop_assert_eq!(&read[1..], value);
        }

        #[test]
        fn no_text_panics(text in "[a-b{}=~!\"'`\\\\,\n x0-9éu]{0,24}|\\PC{0,16}") {
            let _ = Selector::parse(&text);
        }
    }
}
