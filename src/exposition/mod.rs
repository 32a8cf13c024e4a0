//! What /metrics shows, and how the formats out are written.
//!
//! Out: the [`refresher`] keeps a [`mirror`] of the store's series, which is made of families,
//! which are made of pages of rendered lines; [`Pages`] is what a scrape sees of it.

mod blocks;
mod body;
mod cluster;
mod family;
mod forms;
mod gzip;
mod metadata;
pub mod mirror;
mod naming;
mod negotiate;
mod openmetrics;
mod order;
pub mod own;
mod own_page;
mod page;
mod process;
pub mod refresher;
mod scrape;
mod settings;
pub mod store_client;
pub mod totals;

pub use self::body::PageBody;
pub use self::negotiate::{Format, accepts_gzip, negotiate};
pub use self::own::OwnMetrics;
pub use self::refresher::Refresher;
pub use self::scrape::{Pages, RenderFailed};
pub use self::settings::{ExpositionSettings, RefreshSettings};
pub use self::totals::{CacheRegistry, CacheTotal, CacheTotals, GaugeFamily};
