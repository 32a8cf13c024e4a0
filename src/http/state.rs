//! What the handlers share: the engine once the store has loaded, settings, the body budget, the stop signal.
//!
//! Not access and permits: those are admission's. Invariant: the server responds from its start on. Until the store
//! has loaded, health checks see a live server that is not ready, and all other requests get 503.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::body::{BodyBudget, BodyLimit};
use super::observe::RouteMetrics;
use super::problem::{Code, Problem};
use super::settings::HttpSettings;
use crate::engine::Engine;
use crate::exposition::Pages;

/// The engine, once the store has loaded, and until then what the start is busy with.
#[derive(Default)]
pub struct Readiness {
    engine: OnceLock<Arc<Engine>>,
    reason: Mutex<Option<&'static str>>,
    /// Why the store could not serve when readiness was last checked.
    failure: Mutex<Option<String>>,
}

impl Readiness {
    /// Makes the resources available, permanently. A second call changes nothing.
    pub fn set_engine(&self, engine: Arc<Engine>) {
        let _ = self.engine.set(engine);
    }

    /// Sets what the start is busy with, for /readyz.
    pub fn set_reason(&self, reason: &'static str) {
        *self.reason.lock() = Some(reason);
    }

    /// Returns the engine; `None` while the store is loading.
    pub fn engine(&self) -> Option<&Arc<Engine>> {
        self.engine.get()
    }

    /// Returns what the start is busy with.
    pub fn reason(&self) -> &'static str {
        self.reason.lock().unwrap_or("the store is still loading")
    }

    /// Records whether the store can serve; returns whether this is a failure that was not recorded before.
    fn is_new_failure(&self, ready: Result<(), &str>) -> bool {
        let mut known = self.failure.lock();
        let new = ready.err().filter(|why| known.as_deref() != Some(why)).is_some();
        if new || ready.is_ok() {
            *known = ready.err().map(str::to_owned);
        }
        new
    }
}

/// What the router is built from.
pub struct RouterParts {
    /// The engine, now or later.
    pub readiness: Arc<Readiness>,
    /// Limits, timeouts, access.
    pub settings: HttpSettings,
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
        let RouterParts { readiness, settings, pages, stop } = parts;
        Self(Arc::new(Shared {
            budget: BodyBudget::new(settings.limits.buffered_body_bytes),
            unmatched: RouteMetrics::new(pages.own(), "any", "unmatched"),
            readiness,
            pages,
            stop,
            settings,
        }))
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
        let Some(engine) = self.readiness.engine() else {
            return Err(Problem::starting().detail(self.readiness.reason()));
        };
        let ready = engine.operation.ready().await;
        if self.readiness.is_new_failure(ready.as_ref().map(|_| ()).map_err(String::as_str)) {
            let cause = ready.as_ref().err().map(String::as_str).unwrap_or_default();
            tracing::warn!(cause, "the store can't serve");
        }
        ready.map_err(|_| {
            Problem::new(Code::StoreUnavailable)
                .detail("the store can't serve now; the server's log says why")
        })
    }

    /// Returns the limit on bodies other than pushes of series.
    pub(crate) fn body_limit(&self) -> BodyLimit {
        let bytes = self.settings.limits.body_bytes;
        BodyLimit { sent_bytes: bytes, decoded_bytes: bytes }
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

#[cfg(test)]
mod tests {
    use super::Readiness;

    #[test]
    fn a_failure_is_new_once_while_it_lasts() {
        let readiness = Readiness::default();
        let new = [Ok(()), Err("full"), Err("full"), Err("gone"), Ok(()), Err("gone")]
            .map(|ready| readiness.is_new_failure(ready));
        assert_eq!(new, [false, true, false, true, false, true]);
    }
}
