//! Every route on one screen, with what it asks of its callers and how it may fail.
//!
//! The document and the router are made from one table, so that they can't drift apart.
//! Invariant: no request reaches a handler around its gate, and what matches no route is a
//! problem like any other.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, put};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use super::access::Scope;
use super::extract::Path;
use super::middleware::{Gate, GateLayer, Patience};
use super::problem::Problem;
use super::routes::{
    cache, cache_batches, cache_writes, checkpoints, documents, generations, health, leases, locks,
    metrics, operation, series, series_changes,
};
use super::state::{AppState, RouterParts};
use super::{decorate, openapi};

/// Every route of the API.
fn table() -> Vec<Entry> {
    vec![
        write(routes!(series::push_series)).uploads().fenced().fails(&[422, 428, 507]),
        read(routes!(series::list_series)).compressed(),
        read(routes!(series_changes::get_series_cursor)),
        read(routes!(series_changes::get_series_delta)).waits().compressed().fails(&[410]),
        read(routes!(series_changes::stream_series)).waits().fails(&[410]),
        read(routes!(series::get_series)).fails(&[404]),
        write(routes!(series::delete_series)).fenced().fails(&[404, 428]),
        write(routes!(series::delete_matching_series)).takes_body().fenced().fails(&[428]),
        write(routes!(locks::acquire_lock)).takes_body().fails(&[404, 507]),
        write(routes!(locks::acquire_locks)).takes_body().fails(&[404, 507]),
        read(routes!(locks::get_lock)).fails(&[404]),
        write(routes!(leases::acquire_lease)).takes_body().waits_for_turn().fails(&[507]),
        write(routes!(leases::renew_lease)).takes_body().fails(&[409, 507]),
        write(routes!(leases::release_lease)).takes_body().fails(&[409, 507]),
        read(routes!(leases::get_lease)).fails(&[404]),
        read(routes!(leases::list_leases)).compressed(),
        write(routes!(checkpoints::set_checkpoint)).takes_body().fenced().fails(&[409, 507]),
        read(routes!(checkpoints::get_checkpoint)).fails(&[404]),
        write(routes!(checkpoints::delete_checkpoint)).fenced().fails(&[404]),
        read(routes!(checkpoints::list_checkpoints)).compressed(),
        read(routes!(generations::get_generation)),
        write(routes!(generations::bump_generation)).fails(&[507]),
        read(routes!(generations::snapshot_generations)).takes_body(),
        write(routes!(generations::bump_generations)).takes_body().fails(&[507]),
        write(routes!(generations::clean_up_generations)).takes_body().fails(&[507]),
        read(routes!(cache::get_cached_value)).waits_for_turn().fails(&[404]),
        write(routes!(cache_writes::put_cached_value)).takes_body().fails(&[412, 422, 428]),
        write(routes!(cache_writes::delete_cached_value)).fails(&[404]),
        read(routes!(cache_batches::get_cached_values)).takes_body(),
        write(routes!(cache_batches::put_cached_values)).takes_body().fails(&[428]),
        read(routes!(operation::get_status)),
        admin(routes!(operation::collect_garbage)),
        admin(routes!(operation::flush_store)).fails(&[507]),
        open(routes!(health::get_liveness)),
        open(routes!(health::get_readiness)).fails(&[503]),
    ]
}

/// The routes that clients are not generated for.
fn undocumented(state: &AppState, document: &utoipa::openapi::OpenApi) -> Router<AppState> {
    let gated = |path: &'static str, scope: Option<Scope>, handler: MethodRouter<AppState>| {
        let scrapes = scope == Some(Scope::Metrics);
        let patience = if scrapes { Patience::Scrapes } else { Patience::Unbounded };
        let gate = Gate::new(state.clone(), scope, patience, "GET", path);
        Router::new().route(path, handler.layer(GateLayer(Arc::new(gate))))
    };
    let current = documents::json_document(openapi::pretty(document));
    let older = documents::json_document(openapi::downgraded(document));
    let compressed = |handler: MethodRouter<AppState>| handler.layer(compression());
    Router::new()
        .merge(gated("/metrics", Some(Scope::Metrics), get(metrics::scrape)))
        .merge(gated("/healthz", None, get(health::get_liveness)))
        .merge(gated("/-/healthy", None, get(health::get_liveness)))
        .merge(gated("/-/ready", None, get(health::get_readiness)))
        .merge(gated("/openapi.json", None, compressed(get(current))))
        .merge(gated("/openapi-3.0.json", None, compressed(get(older))))
        .merge(gated("/docs", None, get(documents::redirect_to_docs)))
        .merge(gated("/docs/", None, get(documents::docs_index)))
        .merge(gated("/docs/{*file}", None, compressed(get(documents::docs_file))))
}

