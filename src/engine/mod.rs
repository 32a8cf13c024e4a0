//! The rules that hold for every backend: roles, clock skew, fencing, waiting.
//!
//! Not HTTP, and not storage. Invariant: nothing here keeps state that another replica would have to know; what is
//! shared is in the store.

pub mod aggregates;
pub mod cache;
pub mod checkpoints;
mod error;
pub mod generations;
pub mod leases;
pub mod locks;
mod roles;
pub mod series;

use std::sync::Arc;

use serde::Deserialize;

pub use self::error::{EngineError, EngineResult};
use self::roles::Roles;
use crate::clock::SharedClock;
use crate::model::settings::{Settings, Violations};
use crate::store::{Operation, Stores};

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
    /// Aggregates.
    pub aggregates: aggregates::AggregateEngine,
    /// The store as a whole.
    pub operation: Arc<dyn Operation>,
}

/// The settings of the rules. Each field is read from the section of its name.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct EngineSettings {
    /// Who may write series, and how.
    pub series: series::SeriesRules,
    /// When generations are cleaned up.
    pub generations: generations::GenerationRules,
    /// The limits on cached values.
    pub cache: cache::CacheRules,
    /// The pipelines.
    pub pipelines: aggregates::PipelineSettings,
    /// The limits on updates of aggregates.
    pub aggregates: aggregates::AggregateRules,
    /// How long events are remembered.
    pub events: aggregates::EventRules,
}

impl Settings for EngineSettings {
    fn check(&mut self, violations: &mut Violations) {
        self.series.check(violations);
        self.cache.check(violations);
        self.pipelines.check(violations);
    }
}

impl Engine {
    /// Builds the engine over `stores`.
    pub fn new(stores: Stores, settings: EngineSettings, clock: SharedClock) -> Self {
        let shared = stores.operation.capabilities().shared;
        let aggregates = aggregates::AggregateEngine::new(
            (stores.aggregates, stores.outbox),
            &settings.pipelines,
            settings.aggregates,
            settings.events,
            Arc::clone(&clock),
            shared,
        );
        let rules = settings.series;
        let (series, leases) = (Arc::clone(&clock), Arc::clone(&clock));
        let roles =
            Roles::new(rules.guards.clone(), rules.leader_role.clone(), rules.leader_lease.clone());
        let roles = Arc::new(roles);
        Self {
            series: series::SeriesEngine::new(stores.series, Arc::clone(&roles), &rules, series),
            locks: locks::LockEngine::new(stores.locks),
            leases: leases::LeaseEngine::new(stores.leases, Arc::clone(&roles), leases),
            checkpoints: checkpoints::CheckpointEngine::new(stores.checkpoints, roles),
            generations: generations::GenerationEngine::new(stores.generations),
            aggregates,
            cache: cache::CacheEngine::new(stores.cache, settings.cache, clock, shared),
            operation: stores.operation,
        }
    }
}
