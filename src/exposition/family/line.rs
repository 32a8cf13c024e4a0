//! A rendered line, `name{labels} value`, and how it is split into its parts.
//!
//! Not its position in the family, see [`super::line_order`].
//! Invariant: splitting relies only on what rendering guarantees: canonical labels, and a value
//! without blanks.

use crate::model::number::parse_float;

/// The parts of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exposition) struct LineParts<'a> {
    pub(in crate::exposition) name: &'a [u8],
    /// The canonical labels, without braces.
    pub(in crate::exposition) labels: &'a [u8],
    pub(in crate::exposition) value: &'a [u8],
}

impl<'a> LineParts<'a> {
    /// Splits a line without its line feed. A value contains no blank, so the last blank ends the
    /// key, whatever the labels contain.
    pub(in crate::exposition) fn parse(line: &'a [u8]) -> Self {
        let blank = line.iter().rposition(|&b| b == b' ').unwrap_or(line.len());
        let (key, value) = (&line[..blank], line.get(blank + 1..).unwrap_or_default());
        // A name contains no brace, so the first one begins the labels.
        match key.iter().position(|&b| b == b'{') {
            Some(brace) => {
                Self { name: &key[..brace], labels: &key[brace + 1..key.len() - 1], value }
            }
            None => Self { name: key, labels: b"", value },
        }
    }
}

/// Appends `name{labels}`, or `name` alone where there are no labels.
pub(in crate::exposition) fn write_key(name: &[u8], labels: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    if !labels.is_empty() {
        out.push(b'{');
        out.extend_from_slice(labels);
        out.push(b'}');
    }
}

/// Canonical labels, split at one label. `before` and `after` together are the labels without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exposition) struct LabelSplit<'a> {
    pub(in crate::exposition) before: &'a [u8],
    /// The position of the value in the labels.
    pub(in crate::exposition) value_start: usize,
    pub(in crate::exposition) value: &'a [u8],
    pub(in crate::exposition) after: &'a [u8],
}

impl<'a> LabelSplit<'a> {
    /// Splits `labels` at `label`; `None` when they do not contain it.
    ///
    /// A search for `label="` would not do: a value may end in these very bytes.
    pub(in crate::exposition) fn at(labels: &'a [u8], label: &[u8]) -> Option<Self> {
        let mut at = 0;
        while at < labels.len() {
            // `at` is the start of a label's name: `name="value"`, then a comma or the end.
            let equals = at + labels[at..].iter().position(|&b| b == b'=')?;
            let start = equals + 2;
            let mut end = start;
            while *labels.get(end)? != b'"' {
                end += if labels[end] == b'\\' { 2 } else { 1 };
            }
            if &labels[at..equals] == label {
                // One of the two commas around the label goes with it: the one behind it, or for
                // the last label the one before it.
                let after = labels.get(end + 2..).unwrap_or_default();
                let comma = usize::from(after.is_empty() && at > 0);
                return Some(Self {
                    before: &labels[..at - comma],
                    value_start: start,
                    value: &labels[start..end],
                    after,
                });
            }
            at = end + 2;
        }
        None
    }
}

/// Returns the number of a bound or a quantile; NaN when it is not a number.
pub(in crate::exposition) fn parse_bound(text: &[u8]) -> f64 {
    std::str::from_utf8(text).ok().and_then(parse_float).unwrap_or(f64::NAN)
}

/// Returns whether a series with these labels would make an exposition with a histogram or summary of it
/// unreadable: many readers refuse the whole exposition for one `le` or `quantile` that Go's
/// `strconv.ParseFloat` does not accept.
pub(in crate::exposition) fn has_unreadable_bound(labels: &[u8]) -> bool {
    [(&b"le"[..], &b"le=\""[..]), (b"quantile", b"quantile=\"")].iter().any(|(label, bytes)| {
        // Few series have such labels. A search for the bytes excludes most others cheaply.
        memchr::memmem::find(labels, bytes).is_some()
            && LabelSplit::at(labels, label).is_some_and(|split| !is_readable(split.value))
    })
}

fn is_readable(bound: &[u8]) -> bool {
    std::str::from_utf8(bound).ok().and_then(parse_float).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_go_refuses_are_unreadable() {
        for good in ["1", "+Inf", "-inf", "1e-3", ".5", "NaN", "0.30000000000000004"] {
            assert!(is_readable(good.as_bytes()), "{good}");
        }
        for bad in ["x", "", "1e999", "1_0", " 1", "+\tInf", "1,5", "-NaN"] {
            assert!(!is_readable(bad.as_bytes()), "{bad}");
        }
        assert!(has_unreadable_bound(br#"a="1",le="x""#));
        assert!(!has_unreadable_bound(br#"a="x",le="1""#));
    }

    #[test]
    fn a_value_that_looks_like_a_label_is_not_split_at() {
        let labels = br#"a="x,le=",le="2",b="\"}""#;
        let split = LabelSplit::at(labels, b"le").expect("there");
        assert_eq!(split.value, b"2");
        assert_eq!([split.before, split.after].concat(), br#"a="x,le=",b="\"}""#);
        assert_eq!(LabelSplit::at(br#"a="x,le=",b="1""#, b"le"), None);
    }

    #[test]
    fn a_split_removes_one_comma() {
        for (labels, rest) in [
            (&br#"le="1""#[..], &b""[..]),
            (br#"a="1",le="1""#, br#"a="1""#),
            (br#"le="1",z="1""#, br#"z="1""#),
        ] {
            let split = LabelSplit::at(labels, b"le").expect("there");
            assert_eq!([split.before, split.after].concat(), rest);
        }
    }

    #[test]
    fn a_line_is_split_whatever_its_labels_contain() {
        let line = br#"x{a="} 1 {",b="2"} -0.5"#;
        let parts = LineParts::parse(line);
        assert_eq!(parts.name, b"x");
        assert_eq!(parts.labels, br#"a="} 1 {",b="2""#);
        assert_eq!(parts.value, b"-0.5");
        assert_eq!(LineParts::parse(b"up 1").labels, b"");
    }
}
