//! Requests to a server, and its responses.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::Value;

use super::DEADLINE;

/// A client of one server. Its clones share their connections.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    http: reqwest::Client,
    token: Option<String>,
}

impl Client {
    /// Makes a client without a token.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build();
        Self { address, http: http.expect("a client"), token: None }
    }

    /// Makes a client that shows a token.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Returns the server's address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins a request.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("http://{}{path}", self.address));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request; `None` when there was no response because the server is away.
    pub(crate) async fn try_send(&self, request: RequestBuilder) -> Option<Response> {
        let received = request.send().await.ok()?;
        let status = received.status().as_u16();
        let headers = received.headers().clone();
        let body = received.bytes().await.ok()?.to_vec();
        Some(Response { status, headers, body })
    }

    /// Sends a request and returns the response, which has to come.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Response {
        self.try_send(request).await.expect("the server responds")
    }

    /// Sends a GET.
    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send(self.request(Method::GET, path)).await
    }

    /// Sends a GET to a server that may be away, or slow.
    pub(crate) async fn try_get(&self, path: &str) -> Option<Response> {
        self.try_send(self.request(Method::GET, path).timeout(Duration::from_secs(5))).await
    }

    /// Returns how many requests the server is working on, or lets wait, beside the one that asks.
    pub(crate) async fn others_in_flight(&self) -> u64 {
        let text = self.get("/metrics").await.text();
        let value =
            |line: &str| line.strip_prefix("holdall_http_requests_in_flight ")?.parse().ok();
        let count: u64 = text.lines().find_map(value).unwrap_or_else(|| panic!("not in:\n{text}"));
        count.saturating_sub(1)
    }

    /// Returns how many permits of a kind requests have.
    pub(crate) async fn permits_in_use(&self, kind: &str) -> u64 {
        let text = self.get("/metrics").await.text();
        let line = format!("holdall_http_permits_in_use{{kind=\"{kind}\"}} ");
        let value = |text: &str| text.strip_prefix(&line)?.parse().ok();
        text.lines().find_map(value).unwrap_or_else(|| panic!("{line} is not in:\n{text}"))
    }

    /// Sends JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Sends JSON to a server that may be away.
    pub(crate) async fn try_post(&self, path: &str, body: &Value) -> Option<Response> {
        self.try_send(self.request(Method::POST, path).json(body)).await
    }

    /// Sends JSON to a server that may be away.
    pub(crate) async fn try_put(&self, path: &str, body: &Value) -> Option<Response> {
        self.try_send(self.request(Method::PUT, path).json(body)).await
    }

    /// Pushes one point without a time of its own.
    pub(crate) async fn try_push(&self, name: &str, value: f64) -> Option<Response> {
        self.try_post("/v1/series", &push(name, value)).await
    }
}

/// Makes the body that pushes one point.
pub(crate) fn push(name: &str, value: f64) -> Value {
    serde_json::json!({
        "role": "leader",
        "source": "leader_scrape",
        "points": [{"name": name, "labels": {}, "value": value}],
    })
}

/// A whole response.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    /// The status.
    pub(crate) status: u16,
    /// The head.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Returns the body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {} {:?}", self.status, self.text()))
    }

    /// Checks the status, and returns the body as JSON.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// Checks that the response is a problem document with this status; returns its code.
    #[track_caller]
    pub(crate) fn expect_problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        let content_type = self.headers.get("content-type").and_then(|v| v.to_str().ok());
        assert_eq!(content_type, Some("application/problem+json"), "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        assert!(problem["type"].is_string() && problem["title"].is_string(), "{problem}");
        let reason = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
        assert!(reason.is_some(), "{status} is a registered status");
        problem["code"].as_str().expect("a code").to_owned()
    }
}
