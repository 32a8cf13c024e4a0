//! Canonical labels: how a set of labels becomes the one text that stands for it.
//!
//! Not the grammar of any input format.
//! Invariant: the text is sorted by label name, holds no empty value (to Prometheus an empty label
//! is an absent one), and is escaped as the text format escapes. Equal label sets have equal
//! text, and different ones never.

use super::names::{PointLimits, clip, is_label_name};
use crate::model::Invalid;

/// Appends the canonical text of `labels` to `out`, without braces: `a="1",b="2"`.
///
/// Sorts `labels` in place and omits those with an empty value.
///
/// # Errors
/// When a name is not a label name, is reserved (begins with `__`), or occurs twice; when
/// a limit is exceeded. `out` may then hold a part of the text: the caller truncates it.
pub fn canonicalize<N: AsRef<str>, V: AsRef<str>>(
    labels: &mut [(N, V)],
    limits: &PointLimits,
    out: &mut String,
) -> Result<(), Invalid> {
    labels.sort_unstable_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
    let mut count = 0;
    for (i, (name, value)) in labels.iter().enumerate() {
        let (name, value) = (name.as_ref(), value.as_ref());
        // Empty labels are checked as well, so that no order of labels hides an invalid one.
        check_label(name, value, limits)?;
        // Sorted, so that equal names are neighbours.
        if i > 0 && labels[i - 1].0.as_ref() == name {
            return Err(Invalid::new(format!("the label {name:?} occurs twice")));
        }
        if value.is_empty() {
            continue;
        }
        if count > 0 {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        escape_label_value(value, out);
        out.push('"');
        count += 1;
    }
    if count > limits.labels {
        return Err(Invalid::new(format!("more than {} labels", limits.labels)));
    }
    Ok(())
}

fn check_label(name: &str, value: &str, limits: &PointLimits) -> Result<(), Invalid> {
    if !is_label_name(name.as_bytes()) {
        return Err(Invalid::new(format!("{:?} is not a label name", clip(name))));
    }
    if name.starts_with("__") {
        return Err(Invalid::new(format!("the label name {:?} is reserved", clip(name))));
    }
    if name.len() > limits.name_bytes {
        return Err(Invalid::new(format!("a label name of more than {} bytes", limits.name_bytes)));
    }
    if value.len() > limits.label_value_bytes {
        return Err(Invalid::new(format!(
            "the value of label {name:?} has more than {} bytes",
            limits.label_value_bytes
        )));
    }
    Ok(())
}

/// Appends `value` with `\`, `"` and line feed escaped as in the text format.
pub fn escape_label_value(value: &str, out: &mut String) {
    let mut rest = value;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        out.push_str(&rest[..at]);
        out.push_str(match rest.as_bytes()[at] {
            b'\\' => "\\\\",
            b'"' => "\\\"",
            _ => "\\n",
        });
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

/// Iterates over canonical labels as (name, escaped value) pairs, in their order.
pub fn split_canonical(labels: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = labels;
    std::iter::from_fn(move || {
        let eq = rest.find('=')?;
        let name = &rest[..eq];
        let body = rest.get(eq + 2..)?;
        let bytes = body.as_bytes();
        let mut end = 0;
        // A backslash and the byte behind it belong together: `\"` does not end the value.
        while bytes.get(end).is_some_and(|&b| b != b'"') {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        let value = body.get(..end)?;
        rest = body.get(end + 1..).unwrap_or("");
        rest = rest.strip_prefix(',').unwrap_or(rest);
        Some((name, value))
    })
}

/// Undoes [`escape_label_value`].
pub fn unescape_label_value(escaped: &str) -> String {
    let mut out = String::with_capacity(escaped.len());
    let mut chars = escaped.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(labels: &[(&str, &str)]) -> Result<String, Invalid> {
        let mut out = String::new();
        canonicalize(&mut labels.to_vec(), &PointLimits::default(), &mut out).map(|()| out)
    }

    #[test]
    fn different_label_sets_have_different_text() {
        let one = canonical(&[("a", "1\",b=\"2")]).expect("valid");
        let two = canonical(&[("a", "1"), ("b", "2")]).expect("valid");
        assert_ne!(one, two);
        assert_eq!(canonical(&[("b", "2"), ("a", "1")]).expect("valid"), two);
        assert_eq!(canonical(&[("b", ""), ("a", "1")]).expect("valid"), "a=\"1\"");
    }

    #[test]
    fn canonical_labels_split_into_the_original_pairs() {
        let value = "back\\slash \"quoted\", comma=\nand é";
        let text = canonical(&[("z", "last"), ("a", value)]).expect("valid");
        let pairs: Vec<_> =
            split_canonical(&text).map(|(n, v)| (n, unescape_label_value(v))).collect();
        assert_eq!(pairs, [("a", value.to_owned()), ("z", "last".to_owned())]);
    }

    #[test]
    fn invalid_labels_are_refused() {
        for labels in
            [&[("a", "1"), ("a", "1")][..], &[("__name__", "x")], &[("0a", "x")], &[("", "x")]]
        {
            assert!(canonical(labels).is_err(), "{labels:?}");
        }
    }
}
