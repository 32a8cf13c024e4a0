//! What a web page could make a browser send. Only where there are no tokens: a browser sends no bearer token by
//! itself, so a page of another origin can't send one.
//!
//! Not authentication. Two attacks are kept out. A page of another origin sends a request that needs no CORS preflight:
//! browsers mark it by `Origin` and `Sec-Fetch-Site`, which no page can change. And a page whose own host name is
//! rebound to this server's address (DNS rebinding), which for the browser is of the same origin: its `Host` is the
//! attacker's name. Invariant: what is not marked by a browser, and names no foreign host, is served: curl, Prometheus
//! and SDKs send neither header.

use axum::http::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use axum::http::{HeaderMap, Method};

use super::settings::{HostPattern, Scope, ends_with};
use crate::http::head::{Host, split_host};
use crate::http::problem::{Code, Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Names under which no stranger can have a host: they are not in the public DNS (RFC 6761, RFC 6762, and what ICANN
/// reserved for private use).
const PRIVATE_SUFFIXES: [&str; 3] = [".localhost", ".local", ".internal"];

/// Checks that no page of another origin, and none under a foreign host name, made a browser send the request.
///
/// # Errors
/// 403 `host_refused` or `origin_refused`.
pub(super) fn check(
    method: &Method,
    headers: &HeaderMap,
    scope: Scope,
    allowed: &[HostPattern],
) -> Result<(), Problem> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if host.is_some_and(|host| !serves(host, allowed)) {
        return Err(Problem::new(Code::HostRefused).detail(
            "without access tokens, requests name the server by an address, a name without dots, or one \
             of access.allowed_hosts",
        ));
    }
    if is_from_another_origin(method, headers, host, scope) {
        return Err(Problem::new(Code::OriginRefused).detail(Code::OriginRefused.meaning()));
    }
    Ok(())
}

/// Returns whether `host` can't be a name that a stranger gave to this server's address.
fn serves(host: &str, allowed: &[HostPattern]) -> bool {
    let name = match split_host(host) {
        Some((Host::Address(_), _)) => return true,
        Some((Host::Name(name), _)) => name.strip_suffix('.').unwrap_or(name),
        None => return false,
    };
    // A name without dots is looked up in the network's own domains only.
    !name.contains('.')
        || PRIVATE_SUFFIXES.iter().any(|suffix| ends_with(name, suffix))
        || allowed.iter().any(|pattern| pattern.matches(name))
}

fn is_from_another_origin(
    method: &Method,
    headers: &HeaderMap,
    host: Option<&str>,
    scope: Scope,
) -> bool {
    let sites: Vec<&[u8]> =
        headers.get_all(SEC_FETCH_SITE).iter().map(HeaderValue::as_bytes).collect();
    if sites.is_empty() {
        // Browsers send `Sec-Fetch-Site` to secure origins and loopback only, and `Origin` with everything but GET.
        let own = |origin: &HeaderValue| host.is_some_and(|host| is_origin_of(origin, host));
        return !headers.get_all(ORIGIN).iter().all(own);
    }
    let own = sites.iter().all(|site| matches!(*site, b"same-origin" | b"none"));
    // A link to /metrics, such as that on Prometheus' page of targets, shows the page only to the user.
    let followed_link = scope == Scope::Metrics
        && method == Method::GET
        && headers.get(SEC_FETCH_MODE).is_some_and(|mode| mode == "navigate");
    !own && !followed_link
}

/// Returns whether a page of `origin` came from `host`.
fn is_origin_of(origin: &HeaderValue, host: &str) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    let (page, default_port) =
        match (origin.strip_prefix("http://"), origin.strip_prefix("https://")) {
            (Some(page), _) => (page, 80),
            (None, Some(page)) => (page, 443),
            (None, None) => return false,
        };
    let lower = |text: &str| text.to_ascii_lowercase();
    let (page, host) = (lower(page), lower(host));
    match (split_host(&page), split_host(&host)) {
        (Some((page, page_port)), Some((host, port))) => {
            page == host && page_port.unwrap_or(default_port) == port.unwrap_or(default_port)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(method: &Method, scope: Scope, head: &[(&'static str, &str)]) -> Option<Code> {
        let mut headers = HeaderMap::new();
        for (name, value) in head {
            headers.append(*name, value.parse().expect("a header"));
        }
        let allowed = ["metrics.example.com", "*.example.org"];
        let allowed = allowed.map(HostPattern::from);
        check(method, &headers, scope, &allowed).err().map(|problem| problem.code())
    }

    #[test]
    fn a_host_name_that_a_stranger_could_own_is_refused() {
        let of = |host| refused(&Method::GET, Scope::Read, &[("host", host)]);
        for host in [
            "127.0.0.1:8720",
            "192.0.2.1",
            "[::1]:8720",
            "localhost:8720",
            "LOCALHOST",
            "holdall:8720",
            "a.localhost",
            "holdall.default.svc.cluster.local:8720",
            "metrics.example.com",
            "Metrics.Example.com.:80",
            "a.example.org",
        ] {
            assert_eq!(of(host), None, "{host}");
        }
        for host in [
            "evil.example:8720",
            "example.com",
            "xmetrics.example.com",
            "example.org",
            "127.1",
            "localhost.evil.example",
        ] {
            assert_eq!(of(host), Some(Code::HostRefused), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let host = ("host", "127.0.0.1:8720");
        let of = |head: (&'static str, &str)| refused(&Method::POST, Scope::Write, &[host, head]);
        for own in [
            ("origin", "http://127.0.0.1:8720"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "none"),
            ("user-agent", "curl/8"),
        ] {
            assert_eq!(of(own), None, "{own:?}");
        }
        for foreign in [
            ("origin", "http://127.0.0.1:8721"),
            ("origin", "http://127.0.0.1"),
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", ""),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "unheard-of"),
        ] {
            assert_eq!(of(foreign), Some(Code::OriginRefused), "{foreign:?}");
        }
        let both = [host, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")];
        assert_eq!(refused(&Method::POST, Scope::Write, &both), Some(Code::OriginRefused));
        // A proxy may have changed the host; the browser's own word still holds.
        let proxied = [host, ("sec-fetch-site", "same-origin"), ("origin", "https://x.example")];
        assert_eq!(refused(&Method::POST, Scope::Write, &proxied), None);
        let default_port = [("host", "localhost"), ("origin", "http://localhost:80")];
        assert_eq!(refused(&Method::POST, Scope::Write, &default_port), None);
    }

    #[test]
    fn only_metrics_can_be_linked_to() {
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!(refused(&Method::GET, Scope::Metrics, &link), None);
        assert_eq!(refused(&Method::GET, Scope::Read, &link), Some(Code::OriginRefused));
        assert_eq!(refused(&Method::POST, Scope::Metrics, &link), Some(Code::OriginRefused));
        let fetch = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")];
        assert_eq!(refused(&Method::GET, Scope::Metrics, &fetch), Some(Code::OriginRefused));
    }

    #[test]
    fn patterns_are_names() {
        let valid = |pattern: &str| HostPattern::from(pattern).is_valid();
        assert!(["*", "a.example", "*.example", "holdall"].into_iter().all(valid));
        assert!(!["", "a:80", "http://a", "*a", "a.*", "*.", "a/b"].into_iter().any(valid));
    }
}
