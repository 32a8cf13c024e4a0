//! Where a line stands within its family.
//!
//! Plain families are sorted by their labels. A histogram and a summary are sorted by group (the
//! labels without `le` or `quantile`), in a group first the buckets or quantiles by number, then
//! the sum, then the count: the text format demands it, and OpenMetrics forbids to come back to a
//! group. A state set's group is its labels without the state.
//! Invariant: a total order, in which only equal series are equal.

use std::cmp::Ordering;

/// How the lines of a family are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Arrangement {
    /// By labels.
    Plain,
    /// By group, then `le`, sum, count.
    Histogram,
    /// By group, then `quantile`, sum, count.
    Summary,
    /// By group, then state: the label that is called as the family.
    StateSet,
}

impl Arrangement {
    /// Returns whether lines of several names make a group.
    pub(super) fn is_grouped(self) -> bool {
        matches!(self, Self::Histogram | Self::Summary)
    }

    fn special_label(self, family: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Plain => None,
            Self::Histogram => Some(b"le"),
            Self::Summary => Some(b"quantile"),
            Self::StateSet => Some(family),
        }
    }

    /// Returns the place of the series `name{labels}` in `family`.
    pub(super) fn place<'a>(self, family: &[u8], name: &'a [u8], labels: &'a [u8]) -> Place<'a> {
        let suffix = name.get(family.len()..).unwrap_or_default();
        let rank = match (self, suffix) {
            (Self::Histogram | Self::Summary, b"_sum") => 1,
            (Self::Histogram | Self::Summary, b"_count") => 2,
            _ => 0,
        };
        let cut = self
            .special_label(family)
            .filter(|_| rank == 0)
            .and_then(|special| LabelCut::of(labels, special));
        let Some(cut) = cut else {
            return Place { group: (labels, b""), rank, number: f64::NAN, labels };
        };
        let number = match self {
            Self::Histogram | Self::Summary => parse_number(cut.value),
            Self::Plain | Self::StateSet => f64::NAN,
        };
        Place { group: (cut.before, cut.after), rank, number, labels }
    }
}

/// Reads a bound; NaN when it is none.
pub(super) fn parse_number(text: &[u8]) -> f64 {
    std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).unwrap_or(f64::NAN)
}

/// Returns whether a series with these labels would make a page with a histogram or summary of it
/// unreadable: many readers refuse the whole page for one `le` or `quantile` that Go's
/// `strconv.ParseFloat` does not take.
pub(super) fn has_unreadable_bound(labels: &[u8]) -> bool {
    [(&b"le"[..], &b"le=\""[..]), (b"quantile", b"quantile=\"")].iter().any(|(label, sign)| {
        // Few series have such labels; a search for the bytes tells most of them apart.
        memchr::memmem::find(labels, sign).is_some()
            && LabelCut::of(labels, label).is_some_and(|cut| !is_go_float(cut.value))
    })
}

fn is_go_float(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let says_infinity = text.contains(['i', 'I']);
    // Where the number is too large, Go reports an error.
    text.parse::<f64>().is_ok_and(|number| number.is_finite() || number.is_nan() || says_infinity)
}

/// Canonical labels, parted at one label: `before` and `after` joined are the labels without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LabelCut<'a> {
    pub(super) before: &'a [u8],
    /// Where the value begins in the labels.
    pub(super) at: usize,
    pub(super) value: &'a [u8],
    pub(super) after: &'a [u8],
}

impl<'a> LabelCut<'a> {
    /// Parts `labels` at `label`; `None` when it is not among them.
    ///
    /// A search for `label="` would not do: a value may end in these very bytes.
    pub(super) fn of(labels: &'a [u8], label: &[u8]) -> Option<Self> {
        let mut at = 0;
        while at < labels.len() {
            let equals = at + labels[at..].iter().position(|&b| b == b'=')?;
            let start = equals + 2;
            let mut end = start;
            while *labels.get(end)? != b'"' {
                end += if labels[end] == b'\\' { 2 } else { 1 };
            }
            if &labels[at..equals] == label {
                let after = labels.get(end + 2..).unwrap_or_default();
                let comma = usize::from(after.is_empty() && at > 0);
                return Some(Self {
                    before: &labels[..at - comma],
                    at: start,
                    value: &labels[start..end],
                    after,
                });
            }
            at = end + 2;
        }
        None
    }
}

/// The place of a line in its family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    group: (&'a [u8], &'a [u8]),
    rank: u8,
    number: f64,
    labels: &'a [u8],
}

impl Place<'_> {
    /// Returns whether both lines belong to one group.
    pub(super) fn same_group(&self, other: &Place<'_>) -> bool {
        compare_joined(self.group, other.group) == Ordering::Equal
    }
}

impl PartialEq for Place<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Place<'_> {}

impl PartialOrd for Place<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Place<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_joined(self.group, other.group)
            .then(self.rank.cmp(&other.rank))
            .then_with(|| self.number.total_cmp(&other.number))
            .then_with(|| self.labels.cmp(other.labels))
    }
}

