//! The resources of the API, each with its rows of the route table, its handlers and its wire types.
//!
//! A handler reads, asks the engine, and wraps; it decides nothing itself. Its name in camel case is its
//! operationId. Invariant: a resource uses nothing of another one's files.

mod aggregates;
mod cache;
mod checkpoints;
pub(crate) mod documents;
mod generations;
mod health;
mod leases;
mod locks;
mod metrics;
mod operation;
mod series;
mod shared;

use super::route::Resource;

/// Returns every resource, in the order of the document.
pub(crate) fn all() -> Vec<Resource> {
    vec![
        series::resource(),
        series::streams(),
        locks::resource(),
        leases::resource(),
        checkpoints::resource(),
        generations::resource(),
        cache::resource(),
        aggregates::resource(),
        aggregates::streams(),
        operation::resource(),
        health::resource(),
        metrics::resource(),
    ]
}
