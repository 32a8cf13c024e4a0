//! `If-None-Match`: which values the client has already.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header::IF_NONE_MATCH;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use utoipa::IntoParams;

use crate::http::state::AppState;

/// Adds the header of a conditional lookup to the document; [`KnownTags`] reads it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `KnownTags` reads")]
pub(crate) struct KnownParams {
    /// The quoted `ETag` of the value that the client has, a list of them, or `*`.
    #[param(rename = "If-None-Match", required = false, nullable = false)]
    if_none_match: Option<String>,
}

/// The header's lines.
pub(crate) struct KnownTags(Vec<HeaderValue>);

impl KnownTags {
    fn of(headers: &HeaderMap) -> Self {
        Self(headers.get_all(IF_NONE_MATCH).iter().cloned().collect())
    }

    /// Returns whether the value with this hash is among them, by weak comparison (RFC 9110, 13.1.2). Our own tags
    /// contain no comma, so cutting the tags of others at their commas does no harm.
    pub(super) fn has(&self, hash: &str) -> bool {
        let lines = self.0.iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(str::trim).any(|tag| {
            let opaque = tag.strip_prefix("W/").unwrap_or(tag);
            let inner = opaque.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            tag == "*" || inner == Some(hash)
        })
    }
}

impl FromRequestParts<AppState> for KnownTags {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_is_a_list_that_is_compared_weakly() {
        let has = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(IF_NONE_MATCH, line.parse().expect("a header"));
            }
            KnownTags::of(&headers).has("0a1b")
        };
        for lines in [
            &["\"0a1b\""][..],
            &["W/\"0a1b\""],
            &["*"],
            &["\"x\" , W/\"y\",\"0a1b\""],
            &["\"x,y\", \"0a1b\""],
            &["\"x\"", "\"0a1b\""],
        ] {
            assert!(has(lines), "{lines:?}");
        }
        for lines in [&[][..], &["0a1b"], &["\"0a1\""], &["w/\"0a1b\""], &["\"*\""], &[""]] {
            assert!(!has(lines), "{lines:?}");
        }
    }
}
