//! A push of series: the format of its body, and parsing it, off the threads that serve connections when it is large.
//!
//! Not the formats: those are `ingest`. Invariant: the points in memory count against the body budget until the store
//! has applied them.

use crate::ingest::{
    InputLimits, ParseError, ParsedBatch, parse_json, parse_ndjson, parse_openmetrics, parse_text,
};

use super::body::{LARGE_BYTES, Share, WholeBody};
use super::extract::is_json;
use super::problem::{Code, Problem, ProblemPart};
use super::settings::HttpSettings;
use crate::model::batch::PointErrors;

/// The formats of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushFormat {
    /// `{"role", "source", "points"}`.
    Json,
    /// One point per line.
    Ndjson,
    /// The Prometheus text format.
    Text,
    /// OpenMetrics text.
    OpenMetrics,
}

impl PushFormat {
    /// Returns the format from the media type; JSON when there is none.
    ///
    /// # Errors
    /// 415 for any other media type.
    pub(crate) fn of(media: Option<&str>) -> Result<Self, Problem> {
        let Some(media) = media else { return Ok(Self::Json) };
        match media.to_ascii_lowercase().as_str() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Self::Ndjson),
            "text/plain" => Ok(Self::Text),
            "application/openmetrics-text" => Ok(Self::OpenMetrics),
            media if is_json(media) => Ok(Self::Json),
            _ => Err(Problem::unsupported_media(
                "series come as application/json, application/x-ndjson, text/plain or \
                 application/openmetrics-text",
            )),
        }
    }
}

/// How much memory a point takes beside its text, in bytes.
const POINT_BYTES: usize = 64;

/// A parsed push.
pub(crate) struct Pushed {
    /// The writer's role, where the body names it.
    pub(crate) role: Option<String>,
    /// The writer's source, where the body names it.
    pub(crate) source: Option<String>,
    /// The points.
    pub(crate) parsed: ParsedBatch,
    /// The points' share of the body budget, to be kept until the store has applied them.
    pub(crate) share: Share,
}

/// Parses a push.
///
/// # Errors
/// 400 for a body that is not in its format, 422 for points that are not valid, 413 for too many,
/// 503 when there is no room in memory for its points.
pub(crate) async fn parse_push(
    format: PushFormat,
    body: WholeBody,
    settings: &HttpSettings,
) -> Result<Pushed, Problem> {
    let limits = InputLimits { points: settings.limits.batch_points, point: settings.limits.point };
    if body.bytes.len() <= LARGE_BYTES {
        return parse(format, body, &limits);
    }
    let work = move || parse(format, body, &limits);
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(cause = %error, "parsing a push failed");
        Problem::internal()
    })?
}

fn parse(format: PushFormat, body: WholeBody, limits: &InputLimits) -> Result<Pushed, Problem> {
    let WholeBody { bytes, mut share } = body;
    let points = most_points(format, &bytes).min(limits.points);
    share.cover_reading(bytes.len(), points * POINT_BYTES)?;
    let unsigned = |parsed| (None, None, parsed);
    let read = match format {
        PushFormat::Json => {
            parse_json(&bytes, limits).map(|body| (body.role, body.source, body.parsed))
        }
        PushFormat::Ndjson => parse_ndjson(&bytes, limits).map(unsigned),
        PushFormat::Text => parse_text(&bytes, limits).map(unsigned),
        PushFormat::OpenMetrics => parse_openmetrics(&bytes, limits).map(unsigned),
    };
    if bytes.len() > LARGE_BYTES {
        // Returning a large body to the system takes milliseconds, which the request need not wait for.
        tokio::task::spawn_blocking(move || drop(bytes));
    }
    let pushed = read.map(|(role, source, parsed)| Pushed { role, source, parsed, share });
    pushed.map_err(|error| match error {
        ParseError::Malformed(why) => Problem::new(Code::MalformedBody).detail(why),
        ParseError::Points(points) => invalid_points(points),
        ParseError::TooManyPoints { limit } => {
            Problem::new(Code::TooManyPoints).detail(format!("a push has at most {limit} points"))
        }
    })
}

/// The problem of a push with invalid points.
pub(crate) fn invalid_points(points: PointErrors) -> Problem {
    let parts = points.reported.into_iter();
    let parts =
        parts.map(|e| ProblemPart { pointer: e.position.to_string(), detail: e.detail }).collect();
    Problem::new(Code::InvalidPoints)
        .detail(format!("{} points are invalid; nothing was changed", points.total))
        .parts(parts, points.total)
}

/// Returns an upper bound of the number of points in a body, without parsing it.
fn most_points(format: PushFormat, body: &[u8]) -> usize {
    match format {
        PushFormat::Json => memchr::memchr_iter(b'{', body).count(),
        PushFormat::Ndjson | PushFormat::Text | PushFormat::OpenMetrics => {
            memchr::memchr_iter(b'\n', body).count() + 1
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;

    use super::*;
    use crate::http::body::{BodyBudget, BodyLimit, read_whole};
    use crate::http::settings::for_tests;

    #[tokio::test]
    async fn points_count_as_what_they_take_in_memory_while_they_live() {
        let budget = BodyBudget::new(128 << 10);
        let json = |count| format!("{{\"points\":[{}{{}}]}}", "{},".repeat(count));
        for (format, body) in [
            (PushFormat::Text, "a 1\n".repeat(3000)),
            (PushFormat::OpenMetrics, "a 1\n".repeat(3000) + "# EOF\n"),
            (PushFormat::Ndjson, "{\"name\":\"a\",\"value\":1}\n".repeat(3000)),
            (PushFormat::Json, json(3000).replace("{}", "{\"name\":\"a\",\"value\":1}")),
        ] {
            let push = async || {
                let limit = BodyLimit { sent_bytes: 1 << 20, decoded_bytes: 1 << 20 };
                let request = Request::new(Body::from(body.clone()));
                let settings = for_tests();
                let time_limit = settings.timeouts.body;
                let whole = read_whole(request, limit, &budget, time_limit).await?;
                parse_push(format, whole, &settings).await
            };
            let first = push().await.unwrap_or_else(|problem| panic!("{format:?}: {problem:?}"));
            let problem = push().await.err().unwrap_or_else(|| panic!("{format:?}: no room"));
            assert_eq!(problem.status().as_u16(), 503, "{format:?}: {problem:?}");
            drop(first);
            assert!(push().await.is_ok(), "{format:?}");
        }
    }

    #[test]
    fn the_media_type_tells_the_format() {
        let of = |media| PushFormat::of(media).ok();
        assert_eq!(of(None), Some(PushFormat::Json));
        assert_eq!(of(Some("application/json")), Some(PushFormat::Json));
        assert_eq!(of(Some("Text/Plain")), Some(PushFormat::Text));
        assert_eq!(of(Some("application/x-ndjson")), Some(PushFormat::Ndjson));
        assert_eq!(of(Some("application/openmetrics-text")), Some(PushFormat::OpenMetrics));
        assert_eq!(of(Some("application/x-www-form-urlencoded")), None);
    }

    #[test]
    fn invalid_points_are_pointed_at() {
        let mut points = PointErrors::default();
        points.add(crate::model::batch::Position::Index(3), "bad name");
        let json: serde_json::Value =
            serde_json::from_slice(&invalid_points(points).to_json()).expect("JSON");
        assert_eq!(json["errors"][0]["pointer"], "/points/3");
        assert_eq!(json["total_errors"], 1);
        assert_eq!(json["title"], "Unprocessable Entity");
    }
}
