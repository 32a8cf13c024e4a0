//! What /metrics shows, and how the formats in and out are read and written.

mod blocks;
mod body;
mod family;
mod forms;
mod gzip;
pub mod input;
mod metadata;
pub mod mirror;
mod naming;
mod negotiate;
mod number;
mod openmetrics;
mod order;
mod page;
pub mod totals;

pub use self::body::PageBody;
pub use self::negotiate::{Format, accepts_gzip, negotiate};
