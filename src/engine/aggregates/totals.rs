//! What became of the updates of a pipeline, counted since the start.
//!
//! Not how long merges took. Invariant: an update of a batch that was merged is counted once; of a batch that changed
//! nothing, only its conflict is.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::MergeOutcome;

/// What can become of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateFate {
    /// It was merged into its value.
    Applied,
    /// It had been applied before.
    Duplicate,
    /// Its bucket had expired.
    Expired,
    /// Its event id had come with another content.
    Conflict,
}

impl UpdateFate {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Applied, Self::Duplicate, Self::Expired, Self::Conflict];

    /// Returns the word for a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::Expired => "expired",
            Self::Conflict => "conflict",
        }
    }
}

/// The totals of one pipeline.
#[derive(Debug, Default)]
pub struct UpdateTotals([AtomicU64; UpdateFate::ALL.len()]);

impl UpdateTotals {
    /// Counts what became of a batch.
    pub(super) fn count(&self, outcome: &MergeOutcome) {
        match outcome {
            MergeOutcome::Merged { applied, duplicates, expired } => {
                self.add(UpdateFate::Applied, *applied);
                self.add(UpdateFate::Duplicate, *duplicates);
                self.add(UpdateFate::Expired, *expired);
            }
            MergeOutcome::Conflict { .. } => self.add(UpdateFate::Conflict, 1),
            MergeOutcome::SequenceGap { .. } | MergeOutcome::Refused { .. } => {}
        }
    }

    fn add(&self, fate: UpdateFate, count: u64) {
        self.0[fate as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Returns how many updates ended so.
    pub fn get(&self, fate: UpdateFate) -> u64 {
        self.0[fate as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_update_of_a_merged_batch_is_counted_once() {
        let totals = UpdateTotals::default();
        totals.count(&MergeOutcome::Merged { applied: 5, duplicates: 2, expired: 1 });
        totals.count(&MergeOutcome::Merged { applied: 1, duplicates: 0, expired: 0 });
        totals.count(&MergeOutcome::Conflict { index: 7 });
        totals.count(&MergeOutcome::SequenceGap { expected: 3 });
        assert_eq!(UpdateFate::ALL.map(|fate| totals.get(fate)), [6, 2, 1, 1]);
    }
}
