//! The types of OpenMetrics, and the rules that the samples of each type must satisfy.
//!
//! The rules are those of OpenMetrics 1.0 as far as strict parsers check them. They are checked page by page, so that a
//! change costs the pages that it touches.
//! Invariant: a family gets a type with rules only if it satisfies all of them.

use crate::exposition::family::line::{LabelSplit, LineParts, parse_bound};
use crate::exposition::family::line_order::SortKey;
use crate::exposition::family::page::Page;
use crate::exposition::family::{Family, FamilyHeader};
use crate::model::series::MetricType;

/// The type that a family has in the OpenMetrics exposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenMetricsType {
    Unknown,
    Gauge,
    Counter,
    Info,
    StateSet,
    Histogram,
    Summary,
}

impl OpenMetricsType {
    /// Returns the type's name in a `# TYPE` line.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Info => "info",
            Self::StateSet => "stateset",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }

    /// Returns whether the type has no rules and reserves only the names of the samples themselves.
    pub(super) fn has_no_rules(self) -> bool {
        matches!(self, Self::Unknown | Self::Gauge)
    }

    /// Returns whether a family of the type may have a unit.
    pub(super) fn may_have_unit(self) -> bool {
        !matches!(self, Self::Info | Self::StateSet)
    }

    /// Returns the family's name in OpenMetrics, where `x_total` belongs to the counter `x`.
    pub(super) fn family_name(self, name: &str) -> &str {
        let suffix = match self {
            Self::Counter => "_total",
            Self::Info => "_info",
            _ => "",
        };
        name.strip_suffix(suffix).unwrap_or(name)
    }

    /// Returns every name that the family reserves under this type.
    pub(super) fn reserved(self, family: &Family) -> Vec<String> {
        let name = self.family_name(family.name());
        let suffixes: &[&str] = match self {
            Self::Gauge | Self::StateSet => &[""],
            Self::Counter => &["", "_total", "_created"],
            Self::Info => &["", "_info"],
            Self::Histogram => &["", "_bucket", "_sum", "_count", "_created"],
            Self::Summary => &["", "_sum", "_count", "_created"],
            Self::Unknown => match family.header.metric_type {
                MetricType::Histogram => &["_bucket", "_sum", "_count"],
                MetricType::Summary => &["", "_sum", "_count"],
                _ => &[""],
            },
        };
        suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect()
    }
}

/// Returns the type that a family has if its samples satisfy the rules: that of its writers, unless its name is not
/// one of that type.
pub(super) fn wanted_type(header: &FamilyHeader) -> OpenMetricsType {
    let ends_with =
        |suffix| header.name.strip_suffix(suffix).is_some_and(|rest: &str| !rest.is_empty());
    match header.metric_type {
        MetricType::Gauge => OpenMetricsType::Gauge,
        MetricType::Counter if ends_with("_total") => OpenMetricsType::Counter,
        MetricType::Info if ends_with("_info") => OpenMetricsType::Info,
        MetricType::StateSet => OpenMetricsType::StateSet,
        MetricType::Histogram => OpenMetricsType::Histogram,
        MetricType::Summary => OpenMetricsType::Summary,
        MetricType::Unknown
        | MetricType::GaugeHistogram
        | MetricType::Counter
        | MetricType::Info => OpenMetricsType::Unknown,
    }
}

/// What the lines up to some point tell about the group that may go on behind it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct CheckState {
    group: Group,
    /// The labels of that group; `None` before the first line.
    labels: Option<Vec<u8>>,
}

impl CheckState {
    /// Returns whether the group before the end of the family is complete.
    pub(super) fn may_end(&self, wanted: OpenMetricsType) -> bool {
        wanted != OpenMetricsType::Histogram || self.group.is_complete_histogram()
    }
}

/// Checks the lines of one page of a family, in its order, by the rules of `wanted`. `before` is the state behind the
/// pages before it. Returns the state behind this page; `None` when a line breaks a rule.
pub(super) fn check_page(
    family: &Family,
    wanted: OpenMetricsType,
    page: &Page,
    before: &CheckState,
) -> Option<CheckState> {
    let all = |rule: &dyn Fn(&LineParts<'_>) -> bool| {
        page.iter().all(|(line, _)| rule(&LineParts::parse(line))).then(CheckState::default)
    };
    match wanted {
        OpenMetricsType::Unknown | OpenMetricsType::Gauge => Some(CheckState::default()),
        OpenMetricsType::Counter => all(&|parts| match parts.name == family.name().as_bytes() {
            true => is_total(value_of(parts)),
            false => is_time(value_of(parts)),
        }),
        OpenMetricsType::Info => all(&|parts| parts.value == b"1"),
        OpenMetricsType::StateSet => all(&|parts| is_state(family.name(), parts)),
        OpenMetricsType::Histogram => {
            check_groups(family, page, before, histogram_line, Group::is_complete_histogram)
        }
        OpenMetricsType::Summary => check_groups(family, page, before, summary_line, |_| true),
    }
}

