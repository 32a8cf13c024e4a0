//! The headers of requests that stand alone: the fence, the release token, the media type.
//!
//! Not lists such as `Accept`. Invariant: a header that occurs twice is refused, since another program may have read the
//! other one.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;

use super::is_percent_encoded;
use crate::http::problem::Problem;
use crate::http::state::AppState;
use crate::model::leases::{Fence, FencingToken, LeaseName};
use crate::model::locks::ReleaseToken;

/// The fence that a write carries in `Holdall-Lease` and `Holdall-Fencing-Token`.
pub(crate) struct FenceHeader(pub(crate) Option<Fence>);

impl FromRequestParts<AppState> for FenceHeader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &AppState) -> Result<Self, Problem> {
        read_fence(&parts.headers).map(Self)
    }
}

const LEASE: &str = "holdall-lease";
const FENCING_TOKEN: &str = "holdall-fencing-token";
const RELEASE_TOKEN: &str = "holdall-release-token";

fn read_fence(headers: &HeaderMap) -> Result<Option<Fence>, Problem> {
    let (lease, token) = match (one(headers, LEASE)?, one(headers, FENCING_TOKEN)?) {
        (None, None) => return Ok(None),
        (Some(lease), Some(token)) => (lease, token),
        _ => {
            return Err(Problem::invalid(
                "Holdall-Lease and Holdall-Fencing-Token need each other",
            ));
        }
    };
    if !is_percent_encoded(lease.as_bytes()) {
        return Err(Problem::invalid("Holdall-Lease has a % without two hexadecimal digits"));
    }
    let lease = percent_encoding::percent_decode(lease.as_bytes())
        .decode_utf8()
        .map_err(|_| Problem::invalid("Holdall-Lease is not UTF-8"))?;
    let lease =
        LeaseName::parse(lease).map_err(|why| Problem::invalid(format!("Holdall-Lease: {why}")))?;
    let token = FencingToken::parse(token.to_str().unwrap_or_default())
        .map_err(|why| Problem::invalid(format!("Holdall-Fencing-Token: {why}")))?;
    Ok(Some(Fence { lease, token }))
}

/// The token that the release of a lock carries in `Holdall-Release-Token`.
pub(crate) struct ReleaseTokenHeader(pub(crate) Option<ReleaseToken>);

impl FromRequestParts<AppState> for ReleaseTokenHeader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &AppState) -> Result<Self, Problem> {
        let Some(value) = one(&parts.headers, RELEASE_TOKEN)? else { return Ok(Self(None)) };
        let token = ReleaseToken::parse(value.to_str().unwrap_or_default())
            .map_err(|why| Problem::invalid(format!("Holdall-Release-Token: {why}")))?;
        Ok(Self(Some(token)))
    }
}

/// Returns the value of a header that is no list.
///
/// # Errors
/// 400 when it occurs twice: another program may have read the other one.
pub(crate) fn one<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Problem::invalid(format!("the header {name} occurs twice"))),
    }
}

/// Returns the media type of a body, without parameters; `None` when the request names none.
///
/// # Errors
/// 400 when it names two.
pub(crate) fn media_type(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = one(headers, CONTENT_TYPE.as_str())? else { return Ok(None) };
    let text = value.to_str().unwrap_or("not a media type");
    let media = text.split_once(';').map_or(text, |(media, _)| media).trim();
    Ok((!media.is_empty()).then_some(media))
}

#[cfg(test)]
mod tests {
    use super::super::is_json;
    use super::*;

    fn fence(pairs: &[(&'static str, &str)]) -> Result<Option<Fence>, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header"));
        }
        read_fence(&headers).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn a_fence_is_whole_or_absent() {
        assert_eq!(fence(&[]), Ok(None));
        let whole = fence(&[(LEASE, "a%2Fb"), (FENCING_TOKEN, "7")]).expect("valid");
        let whole = whole.expect("a fence");
        assert_eq!((whole.lease.as_str(), whole.token), ("a/b", FencingToken(7)));
        assert_eq!(fence(&[(LEASE, "a")]), Err(400));
        assert_eq!(fence(&[(LEASE, "a%zz"), (FENCING_TOKEN, "7")]), Err(400));
        assert_eq!(fence(&[(FENCING_TOKEN, "7")]), Err(400));
        for token in ["0", "-1", "x", "", "7.5", "99999999999999999999", "+7", "07", "7 7", "7\t"] {
            assert_eq!(fence(&[(LEASE, "a"), (FENCING_TOKEN, token)]), Err(400), "{token}");
        }
        let twice = [(LEASE, "a"), (FENCING_TOKEN, "7"), (FENCING_TOKEN, "8")];
        assert_eq!(fence(&twice), Err(400));
        assert_eq!(fence(&[(LEASE, "a"), (LEASE, "a"), (FENCING_TOKEN, "7")]), Err(400));
    }

    #[test]
    fn media_types_have_parameters_and_cases() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, text.parse().expect("a header"));
            media_type(&headers).expect("there is one").map(is_json)
        };
        assert_eq!(of("Application/JSON; charset=utf-8"), Some(true));
        assert_eq!(of("application/vnd.x+json"), Some(true));
        assert_eq!(of("text/plain"), Some(false));
        assert_eq!(of(""), None);
        let mut headers = HeaderMap::new();
        headers.append(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.append(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let refused = media_type(&headers).expect_err("there are two");
        assert_eq!(refused.status().as_u16(), 400);
    }
}
