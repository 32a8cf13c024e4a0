//! What the handlers share: the engine once the store has loaded, settings, the body budget, the stop signal.
//!
//! Not access and permits: those are admission's. Invariant: the server responds from its start on. Until the store
//! has loaded, health checks see a live server that is not ready, and all other requests get 503. It is ready from
//! its first complete page of /metrics on, for as long as the store can serve.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::body::{BodyBudget, BodyLimit, BodyPace};
use super::observe::RouteMetrics;
use super::problem::{Code, Problem};
use super::settings::HttpSettings;
use crate::engine::Engine;
use crate::exposition::Pages;
use crate::model::{FailureEvent, LastFailure};

/// The engine, once the store has loaded.
#[derive(Default)]
pub struct Readiness {
    engine: OnceLock<Arc<Engine>>,
    /// Why the store could not serve when readiness was last checked.
    failure: Mutex<LastFailure>,
}

impl Readiness {
    /// Makes the resources available, permanently. A second call changes nothing.
    pub fn set_engine(&self, engine: Arc<Engine>) {
        let _ = self.engine.set(engine);
    }

    /// Returns the engine; `None` while the store is loading.
    pub fn engine(&self) -> Option<&Arc<Engine>> {
        self.engine.get()
    }

    /// Logs when the store can't serve any more, and when it can again.
    fn log(&self, ready: Result<(), &str>) {
        match self.failure.lock().record(ready) {
            Some(FailureEvent::Began) => {
                tracing::warn!(cause = ready.err(), "the store can't serve");
            }
            Some(FailureEvent::Ended) => tracing::info!("the store can serve again"),
            None => {}
        }
    }
}

/// What the router is built from.
pub struct RouterParts {
    /// The engine, now or later.
    pub readiness: Arc<Readiness>,
    /// Limits and timeouts.
    pub settings: HttpSettings,
    /// Who may do what.
    pub access: Arc<Access>,
    /// The pages of /metrics, with what the server counts about itself.
    pub pages: Arc<Pages>,
    /// Cancelled when the server begins to stop: requests that wait then end at once.
    pub stop: CancellationToken,
}

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct AppState(Arc<Shared>);

/// The inside of [`AppState`].
pub(crate) struct Shared {
    readiness: Arc<Readiness>,
    pub(crate) settings: HttpSettings,
    pub(crate) pages: Arc<Pages>,
    pub(crate) stop: CancellationToken,
    pub(crate) budget: BodyBudget,
    /// The requests that matched no route.
    pub(crate) unmatched: RouteMetrics,
}

impl std::ops::Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl AppState {
    /// Puts the parts together.
    pub(crate) fn new(parts: RouterParts) -> Self {
        let RouterParts { readiness, settings, access: _, pages, stop } = parts;
        Self(Arc::new(Shared {
            budget: {
                let (limits, bytes) = (&settings.limits, settings.limits.buffered_body_bytes);
                BodyBudget::new(bytes, limits.part_of_client(bytes))
            },
            unmatched: RouteMetrics::new(pages.own(), "any", "unmatched"),
            readiness,
            pages,
            stop,
            settings,
        }))
    }
}

/// The budget as the request takes from it.
impl FromRequestParts<AppState> for BodyBudget {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        Ok(state.budget.of(&head.extensions))
    }
}

impl Shared {
    /// Returns the engine.
    ///
    /// # Errors
    /// 503 `starting` while the store is loading.
    pub(crate) fn engine(&self) -> Result<&Arc<Engine>, Problem> {
        self.readiness.engine().ok_or_else(Problem::starting)
    }

    /// Checks that requests can be served now.
    ///
    /// # Errors
    /// 503 with the reason, without the cause of a failure of the store: that is logged, once for as long as it lasts.
    pub(crate) async fn check_ready(&self) -> Result<(), Problem> {
        if self.stop.is_cancelled() {
            return Err(Problem::stopping());
        }
        let ready = self.engine()?.operation.ready().await;
        self.readiness.log(ready.as_ref().map(drop).map_err(String::as_str));
        ready.map_err(|_| {
            Problem::new(Code::StoreUnavailable)
                .detail("the store can't serve now; the server's log says why")
        })?;
        self.check_page()
    }

    /// Checks that /metrics has shown everything once since the start.
    ///
    /// # Errors
    /// 503 `starting`.
    pub(crate) fn check_page(&self) -> Result<(), Problem> {
        if self.pages.is_complete() {
            Ok(())
        } else {
            Err(Problem::starting().detail("the first page of /metrics is not complete yet"))
        }
    }

    /// Returns the limit on bodies other than pushes of series.
    pub(crate) fn body_limit(&self) -> BodyLimit {
        let bytes = self.settings.limits.body_bytes;
        BodyLimit { sent_bytes: bytes, decoded_bytes: bytes }
    }

    /// Returns the limit on merges of aggregates.
    pub(crate) fn merge_body_limit(&self) -> BodyLimit {
        let bytes = self.settings.limits.merge_body_bytes;
        BodyLimit { sent_bytes: bytes, decoded_bytes: bytes }
    }

    /// Returns how slowly bodies may arrive.
    pub(crate) fn body_pace(&self) -> BodyPace {
        let timeouts = &self.settings.timeouts;
        let rate = self.settings.limits.min_body_bytes_per_second;
        BodyPace::new(timeouts.body, timeouts.body_window, rate)
    }

    /// Returns the limit on pushes of series.
    pub(crate) fn series_body_limit(&self) -> BodyLimit {
        let limits = &self.settings.limits;
        BodyLimit {
            sent_bytes: limits.series_body_bytes,
            decoded_bytes: limits.series_decoded_bytes,
        }
    }

    /// Returns the number of items of a page with the `limit` that the request asked for.
    ///
    /// # Errors
    /// 400 when that is more than a page may have.
    pub(crate) fn page_items(&self, limit: Option<super::wire::Count>) -> Result<usize, Problem> {
        let limits = &self.settings.limits;
        match limit {
            None => Ok(limits.page_items),
            Some(limit) if limit.0 <= limits.max_page_items => Ok(limit.0),
            Some(_) => {
                Err(Problem::invalid(format!("limit must be at most {}", limits.max_page_items)))
            }
        }
    }

    /// Returns how long a request with this `wait` waits.
    ///
    /// # Errors
    /// 400 when that is longer than a request may.
    pub(crate) fn wait(
        &self,
        wait: Option<super::wire::Span>,
    ) -> Result<std::time::Duration, Problem> {
        let longest = self.settings.timeouts.max_wait;
        match wait {
            None => Ok(std::time::Duration::ZERO),
            Some(wait) if wait.0 <= longest => Ok(wait.0),
            Some(_) => Err(Problem::invalid(format!(
                "wait must be at most {}",
                crate::model::time::format_duration(longest)
            ))),
        }
    }
}