fn value_of(parts: &LineParts<'_>) -> f64 {
    parse_bound(parts.value)
}

/// Returns whether a value is neither negative nor NaN.
fn is_total(value: f64) -> bool {
    value >= 0.0
}

/// Returns whether a value can be the time, in Unix seconds, when a group was created.
fn is_time(value: f64) -> bool {
    value >= 0.0 && value.is_finite()
}

fn is_count(value: f64) -> bool {
    value >= 0.0 && value.is_finite() && value.fract() == 0.0
}

/// Returns whether a line is a state: it has a label with the family's name, and the value 0 or 1.
fn is_state(family: &str, parts: &LineParts<'_>) -> bool {
    matches!(parts.value, b"0" | b"1") && LabelSplit::at(parts.labels, family.as_bytes()).is_some()
}

/// What was found in the lines of one group so far.
#[derive(Debug, Clone, Default, PartialEq)]
struct Group {
    /// The last bound or quantile.
    bound: Option<f64>,
    /// The value of the last bucket.
    value: f64,
    has_negative_bound: bool,
    has_sum: bool,
    count: Option<f64>,
}

impl Group {
    /// Adds a bucket; returns whether it may follow the ones before.
    fn add_bucket(&mut self, bound: f64, value: f64) -> bool {
        let increases = self.bound.is_none_or(|previous| bound > previous) && value >= self.value;
        self.bound = Some(bound);
        self.value = value;
        self.has_negative_bound |= bound < 0.0;
        increases && !bound.is_nan() && is_count(value)
    }

    fn is_complete_histogram(&self) -> bool {
        self.bound == Some(f64::INFINITY)
            && self.has_sum == self.count.is_some()
            && self.count.is_none_or(|count| count == self.value)
            && !(self.has_negative_bound && self.has_sum)
    }
}

/// Calls `add_line` with each line, its group and the suffix of its name, and `is_valid` with each group that ends in
/// this page. Returns `None` when one of them returned false. The lines of a group are neighbours, since the family
/// is sorted.
fn check_groups(
    family: &Family,
    page: &Page,
    before: &CheckState,
    add_line: impl Fn(&mut Group, &[u8], &LineParts<'_>) -> bool,
    is_valid: impl Fn(&Group) -> bool,
) -> Option<CheckState> {
    let sorter = family.header.sorter();
    let mut group = before.group.clone();
    let mut previous: Option<SortKey<'_>> = None;
    for (line, _) in page.iter() {
        let parts = LineParts::parse(line);
        let sort_key = sorter.sort_key(parts.name, parts.labels);
        let goes_on = match (&previous, &before.labels) {
            (Some(previous), _) => previous.same_group(&sort_key),
            (None, Some(labels)) => sort_key.is_of_group(labels),
            (None, None) => true,
        };
        if !goes_on && !is_valid(&std::mem::take(&mut group)) {
            return None;
        }
        previous = Some(sort_key);
        let suffix = parts.name.get(sorter.family.len()..).unwrap_or_default();
        if !add_line(&mut group, suffix, &parts) {
            return None;
        }
    }
    Some(CheckState { group, labels: previous.map(|sort_key| sort_key.group_labels()) })
}

/// Adds a sum, a count or a created sample; returns whether it satisfies the rules. `group_label` is `le` or
/// `quantile`.
fn add_plain(group: &mut Group, suffix: &[u8], parts: &LineParts<'_>, group_label: &[u8]) -> bool {
    let value = value_of(parts);
    // With this label, it would be alone in its group.
    let plain = LabelSplit::at(parts.labels, group_label).is_none();
    match suffix {
        b"_sum" => {
            group.has_sum = true;
            plain && is_total(value)
        }
        b"_count" => {
            group.count = Some(value);
            plain && is_count(value)
        }
        b"_created" => plain && is_time(value),
        _ => false,
    }
}

fn histogram_line(group: &mut Group, suffix: &[u8], parts: &LineParts<'_>) -> bool {
    match suffix {
        b"_bucket" => LabelSplit::at(parts.labels, b"le")
            .is_some_and(|split| group.add_bucket(parse_bound(split.value), value_of(parts))),
        _ => add_plain(group, suffix, parts, b"le"),
    }
}

fn summary_line(group: &mut Group, suffix: &[u8], parts: &LineParts<'_>) -> bool {
    match suffix {
        b"" => LabelSplit::at(parts.labels, b"quantile").is_some_and(|split| {
            let quantile = parse_bound(split.value);
            // Two spellings of one quantile would be the same series when canonical.
            let increases = group.bound.is_none_or(|previous| quantile > previous);
            group.bound = Some(quantile);
            let negative = value_of(parts) < 0.0;
            increases && (0.0..=1.0).contains(&quantile) && !negative
        }),
        _ => add_plain(group, suffix, parts, b"quantile"),
    }
}
