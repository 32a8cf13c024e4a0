//! A push of series: which format its body has, and its parsing, off the async threads when
//! it is large.

use crate::exposition::input::{
    InputLimits, ParseError, ParsedBatch, parse_json, parse_ndjson, parse_openmetrics, parse_text,
};

use super::body::{LARGE_BYTES, Share, WholeBody};
use super::extract::is_json;
use super::problem::Problem;
use super::settings::HttpSettings;

/// The formats of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushFormat {
    /// `{"role", "source", "points"}`.
    Json,
    /// One point a line.
    Ndjson,
    /// The Prometheus text format.
    Text,
    /// OpenMetrics text.
    OpenMetrics,
}

impl PushFormat {
    /// Tells the format from the media type; JSON when there is none.
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

/// What a push holds.
pub(crate) struct Pushed {
    /// Who writes, where the body says so.
    pub(crate) role: Option<String>,
    /// On which path, where the body says so.
    pub(crate) source: Option<String>,
    /// The points.
    pub(crate) parsed: ParsedBatch,
    /// Points take about as much memory as the text that they were read from, so that they go on
    /// counting for it.
    _share: Share,
}

/// Parses a push.
///
/// # Errors
/// 400 for a body that is not in its format, 422 for points that are not valid, 413 for too many.
pub(crate) async fn parse_push(
    format: PushFormat,
    body: WholeBody,
    settings: &HttpSettings,
) -> Result<Pushed, Problem> {
    let limits = InputLimits { points: settings.limits.batch_points, point: settings.points };
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
    let WholeBody { bytes, share } = body;
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
        // Giving a large body back to the system takes milliseconds; nobody should wait for it.
        tokio::task::spawn_blocking(move || drop(bytes));
    }
    let pushed = read.map(|(role, source, parsed)| Pushed { role, source, parsed, _share: share });
    pushed.map_err(|error| match error {
        ParseError::Malformed(why) => {
            Problem::new(axum::http::StatusCode::BAD_REQUEST, "malformed_body").detail(why)
        }
        ParseError::Points(points) => Problem::invalid_points(points),
        ParseError::TooManyPoints { limit } => {
            Problem::new(axum::http::StatusCode::PAYLOAD_TOO_LARGE, "too_many_points")
                .detail(format!("a push has at most {limit} points"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
