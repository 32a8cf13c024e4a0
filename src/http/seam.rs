//! Stand-ins until the mirror lands.
use std::time::Duration;
/// pages
#[derive(Default)]
pub struct Published;
/// own
#[derive(Default)]
pub struct OwnMetrics;
pub(crate) struct RouteMetrics;
impl OwnMetrics {
    pub(crate) fn route(&self, _method: &str, _path: &str) -> RouteMetrics {
        RouteMetrics
    }
}
impl RouteMetrics {
    pub(crate) fn observe(&self, _status: u16, _took: Duration) {}
}
