//! The rules that hold whatever the backend: guards, skew, fencing, waiting.
//!
//! Speaks model and store, never HTTP. Invariant: nothing here keeps state that a second
//! replica would have to know; what is shared is in the store.

pub mod cache;
pub mod checkpoints;
mod error;
pub mod generations;
pub mod leases;
pub mod locks;
pub mod series;

use std::sync::Arc;

pub use self::error::{EngineError, EngineResult};
use crate::clock::SharedClock;
use crate::store::{Fenced, Operation, Stores};

/// The rules of every resource, over one set of stores.
pub struct Engine {
    /// Series.
    pub series: series::SeriesEngine,
    /// Locks.
    pub locks: locks::LockEngine,
    /// Leases.
    pub leases: leases::LeaseEngine,
    /// Checkpoints.
    pub checkpoints: checkpoints::CheckpointEngine,
    /// Generations.
    pub generations: generations::GenerationEngine,
    /// The cache.
    pub cache: cache::CacheEngine,
    /// The store as a whole.
    pub operation: Arc<dyn Operation>,
}

/// The settings of the rules.
#[derive(Debug, Clone, Default)]
pub struct EngineSettings {
    /// Who may write series, and how.
    pub series: series::SeriesRules,
    /// The limits on waiting for a lease.
    pub leases: leases::LeaseRules,
    /// The limits on cached values.
    pub cache: cache::CacheRules,
}

impl Engine {
    /// Builds the engine over `stores`.
    pub fn new(stores: Stores, settings: EngineSettings, clock: SharedClock) -> Self {
        let shared = stores.operation.capabilities().shared;
        Self {
            series: series::SeriesEngine::new(stores.series, settings.series, Arc::clone(&clock)),
            locks: locks::LockEngine::new(stores.locks),
            leases: leases::LeaseEngine::new(stores.leases, settings.leases, Arc::clone(&clock)),
            checkpoints: checkpoints::CheckpointEngine::new(stores.checkpoints),
            generations: generations::GenerationEngine::new(stores.generations),
            cache: cache::CacheEngine::new(stores.cache, settings.cache, clock, shared),
            operation: stores.operation,
        }
    }
}

/// Turns a refused fence into the error that says so.
fn unfence<T>(outcome: Fenced<T>) -> EngineResult<T> {
    match outcome {
        Fenced::Done(value) => Ok(value),
        Fenced::Refused => Err(EngineError::FenceRefused),
    }
}
