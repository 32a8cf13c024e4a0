//! The extractors of the handlers: our own, so that every rejection is a problem.
//!
//! Invariant: a part of a request that is not understood is refused, never ignored: an unknown query parameter, a
//! lease without its fencing token, bytes that are not UTF-8.

mod headers;

use std::collections::HashSet;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Request, Uri};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use self::headers::{FenceHeader, ReleaseTokenHeader, media_type, one};
use super::access::{BoundRole, Caller};
use super::body::read_whole;
use super::problem::{Code, Problem};
use super::state::AppState;
use super::wire::Object;

/// A JSON body, of a request or of a response.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<AppState> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, state: &AppState) -> Result<Self, Problem> {
        // Not even a missing one passes for JSON: a web page can send that to any server.
        if !media_type(request.headers())?.is_some_and(is_json) {
            return Err(Problem::unsupported_media("Content-Type must be application/json"));
        }
        let pace = state.body_pace();
        let body = read_whole(request, state.body_limit(), &state.budget, pace).await?;
        read_json(&body.bytes).map(Self)
    }
}

/// Returns whether a media type is JSON.
pub(crate) fn is_json(media: &str) -> bool {
    let media = media.to_ascii_lowercase();
    media == "application/json" || media == "text/json" || media.ends_with("+json")
}

/// Reads JSON; a problem points at the field that is invalid.
///
/// # Errors
/// 400 for a text that is not JSON, for JSON that is not an object, and for an object of another shape.
pub(crate) fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    match serde_json::from_slice::<Object<T>>(bytes) {
        Ok(value) => Ok(value.0),
        // Only a body that is refused is read again, with its path.
        Err(_) => Err(explain_json::<T>(bytes)),
    }
}

/// Says what is wrong with a body that could not be read; the problem points at the field that is invalid.
pub(crate) fn explain_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Problem {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let Err(error) = serde_path_to_error::deserialize::<_, Object<T>>(&mut deserializer) else {
        return Problem::new(Code::MalformedBody).detail("the body has more than one JSON text");
    };
    let pointer = pointer(error.path());
    let cause = error.into_inner();
    if cause.is_data() {
        // serde_json appends line and column; the pointer says it better.
        let text = cause.to_string();
        let why = text.split(" at line ").next().unwrap_or(&text);
        let place = if pointer.is_empty() { "the body" } else { &pointer };
        Problem::invalid(format!("{place}: {why}")).at(pointer, why)
    } else {
        Problem::new(Code::MalformedBody).detail(format!("the body is not JSON: {cause}"))
    }
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut out = String::new();
    for segment in path {
        out.push('/');
        match segment {
            Segment::Seq { index } => out.push_str(&index.to_string()),
            Segment::Map { key } => out.push_str(&key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => out.push_str(variant),
            Segment::Unknown => out.push('?'),
        }
    }
    out
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => json_response(bytes),
            Err(error) => {
                tracing::error!(cause = %error, "a response could not be written as JSON");
                Problem::internal().into_response()
            }
        }
    }
}

/// Makes a response of JSON that is text already.
pub(crate) fn json_response(bytes: impl Into<Body>) -> Response {
    let mut response = Response::new(bytes.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The parts of the path, percent-decoded; they may hold anything that is UTF-8.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        if !is_percent_encoded(parts.uri.path().as_bytes()) {
            return Err(Problem::invalid("the path has a % without two hexadecimal digits"));
        }
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|rejection| match rejection {
            PathRejection::FailedToDeserializePathParams(error) => {
                Problem::invalid(format!("the path: {}", error.body_text()))
            }
            _ => Problem::internal(),
        })
    }
}

/// Returns whether each `%` has its two digits. The decoders would pass others on: `%zz` would be the same as `%25zz`.
fn is_percent_encoded(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(percent) = memchr::memchr(b'%', rest) {
        match rest[percent + 1..] {
            [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {}
            _ => return false,
        }
        rest = &rest[percent + 3..];
    }
    true
}

/// The query string. Keys may be repeated where the type has a list; unknown keys are refused.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &AppState) -> Result<Self, Problem> {
        read_query(&parts.uri).map(Self)
    }
}

fn read_query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    if !is_percent_encoded(uri.query().unwrap_or_default().as_bytes()) {
        return Err(Problem::invalid("the query has a % without two hexadecimal digits"));
    }
    // The form decoder would replace invalid UTF-8 silently.
    if percent_decode_str(uri.query().unwrap_or_default()).decode_utf8().is_err() {
        return Err(Problem::invalid("the query is not UTF-8"));
    }
    axum_extra::extract::Query::<T>::try_from_uri(uri).map(|found| found.0).map_err(|rejection| {
        let text = rejection.body_text();
        let why = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
        // What the decoder says of a list where there must be one value; it does not say which.
        match repeated(uri).filter(|_| why == "unsupported value") {
            Some(name) => Problem::invalid(format!("the query: {name} occurs more than once")),
            None => Problem::invalid(format!("the query: {why}")),
        }
    })
}

