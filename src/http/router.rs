//! The router: every row of every resource behind its admission.
//!
//! Not the rows: each resource owns its own, see `routes`. `openapi/routes.txt` shows all of them on one screen.
//! Invariant: no request reaches a handler around its admission, and a request that matches no route gets a problem like
//! any other.

use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;

use super::admission::Admission;
use super::clients::Peer;
use super::compression::{Encoders, compress};
use super::head;
use super::openapi;
use super::problem::{Code, Problem};
use super::route::{Resource, Route};
use super::routes;
use super::state::{AppState, RouterParts};

/// Builds the router of the whole API.
pub fn router(parts: RouterParts) -> Router {
    let admission = Admission::new(&parts.settings, &parts.access, parts.pages.own());
    let state = AppState::new(parts);
    let encoders = Encoders::default();
    let mut router = Router::new();
    for route in resources().into_iter().flat_map(|resource| resource.routes) {
        let path = route.path.clone();
        router = router.route(&path, served(route, &admission, &encoders));
    }
    router.fallback(unknown_path).method_not_allowed_fallback(wrong_method).with_state(state)
}

/// Returns the document as text, in OpenAPI 3.1, as /openapi.json has it.
pub fn openapi_3_1() -> String {
    openapi::pretty(&openapi::document(&routes::all()))
}

/// Returns the document as text, in OpenAPI 3.0.3, as /openapi-3.0.json has it.
pub fn openapi_3_0() -> String {
    openapi::downgraded(&openapi::document(&routes::all()))
}

/// Returns the table of all routes as text.
pub fn route_table() -> String {
    openapi::table(&resources())
}

/// Returns all resources, including the documents about them.
fn resources() -> Vec<Resource> {
    let mut resources = routes::all();
    let document = openapi::document(&resources);
    let (current, older) = (openapi::pretty(&document), openapi::downgraded(&document));
    resources.push(routes::documents::resource(current, older));
    resources
}

/// Puts the layers of a route around its handler.
fn served(route: Route, admission: &Admission, encoders: &Encoders) -> MethodRouter<AppState> {
    let codes = route.codes();
    // Some orchestrators and browsers add parameters of their own to what is open to everybody.
    let takes_query = route.takes_query || route.scope.is_none();
    let layer = admission.layer(route.scope, route.class, route.method, &route.path, takes_query);
    let mut handler = route.handler;
    if route.compressed {
        handler = handler.layer(from_fn_with_state(encoders.clone(), compress));
    }
    handler = handler.layer(layer);
    if cfg!(debug_assertions) {
        let row = format!("{} {}", route.method, route.path);
        handler = handler.layer(map_response(move |response: Response| {
            check_declared(&row, &codes, &response);
            std::future::ready(response)
        }));
    }
    handler
}

/// Checks that a route declares the code that it responds with.
fn check_declared(row: &str, declared: &[Code], response: &Response) {
    if let Some(code) = response.extensions().get::<Code>() {
        assert!(declared.contains(code), "{row} responds with {code:?}, which it does not declare");
    }
}

async fn unknown_path(State(state): State<AppState>, request: Request<Body>) -> Response {
    refuse(&state, &request, Problem::not_found("there is no such path"))
}

async fn wrong_method(State(state): State<AppState>, request: Request<Body>) -> Response {
    refuse(&state, &request, Problem::method_not_allowed())
}

fn refuse(state: &AppState, request: &Request<Body>, problem: Problem) -> Response {
    let started = Instant::now();
    let over_a_connection = request.extensions().get::<Peer>().is_some();
    let head = head::check(request, state.settings.limits.head_bytes);
    let problem = head.err().filter(|_| over_a_connection).unwrap_or(problem);
    let response = problem.into_response();
    state.unmatched.observe(response.status().as_u16(), started.elapsed());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_a_route_does_not_declare_is_found() {
        let response = Problem::new(Code::CursorGone).into_response();
        check_declared("GET /x", &[Code::CursorGone], &response);
        let undeclared = std::panic::catch_unwind(|| {
            check_declared("GET /x", &[Code::NotFound], &Problem::internal().into_response());
        });
        assert!(undeclared.is_err());
    }

    #[test]
    fn each_method_of_a_path_has_one_row() {
        let resources = resources();
        let rows = resources.iter().flat_map(|resource| &resource.routes);
        let mut seen = std::collections::BTreeSet::new();
        for route in rows {
            assert!(seen.insert((route.method, route.path.clone())), "{}", route.path);
        }
        assert!(seen.len() >= 44, "{}", seen.len());
    }
}
