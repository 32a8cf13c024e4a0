//! holdall: one server that holds what stateless workers share.
//!
//! The layers; an arrow means "uses", and none goes the other way:
//!
//! ```text
//! model <- clock <- store <- engine <- exposition <- http <- config <- app <- cli <- main
//! model <- ingest <- http
//! ```
//!
//! * [`model`]: plain types, valid once made.
//! * [`clock`]: what time it is; the one source of "now".
//! * [`store`]: the traits that are the contract, and the backends that keep it.
//! * [`engine`]: the rules: guards, fencing, the fair queue of leases.
//! * [`ingest`]: the formats that series come in.
//! * [`exposition`]: the formats out, the pages of /metrics, the refresher.
//! * [`http`]: routes, problems, limits, access.
//! * [`config`]: every setting, checked as a whole.
//! * [`app`]: builds the layers, owns the tasks and the order of shutdown.
//!
//! The test `house_rules` holds the arrows. `docs/architecture.md` tells the rest.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
pub mod exposition;
pub mod http;
pub mod ingest;
pub mod model;
pub mod store;
