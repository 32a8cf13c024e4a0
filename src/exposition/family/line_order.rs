//! The order of the lines within a family.
//!
//! Most families are sorted by their labels. A histogram or summary is sorted by *group*, the labels
//! without `le` or `quantile`: in a group first the buckets or quantiles by number, then the sum, then
//! the count, and in OpenMetrics the time when it was created. The text format demands this, and OpenMetrics forbids a group to be interrupted. The group of
//! a state set is its labels without the state.
//! Invariant: the order is total, and only the keys of the same series compare as equal.

use std::cmp::Ordering;

use super::line::{LabelSplit, LineParts, parse_bound};

/// The kinds of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::exposition) enum LineOrder {
    /// By labels.
    Labels,
    /// By group, then `le`, sum, count.
    Histogram,
    /// By group, then `quantile`, sum, count.
    Summary,
    /// By group, then state: the label with the name of the family.
    StateSet,
}

impl LineOrder {
    /// Returns whether a group consists of lines with several names.
    pub(in crate::exposition) fn has_several_names(self) -> bool {
        matches!(self, Self::Histogram | Self::Summary)
    }
}

/// Returns the sort keys of the lines of one family.
#[derive(Debug, Clone, Copy)]
pub(in crate::exposition) struct LineSorter<'f> {
    pub(in crate::exposition) order: LineOrder,
    /// The name of the family.
    pub(in crate::exposition) family: &'f [u8],
}

impl LineSorter<'_> {
    /// Returns the sort key of the series `name{labels}`.
    pub(in crate::exposition) fn sort_key<'a>(
        &self,
        name: &'a [u8],
        labels: &'a [u8],
    ) -> SortKey<'a> {
        let suffix = name.get(self.family.len()..).unwrap_or_default();
        let rank = match (self.order, suffix) {
            (LineOrder::Histogram | LineOrder::Summary, b"_sum") => 1,
            (LineOrder::Histogram | LineOrder::Summary, b"_count") => 2,
            (LineOrder::Histogram | LineOrder::Summary, b"_created") => 3,
            _ => 0,
        };
        // Sums, counts and created samples have the labels of their group. Other lines have one more, which is cut out.
        let split = self
            .group_label()
            .filter(|_| rank == 0)
            .and_then(|label| LabelSplit::at(labels, label));
        let Some(split) = split else {
            return SortKey { group: (labels, b""), rank, number: f64::NAN, labels };
        };
        let number = match self.order {
            LineOrder::Histogram | LineOrder::Summary => parse_bound(split.value),
            LineOrder::Labels | LineOrder::StateSet => f64::NAN,
        };
        SortKey { group: (split.before, split.after), rank, number, labels }
    }

    /// Returns the sort key of a rendered line.
    pub(in crate::exposition) fn sort_key_of<'l>(&self, line: &'l [u8]) -> SortKey<'l> {
        let parts = LineParts::parse(line);
        self.sort_key(parts.name, parts.labels)
    }

    /// Returns the label in which the lines of a group differ.
    fn group_label(&self) -> Option<&[u8]> {
        match self.order {
            LineOrder::Labels => None,
            LineOrder::Histogram => Some(b"le"),
            LineOrder::Summary => Some(b"quantile"),
            LineOrder::StateSet => Some(self.family),
        }
    }
}

/// The position of a line in the order of its family. Compared with keys of the same family only.
#[derive(Debug, Clone, Copy)]
pub(in crate::exposition) struct SortKey<'a> {
    /// The labels of the group, in the two parts before and behind the label that was cut out: joining
    /// them would allocate for each line that is compared.
    group: (&'a [u8], &'a [u8]),
    /// Buckets or quantiles first, then the sum, then the count, then the created sample.
    rank: u8,
    /// The bound or quantile; NaN where there is none.
    number: f64,
    /// All labels: they decide where all else is equal, such as between two spellings of a bound.
    labels: &'a [u8],
}

impl SortKey<'_> {
    /// Returns whether both lines belong to the same group.
    pub(in crate::exposition) fn same_group(&self, other: &SortKey<'_>) -> bool {
        compare_joined(self.group, other.group) == Ordering::Equal
    }

    /// Returns the labels of the line's group.
    pub(in crate::exposition) fn group_labels(&self) -> Vec<u8> {
        [self.group.0, self.group.1].concat()
    }

    /// Returns whether these are the labels of the line's group.
    pub(in crate::exposition) fn is_of_group(&self, labels: &[u8]) -> bool {
        self.compare_group(labels) == Ordering::Equal
    }

    /// Compares the line's group with the one that has these labels.
    pub(in crate::exposition) fn compare_group(&self, labels: &[u8]) -> Ordering {
        compare_joined(self.group, (labels, b""))
    }
}

impl PartialEq for SortKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for SortKey<'_> {}

impl PartialOrd for SortKey<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SortKey<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_joined(self.group, other.group)
            .then(self.rank.cmp(&other.rank))
            .then_with(|| self.number.total_cmp(&other.number))
            .then_with(|| self.labels.cmp(other.labels))
    }
}

/// Compares two texts, each in two parts, as if the parts were joined.
fn compare_joined(a: (&[u8], &[u8]), b: (&[u8], &[u8])) -> Ordering {
    let common = a.0.len().min(b.0.len());
    let (a_head, a_rest) = a.0.split_at(common);
    let (b_head, b_rest) = b.0.split_at(common);
    a_head.cmp(b_head).then_with(|| {
        // Mostly the parts have the same lengths, and slices compare faster than iterators.
        if a_rest.is_empty() && b_rest.is_empty() {
            a.1.cmp(b.1)
        } else {
            a_rest.iter().chain(a.1).cmp(b_rest.iter().chain(b.1))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(order: LineOrder, family: &str, keys: &[(&str, &str)]) -> Vec<String> {
        let sorter = LineSorter { order, family: family.as_bytes() };
        let mut keys = keys.to_vec();
        keys.sort_by_key(|(name, labels)| sorter.sort_key(name.as_bytes(), labels.as_bytes()));
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
        assert_eq!(sorted(LineOrder::Histogram, "x", &keys), expected);
    }
}
