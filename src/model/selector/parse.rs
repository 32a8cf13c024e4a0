//! Parses the text of selectors. Not the compiling and the matching, which are in the parent.
//!
//! Invariant: the whole text is consumed, or refused.

use super::{MAX_MATCHERS, NAME_LABEL};
use crate::model::Invalid;
use crate::model::series::{is_label_name, is_metric_name};

/// The operator between a label and a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Matches,
    NotMatches,
}

/// A matcher whose regular expression is not compiled.
#[derive(Debug, Clone)]
pub(super) struct ParsedMatcher {
    pub(super) label: String,
    pub(super) operator: Operator,
    pub(super) value: String,
}

/// Parses all matchers of a selector, the metric name first.
pub(super) fn matchers(text: &str) -> Result<Vec<ParsedMatcher>, Invalid> {
    let mut reader = Reader { rest: text.trim_matches(BLANKS) };
    let mut matchers = Vec::new();
    let name = reader.word(|b| b == b':');
    if !name.is_empty() {
        if !is_metric_name(name.as_bytes()) {
            return Err(reader.unexpected("a metric name"));
        }
        matchers.push(named(name.to_owned()));
    }
    reader.skip_blanks();
    if reader.take("{") {
        braces(&mut reader, &mut matchers)?;
    } else if matchers.is_empty() {
        return Err(reader.unexpected("a metric name or `{`"));
    }
    if reader.rest.is_empty() { Ok(matchers) } else { Err(reader.unexpected("the end")) }
}

const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

fn named(name: String) -> ParsedMatcher {
    ParsedMatcher { label: NAME_LABEL.to_owned(), operator: Operator::Equal, value: name }
}

/// Parses what follows a `{`, up to and including its `}`.
fn braces(reader: &mut Reader<'_>, matchers: &mut Vec<ParsedMatcher>) -> Result<(), Invalid> {
    let name_before = !matchers.is_empty();
    let mut quoted_name = false;
    loop {
        reader.skip_blanks();
        if reader.take("}") {
            return Ok(());
        }
        if matchers.len() == MAX_MATCHERS {
            return Err(Invalid::new(format!("a selector of more than {MAX_MATCHERS} matchers")));
        }
        let matcher = match reader.string()? {
            // Prometheus 3 may write the metric name as a string: `{"up", job="a"}`.
            Some(name) if !reader.at_operator() => {
                if quoted_name {
                    return Err(Invalid::new("the metric name occurs twice"));
                }
                quoted_name = true;
                named(name)
            }
            Some(label) => condition(reader, label)?,
            None => {
                let label = reader.word(|_| false);
                if !is_label_name(label.as_bytes()) {
                    return Err(reader.unexpected("a label name"));
                }
                condition(reader, label.to_owned())?
            }
        };
        if name_before && matcher.label == NAME_LABEL {
            return Err(Invalid::new("the metric name occurs twice"));
        }
        matchers.push(matcher);
        reader.skip_blanks();
        if !reader.take(",") && !reader.rest.starts_with('}') {
            return Err(reader.unexpected("`,` or `}`"));
        }
    }
}

/// Reads the operator and the value that follow a label's name.
fn condition(reader: &mut Reader<'_>, label: String) -> Result<ParsedMatcher, Invalid> {
    reader.skip_blanks();
    let operators = [
        ("=~", Operator::Matches),
        ("!~", Operator::NotMatches),
        ("!=", Operator::NotEqual),
        ("=", Operator::Equal),
    ];
    let Some((_, operator)) = operators.into_iter().find(|(text, _)| reader.take(text)) else {
        return Err(reader.unexpected("one of `=`, `!=`, `=~`, `!~`"));
    };
    reader.skip_blanks();
    let Some(value) = reader.string()? else {
        return Err(reader.unexpected("a quoted string"));
    };
    Ok(ParsedMatcher { label, operator, value })
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches(BLANKS);
    }

    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Takes the longest prefix of letters, digits, `_`, and what `also` accepts.
    fn word(&mut self, also: impl Fn(u8) -> bool) -> &'a str {
        let of_word = |&b: &u8| b.is_ascii_alphanumeric() || b == b'_' || also(b);
        let end = self.rest.bytes().take_while(of_word).count();
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn at_operator(&mut self) -> bool {
        self.skip_blanks();
        self.rest.starts_with(['=', '!'])
    }

    fn unexpected(&self, wanted: &str) -> Invalid {
        let found: String = self.rest.chars().take(16).collect();
        let found = if found.is_empty() { "the end".to_owned() } else { format!("{found:?}") };
        Invalid::new(format!("not a selector: expected {wanted} at {found}"))
    }

    /// Takes a string if one begins here, and returns its unescaped value.
    fn string(&mut self) -> Result<Option<String>, Invalid> {
        let Some(quote @ ('"' | '\'' | '`')) = self.rest.chars().next() else { return Ok(None) };
        let body = &self.rest[1..];
        let unterminated = || Invalid::new("not a selector: an unterminated string");
        if quote == '`' {
            let end = body.find('`').ok_or_else(unterminated)?;
            self.rest = &body[end + 1..];
            return Ok(Some(body[..end].to_owned()));
        }
        // Bytes, since `\xc3\xa9` spells one character in two escapes.
        let mut out = Vec::new();
        let mut rest = body;
        loop {
            let special = |c: char| c == quote || c == '\\' || c == '\n';
            let at = rest.find(special).ok_or_else(unterminated)?;
            out.extend_from_slice(&rest.as_bytes()[..at]);
            match rest.as_bytes()[at] {
                b'\\' => rest = escape(&rest[at + 1..], quote, &mut out)?,
                b'\n' => return Err(unterminated()),
                _ => {
                    self.rest = &rest[at + 1..];
                    break;
                }
            }
        }
        String::from_utf8(out)
            .map(Some)
            .map_err(|_| Invalid::new("not a selector: a string that is not UTF-8"))
    }
}

/// Reads what follows a backslash, by Go's rules (<https://go.dev/ref/spec#String_literals>),
/// and returns the text after it.
fn escape<'a>(text: &'a str, quote: char, out: &mut Vec<u8>) -> Result<&'a str, Invalid> {
    let bad = || Invalid::new("not a selector: an unknown escape sequence in a string");
    let kind = text.chars().next().ok_or_else(bad)?;
    let number = |from: usize, digits: usize, radix: u32| {
        let digits = text.get(from..from + digits)?;
        // `from_str_radix` alone would take a sign.
        if !digits.chars().all(|c| c.is_digit(radix)) {
            return None;
        }
        u32::from_str_radix(digits, radix).ok()
    };
    let (taken, byte) = match kind {
        'a' => (1, 0x07),
        'b' => (1, 0x08),
        'f' => (1, 0x0c),
        'n' => (1, b'\n'),
        'r' => (1, b'\r'),
        't' => (1, b'\t'),
        'v' => (1, 0x0b),
        '\\' => (1, b'\\'),
        '"' | '\'' if kind == quote => (1, text.as_bytes()[0]),
        'x' => (3, number(1, 2, 16).and_then(|n| u8::try_from(n).ok()).ok_or_else(bad)?),
        '0'..='7' => (3, number(0, 3, 8).and_then(|n| u8::try_from(n).ok()).ok_or_else(bad)?),
        'u' | 'U' => {
            let digits = if kind == 'u' { 4 } else { 8 };
            let c = number(1, digits, 16).and_then(char::from_u32).ok_or_else(bad)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(&text[1 + digits..]);
        }
        _ => return Err(bad()),
    };
    out.push(byte);
    Ok(&text[taken..])
}
