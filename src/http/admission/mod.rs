//! Admission: checks access and takes the permit, once for each request, and limits how long it may take.
//!
//! Not what a request does, and not how large its body may be: see `body`. What a route needs is looked up when the
//! router is built, never per request. Invariant: a request counts against one bound at a time, from its admission
//! until its response is complete, and whatever happens in its handler, the client gets a response.

mod class;
mod hold;
mod layer;
mod permits;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;

use super::access::{Access, Allowed, Scope};
use super::clients::{Client, CountsFor, Peer};
use super::head;
use super::observe::RouteMetrics;
use super::problem::Problem;
use super::settings::{HttpSettings, TimeoutSettings};
use crate::exposition::OwnMetrics;

pub(crate) use self::class::RequestClass;
pub(crate) use self::layer::AdmissionLayer;
use self::permits::{Permit, Permits};
pub(crate) use self::permits::{RunningPermit, WaitFor};

/// What the admission of all routes shares.
pub(crate) struct Admission {
    access: Arc<Access>,
    permits: Arc<Permits>,
    timeouts: TimeoutSettings,
    head_bytes: usize,
    own: Arc<OwnMetrics>,
}

impl Admission {
    /// Makes the bounds that all routes count against.
    pub(crate) fn new(
        settings: &HttpSettings,
        access: &Arc<Access>,
        own: &Arc<OwnMetrics>,
    ) -> Self {
        Self {
            access: Arc::clone(access),
            permits: Arc::new(Permits::new(&settings.limits, own)),
            timeouts: settings.timeouts.clone(),
            head_bytes: settings.limits.head_bytes,
            own: Arc::clone(own),
        }
    }

    /// Returns the layer of one route. `scope` is what a token must allow; `None` for routes that are open to
    /// everybody. `path` is the route's template. Unless the handler `takes_query`, any query is refused.
    pub(crate) fn layer(
        &self,
        scope: Option<Scope>,
        class: RequestClass,
        method: &str,
        path: &str,
        takes_query: bool,
    ) -> AdmissionLayer {
        AdmissionLayer::new(RouteAdmission {
            access: scope.map(|scope| (Arc::clone(&self.access), scope)),
            permits: Arc::clone(&self.permits),
            class,
            takes_query,
            time_limit: class.time_limit(&self.timeouts),
            head_bytes: self.head_bytes,
            metrics: RouteMetrics::new(&self.own, method, path),
            route: format!("{method} {path}"),
        })
    }
}

/// The admission of one route.
struct RouteAdmission {
    /// `None` for routes that are open to everybody.
    access: Option<(Arc<Access>, Scope)>,
    permits: Arc<Permits>,
    class: RequestClass,
    takes_query: bool,
    time_limit: Duration,
    head_bytes: usize,
    metrics: RouteMetrics,
    /// The method and the path's template, for the log.
    route: String,
}

impl RouteAdmission {
    /// Checks access, takes the permit, and leaves in the request what handlers ask for: whose token it shows,
    /// and the permit where it can be exchanged.
    ///
    /// # Errors
    /// 400 or 431 for a bad head or query, 401 or 403 when the client has no access, 503 `overloaded` when there is no
    /// permit for this client.
    fn admit(&self, request: &mut Request<Body>) -> Result<Permit, Problem> {
        let peer = request.extensions().get::<Peer>().cloned();
        // What another program sends to the router itself need not be a whole head.
        if peer.is_some() {
            head::check(request, self.head_bytes)?;
        }
        // Before the permit, so that a client without access neither takes a permit nor learns how busy the server is.
        let client = match &self.access {
            Some((access, scope)) => check_access(access, *scope, request)?,
            None => None,
        };
        if !self.takes_query && request.uri().query().is_some_and(|query| !query.is_empty()) {
            return Err(Problem::invalid("the query: this route has no parameters there"));
        }
        let waits = peer.as_ref().map(|peer| &peer.waits);
        // A token's client, or else the address.
        let client = client.as_ref().or_else(|| peer.as_ref().map(|peer| &peer.client));
        let permit = self.permits.acquire(self.class, client, waits)?;
        if let Some(client) = client {
            let counts_for = CountsFor(Arc::clone(client));
            request.extensions_mut().insert(counts_for);
        }
        if let Permit::Exchangeable(running) = &permit {
            request.extensions_mut().insert(running.clone());
        }
        Ok(permit)
    }
}

/// Returns the client that the request's token stands for.
fn check_access(
    access: &Access,
    scope: Scope,
    request: &mut Request<Body>,
) -> Result<Option<Arc<Client>>, Problem> {
    if scope == Scope::Metrics {
        let address = request.extensions().get::<Peer>().map(|peer| peer.address);
        access.check_metrics_address(address)?;
    }
    let Allowed { caller, client } = access.check(request.method(), request.headers(), scope)?;
    if let Some(caller) = caller {
        request.extensions_mut().insert(caller);
    }
    Ok(client)
}

#[cfg(test)]
mod tests;
