//! Series as JSON, written by hand: answers hold up to a hundred thousand of them.
//!
//! Invariant: what is written here is what the schemas beside it say, and what the JSON parser
//! reads back to the bit.

use std::convert::Infallible;
use std::fmt::Display;
use std::io::Write as _;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::series::Changes;
use crate::model::series::{Point, SeriesId, split_canonical, unescape_label_value};
use crate::store::Change;

/// How much text is made at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// One series at its newest state.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `write_point` writes")]
pub(crate) struct SeriesPoint {
    /// The series' id: a stable hash of its name and labels.
    id: String,
    /// The metric name.
    name: String,
    /// The labels by name.
    labels: std::collections::BTreeMap<String, String>,
    /// The value; null where `special` says what it is.
    #[schema(required = true)]
    value: Option<f64>,
    /// `NaN`, `+Inf` or `-Inf`, where the value is not a finite number.
    #[schema(required = false, nullable = false)]
    special: Option<String>,
    /// When the value was taken.
    #[schema(format = DateTime)]
    updated_at: String,
    /// The metric's type, such as `counter`.
    #[schema(required = false, nullable = false, rename = "type")]
    metric_type: Option<String>,
    /// The family's help text.
    #[schema(required = false, nullable = false)]
    help: Option<String>,
    /// The family's unit.
    #[schema(required = false, nullable = false)]
    unit: Option<String>,
}

/// One series that changed.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `write_changes` writes")]
pub(crate) struct SeriesEvent {
    /// The series' id.
    id: String,
    /// The series was deleted, or has expired.
    deleted: bool,
    /// The series' newest state, unless it was deleted.
    #[schema(required = false, nullable = false)]
    point: Option<SeriesPoint>,
}

/// Appends `point` as a JSON object.
pub(crate) fn write_point(point: &Point, out: &mut Vec<u8>) {
    write_known_point(point, point.key.id(), out);
}

fn write_known_point(point: &Point, id: SeriesId, out: &mut Vec<u8>) {
    // Metric names hold nothing that JSON would escape.
    text(out, format_args!("{{\"id\":\"{id}\",\"name\":\"{}\",\"labels\":{{", point.key.name));
    write_labels(&point.key.labels, out);
    let value = point.sample.value;
    if value.is_finite() {
        out.extend_from_slice(b"},\"value\":");
        json(out, &value);
    } else {
        let special = if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        };
        text(out, format_args!("}},\"value\":null,\"special\":\"{special}\""));
    }
    text(out, format_args!(",\"updated_at\":\"{}\"", point.sample.updated_at));
    if let Some(metadata) = &point.metadata {
        text(out, format_args!(",\"type\":\"{}\"", metadata.metric_type.as_str()));
        for (key, value) in [("help", &metadata.help), ("unit", &metadata.unit)] {
            if !value.is_empty() {
                text(out, format_args!(",\"{key}\":"));
                json(out, &**value);
            }
        }
    }
    out.push(b'}');
}

fn write_labels(labels: &str, out: &mut Vec<u8>) {
    // The escapes of canonical labels mean the same in JSON; only other control characters
    // have to be written anew.
    let plain = labels.bytes().all(|byte| byte >= 0x20);
    for (i, (name, value)) in split_canonical(labels).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        if plain {
            out.push(b'"');
            out.extend_from_slice(value.as_bytes());
            out.push(b'"');
        } else {
            json(out, &unescape_label_value(value));
        }
    }
}

/// Appends `{"events": [...], "next_cursor", "more"}`.
pub(crate) fn write_changes(changes: &Changes, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"events\":[");
    for (i, change) in changes.changes.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        match change {
            Change::Upserted(point) => {
                let id = point.key.id();
                text(out, format_args!("{{\"id\":\"{id}\",\"deleted\":false,\"point\":"));
                write_known_point(point, id, out);
                out.push(b'}');
            }
            Change::Deleted(key) => {
                text(out, format_args!("{{\"id\":\"{}\",\"deleted\":true}}", key.id()));
            }
        }
    }
    let Changes { next, more, .. } = changes;
    text(out, format_args!("],\"next_cursor\":\"{next}\",\"more\":{more}}}"));
}

/// Makes the body `{"points": [...]<tail>}`, written while it is sent.
pub(crate) fn points_body(points: Vec<Point>, tail: String) -> Body {
    let mut chunks = PointChunks { points: points.into_iter(), tail: Some(tail), begun: false };
    let first = chunks.next().unwrap_or_default();
    if chunks.tail.is_none() {
        return Body::from(first);
    }
    let all = std::iter::once(first).chain(chunks).map(Ok::<_, Infallible>);
    Body::from_stream(stream::iter(all))
}

