//! The head of a request, beyond what the parser checks: its size, `Host`, and how the body is framed.
//!
//! Not access. Invariant: a request that passes has one host, the same for every program that it went through.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::header::{HOST, TRANSFER_ENCODING};
use axum::http::{HeaderMap, Request, Version};

use super::problem::{Code, Problem};

/// Checks the head of a request that came over a connection.
///
/// # Errors
/// 431 when it has more than `most_bytes`; 400 for a missing, repeated or malformed `Host`, one that contradicts the
/// request's target, and for a transfer coding other than `chunked`.
pub(crate) fn check<B>(request: &Request<B>, most_bytes: usize) -> Result<(), Problem> {
    if head_bytes(request) > most_bytes {
        let detail = format!("the head has more than {most_bytes} bytes");
        return Err(Problem::new(Code::HeadTooLarge).detail(detail));
    }
    let host = host(request.headers())?;
    if host.is_none() && request.version() != Version::HTTP_10 {
        return Err(Problem::invalid("the header Host is missing"));
    }
    let target = request.uri().authority().map(|target| target.as_str());
    if target.is_some() && target != host {
        return Err(Problem::invalid("the header Host contradicts the request's target"));
    }
    // The parser looks at the last coding only, and would pass a compressed body on as it is.
    let chunked =
        |value: &axum::http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !request.headers().get_all(TRANSFER_ENCODING).iter().all(chunked) {
        return Err(Problem::invalid("Transfer-Encoding must be chunked; see Content-Encoding"));
    }
    Ok(())
}

/// Returns the size of the head, as it is written without superfluous blanks.
fn head_bytes<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len())
        + uri.authority().map_or(0, |authority| authority.as_str().len() + "http://".len());
    let line = request.method().as_str().len() + target + "  HTTP/1.1\r\n".len();
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    line + headers.sum::<usize>() + "\r\n".len()
}

/// Returns the value of `Host`.
///
/// # Errors
/// 400 when it is repeated or malformed.
fn host(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(HOST).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let text = value.to_str().ok().filter(|text| split_host(text).is_some());
            text.map(Some).ok_or_else(|| Problem::invalid("the header Host is malformed"))
        }
        (Some(_), Some(_)) => Err(Problem::invalid("the header Host occurs twice")),
    }
}

/// A host: an address, or a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Host<'a> {
    /// An address.
    Address(IpAddr),
    /// A name.
    Name(&'a str),
}

/// Splits `host:port`; the port is `None` where there is none. Returns `None` for anything else.
pub(super) fn split_host(text: &str) -> Option<(Host<'_>, Option<u16>)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (address, rest) = bracketed.split_once(']')?;
            (Host::Address(address.parse::<Ipv6Addr>().ok()?.into()), rest)
        }
        None => {
            let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            let allowed =
                |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
            if name.is_empty() || !name.bytes().all(allowed) {
                return None;
            }
            (name.parse().map_or(Host::Name(name), Host::Address), rest)
        }
    };
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return None,
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok()?)
        }
        Some(_) => return None,
    };
    Some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &[(&str, &str)], version: Version, target: &str) -> u16 {
        let mut request = Request::get(target).version(version);
        for (name, value) in head {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        check(&request, 8192).map_or_else(|problem| problem.status().as_u16(), |()| 200)
    }

    #[test]
    fn a_request_has_one_well_formed_host() {
        let of = |head: &[(&str, &str)]| status(head, Version::HTTP_11, "/livez");
        for host in ["x", "127.0.0.1:8720", "[::1]:8720", "[::1]", "a-b.example", "x:", "holdall_1"]
        {
            assert_eq!(of(&[("host", host)]), 200, "{host}");
        }
        for host in
            ["", ":80", "a b", "a/b", "user@x", "x:port", "x:99999999", "[::1", "[x]", "::1"]
        {
            assert_eq!(of(&[("host", host)]), 400, "{host}");
        }
        assert_eq!(of(&[]), 400);
        assert_eq!(of(&[("host", "x"), ("host", "x")]), 400);
        assert_eq!(status(&[], Version::HTTP_10, "/livez"), 200);
        assert_eq!(status(&[("host", "x")], Version::HTTP_11, "http://x/livez"), 200);
        assert_eq!(status(&[("host", "x")], Version::HTTP_11, "http://y/livez"), 400);
    }

    #[test]
    fn bodies_are_chunked_and_nothing_else() {
        let of = |coding| {
            let head = [("host", "x"), ("transfer-encoding", coding)];
            status(&head, Version::HTTP_11, "/livez")
        };
        assert_eq!(of("chunked"), 200);
        assert_eq!(of("Chunked"), 200);
        for coding in ["gzip, chunked", "gzip", "identity", "chunked, chunked", ""] {
            assert_eq!(of(coding), 400, "{coding}");
        }
    }

    #[test]
    fn the_limit_on_the_head_is_exact() {
        let head = "GET /livez HTTP/1.1\r\nhost: x\r\nx-long: \r\n\r\n".len();
        let of = |length| {
            let long = "x".repeat(length);
            status(&[("host", "x"), ("x-long", &long)], Version::HTTP_11, "/livez")
        };
        assert_eq!(of(8192 - head), 200);
        assert_eq!(of(8193 - head), 431);
    }
}
