//! What strangers are told about a store that can't serve.

use std::sync::Arc;

use async_trait::async_trait;
use axum::http::header;

use super::{ask, get, incomplete_pages, is_problem, parts, starting};
use crate::engine::{Engine, EngineSettings};
use crate::http::settings::for_tests;
use crate::http::{RouterParts, router};
use crate::store::StoreSettings;
use crate::store::embedded::{EmbeddedSettings, open};
use crate::store::{Capabilities, Operation, StoreResult, StoreStatus};

struct Broken(Arc<dyn Operation>);

#[async_trait]
impl Operation for Broken {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn ready(&self) -> Result<(), String> {
        Err("no room in /var/lib/secret".to_owned())
    }

    async fn flush_wanted(&self) {
        self.0.flush_wanted().await;
    }

    async fn flush(&self) -> StoreResult<u64> {
        self.0.flush().await
    }

    async fn collect_garbage(&self) -> StoreResult<u64> {
        self.0.collect_garbage().await
    }

    async fn status(&self) -> StoreResult<StoreStatus> {
        self.0.status().await
    }

    async fn close(&self) -> StoreResult<()> {
        self.0.close().await
    }
}

#[tokio::test]
async fn the_causes_stay_in_the_log() {
    let (mut stores, clock) =
        open(&EmbeddedSettings::in_memory(), &StoreSettings::for_tests()).expect("opens in memory");
    stores.operation = Arc::new(Broken(stores.operation));
    let parts = parts(for_tests());
    parts.readiness.set_engine(Arc::new(Engine::new(stores, EngineSettings::default(), clock)));
    let router = router(parts);
    for path in ["/readyz", "/-/ready"] {
        let seen = ask(&router, get(path)).await;
        is_problem(&seen, 503, "store_unavailable");
        assert_eq!(seen.json["detail"], "the store can't serve now; the server's log says why");
    }
}

#[tokio::test]
async fn a_server_is_ready_with_its_first_complete_page() {
    let (stores, clock) =
        open(&EmbeddedSettings::in_memory(), &StoreSettings::for_tests()).expect("opens in memory");
    let pages = incomplete_pages();
    let parts = RouterParts { pages: Arc::clone(&pages), ..parts(for_tests()) };
    parts.readiness.set_engine(Arc::new(Engine::new(stores, EngineSettings::default(), clock)));
    let router = router(parts);
    let paths = ["/readyz", "/-/ready", "/metrics", "/metrics?match[]=x"];
    for path in paths {
        is_problem(&ask(&router, get(path)).await, 503, "starting");
    }
    // The store has loaded: what needs no page is served.
    assert_eq!(ask(&router, get("/v1/series")).await.status, 200);
    pages.set_complete();
    for path in paths {
        assert_eq!(ask(&router, get(path)).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_server_that_loads_is_alive_but_not_ready() {
    let router = starting();
    for path in ["/livez", "/healthz", "/-/healthy"] {
        assert_eq!(ask(&router, get(path)).await.status, 200, "{path}");
    }
    for path in ["/readyz", "/-/ready"] {
        let seen = ask(&router, get(path)).await;
        is_problem(&seen, 503, "starting");
        assert!(seen.headers.contains_key(header::RETRY_AFTER));
    }
    for path in ["/v1/series", "/v1/leases/x", "/v1/status", "/v1/checkpoints/a/b"] {
        let seen = ask(&router, get(path)).await;
        is_problem(&seen, 503, "starting");
        assert!(seen.headers.contains_key(header::RETRY_AFTER), "{path}");
    }
}
