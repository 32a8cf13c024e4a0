//! Problem documents (RFC 9457): the one shape of every response to a request that failed.
//!
//! Not the codes, see [`codes`], and nothing of any resource: what one of them adds to a problem are extension
//! members. Invariant: what a client may do follows from `status` and `code` alone, and the causes of a 5xx stay in
//! the log.

mod codes;
mod failures;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

pub(crate) use self::codes::Code;
use crate::model::Invalid;

/// The media type of a problem.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// After how many seconds a client should try again when nothing is known about how long a condition lasts.
const RETRY_AFTER_SECS: u64 = 1;

/// Says why a request failed (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// Always `about:blank`: `code` identifies the problem.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The name of the HTTP status.
    title: &'static str,
    /// The HTTP status.
    #[schema(value_type = i32, minimum = 400, maximum = 599)]
    status: u16,
    /// A stable identifier for programs, such as `not_found`.
    code: &'static str,
    /// An explanation of this occurrence, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
    /// The invalid parts of the request, up to a limit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<ProblemPart>,
    /// How many parts are invalid, including those that `errors` leaves out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<i64>)]
    total_errors: Option<usize>,
    /// How many points, keys or series of a batch were applied, at least, where `code` is `partly_applied`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<i64>)]
    applied: Option<u64>,
    /// What a resource adds: JSON text of the form `,"name":value`. The document states the schemas, see `openapi`.
    #[serde(skip)]
    #[schema(ignore)]
    members: Vec<u8>,
}

/// An invalid part of a request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemPart {
    /// Where it is: a JSON pointer, the name of a parameter, `line 7` of a text body, or the id of a series.
    pub(crate) pointer: String,
    /// Why it is invalid.
    pub(crate) detail: String,
}

/// A problem on its way to the client.
#[derive(Debug)]
pub(crate) struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    body: ProblemBody,
    retry_after_secs: Option<u64>,
    headers: HeaderMap,
}

impl Problem {
    /// Makes a problem. Every 503 tells the client when to try again.
    pub(crate) fn new(code: Code) -> Self {
        let status = code.status();
        let body = ProblemBody {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code: code.as_str(),
            detail: None,
            errors: Vec::new(),
            total_errors: None,
            applied: None,
            members: Vec::new(),
        };
        let retry_after_secs =
            (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_SECS);
        Self(Box::new(Inner { code, body, retry_after_secs, headers: HeaderMap::new() }))
    }

    /// Adds a sentence for people.
    #[must_use]
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.body.detail = Some(detail.into());
        self
    }

    /// Points at an invalid part of the request.
    #[must_use]
    pub(crate) fn at(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.0.body.errors.push(ProblemPart { pointer: pointer.into(), detail: detail.into() });
        self.0.body.total_errors = Some(self.0.body.errors.len());
        self
    }

    /// Points at some of the invalid parts of the request, which are `total`.
    #[must_use]
    pub(crate) fn parts(mut self, errors: Vec<ProblemPart>, total: usize) -> Self {
        self.0.body.errors = errors;
        self.0.body.total_errors = Some(total);
        self
    }

    /// Says how much of a batch was applied.
    #[must_use]
    pub(crate) fn applied(mut self, applied: u64) -> Self {
        self.0.body.applied = Some(applied);
        self
    }

    /// Adds a member of a resource (an extension member, RFC 9457, 3.2). Its schema is declared with the resource.
    #[must_use]
    pub(crate) fn member(mut self, name: &str, value: &impl Serialize) -> Self {
        // Kept as text: a map of values would cost ten allocations for each miss of the cache.
        let members = &mut self.0.body.members;
        let before = members.len();
        members.push(b',');
        let written = serde_json::to_writer(&mut *members, name).and_then(|()| {
            members.push(b':');
            serde_json::to_writer(&mut *members, value)
        });
        if let Err(error) = written {
            members.truncate(before);
            tracing::error!(cause = %error, "a member of a problem can't be written as JSON");
        }
        self
    }

    /// Adds headers.
    #[must_use]
    pub(crate) fn headers(mut self, headers: HeaderMap) -> Self {
        self.0.headers.extend(headers);
        self
    }

    /// Sets after how many seconds the client should try again.
    #[must_use]
    pub(crate) fn retry_after(mut self, secs: u64) -> Self {
        self.0.retry_after_secs = Some(secs);
        self
    }

    /// Returns the code.
    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    /// Returns the status.
    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.0.code.status()
    }

    /// Returns the JSON text, for streams that end with a problem.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(&self.0.body).unwrap_or_default();
        // The members go before the brace that ends the object, which is never empty.
        if let Some(brace) = text.pop() {
            text.extend_from_slice(&self.0.body.members);
            text.push(brace);
        }
        text
    }
}

