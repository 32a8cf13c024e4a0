//! Counting requests: the handles to the metrics of one route, looked up once.
//!
//! Not the metrics: their names are in `exposition::own`. Invariant: the label is the template of the route that
//! matched, never a path that a client sent.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{Histogram, IntCounter};

use super::problem::Code;
use crate::exposition::OwnMetrics;

/// The statuses of responses that are not problems.
const WITHOUT_PROBLEM: [u16; 3] = [200, 304, 308];

/// The statuses that have a handle of their own. Codes share statuses; only the first place of a status is used.
const STATUSES: [u16; WITHOUT_PROBLEM.len() + Code::ALL.len()] = {
    let mut statuses = [0; WITHOUT_PROBLEM.len() + Code::ALL.len()];
    let mut at = 0;
    while at < statuses.len() {
        statuses[at] = if at < WITHOUT_PROBLEM.len() {
            WITHOUT_PROBLEM[at]
        } else {
            Code::ALL[at - WITHOUT_PROBLEM.len()].status().as_u16()
        };
        at += 1;
    }
    statuses
};

/// What is counted about one route.
pub(crate) struct RouteMetrics {
    own: Arc<OwnMetrics>,
    method: String,
    route: String,
    duration: Histogram,
    by_status: [OnceLock<IntCounter>; STATUSES.len()],
}

impl RouteMetrics {
    /// Looks up the handles of a route.
    pub(crate) fn new(own: &Arc<OwnMetrics>, method: &str, route: &str) -> Self {
        Self {
            own: Arc::clone(own),
            method: method.to_owned(),
            route: route.to_owned(),
            duration: own.http_duration.with_label_values(&[route]),
            by_status: [const { OnceLock::new() }; STATUSES.len()],
        }
    }

    /// Counts a response.
    pub(crate) fn observe(&self, status: u16, took: Duration) {
        self.duration.observe(took.as_secs_f64());
        match STATUSES.iter().position(|known| *known == status) {
            Some(at) => self.by_status[at].get_or_init(|| self.counter(status)).inc(),
            None => self.counter(status).inc(),
        }
    }

    fn counter(&self, status: u16) -> IntCounter {
        let labels = [self.method.as_str(), self.route.as_str(), &status.to_string()];
        self.own.http_requests.with_label_values(&labels)
    }

    /// Counts a request as in flight, until [`Self::end`].
    pub(crate) fn begin(&self) {
        self.own.http_in_flight.inc();
    }

    /// Ends what [`Self::begin`] began.
    pub(crate) fn end(&self) {
        self.own.http_in_flight.dec();
    }
}
