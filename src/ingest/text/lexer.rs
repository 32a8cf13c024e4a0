//! The parts of a sample's line that both text formats share: names, labels, escapes, tokens.
//!
//! Not the formats themselves, and no checks that depend on earlier lines.
//! Invariant: labels that are reported as canonical satisfy every rule of `model::series`, so that
//! they can be copied without another check.

use std::borrow::Cow;

use memchr::memchr2;

use crate::model::Invalid;
use crate::model::series::{PointLimits, is_label_name};

/// The labels of one sample.
pub(super) enum Labels<'a> {
    /// Canonical text, without braces.
    Canonical(&'a str),
    /// Any other text: the labels are in [`LabelScratch::pairs`].
    Pairs,
}

/// Memory that is reused from line to line.
#[derive(Default)]
pub(super) struct LabelScratch<'a> {
    /// Labels as (name, unescaped value), in the line's order.
    pub(super) pairs: Vec<(&'a str, Cow<'a, str>)>,
    /// Valid label names in ascending order, from an earlier line: most lines have the names of the line
    /// before, and need not be checked again.
    names: Vec<&'a str>,
}

/// Skips blanks and tabs.
pub(super) fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// Splits at the next blanks or tabs: returns the text before and after them.
pub(super) fn token(text: &str) -> (&str, &str) {
    // Tokens are short: a plain loop is faster than a vectorized search.
    let end = text.bytes().position(|b| b == b' ' || b == b'\t').unwrap_or(text.len());
    (&text[..end], skip_blanks(&text[end..]))
}

/// Splits off the longest prefix of a metric name's characters. Compares with `previous` first, since most
/// lines have the name of the line before.
pub(super) fn metric_name<'a>(line: &'a str, previous: &str) -> (&'a str, &'a str) {
    let in_name = |b: u8| is_word(b) || b == b':';
    let bytes = line.as_bytes();
    let mut end = if line.starts_with(previous) { previous.len() } else { 0 };
    while bytes.get(end).is_some_and(|&b| in_name(b)) {
        end += 1;
    }
    line.split_at(end)
}

/// The bytes of label names, as a table: one load per byte.
const WORD: [bool; 256] = {
    let mut word = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let is_word = (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'_';
        word[byte] = is_word;
        byte += 1;
    }
    word
};

fn is_word(byte: u8) -> bool {
    WORD[usize::from(byte)]
}

/// Reads the labels that follow a `{`, up to and including the `}`; returns them and the rest of the line.
pub(super) fn labels<'a>(
    text: &'a str,
    limits: &PointLimits,
    scratch: &mut LabelScratch<'a>,
) -> Result<(Labels<'a>, &'a str), Invalid> {
    if let Some(end) = canonical_end(text, limits, &mut scratch.names) {
        return Ok((Labels::Canonical(&text[..end]), &text[end + 1..]));
    }
    scratch.pairs.clear();
    label_pairs(text, &mut scratch.pairs).map(|rest| (Labels::Pairs, rest))
}

/// Returns the position of the `}`, if all before it is canonical; `None` as soon as one rule is broken.
///
/// This is the fast path: exporters that sort their labels write canonical text, which is then copied
/// instead of parsed.
fn canonical_end<'a>(
    text: &'a str,
    limits: &PointLimits,
    names: &mut Vec<&'a str>,
) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.first() == Some(&b'}') {
        return Some(0);
    }
    let mut at = 0;
    for label in 0..limits.labels {
        // `names[..label]` are the names so far on this line. Whether `names[label]`, from an earlier line, is
        // also here is one comparison; when not, it and all behind it are of no more use.
        let rest = &bytes[at..];
        let known = names.get(label).filter(|name| rest.starts_with(name.as_bytes()));
        let known = known.map(|name| name.len()).filter(|&end| rest[end..].starts_with(b"=\""));
        let name_bytes = match known {
            Some(name_bytes) => name_bytes,
            None => {
                names.truncate(label);
                let name = next_name(&text[at..], names.last().copied(), limits)?;
                names.push(name);
                name.len()
            }
        };
        let value_start = at + name_bytes + 2;
        at = value_end(bytes, value_start)?;
        // The escaped length: at least that of the value, so that a value which passes is within its limit.
        if at == value_start || at - value_start > limits.label_value_bytes {
            return None;
        }
        match bytes.get(at + 1)? {
            b'}' => return Some(at + 1),
            b',' => at += 2,
            _ => return None,
        }
    }
    None
}

/// Returns the name before the next `="`, if it is valid and greater than `previous`.
fn next_name<'a>(text: &'a str, previous: Option<&str>, limits: &PointLimits) -> Option<&'a str> {
    let (name, _) = text.split_once("=\"")?;
    let valid = is_label_name(name.as_bytes())
        && !name.starts_with("__")
        && name.len() <= limits.name_bytes
        && previous.is_none_or(|previous| name > previous);
    valid.then_some(name)
}

/// Returns the position of the `"` that ends a value, if all escapes of the value are valid.
fn value_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at);
        }
        if !matches!(bytes.get(at + 1)?, b'\\' | b'"' | b'n') {
            return None;
        }
        at += 2;
    }
}