/// The problems that several parts of this layer respond with.
impl Problem {
    /// A part of the request is invalid.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest).detail(detail)
    }

    /// The part of the request at `pointer` is invalid.
    pub(crate) fn invalid_at(pointer: &str, why: &Invalid) -> Self {
        Self::invalid(format!("{pointer}: {why}")).at(pointer, why.to_string())
    }

    /// There is no such path, or nothing under this key.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Code::NotFound).detail(detail)
    }

    /// The body is larger than the limit.
    pub(crate) fn too_large(limit_bytes: usize) -> Self {
        Self::new(Code::BodyTooLarge).detail(format!("the body has more than {limit_bytes} bytes"))
    }

    /// The body's media type or encoding is not supported.
    pub(crate) fn unsupported_media(detail: impl Into<String>) -> Self {
        Self::new(Code::UnsupportedMediaType).detail(detail)
    }

    /// The path does not have this method. (The router sets `Allow`.)
    pub(crate) fn method_not_allowed() -> Self {
        Self::new(Code::MethodNotAllowed).detail("this path does not support this method")
    }

    /// No token, or an unknown one.
    pub(crate) fn unauthorized() -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"holdall\""));
        Self::new(Code::Unauthorized).detail("a known bearer token is required").headers(headers)
    }

    /// A known token or address that may not do this.
    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Code::Forbidden).detail(detail)
    }

    /// The server is at one of its limits.
    pub(crate) fn overloaded(detail: &str) -> Self {
        Self::new(Code::Overloaded).detail(detail)
    }

    /// The request took longer than it may.
    pub(crate) fn timed_out() -> Self {
        Self::new(Code::RequestTimeout).detail(Code::RequestTimeout.meaning())
    }

    /// The body did not arrive in time.
    pub(crate) fn body_timeout() -> Self {
        Self::new(Code::BodyTimeout).detail(Code::BodyTimeout.meaning())
    }

    /// The server is shutting down.
    pub(crate) fn stopping() -> Self {
        Self::new(Code::Stopping).detail(Code::Stopping.meaning())
    }

    /// The store has not loaded yet.
    pub(crate) fn starting() -> Self {
        Self::new(Code::Starting).detail(Code::Starting.meaning())
    }

    /// A defect of ours; the cause is in the log.
    pub(crate) fn internal() -> Self {
        Self::new(Code::Internal).detail(Code::Internal.meaning())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        let mut response = Response::new(Body::from(self.to_json()));
        *response.status_mut() = self.0.code.status();
        if cfg!(debug_assertions) {
            // For the router's check that the route declares the code.
            response.extensions_mut().insert(self.0.code);
        }
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

    #[test]
    fn a_problem_says_what_its_code_says_and_where() {
        let problem = Problem::invalid_at("/ttl", &Invalid::new("longer than zero"));
        let problem = problem.member("extra", &serde_json::json!({"a": 1}));
        let json: serde_json::Value = serde_json::from_slice(&problem.to_json()).expect("JSON");
        assert_eq!(json["status"], 400);
        assert_eq!(json["title"], "Bad Request");
        assert_eq!(json["code"], "invalid_request");
        assert_eq!(json["errors"][0]["pointer"], "/ttl");
        assert_eq!(json["total_errors"], 1);
        assert_eq!(json["extra"]["a"], 1);
    }

    #[test]
    fn every_503_tells_when_to_try_again() {
        for code in Code::ALL {
            let response = Problem::new(*code).into_response();
            assert_eq!(response.status(), code.status());
            let retries = response.headers().contains_key(RETRY_AFTER);
            assert_eq!(retries, response.status() == 503, "{code:?}");
        }
    }
}
