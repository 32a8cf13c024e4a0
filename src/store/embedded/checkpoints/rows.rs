//! The rows of checkpoints.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::checkpoints::{Checkpoint, CheckpointKey};
use crate::model::time::{SteadyTime, Timestamp};
use crate::store::Limited;
use crate::store::embedded::durable::DurableTable;

/// The table of the checkpoints.
#[derive(Debug)]
pub(in crate::store::embedded) struct Checkpoints {
    /// How long after its write a checkpoint expires. Not part of the row, so that a changed
    /// setting applies to all.
    pub(in crate::store::embedded) retention: Duration,
    /// The most live checkpoints.
    pub(in crate::store::embedded) max: usize,
}

/// A checkpoint that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store::embedded) struct CheckpointRow {
    pub(super) checkpoint: Timestamp,
    /// By the system's clock, for people. That clock may have been wrong, so the retention is not counted from it.
    pub(super) written_at: Timestamp,
    /// When the retention began; absent from rows of before there were two clocks.
    #[serde(default)]
    pub(super) written: Option<SteadyTime>,
}

impl CheckpointRow {
    /// Returns the checkpoint as responses show it.
    pub(super) fn shown(&self) -> Checkpoint {
        Checkpoint { checkpoint: self.checkpoint, written_at: self.written_at }
    }
}

impl DurableTable for Checkpoints {
    type Key = CheckpointKey;
    type Row = CheckpointRow;
    const NAME: &'static str = "checkpoints";
    const TAG: u8 = 4;
    const MIGRATIONS: &'static [&'static str] = &[
        "CREATE TABLE checkpoints (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)
            STRICT, WITHOUT ROWID",
    ];

    fn limit(&self) -> Option<(u64, Limited)> {
        Some((self.max as u64, Limited::Checkpoints))
    }

    fn expires_at(&self, row: &CheckpointRow) -> Option<SteadyTime> {
        let written = row.written.unwrap_or(SteadyTime::starting_at(row.written_at));
        Some(written.saturating_add(self.retention))
    }
}
