//! Problem documents (RFC 9457): the one shape of every answer that is not a success.
//!
//! Invariant: what a client may do follows from `status` and `code` alone, and the causes of
//! a 5xx stay in the log. The codes are part of the API: they never change their meaning.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, Response, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::routes::cache::CacheMiss;
use super::routes::generations::GenerationState;
use crate::engine::EngineError;
use crate::model::Invalid;
use crate::model::batch::PointErrors;
use crate::model::generations::Generation;
use crate::store::{ErrorKind, StoreError};

/// The media type of a problem.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// Says why a request was not carried out (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// Names the kind of problem: `about:blank`, so that `code` and `status` say all.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    #[schema(value_type = i32, minimum = 400, maximum = 599)]
    status: u16,
    /// A stable word for programs, such as `not_found`.
    code: &'static str,
    /// A sentence for people about this occurrence.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
    /// Every part of the request that was refused, up to a limit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<ProblemPart>,
    /// How many parts were refused, also those that `errors` leaves out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<i64>)]
    total_errors: Option<usize>,
    /// With `cache_miss`: why there is no value, and what is needed to put one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    miss: Option<CacheMiss>,
    /// With `generation_moved`: the generation as it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    moved: Option<GenerationState>,
}

/// One part of a request that was refused.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemPart {
    /// Where it stands: a JSON pointer, or `line 7` of a text body.
    pointer: String,
    /// Why it was refused.
    detail: String,
}

/// A problem on its way to the client.
#[derive(Debug)]
pub(crate) struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    body: ProblemBody,
    retry_after_secs: Option<u64>,
    headers: HeaderMap,
}

impl Problem {
    /// Makes a problem with a stable `code`.
    pub(crate) fn new(status: StatusCode, code: &'static str) -> Self {
        let body = ProblemBody {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: None,
            errors: Vec::new(),
            total_errors: None,
            miss: None,
            moved: None,
        };
        Self(Box::new(Inner { status, body, retry_after_secs: None, headers: HeaderMap::new() }))
    }

    /// Adds a sentence for people.
    #[must_use]
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.body.detail = Some(detail.into());
        self
    }

    /// Points at the one part of the request that is wrong.
    #[must_use]
    pub(crate) fn at(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.0.body.errors.push(ProblemPart { pointer: pointer.into(), detail: detail.into() });
        self.0.body.total_errors = Some(self.0.body.errors.len());
        self
    }

    /// Tells the client when to try again, in seconds.
    #[must_use]
    pub(crate) fn retry_after(mut self, secs: u64) -> Self {
        self.0.retry_after_secs = Some(secs);
        self
    }

    fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.0.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// A lookup that found nothing, with the headers that say the same as the body.
    pub(crate) fn cache_miss(miss: CacheMiss, headers: HeaderMap) -> Self {
        let mut problem =
            Self::new(StatusCode::NOT_FOUND, "cache_miss").detail("there is no such value now");
        problem.0.body.miss = Some(miss);
        problem.0.headers = headers;
        problem
    }

    /// The generation has moved since it was seen.
    fn generation_moved(now: &Generation) -> Self {
        let mut problem = Self::new(StatusCode::PRECONDITION_FAILED, "generation_moved")
            .detail("the generation has moved since it was seen; nothing was changed");
        problem.0.body.moved = Some(GenerationState::from(now));
        problem
    }

    /// Returns the code and the sentence for people, for answers about many things.
    pub(crate) fn into_code_and_detail(self) -> (&'static str, String) {
        let ProblemBody { code, title, detail, .. } = self.0.body;
        (code, detail.unwrap_or_else(|| title.to_owned()))
    }

    /// The request is not what it should be.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request").detail(detail)
    }

    /// One part of the request is not what it should be.
    pub(crate) fn invalid_at(pointer: &str, why: &Invalid) -> Self {
        Self::invalid(format!("{pointer}: {why}")).at(pointer, why.to_string())
    }

    /// There is no such path, or no such thing.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found").detail(detail)
    }

    /// The body is larger than the limit.
    pub(crate) fn too_large(limit_bytes: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large")
            .detail(format!("the body has more than {limit_bytes} bytes"))
    }

    /// The body is of a kind that is not read here.
    pub(crate) fn unsupported_media(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type").detail(detail)
    }

    /// The path does not take this method. (`Allow` is set by the router.)
    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
            .detail("this path does not take this method")
    }

    /// No token, or an unknown one.
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized")
            .detail("a known bearer token is needed")
            .header(WWW_AUTHENTICATE, "Bearer realm=\"holdall\"")
    }

    /// Known, but not allowed.
    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden").detail(detail)
    }

    /// More at a time than the server takes.
    pub(crate) fn overloaded(detail: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded").detail(detail).retry_after(1)
    }

    /// The request took longer than it may.
    pub(crate) fn timed_out() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "request_timeout")
            .detail("the request took too long; whether it changed something is not known")
            .retry_after(1)
    }

    /// The body did not arrive in time.
    pub(crate) fn body_timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout")
            .detail("the body did not arrive in time")
    }

    /// The server is stopping.
    pub(crate) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping")
            .detail("the server is stopping")
            .retry_after(1)
    }

    /// The store has not loaded yet.
    pub(crate) fn starting() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "starting")
            .detail("the store is still loading")
            .retry_after(1)
    }

    /// A defect of ours; the cause is in the log.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal")
            .detail("the server failed; its log says why")
    }

    /// Points of the batch that were refused.
    pub(crate) fn invalid_points(points: PointErrors) -> Self {
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_points")
            .detail(format!("{} points are not valid; nothing was changed", points.total));
        problem.0.body.total_errors = Some(points.total);
        problem.0.body.errors = points
            .reported
            .into_iter()
            .map(|e| ProblemPart { pointer: e.position.to_string(), detail: e.detail })
            .collect();
        problem
    }

    /// Returns the status.
    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Returns the JSON text, for streams that end with a problem.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0.body).unwrap_or_default()
    }
}