/// Keys that are spelled like the last part of another route: `GET /v1/generations/bump` asks for
/// the key `bump`, although `POST` there raises many keys.
fn keys_like_routes(state: &AppState) -> Router<AppState> {
    const VALUE: &str = "/v1/cache/{namespace}/{key}";
    let gated = |method, patience, handler: MethodRouter<AppState>, path: &'static str| {
        let scope = if method == "GET" { Scope::Read } else { Scope::Write };
        let gate = Gate::new(state.clone(), Some(scope), patience, method, path);
        handler.layer(GateLayer(Arc::new(gate)))
    };
    let mut router = Router::new();
    for key in ["snapshot", "bump", "cleanup"] {
        let read = get(move |state| generations::get_generation(state, Path(key.to_owned())));
        let read = gated("GET", Patience::Prompt, read, "/v1/generations/{key}");
        router = router.route(&format!("/v1/generations/{key}"), read);
    }
    for key in ["get", "put"] {
        let full = move |Path(namespace): Path<String>| Path((namespace, key.to_owned()));
        let read = get(move |state, path, query, place, headers| {
            cache::get_cached_value(state, full(path), query, place, headers)
        });
        let write = put(move |state, path, query, request| {
            cache_writes::put_cached_value(state, full(path), query, request)
        });
        let remove =
            delete(move |state, path| cache_writes::delete_cached_value(state, full(path)));
        let methods = gated("GET", Patience::WaitsForTurn, read, VALUE)
            .merge(gated("PUT", Patience::Prompt, write, VALUE))
            .merge(gated("DELETE", Patience::Prompt, remove, VALUE));
        router = router.route(&format!("/v1/cache/{{namespace}}/{key}"), methods);
    }
    router
}

/// Builds the router of the whole API.
pub fn router(parts: RouterParts) -> Router {
    let state = AppState::new(parts);
    let mut api = OpenApiRouter::with_openapi(openapi::head());
    for entry in table() {
        api = api.routes(entry.gated(&state));
    }
    let (router, document) = api.split_for_parts();
    let extra = undocumented(&state, &document);
    // After `split_for_parts`: the documented router can't set the fallback for methods.
    router
        .merge(keys_like_routes(&state))
        .merge(extra)
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(state)
}

/// Returns the OpenAPI document, without a server.
pub fn document() -> utoipa::openapi::OpenApi {
    let api = OpenApiRouter::<AppState>::with_openapi(openapi::head());
    table().into_iter().fold(api, |api, entry| api.routes(entry.described())).into_openapi()
}

async fn unknown_path(State(state): State<AppState>) -> Response {
    refuse(&state, Problem::not_found("there is no such path"))
}

async fn wrong_method(State(state): State<AppState>, _method: Method) -> Response {
    refuse(&state, Problem::method_not_allowed())
}

fn refuse(state: &AppState, problem: Problem) -> Response {
    let started = Instant::now();
    let response = problem.into_response();
    state.unmatched.observe(response.status().as_u16(), started.elapsed());
    response
}

fn compression() -> CompressionLayer<SizeAbove> {
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(SizeAbove::new(1024))
}

/// One route of the table.
struct Entry {
    routes: UtoipaMethodRouter<AppState>,
    scope: Option<Scope>,
    patience: Patience,
    compressed: bool,
    takes_body: bool,
    fails: Vec<u16>,
}

fn entry(routes: UtoipaMethodRouter<AppState>, scope: Option<Scope>, fails: &[u16]) -> Entry {
    let patience = if scope.is_some() { Patience::Prompt } else { Patience::Unbounded };
    let fails = fails.to_vec();
    Entry { routes, scope, patience, compressed: false, takes_body: false, fails }
}

/// How every route of a resource can fail.
const GUARDED: &[u16] = &[400, 401, 403, 500, 503];

fn read(routes: UtoipaMethodRouter<AppState>) -> Entry {
    entry(routes, Some(Scope::Read), GUARDED)
}

fn write(routes: UtoipaMethodRouter<AppState>) -> Entry {
    entry(routes, Some(Scope::Write), GUARDED)
}

fn admin(routes: UtoipaMethodRouter<AppState>) -> Entry {
    entry(routes, Some(Scope::Admin), GUARDED)
}

fn open(routes: UtoipaMethodRouter<AppState>) -> Entry {
    entry(routes, None, &[])
}

impl Entry {
    fn fails(mut self, with: &[u16]) -> Self {
        self.fails.extend_from_slice(with);
        self
    }

    fn fenced(self) -> Self {
        self.fails(&[412])
    }

    fn takes_body(mut self) -> Self {
        self.takes_body = true;
        self.fails(&[408, 413, 415])
    }

    fn uploads(mut self) -> Self {
        self.patience = Patience::Uploads;
        self.takes_body()
    }

    fn waits(mut self) -> Self {
        self.patience = Patience::Waits;
        self
    }

    fn waits_for_turn(mut self) -> Self {
        self.patience = Patience::WaitsForTurn;
        self
    }

    fn compressed(mut self) -> Self {
        self.compressed = true;
        self
    }

    fn described(self) -> UtoipaMethodRouter<AppState> {
        let (schemas, mut paths, methods) = self.routes;
        for item in paths.paths.values_mut() {
            for (_, operation) in decorate::operations(item) {
                decorate::describe(operation, self.scope, &self.fails);
            }
        }
        (schemas, paths, methods)
    }

    fn gated(self, state: &AppState) -> UtoipaMethodRouter<AppState> {
        let (scope, patience, compressed) = (self.scope, self.patience, self.compressed);
        let mut routes = self.described();
        let mut named = routes.1.paths.iter_mut().flat_map(|(path, item)| {
            decorate::operations(item).map(move |(method, _)| (method, path.clone()))
        });
        let (method, path) = named.next().unwrap_or(("GET", String::new()));
        debug_assert!(named.next().is_none(), "one entry is one operation");
        drop(named);
        let gate = Gate::new(state.clone(), scope, patience, method, &path);
        if compressed {
            routes = routes.layer(compression());
        }
        routes.layer(GateLayer(Arc::new(gate)))
    }
}
