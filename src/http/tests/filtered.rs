//! Queries: those of /metrics, and those that a route does not have.

use axum::http::header;

use super::{ask, get, is_problem, parts, starting};
use crate::http::settings::for_tests;

#[tokio::test]
async fn a_scrape_with_selectors_shows_only_what_they_match() {
    let router = starting();
    let seen = ask(&router, get("/metrics?match[]=holdall_build_info")).await;
    let text = String::from_utf8_lossy(&seen.bytes);
    assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 1, "{text}");
    assert_eq!(seen.headers[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    let both = "/metrics?match[]=holdall_build_info&match%5B%5D=holdall_mirrored_series";
    let text = String::from_utf8_lossy(&ask(&router, get(both)).await.bytes).into_owned();
    assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 2, "{text}");
    let seen = ask(&router, get("/metrics?match[]=nothing")).await;
    assert_eq!((seen.status, seen.bytes.len()), (200, 0));
    let mut request = get("/metrics?match[]=nothing");
    let accept = "application/openmetrics-text".parse().expect("a header");
    request.headers_mut().insert(header::ACCEPT, accept);
    assert_eq!(ask(&router, request).await.bytes, "# EOF\n");
}

#[tokio::test]
async fn selectors_of_a_scrape_are_bounded_as_those_of_a_scan() {
    let router = starting();
    for query in ["match[]={", "match[]=", "match[]={a=\"\"}", "match=x", "collect[]=x", "x"] {
        let path = format!("/metrics?{}", query.replace('"', "%22").replace('{', "%7B"));
        is_problem(&ask(&router, get(&path)).await, 400, "invalid_request");
    }
    let many = vec!["match[]=x"; for_tests().limits.selectors + 1].join("&");
    is_problem(&ask(&router, get(&format!("/metrics?{many}"))).await, 400, "invalid_request");
    let mut settings = for_tests();
    settings.limits.buffered_body_bytes = 128 << 10;
    let router = super::router(parts(settings));
    // A response that is larger than the whole budget takes all of it.
    assert_eq!(ask(&router, get("/metrics?match[]=x")).await.status, 200);
}

#[tokio::test]
async fn a_query_that_a_route_does_not_read_is_refused() {
    let router = starting();
    for path in ["/v1/status?x=1", "/v1/series/0123?x", "/v1/leases/a?wait=1s"] {
        is_problem(&ask(&router, get(path)).await, 400, "invalid_request");
    }
    is_problem(&ask(&router, get("/v1/status?")).await, 503, "starting");
    // What is open to everybody is more lenient: some orchestrators add parameters.
    for path in ["/livez?x=1", "/openapi.json?v=1", "/docs/swagger-ui.css?v=1"] {
        assert_eq!(ask(&router, get(path)).await.status, 200, "{path}");
    }
}