/// Compares two texts, each given in two parts, as if the parts were joined.
fn compare_joined(a: (&[u8], &[u8]), b: (&[u8], &[u8])) -> Ordering {
    let common = a.0.len().min(b.0.len());
    let (a_head, a_rest) = a.0.split_at(common);
    let (b_head, b_rest) = b.0.split_at(common);
    a_head.cmp(b_head).then_with(|| {
        if a_rest.is_empty() && b_rest.is_empty() {
            a.1.cmp(b.1)
        } else {
            a_rest.iter().chain(a.1).cmp(b_rest.iter().chain(b.1))
        }
    })
}

/// A line of a page, taken apart: `name{labels} value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LineParts<'a> {
    pub(super) name: &'a [u8],
    pub(super) labels: &'a [u8],
    pub(super) value: &'a [u8],
}

impl<'a> LineParts<'a> {
    /// Takes a line without its line feed apart. No value holds a blank, so that the last
    /// blank ends the key, whatever the labels hold.
    pub(super) fn of(line: &'a [u8]) -> Self {
        let blank = line.iter().rposition(|&b| b == b' ').unwrap_or(line.len());
        let (key, value) = (&line[..blank], line.get(blank + 1..).unwrap_or_default());
        match key.iter().position(|&b| b == b'{') {
            Some(brace) => {
                Self { name: &key[..brace], labels: &key[brace + 1..key.len() - 1], value }
            }
            None => Self { name: key, labels: b"", value },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_go_reads_them() {
        for good in ["1", "+Inf", "-inf", "1e-3", ".5", "NaN", "0.30000000000000004"] {
            assert!(is_go_float(good.as_bytes()), "{good}");
        }
        for bad in ["x", "", "1e999", "1_0", " 1", "+\tInf", "1,5"] {
            assert!(!is_go_float(bad.as_bytes()), "{bad}");
        }
        assert!(has_unreadable_bound(br#"a="1",le="x""#));
        assert!(!has_unreadable_bound(br#"a="x",le="1""#));
    }

    fn sorted(arrangement: Arrangement, family: &str, keys: &[(&str, &str)]) -> Vec<String> {
        let mut keys = keys.to_vec();
        keys.sort_by_key(|(name, labels)| {
            // The keys live as long as the slice they were given in.
            arrangement.place(family.as_bytes(), name.as_bytes(), labels.as_bytes())
        });
        keys.iter().map(|(name, labels)| format!("{name}{{{labels}}}")).collect()
    }

    #[test]
    fn a_histogram_is_sorted_by_group_then_by_number() {
        let keys = [
            ("x_count", r#"a="2""#),
            ("x_bucket", r#"a="2",le="10""#),
            ("x_bucket", r#"a="2",le="9""#),
            ("x_bucket", r#"a="2",le="+Inf""#),
            ("x_bucket", r#"a="1",le="1",z="1""#),
            ("x_sum", r#"a="2""#),
            ("x_sum", r#"a="1",z="1""#),
        ];
        let expected = [
            r#"x_bucket{a="1",le="1",z="1"}"#,
            r#"x_sum{a="1",z="1"}"#,
            r#"x_bucket{a="2",le="9"}"#,
            r#"x_bucket{a="2",le="10"}"#,
            r#"x_bucket{a="2",le="+Inf"}"#,
            r#"x_sum{a="2"}"#,
            r#"x_count{a="2"}"#,
        ];
        assert_eq!(sorted(Arrangement::Histogram, "x", &keys), expected);
    }

    #[test]
    fn a_value_that_looks_like_a_label_is_not_one() {
        let labels = br#"a="x,le=",le="2",b="\"}""#;
        let cut = LabelCut::of(labels, b"le").expect("there");
        assert_eq!(cut.value, b"2");
        assert_eq!([cut.before, cut.after].concat(), br#"a="x,le=",b="\"}""#);
        assert_eq!(LabelCut::of(br#"a="x,le=",b="1""#, b"le"), None);
    }

    #[test]
    fn a_cut_leaves_no_comma_behind() {
        for (labels, rest) in [
            (&br#"le="1""#[..], &b""[..]),
            (br#"a="1",le="1""#, br#"a="1""#),
            (br#"le="1",z="1""#, br#"z="1""#),
        ] {
            let cut = LabelCut::of(labels, b"le").expect("there");
            assert_eq!([cut.before, cut.after].concat(), rest);
        }
    }

    #[test]
    fn a_line_comes_apart_whatever_its_labels_hold() {
        let line = br#"x{a="} 1 {",b="2"} -0.5"#;
        let parts = LineParts::of(line);
        assert_eq!(parts.name, b"x");
        assert_eq!(parts.labels, br#"a="} 1 {",b="2""#);
        assert_eq!(parts.value, b"-0.5");
        assert_eq!(LineParts::of(b"up 1").labels, b"");
    }
}
