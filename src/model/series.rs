//! Metric names, labels, series keys and their ids, samples and metadata.
//!
//! The rules of names and labels are those of the Prometheus data model
//! (<https://prometheus.io/docs/concepts/data_model/>), in its classic form: metric names
//! `[a-zA-Z_:][a-zA-Z0-9_:]*`, label names `[a-zA-Z_][a-zA-Z0-9_]*`, values any UTF-8.
//!
//! Invariant: *canonical labels* are sorted by name, hold no empty value (to Prometheus an
//! empty label is an absent one), and are escaped as the text format escapes them. Equal
//! label sets have equal canonical text, different ones never.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Invalid;
use super::time::Timestamp;

/// Limits on one point, all in bytes or counts.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct PointLimits {
    /// The longest metric or label name, in bytes.
    pub name_bytes: usize,
    /// The longest label value, in bytes before escaping.
    pub label_value_bytes: usize,
    /// The most labels of one series.
    pub labels: usize,
    /// The longest help text, in bytes.
    pub help_bytes: usize,
}

impl Default for PointLimits {
    fn default() -> Self {
        Self { name_bytes: 256, label_value_bytes: 4096, labels: 64, help_bytes: 4096 }
    }
}

/// Returns whether `name` is a metric name of the classic data model.
pub fn is_metric_name(name: &[u8]) -> bool {
    let head = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b == b':';
    name.first().is_some_and(|&b| head(b)) && name.iter().all(|&b| head(b) || b.is_ascii_digit())
}

/// Returns whether `name` is a label name of the classic data model.
pub fn is_label_name(name: &[u8]) -> bool {
    let head = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    name.first().is_some_and(|&b| head(b)) && name.iter().all(|&b| head(b) || b.is_ascii_digit())
}

/// Checks a metric name against the data model and the limits.
///
/// # Errors
/// When it is not a metric name, or too long.
pub fn check_metric_name(name: &str, limits: &PointLimits) -> Result<(), Invalid> {
    if !is_metric_name(name.as_bytes()) {
        return Err(Invalid::new(format!("{:?} is not a metric name", clip(name))));
    }
    if name.len() > limits.name_bytes {
        return Err(Invalid::new(format!(
            "a metric name of more than {} bytes",
            limits.name_bytes
        )));
    }
    Ok(())
}

/// Appends the canonical text of `labels` to `out`, without braces: `a="1",b="2"`.
///
/// Sorts `labels` in place and leaves out the empty ones.
///
/// # Errors
/// When a name is not a label name, is reserved (begins with `__`), or stands twice; when
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
        check_label(name, value, limits)?;
        if i > 0 && labels[i - 1].0.as_ref() == name {
            return Err(Invalid::new(format!("the label {name:?} stands twice")));
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

fn clip(text: &str) -> &str {
    let mut end = text.len().min(64);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
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

/// Walks canonical labels as (name, escaped value) pairs, in their order.
pub fn split_canonical(labels: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = labels;
    std::iter::from_fn(move || {
        let eq = rest.find('=')?;
        let name = &rest[..eq];
        let body = rest.get(eq + 2..)?;
        let bytes = body.as_bytes();
        let mut end = 0;
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

/// The identity of a series: its metric name and its canonical labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesKey {
    /// The metric name.
    pub name: Arc<str>,
    /// The canonical labels, without braces; empty when there are none.
    pub labels: Arc<str>,
}

impl SeriesKey {
    /// Returns the series' id, see [`SeriesId::of`].
    pub fn id(&self) -> SeriesId {
        SeriesId::of(&self.name, &self.labels)
    }
}

/// Prints the key as the text format does: `name{a="1"}`.
impl fmt::Display for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.labels.is_empty() { Ok(()) } else { write!(f, "{{{}}}", self.labels) }
    }
}

/// A stable hash of a series' key: the first 128 bits of BLAKE3 over `name{labels}`.
///
/// A cryptographic hash, so that no choice of label values gives two series one id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId(u128);

impl SeriesId {
    /// Computes the id of the series with this name and these canonical labels.
    pub fn of(name: &str, labels: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(name.as_bytes()).update(b"{").update(labels.as_bytes()).update(b"}");
        let hash = hasher.finalize();
        let mut head = [0; 16];
        head.copy_from_slice(&hash.as_bytes()[..16]);
        Self(u128::from_be_bytes(head))
    }

    /// Reads the 32 hexadecimal digits of an id.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Invalid::new("a series id has 32 hexadecimal digits"));
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|e| Invalid::new(e.to_string()))
    }

    /// Returns the id as bytes, in the order of its digits.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Returns the first 32 bits, which a hash table may use as the series' hash.
    pub fn prefix(self) -> u32 {
        u32::try_from(self.0 >> 96).unwrap_or_default()
    }
}