/// The one table from what went wrong to what the client sees.
impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        let detail = error.to_string();
        let (status, code) = match error {
            EngineError::Store(error) => return error.into(),
            EngineError::InvalidPoints(points) => return Self::invalid_points(points),
            EngineError::CheckpointNotLater(held) => {
                return Self::new(StatusCode::CONFLICT, "checkpoint_not_later").detail(format!(
                    "a later checkpoint stands: {}, written at {}",
                    held.checkpoint, held.written_at
                ));
            }
            EngineError::CursorGone => {
                return Self::new(StatusCode::GONE, "cursor_gone")
                    .detail("changes after this cursor are no longer known: take a new snapshot");
            }
            EngineError::GenerationMoved(now) => return Self::generation_moved(&now),
            EngineError::TooManyWaiting => {
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_waiting")
                    .detail(detail)
                    .retry_after(1);
            }
            EngineError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
            EngineError::GuardRefused(_) => (StatusCode::FORBIDDEN, "guard_refused"),
            EngineError::FenceRequired { .. } => {
                (StatusCode::PRECONDITION_REQUIRED, "fence_required")
            }
            EngineError::FenceRefused => (StatusCode::PRECONDITION_FAILED, "fence_refused"),
            EngineError::OverBudget { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "series_budget_exceeded")
            }
            EngineError::ValueTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "value_too_large"),
            EngineError::TooManyNamespaces => {
                (StatusCode::UNPROCESSABLE_ENTITY, "too_many_namespaces")
            }
            EngineError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            EngineError::LeaseNotHeld => (StatusCode::CONFLICT, "lease_not_held"),
        };
        Self::new(status, code).detail(detail)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let unavailable = |code, detail: &str| {
            tracing::warn!(kind = ?error.kind, cause = %error.detail, "the store could not serve");
            let secs = error.retry_after().map_or(1, |after| after.as_secs().max(1));
            Self::new(StatusCode::SERVICE_UNAVAILABLE, code).detail(detail).retry_after(secs)
        };
        match error.kind {
            ErrorKind::Unavailable => {
                unavailable("store_unavailable", "the store can't be reached now")
            }
            ErrorKind::Timeout => unavailable(
                "store_timeout",
                "the store did not answer in time; whether it changed something is not known",
            ),
            ErrorKind::Throttled => unavailable("store_throttled", "the store is too busy"),
            ErrorKind::Full => {
                tracing::error!(cause = %error.detail, "the store has no room left");
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "storage_full")
                    .detail("no room is left")
            }
            ErrorKind::Unsupported => Self::new(StatusCode::NOT_IMPLEMENTED, "unsupported")
                .detail("the configured store can't do this"),
            ErrorKind::Corrupt | ErrorKind::Internal => {
                tracing::error!(kind = ?error.kind, cause = %error.detail, "the store failed");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        let mut response = Response::new(Body::from(self.to_json()));
        *response.status_mut() = self.0.status;
        debug_assert!(!self.0.headers.contains_key(ALLOW), "the router sets it");
        let mut headers = self.0.headers;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(secs) = self.0.retry_after_secs {
            headers.insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        *response.headers_mut() = headers;
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::Position;
    use crate::model::checkpoints::Checkpoint;
    use crate::model::generations::GenerationFence;
    use crate::model::time::Timestamp;

    fn seen(error: EngineError) -> (u16, &'static str) {
        let problem = Problem::from(error);
        (problem.status().as_u16(), problem.0.body.code)
    }

    #[test]
    fn every_engine_error_has_its_status_and_code() {
        let at = Timestamp::from_nanos(0);
        let held = Checkpoint { checkpoint: at, written_at: at };
        let moved = Generation { number: 2, fence: GenerationFence(7) };
        let table = [
            (EngineError::Invalid(Invalid::new("x")), 400, "invalid_request"),
            (EngineError::InvalidPoints(PointErrors::default()), 422, "invalid_points"),
            (EngineError::GuardRefused("x".into()), 403, "guard_refused"),
            (EngineError::FenceRequired { lease: "x".into() }, 428, "fence_required"),
            (EngineError::FenceRefused, 412, "fence_refused"),
            (EngineError::OverBudget { new: 2, room: 1 }, 422, "series_budget_exceeded"),
            (EngineError::CursorGone, 410, "cursor_gone"),
            (EngineError::NotFound("lease"), 404, "not_found"),
            (EngineError::LeaseNotHeld, 409, "lease_not_held"),
            (EngineError::CheckpointNotLater(held), 409, "checkpoint_not_later"),
            (EngineError::TooManyWaiting, 503, "too_many_waiting"),
            (EngineError::GenerationMoved(moved), 412, "generation_moved"),
            (EngineError::ValueTooLarge { limit_bytes: 1 }, 413, "value_too_large"),
            (EngineError::TooManyNamespaces, 422, "too_many_namespaces"),
        ];
        for (error, status, code) in table {
            assert_eq!(seen(error), (status, code));
        }
        let kinds = [
            (ErrorKind::Unavailable, 503, "store_unavailable"),
            (ErrorKind::Timeout, 503, "store_timeout"),
            (ErrorKind::Throttled, 503, "store_throttled"),
            (ErrorKind::Full, 507, "storage_full"),
            (ErrorKind::Corrupt, 500, "internal"),
            (ErrorKind::Unsupported, 501, "unsupported"),
            (ErrorKind::Internal, 500, "internal"),
        ];
        for (kind, status, code) in kinds {
            assert_eq!(seen(StoreError::new(kind, "secret cause").into()), (status, code));
        }
    }

    #[test]
    fn strangers_never_see_the_cause_of_a_failure() {
        for kind in [ErrorKind::Internal, ErrorKind::Corrupt, ErrorKind::Full] {
            let problem = Problem::from(StoreError::new(kind, "secret cause"));
            let text = String::from_utf8(problem.to_json()).expect("JSON is UTF-8");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn refused_points_are_pointed_at() {
        let mut points = PointErrors::default();
        points.add(Position::Index(3), "bad name");
        let json: serde_json::Value =
            serde_json::from_slice(&Problem::invalid_points(points).to_json()).expect("JSON");
        assert_eq!(json["errors"][0]["pointer"], "/points/3");
        assert_eq!(json["total_errors"], 1);
        assert_eq!(json["title"], "Unprocessable Entity");
    }
}