/// Returns the first parameter that is repeated and is not a list.
fn repeated(uri: &Uri) -> Option<String> {
    let mut seen = HashSet::new();
    let pairs = uri.query()?.split('&').filter(|pair| !pair.is_empty());
    let names = pairs.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    let names = names.map(|name| percent_decode_str(name).decode_utf8_lossy().into_owned());
    // The names of lists end like this, as those of Prometheus do.
    names.filter(|name| !name.ends_with("[]")).find(|name| !seen.insert(name.clone()))
}

/// The role that the request's token is bound to.
pub(crate) struct Role(pub(crate) Option<BoundRole>);

impl FromRequestParts<AppState> for Role {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Self::Rejection> {
        let caller = parts.extensions.get::<Caller>();
        Ok(Self(caller.and_then(|caller| caller.role.clone())))
    }
}

/// Whose token the request showed; `None` where there are no tokens.
pub(crate) struct Whose(pub(crate) Option<Caller>);

impl FromRequestParts<AppState> for Whose {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get().cloned()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;

    use super::super::wire::{Count, Integer, Span, Ttl, given};
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        #[serde(rename = "match[]", default)]
        matches: Vec<String>,
        #[serde(default, deserialize_with = "given")]
        limit: Option<Count>,
        #[serde(default, deserialize_with = "given")]
        wait: Option<Span>,
        #[serde(default, deserialize_with = "given")]
        ttl: Option<Ttl>,
    }

    fn asked(query: &str) -> Result<Asked, Problem> {
        read_query(&format!("/?{query}").parse().expect("a URI"))
    }

    #[test]
    fn queries_repeat_keys_and_refuse_unknown_ones() {
        let asked_all = asked("match[]=a&match%5B%5D=b+c&limit=5").expect("valid");
        assert_eq!(asked_all.matches, ["a", "b c"]);
        assert_eq!(asked_all.limit.map(|l| l.0), Some(5));
        let waits = asked("wait=0s&ttl=1s").expect("valid");
        assert_eq!(waits.wait.map(|wait| wait.0), Some(Duration::ZERO));
        assert_eq!(waits.ttl.map(|ttl| ttl.0), Some(Duration::from_secs(1)));
        assert!(asked("").is_ok_and(|a| a.limit.is_none() && a.wait.is_none() && a.ttl.is_none()));
        assert!(read_query::<Asked>(&Uri::from_static("/")).is_ok());
        for (query, name) in [
            ("limit=1&limit=1", "limit"),
            ("match[]=a&match[]=b&ttl=1s&wait=1s&ttl=2s", "ttl"),
            ("li%6dit=1&limit=2", "limit"),
        ] {
            let problem = asked(query).expect_err(query);
            let said = String::from_utf8(problem.to_json()).expect("JSON");
            assert!(said.contains(&format!("the query: {name} occurs more than once")), "{said}");
        }
        for query in [
            "limit=0",
            "limit=-1",
            "limit=%2B5",
            "limit=05",
            "limit=%205",
            "limit=x",
            "unknown=1",
            "match[]=%ff",
            "match[]=%zz",
            "match[]=a%2",
            "match[]=%",
            "limit=",
            "wait=",
            "wait",
            "ttl=",
            "ttl=0s",
        ] {
            let problem = asked(query).expect_err(query);
            assert_eq!(problem.status().as_u16(), 400, "{query}");
        }
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it can be read matters")]
    struct Wanted {
        ttl: Ttl,
        fencing_token: Option<Integer>,
        #[serde(default)]
        keys: Vec<String>,
    }

    fn json(text: &str) -> Result<(), (u16, String)> {
        read_json::<Wanted>(text.as_bytes()).map(|_| ()).map_err(|problem| {
            let status = problem.status().as_u16();
            let body: serde_json::Value = serde_json::from_slice(&problem.to_json()).expect("JSON");
            (status, body["errors"][0]["pointer"].as_str().unwrap_or_default().to_owned())
        })
    }

    #[test]
    fn bodies_are_read_leniently_and_refused_with_a_pointer() {
        assert_eq!(json(r#"{"ttl": "5s", "fencing_token": 7.0}"#), Ok(()));
        assert_eq!(json(r#"{"ttl": "5s", "fencing_token": null}"#), Ok(()));
        assert_eq!(json(r#"{"ttl": "0s"}"#), Err((400, "/ttl".to_owned())));
        assert_eq!(json(r#"{"ttl": 5}"#), Err((400, "/ttl".to_owned())));
        assert_eq!(json(r#"{"ttl": "1s", "keys": ["a", 1]}"#), Err((400, "/keys/1".to_owned())));
        assert_eq!(json(r#"{"ttl": "1s""#), Err((400, String::new())));
        assert_eq!(json(r#"{"ttl": "1s"} x"#), Err((400, String::new())));
        assert_eq!(json(r#"{"ttl": "1s", "tll": 1}"#).map_err(|e| e.0), Err(400));
        assert_eq!(json("").map_err(|e| e.0), Err(400));
        assert_eq!(json(r#" {"ttl": "1s"}"#), Ok(()));
        assert_eq!(json(r#"["1s", 7, []]"#), Err((400, String::new())));
    }
}