struct PointChunks {
    points: std::vec::IntoIter<Point>,
    tail: Option<String>,
    begun: bool,
}

impl Iterator for PointChunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.tail.as_ref()?;
        let room = CHUNK_BYTES.min(256 + 256 * self.points.len());
        let mut out = Vec::with_capacity(room);
        if !self.begun {
            out.extend_from_slice(b"{\"points\":[");
        }
        while out.len() < CHUNK_BYTES {
            let Some(point) = self.points.next() else {
                out.push(b']');
                out.extend_from_slice(self.tail.take()?.as_bytes());
                out.push(b'}');
                break;
            };
            if std::mem::replace(&mut self.begun, true) {
                out.push(b',');
            }
            write_point(&point, &mut out);
        }
        Some(out.into())
    }
}

fn text(out: &mut Vec<u8>, text: impl Display) {
    // Writing to memory can't fail.
    let _ = write!(out, "{text}");
}

fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Neither can writing texts and finite numbers as JSON.
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::cursor::Cursor;
    use crate::model::series::{
        Metadata, MetricType, PointLimits, Sample, SeriesKey, canonicalize,
    };
    use crate::model::time::Timestamp;

    fn point(labels: &[(&str, &str)], value: f64) -> Point {
        let mut canonical = String::new();
        canonicalize(&mut labels.to_vec(), &PointLimits::default(), &mut canonical)
            .expect("valid labels");
        Point {
            key: SeriesKey { name: "up".into(), labels: canonical.into() },
            sample: Sample { value, updated_at: Timestamp::from_nanos(1_500_000_000) },
            metadata: Some(Arc::new(Metadata {
                metric_type: MetricType::Gauge,
                help: "says \"up\"\n".into(),
                unit: "".into(),
            })),
        }
    }

    fn read(point: &Point) -> serde_json::Value {
        let mut out = Vec::new();
        write_point(point, &mut out);
        serde_json::from_slice(&out).expect("JSON")
    }

    #[test]
    fn points_are_json_whatever_their_labels_hold() {
        for value in ["plain", "quote\" back\\slash\nline é", "control\u{1}\ttab\" \n"] {
            let point = point(&[("a", value), ("b", "2")], 1.5);
            let json = read(&point);
            assert_eq!(json["labels"]["a"], value);
            assert_eq!(json["labels"]["b"], "2");
            assert_eq!(json["id"], point.key.id().to_string());
            assert_eq!(json["updated_at"], "1970-01-01T00:00:01.500Z");
            assert_eq!(json["help"], "says \"up\"\n");
            assert_eq!(json.get("unit"), None);
        }
    }

    #[test]
    fn values_read_back_to_the_bit() {
        for value in [0.1, -0.0, 1e300, 5e-324, f64::MAX, 3.0] {
            let json = read(&point(&[], value));
            assert_eq!(json["value"].as_f64().map(f64::to_bits), Some(value.to_bits()));
            assert_eq!(json.get("special"), None);
        }
        for (value, special) in
            [(f64::NAN, "NaN"), (f64::INFINITY, "+Inf"), (f64::NEG_INFINITY, "-Inf")]
        {
            let json = read(&point(&[], value));
            assert!(json["value"].is_null());
            assert_eq!(json["special"], special);
        }
    }

    #[tokio::test]
    async fn long_answers_are_made_in_pieces() {
        for count in [0, 1, 5000] {
            let points = vec![point(&[("a", "1")], 1.0); count];
            let body = points_body(points, ",\"cursor\":\"c\"".to_owned());
            let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
            let json: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
            assert_eq!(json["points"].as_array().map(Vec::len), Some(count));
            assert_eq!(json["cursor"], "c");
        }
    }

    #[test]
    fn changes_name_what_is_gone() {
        let kept = point(&[], 1.0);
        let changes = Changes {
            changes: vec![Change::Deleted(kept.key.clone()), Change::Upserted(kept)],
            next: Cursor::single(1, 7),
            more: true,
        };
        let mut out = Vec::new();
        write_changes(&changes, &mut out);
        let json: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(json["events"][0]["deleted"], true);
        assert_eq!(json["events"][0].get("point"), None);
        assert_eq!(json["events"][1]["point"]["name"], "up");
        assert_eq!(json["next_cursor"], "0000000000000001-7");
        assert_eq!(json["more"], true);
    }
}
