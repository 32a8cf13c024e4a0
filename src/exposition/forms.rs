//! As what a family may be shown in OpenMetrics: the rules of each type, checked on its samples.
//!
//! The rules are those of OpenMetrics 1.0 as far as strict parsers check them.
//! Invariant: a form that is not simple is given only to families that keep all its rules.

use super::family::Family;
use super::order::{LabelCut, LineParts, Place, parse_number};
use crate::model::series::MetricType;

/// A type of OpenMetrics that a family is shown as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Unknown,
    Gauge,
    Counter,
    Info,
    StateSet,
    Histogram,
    Summary,
}

impl Form {
    /// Returns the word of the `# TYPE` line.
    pub(super) fn type_word(self) -> &'static str {
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

    /// Returns whether the form demands nothing but the samples' own names.
    pub(super) fn is_simple(self) -> bool {
        matches!(self, Self::Unknown | Self::Gauge)
    }

    /// Returns whether the type may have a unit.
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

    /// Returns every name that the family reserves in this form.
    pub(super) fn reserved(self, family: &Family) -> Vec<String> {
        let name = self.family_name(family.name());
        let suffixes: &[&str] = match self {
            Self::Gauge | Self::StateSet => &[""],
            Self::Counter => &["", "_total", "_created"],
            Self::Info => &["", "_info"],
            Self::Histogram => &["", "_bucket", "_sum", "_count", "_created"],
            Self::Summary => &["", "_sum", "_count", "_created"],
            Self::Unknown => match family.description.metric_type {
                MetricType::Histogram => &["_bucket", "_sum", "_count"],
                MetricType::Summary => &["", "_sum", "_count"],
                _ => &[""],
            },
        };
        suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect()
    }
}

/// Returns the form that the family's samples allow.
pub(super) fn judge(family: &Family) -> Form {
    let name = family.name();
    let stem_of = |suffix| name.strip_suffix(suffix).is_some_and(|stem: &str| !stem.is_empty());
    let (form, fits) = match family.description.metric_type {
        MetricType::Gauge => (Form::Gauge, true),
        MetricType::Unknown | MetricType::GaugeHistogram => (Form::Unknown, true),
        MetricType::Counter => {
            (Form::Counter, stem_of("_total") && all(family, |parts| is_total(value_of(parts))))
        }
        MetricType::Info => (Form::Info, stem_of("_info") && all(family, |p| p.value == b"1")),
        MetricType::StateSet => (Form::StateSet, all(family, |p| is_state(name, p))),
        MetricType::Histogram => (Form::Histogram, is_histogram(family)),
        MetricType::Summary => (Form::Summary, is_summary(family)),
    };
    if fits { form } else { Form::Unknown }
}

fn all(family: &Family, rule: impl Fn(&LineParts<'_>) -> bool) -> bool {
    family.lines().all(|(line, _)| rule(&LineParts::of(line)))
}

fn value_of(parts: &LineParts<'_>) -> f64 {
    parse_number(parts.value)
}

/// Neither negative nor NaN.
fn is_total(value: f64) -> bool {
    value >= 0.0
}

fn is_count(value: f64) -> bool {
    value >= 0.0 && value.is_finite() && value.fract() == 0.0
}

/// A state's label is called as the family, its value is 0 or 1.
fn is_state(family: &str, parts: &LineParts<'_>) -> bool {
    matches!(parts.value, b"0" | b"1") && LabelCut::of(parts.labels, family.as_bytes()).is_some()
}

/// What was seen of one group.
#[derive(Debug, Default)]
struct Group {
    bound: Option<f64>,
    value: f64,
    negative: bool,
    sum: bool,
    count: Option<f64>,
}

impl Group {
    /// Takes a bucket; tells whether it may follow those before.
    fn bucket(&mut self, bound: f64, value: f64) -> bool {
        let rises = self.bound.is_none_or(|before| bound > before) && value >= self.value;
        self.bound = Some(bound);
        self.value = value;
        self.negative |= bound < 0.0;
        rises && !bound.is_nan() && is_count(value)
    }

    fn is_whole_histogram(&self) -> bool {
        self.bound == Some(f64::INFINITY)
            && self.sum == self.count.is_some()
            && self.count.is_none_or(|count| count == self.value)
            && !(self.negative && self.sum)
    }
}

/// Walks the lines with the group that each belongs to; `end` judges a group behind its last line.
fn groups(
    family: &Family,
    mut rule: impl FnMut(&mut Group, &[u8], &LineParts<'_>) -> bool,
    end: impl Fn(&Group) -> bool,
) -> bool {
    let sorting = family.sorting();
    let mut group = Group::default();
    let mut before: Option<Place<'_>> = None;
    for (line, _) in family.lines() {
        let parts = LineParts::of(line);
        let place = sorting.arrangement.place(sorting.family, parts.name, parts.labels);
        if before.is_some_and(|before| !before.same_group(&place)) {
            if !end(&group) {
                return false;
            }
            group = Group::default();
        }
        before = Some(place);
        let suffix = parts.name.get(sorting.family.len()..).unwrap_or_default();
        if !rule(&mut group, suffix, &parts) {
            return false;
        }
    }
    end(&group)
}

/// Takes a sum or a count; tells whether it keeps the rules.
fn sum_or_count(group: &mut Group, suffix: &[u8], parts: &LineParts<'_>, special: &[u8]) -> bool {
    let value = value_of(parts);
    // With the special label it would be a group of its own, to which nothing else belongs.
    let plain = LabelCut::of(parts.labels, special).is_none();
    match suffix {
        b"_sum" => {
            group.sum = true;
            plain && is_total(value)
        }
        b"_count" => {
            group.count = Some(value);
            plain && is_count(value)
        }
        _ => false,
    }
}

fn is_histogram(family: &Family) -> bool {
    groups(
        family,
        |group, suffix, parts| match suffix {
            b"_bucket" => LabelCut::of(parts.labels, b"le")
                .is_some_and(|cut| group.bucket(parse_number(cut.value), value_of(parts))),
            _ => sum_or_count(group, suffix, parts, b"le"),
        },
        Group::is_whole_histogram,
    )
}

fn is_summary(family: &Family) -> bool {
    groups(
        family,
        |group, suffix, parts| match suffix {
            b"" => LabelCut::of(parts.labels, b"quantile").is_some_and(|cut| {
                let quantile = parse_number(cut.value);
                // Two spellings of one quantile would be the same series when canonical.
                let rises = group.bound.is_none_or(|before| quantile > before);
                group.bound = Some(quantile);
                let negative = value_of(parts) < 0.0;
                rises && (0.0..=1.0).contains(&quantile) && !negative
            }),
            _ => sum_or_count(group, suffix, parts, b"quantile"),
        },
        |_| true,
    )
}