/// Reads labels of any spelling that the formats allow: in any order, with blanks and a last comma.
fn label_pairs<'a>(
    text: &'a str,
    pairs: &mut Vec<(&'a str, Cow<'a, str>)>,
) -> Result<&'a str, Invalid> {
    let mut rest = skip_blanks(text);
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok(rest);
        }
        let end = rest.bytes().take_while(|&b| is_word(b)).count();
        if end == 0 {
            return Err(unexpected("a label name", rest));
        }
        let name = &rest[..end];
        rest = skip_blanks(&rest[end..]);
        rest = rest.strip_prefix('=').ok_or_else(|| unexpected("`=`", rest))?;
        rest = skip_blanks(rest);
        rest = rest.strip_prefix('"').ok_or_else(|| unexpected("`\"`", rest))?;
        let end = value_end(rest.as_bytes(), 0).ok_or_else(|| {
            unexpected("a label value with valid escapes and a closing quote", rest)
        })?;
        pairs.push((name, unescape(&rest[..end], true)));
        rest = skip_blanks(&rest[end + 1..]);
        match rest.as_bytes().first() {
            Some(b',') => rest = skip_blanks(&rest[1..]),
            Some(b'}') => {}
            _ => return Err(unexpected("`,` or `}`", rest)),
        }
    }
}

/// Undoes the escapes `\\`, `\n` and, if `quotes`, `\"`. Any other is left as it is, since Prometheus'
/// own parser reads help texts that way.
pub(super) fn unescape(text: &str, quotes: bool) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let unescaped = match rest.as_bytes().get(at + 1) {
            Some(b'\\') => "\\",
            Some(b'n') => "\n",
            Some(b'"') if quotes => "\"",
            _ => {
                out.push_str(&rest[..=at]);
                rest = &rest[at + 1..];
                continue;
            }
        };
        out.push_str(&rest[..at]);
        out.push_str(unescaped);
        rest = &rest[at + 2..];
    }
    if out.is_empty() && rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Makes the error that something else was expected at the start of `rest`.
pub(super) fn unexpected(wanted: &str, rest: &str) -> Invalid {
    if rest.is_empty() {
        return Invalid::new(format!("expected {wanted} before the end of the line"));
    }
    let found: String = rest.chars().take(16).collect();
    Invalid::new(format!("expected {wanted} at {found:?}"))
}

#[cfg(test)]
mod tests {
    use super::{LabelScratch, Labels, labels, metric_name, unescape};
    use crate::model::series::PointLimits;

    fn is_canonical(text: &'static str) -> bool {
        let limits = PointLimits { labels: 3, name_bytes: 8, label_value_bytes: 8, help_bytes: 0 };
        let read = |scratch: &mut LabelScratch<'static>| {
            matches!(labels(text, &limits, scratch), Ok((Labels::Canonical(_), " 1")))
        };
        // The result does not depend on the lines before.
        let canonical = read(&mut LabelScratch::default());
        for before in [r#"a="1",b="2",c="3"}"#, r#"b="1"}"#, r#"a="1",a1="2"}"#] {
            let mut scratch = LabelScratch::default();
            assert!(labels(before, &limits, &mut scratch).is_ok());
            assert_eq!(read(&mut scratch), canonical, "{text} after {before}");
            assert_eq!(read(&mut scratch), canonical, "{text} again");
        }
        canonical
    }

    #[test]
    fn only_canonical_labels_are_reported_as_canonical() {
        for text in ["} 1", r#"a="1"} 1"#, r#"a="1",b="\\\"\n"} 1"#, r#"_="}",a="1",a0=","} 1"#] {
            assert!(is_canonical(text), "{text}");
        }
        for text in [
            r#"a="1",} 1"#,
            r#"b="1",a="1"} 1"#,
            r#"a="1",a="1"} 1"#,
            r#"a="1",d="1",c="1"} 1"#,
            r#"a=""} 1"#,
            r#"a="1", b="1"} 1"#,
            r#" a="1"} 1"#,
            r#"a ="1"} 1"#,
            r#"__a="1"} 1"#,
            r#"0a="1"} 1"#,
            r#"a="\d"} 1"#,
            r#"a="123456789"} 1"#,
            r#"a23456789="1"} 1"#,
            r#"a="1",b="1",c="1",d="1"} 1"#,
            r#"a="1""#,
            r#"a="1"#,
            r#"a="1\"#,
            "a=",
            "a",
            "",
        ] {
            assert!(!is_canonical(text), "{text}");
        }
    }

    #[test]
    fn a_name_that_extends_the_previous_one_is_another_name() {
        assert_eq!(metric_name("up_total{", "up"), ("up_total", "{"));
        assert_eq!(metric_name("up 1", "up"), ("up", " 1"));
        assert_eq!(metric_name("u 1", "up"), ("u", " 1"));
        assert_eq!(metric_name("é", ""), ("", "é"));
    }

    #[test]
    fn unknown_escapes_are_kept() {
        assert_eq!(unescape(r#"a\\b\n\"\d\"#, false), "a\\b\n\\\"\\d\\");
        assert_eq!(unescape(r#"\""#, true), "\"");
        assert!(matches!(unescape("plain", true), std::borrow::Cow::Borrowed(_)));
    }
}
