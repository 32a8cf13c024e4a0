//! The format of a response to a scrape, from `Accept`.
//!
//! The text format shows series as they were pushed, with their types, bounds and names. OpenMetrics has
//! stricter rules, and what breaks them is shown as `unknown`. So text is the better
//! representation here, and a scraper that names both gets text, whatever weights it gives them: Prometheus names all
//! formats that it can read, in an order that says nothing about the series. RFC 9110 allows a server to weigh its
//! representations. A client that wants OpenMetrics does not name the text format, except in `*/*`.
//! Invariant: every request gets a format.

use crate::exposition::openmetrics::EOF_LINE;

/// A format of /metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// The Prometheus text format, version 0.0.4.
    Text,
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
}

/// How closely a media range matches a media type.
const ANY: u8 = 1;
const ANY_SUBTYPE: u8 = 2;
const EXACT: u8 = 3;

impl Format {
    /// Returns the `Content-Type` of the format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Returns the last line of a page in the format; empty where it has none.
    pub(super) fn last_line(self) -> &'static [u8] {
        match self {
            Self::Text => b"",
            Self::OpenMetrics => EOF_LINE,
        }
    }
}

/// Chooses the format. A client that accepts neither gets text, which every scraper reads.
pub fn negotiate(accept: Option<&str>) -> Format {
    let Some(accept) = accept else { return Format::Text };
    // Our text is also valid in version 1.0.0, which only allows more names.
    let (specificity, text) = quality(accept, "text", "plain", &["0.0.4", "1.0.0"]);
    let (_, openmetrics) = quality(accept, "application", "openmetrics-text", &["1.0.0", "0.0.1"]);
    let text_is_named = specificity > ANY && text > 0.0;
    if !text_is_named && openmetrics > text { Format::OpenMetrics } else { Format::Text }
}

/// Returns the quality of a media type in `accept`: that of the most specific range that matches it, and
/// of several such ranges the highest. Also returns how specific that range is.
fn quality(accept: &str, kind: &str, subtype: &str, versions: &[&str]) -> (u8, f32) {
    let mut best = (0, 0.0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let (k, s) = parts.next().and_then(|m| m.split_once('/')).unwrap_or_default();
        let equal = |a: &str, b: &str| a.trim().eq_ignore_ascii_case(b);
        let specificity = match (equal(k, kind), equal(s, subtype)) {
            (true, true) => EXACT,
            (true, false) if s.trim() == "*" => ANY_SUBTYPE,
            _ if k.trim() == "*" && s.trim() == "*" => ANY,
            _ => continue,
        };
        let (mut q, mut known) = (1.0, true);
        for (name, value) in parts.filter_map(|p| p.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => q = parse_quality(value),
                "version" => known = versions.contains(&value),
                _ => {}
            }
        }
        if known && (specificity, q) > best {
            best = (specificity, q);
        }
    }
    best
}

fn parse_quality(text: &str) -> f32 {
    text.parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_gets_text() {
        let prometheus_2_42 = "application/openmetrics-text;version=1.0.0,\
             application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(negotiate(Some(prometheus_2_42)), Format::Text);
        let with_protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
             encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(negotiate(Some(with_protobuf)), Format::Text);
        // Prometheus 3, without and with native histograms: all that it can read, best first.
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(negotiate(Some(prometheus_3)), Format::Text);
        let with_protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
             encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(negotiate(Some(with_protobuf)), Format::Text);
    }

    #[test]
    fn a_client_that_prefers_openmetrics_gets_it() {
        for accept in [
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "Application/OpenMetrics-Text;version=0.0.1",
            "application/openmetrics-text;q=0.1, text/plain;q=0",
            "application/openmetrics-text, */*;q=0.1",
        ] {
            assert_eq!(negotiate(Some(accept)), Format::OpenMetrics, "{accept}");
        }
    }

    #[test]
    fn every_other_client_gets_text() {
        let others = [
            "",
            "*/*",
            "text/*",
            "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
            "application/json",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=junk",
            "text/plain;version=0.0.4;q=0.5,application/openmetrics-text",
            "application/openmetrics-text, text/plain;q=0.4",
            "application/openmetrics-text, text/*;q=0.1",
        ];
        for accept in others {
            assert_eq!(negotiate(Some(accept)), Format::Text, "{accept}");
        }
        assert_eq!(negotiate(None), Format::Text);
    }
}
