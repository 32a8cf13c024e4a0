//! Request classes: what the requests of a route count against, and how long they may take.

use std::time::Duration;

use crate::http::settings::TimeoutSettings;

/// What the requests of a route count against, and how long they may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestClass {
    /// Runs, and responds at once.
    Prompt,
    /// Runs, and its body may be large and arrive over a slow connection. So it counts by itself: slow pushes keep no
    /// other request from running.
    Upload,
    /// Runs, and finds room when no other request does: the renewal or release of a lease. A holder that could not
    /// renew would lose its lease to the load.
    Renewal,
    /// Runs, and may turn out to wait, for changes or for another client. It then exchanges its permit, see
    /// [`super::RunningPermit`].
    Wait,
    /// Scrapes /metrics.
    Scrape,
    /// Counts against no bound, so that it is served when the server is busy too: health, documents.
    Unlimited,
}

impl RequestClass {
    /// Returns the name of the class, as in the route table.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Upload => "upload",
            Self::Renewal => "renewal",
            Self::Wait => "wait",
            Self::Scrape => "scrape",
            Self::Unlimited => "unlimited",
        }
    }

    /// Returns how long a request may take until its response begins.
    pub(super) fn time_limit(self, timeouts: &TimeoutSettings) -> Duration {
        match self {
            Self::Prompt | Self::Renewal | Self::Scrape | Self::Unlimited => timeouts.request,
            Self::Upload => timeouts.upload,
            Self::Wait => timeouts.request + timeouts.max_wait,
        }
    }
}
