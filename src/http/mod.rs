//! HTTP: routes, problems, limits, access, the listener.
//!
//! Not the rules: those are the engine's. Invariant: every response to a request that failed is a problem document,
//! and status codes are chosen in `problem` alone.

mod access;
mod admission;
mod body;
mod clients;
mod compression;
mod event_stream;
mod extract;
mod framing;
mod head;
mod linger;
mod listen;
mod observe;
mod offload;
mod openapi;
mod problem;
mod push;
mod route;
mod router;
mod routes;
mod selectors;
mod settings;
mod state;
#[cfg(test)]
mod tests;
mod unrouted;
mod wire;

pub use self::access::{Access, AccessSettings, HostPattern, Scope, TokenSettings};
pub use self::listen::serve;
pub use self::router::{openapi_3_0, openapi_3_1, route_table, router};
pub use self::settings::{HttpSettings, LimitSettings, ServerSettings, TimeoutSettings};
pub use self::state::{Readiness, RouterParts};