impl fmt::Display for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A value and when it was taken.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Any float; every NaN is kept as the one quiet NaN.
    pub value: f64,
    /// When the value was taken.
    pub updated_at: Timestamp,
}

/// Equal to the bit, so that NaN equals itself and `-0` differs from `0`.
impl PartialEq for Sample {
    fn eq(&self, other: &Self) -> bool {
        self.value.to_bits() == other.value.to_bits() && self.updated_at == other.updated_at
    }
}

/// What a metric is: the types of OpenMetrics 1.0, which include those of the text format
/// (whose `untyped` is `unknown` here).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricType {
    /// A total that only grows, or starts again at 0.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Cumulative buckets with a sum and a count.
    Histogram,
    /// Quantiles with a sum and a count.
    Summary,
    /// Buckets of which each can go down.
    GaugeHistogram,
    /// Facts as labels, with the value 1.
    Info,
    /// A set of states, one series each.
    StateSet,
    /// Nothing is known.
    #[serde(alias = "untyped")]
    Unknown,
}

impl MetricType {
    /// Reads the word of a `# TYPE` line, of either text format.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "counter" => Self::Counter,
            "gauge" => Self::Gauge,
            "histogram" => Self::Histogram,
            "summary" => Self::Summary,
            "gaugehistogram" => Self::GaugeHistogram,
            "info" => Self::Info,
            "stateset" => Self::StateSet,
            "unknown" | "untyped" => Self::Unknown,
            _ => return None,
        })
    }

    /// Returns the word that OpenMetrics uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Info => "info",
            Self::StateSet => "stateset",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the name of the family that the sample `name` belongs to, were it of this type:
    /// `x_bucket`, `x_sum` and `x_count` of a histogram belong to `x`.
    ///
    /// Counters are named as in the text format: `x_total` is a family of its own.
    pub fn family_of(self, name: &str) -> &str {
        let suffixes: &[&str] = match self {
            Self::Histogram => &["_bucket", "_sum", "_count"],
            Self::Summary => &["_sum", "_count"],
            Self::GaugeHistogram => &["_bucket", "_gsum", "_gcount"],
            _ => &[],
        };
        suffixes
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .filter(|family| !family.is_empty())
            .unwrap_or(name)
    }
}

/// What a writer said about the family of its series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Metadata {
    /// The family's type.
    pub metric_type: MetricType,
    /// The family's help text, unescaped; empty when there is none.
    pub help: Arc<str>,
    /// The family's unit; empty when there is none.
    pub unit: Arc<str>,
}

/// A series as it is held.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The identity.
    pub key: SeriesKey,
    /// The newest value.
    pub sample: Sample,
    /// What its last writer that spoke of it said about the family.
    pub metadata: Option<Arc<Metadata>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(labels: &[(&str, &str)]) -> Result<String, Invalid> {
        let mut out = String::new();
        canonicalize(&mut labels.to_vec(), &PointLimits::default(), &mut out).map(|()| out)
    }

    #[test]
    fn label_sets_that_differ_never_share_their_text() {
        let one = canonical(&[("a", "1\",b=\"2")]).expect("valid");
        let two = canonical(&[("a", "1"), ("b", "2")]).expect("valid");
        assert_ne!(one, two);
        assert_eq!(canonical(&[("b", "2"), ("a", "1")]).expect("valid"), two);
        assert_eq!(canonical(&[("b", ""), ("a", "1")]).expect("valid"), "a=\"1\"");
    }

    #[test]
    fn canonical_labels_split_into_what_they_were_made_of() {
        let value = "back\\slash \"quoted\", comma=\nand é";
        let text = canonical(&[("z", "last"), ("a", value)]).expect("valid");
        let pairs: Vec<_> =
            split_canonical(&text).map(|(n, v)| (n, unescape_label_value(v))).collect();
        assert_eq!(pairs, [("a", value.to_owned()), ("z", "last".to_owned())]);
    }

    #[test]
    fn bad_labels_are_refused() {
        for labels in
            [&[("a", "1"), ("a", "1")][..], &[("__name__", "x")], &[("0a", "x")], &[("", "x")]]
        {
            assert!(canonical(labels).is_err(), "{labels:?}");
        }
    }

    #[test]
    fn an_id_is_the_same_for_ever() {
        let id = SeriesId::of("up", "job=\"a\"");
        assert_eq!(SeriesId::parse(&id.to_string()), Ok(id));
        assert_ne!(id, SeriesId::of("up", "job=\"b\""));
    }
}
