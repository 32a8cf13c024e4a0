//! A push of series: the format of its body, and parsing it, off the threads that serve connections when it is large.
//!
//! Not the formats: those are `ingest`. Invariant: the points in memory count against the body budget until the store
//! has applied them.

use super::body::{LARGE_BYTES, Share, WholeBody};
use super::extract::is_json;
use super::problem::{Code, Problem, ProblemPart};
use super::settings::HttpSettings;
use crate::ingest::{Format, InputLimits, ParseError, ParsedPush};
use crate::model::batch::PointErrors;

/// Returns the format of a body from its media type.
///
/// # Errors
/// 415 for any other media type, and for none.
pub(crate) fn format_of(media: Option<&str>) -> Result<Format, Problem> {
    match media.unwrap_or_default().to_ascii_lowercase().as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Format::Ndjson),
        "text/plain" => Ok(Format::Text),
        "application/openmetrics-text" => Ok(Format::OpenMetrics),
        media if is_json(media) => Ok(Format::Json),
        _ => Err(Problem::unsupported_media(
            "series come as application/json, application/x-ndjson, text/plain or \
             application/openmetrics-text",
        )),
    }
}

/// How much memory a point takes beside its text, in bytes.
const POINT_BYTES: usize = 64;

/// Parses a push. Its share of the body budget is to be kept until the store has applied the points.
///
/// # Errors
/// 400 for a body that is not in its format, 422 for points that are not valid, 413 for too many,
/// 503 when there is no room in memory for its points.
pub(crate) async fn parse_push(
    format: Format,
    body: WholeBody,
    settings: &HttpSettings,
) -> Result<(ParsedPush, Share), Problem> {
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

fn parse(
    format: Format,
    body: WholeBody,
    limits: &InputLimits,
) -> Result<(ParsedPush, Share), Problem> {
    let WholeBody { bytes, mut share } = body;
    let points = format.most_points(&bytes).min(limits.points);
    share.cover_reading(bytes.len(), points * POINT_BYTES)?;
    let parsed = format.parse(&bytes, limits);
    if bytes.len() > LARGE_BYTES {
        // Returning a large body to the system takes milliseconds, which the request need not wait for.
        tokio::task::spawn_blocking(move || drop(bytes));
    }
    parsed.map(|push| (push, share)).map_err(|error| match error {
        ParseError::Malformed(why) => Problem::new(Code::MalformedBody).detail(why),
        ParseError::Points(points) => invalid_points(&points),
        ParseError::TooManyPoints { limit } => {
            Problem::new(Code::TooManyPoints).detail(format!("a push has at most {limit} points"))
        }
    })
}

/// The problem of a push with invalid points.
pub(crate) fn invalid_points(points: &PointErrors) -> Problem {
    Problem::new(Code::InvalidPoints)
        .detail(format!("{} points are invalid; nothing was changed", points.total))
        .parts(point_parts(points), points.total)
}

/// Returns what a problem says about points.
pub(crate) fn point_parts(points: &PointErrors) -> Vec<ProblemPart> {
    let parts = points.reported.iter();
    parts
        .map(|e| ProblemPart { pointer: e.position.to_string(), detail: e.detail.clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;

    use super::*;
    use crate::http::body::{BodyBudget, BodyLimit, BodyPace, read_whole};
    use crate::http::settings::for_tests;

    #[tokio::test]
    async fn points_count_as_what_they_take_in_memory_while_they_live() {
        let budget = BodyBudget::new(128 << 10, 128 << 10);
        let json = |count| format!("{{\"points\":[{}{{}}]}}", "{},".repeat(count));
        for (format, body) in [
            (Format::Text, "a 1\n".repeat(3000)),
            (Format::OpenMetrics, "a 1\n".repeat(3000) + "# EOF\n"),
            (Format::Ndjson, "{\"name\":\"a\",\"value\":1}\n".repeat(3000)),
            (Format::Json, json(3000).replace("{}", "{\"name\":\"a\",\"value\":1}")),
        ] {
            let push = async || {
                let limit = BodyLimit { sent_bytes: 1 << 20, decoded_bytes: 1 << 20 };
                let request = Request::new(Body::from(body.clone()));
                let settings = for_tests();
                let pace = BodyPace::new(settings.timeouts.body, settings.timeouts.body, 1);
                let whole = read_whole(request, limit, &budget, pace).await?;
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
        let of = |media| format_of(media).ok();
        assert_eq!(of(None), None);
        assert_eq!(of(Some("application/json")), Some(Format::Json));
        assert_eq!(of(Some("Text/Plain")), Some(Format::Text));
        assert_eq!(of(Some("application/x-ndjson")), Some(Format::Ndjson));
        assert_eq!(of(Some("application/openmetrics-text")), Some(Format::OpenMetrics));
        assert_eq!(of(Some("application/x-www-form-urlencoded")), None);
    }

    #[test]
    fn invalid_points_are_pointed_at() {
        let mut points = PointErrors::default();
        points.add(crate::model::batch::Position::Index(3), "bad name");
        let json: serde_json::Value =
            serde_json::from_slice(&invalid_points(&points).to_json()).expect("JSON");
        assert_eq!(json["errors"][0]["pointer"], "/points/3");
        assert_eq!(json["total_errors"], 1);
        assert_eq!(json["title"], "Unprocessable Entity");
    }
}
