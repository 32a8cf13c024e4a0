//! holdall: one server that holds what stateless workers share.
//!
//! The floors of the house; an arrow means "uses", and none goes the other way:
//!
//! ```text
//! model <- clock <- store <- engine <- exposition <- http <- config <- app <- cli <- main
//! ```
//!
//! * [`model`]: plain types, valid once made.
//! * [`clock`]: what time it is; the one source of "now".
//! * [`store`]: the traits that are the contract, and the backends that keep it.
//! * [`engine`]: the rules: guards, fencing, the fair queue of leases.
//! * [`exposition`]: the formats in and out, the pages of /metrics, the refresher.
//! * [`http`]: routes, problems, limits, access.
//! * [`config`]: every setting, checked as a whole.
//! * [`app`]: builds the floors, owns the tasks and the order of shutdown.
//!
//! The test `house_rules` holds the arrows. `docs/architecture.md` tells the rest.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
pub mod exposition;
pub mod http;
pub mod model;
pub mod store;
