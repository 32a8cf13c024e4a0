//! What /metrics shows, and how the formats out are written.
//!
//! From below: a `family` is a header and pages of rendered lines. `chunks` are what pages are
//! compressed and sent in. The [`mirror`] keeps the store's series as families, `openmetrics` renders
//! them in the other format, and [`own`] has the server's own metrics. [`Pages`] is what a `scrape`
//! takes, and the [`refresher`] keeps it up to date.
//!
//! Not the HTTP route, and not the formats in, which are in `ingest`.

mod chunks;
mod family;
pub mod mirror;
mod openmetrics;
pub mod own;
pub mod refresher;
mod scrape;
mod settings;

pub(crate) use self::chunks::gzip;
pub use self::own::OwnMetrics;
pub use self::own::aggregates::PipelineCollector;
pub use self::own::totals::{CacheRegistry, CacheTotal, CacheTotals};
pub use self::refresher::{Exports, Refresher};
pub use self::scrape::{
    FILTERING_BYTES, FilteredScrape, Format, Pages, RenderFailed, ScrapeBody, negotiate,
};
pub use self::settings::{ExpositionSettings, RefreshSettings};
