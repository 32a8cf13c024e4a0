//! The series that pipelines export: what the refresher reads of aggregates.
//!
//! Not how values become series, which the engine says. Invariant: a mirror has all series of an export, or none.

use std::collections::HashSet;
use std::sync::Arc;

use super::{MirrorState, Refresher, change_state, with_timeout};
use crate::engine::aggregates::{AggregateEngine, Export};
use crate::store::{AggregateStore, StoreResult};

/// The pipelines whose values are series on /metrics, and their store.
#[derive(Default)]
pub struct Exports {
    store: Option<Arc<dyn AggregateStore>>,
    exports: Vec<Arc<Export>>,
}

impl Exports {
    /// Takes the exports of the pipelines of `engine`.
    pub fn of(engine: &AggregateEngine) -> Self {
        let exports = engine.pipelines().filter_map(|declared| declared.export().cloned());
        Self { store: engine.shared_store(), exports: exports.collect() }
    }

    /// Returns the names of all series that they can have.
    pub(super) fn names(&self) -> HashSet<Arc<str>> {
        self.exports.iter().flat_map(|export| export.settings().names()).collect()
    }

    /// Returns for each export that a new mirror lacks its series.
    pub(super) fn none_mirrored(&self) -> Vec<bool> {
        vec![false; self.exports.len()]
    }
}

impl Refresher {
    /// Brings the series that pipelines export up to date.
    pub(super) async fn refresh_exports(&self, state: &mut Option<MirrorState>) -> StoreResult<()> {
        let Some(store) = &self.exports.store else { return Ok(()) };
        for (index, export) in self.exports.exports.iter().enumerate() {
            let Some(mirror_state) = state.as_ref() else { return Ok(()) };
            let whole = !mirror_state.has_export[index];
            let changes = with_timeout(export.changes(store.as_ref(), whole)).await?;
            if changes.is_empty() && !whole {
                continue;
            }
            let apply = move |state: &mut MirrorState| {
                state.mirror.apply_exported(changes);
                state.has_export[index] = true;
            };
            change_state(state, apply).await?;
        }
        Ok(())
    }
}
