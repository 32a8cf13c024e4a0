//! Every setting: read from its sources, checked as a whole, shown without its secrets.
//!
//! Not what the settings do: each layer declares its own, and they are composed here. Invariant: a [`Config`]
//! that exists is valid as a whole; where it is not, *every* error is reported at once, with its setting and
//! where it was given.

mod check;
mod composed;
mod error;
mod kubernetes;
mod load;
mod log;
mod show;
mod sources;
mod tree;

pub use self::composed::Config;
pub use self::error::{SettingError, SettingErrors};
pub use self::load::{Loaded, load};
pub use self::log::{LogFormat, LogSettings};
pub use self::tree::DEFAULT_TOML;
