//! The rows of checkpoints.

use std::time::Duration;

use crate::model::checkpoints::{Checkpoint, CheckpointKey};
use crate::model::time::Timestamp;
use crate::store::embedded::durable::DurableTable;

/// The table of the checkpoints.
#[derive(Debug)]
pub(in crate::store::embedded) struct Checkpoints {
    /// How long after its write a checkpoint expires. Not part of the row, so that a changed
    /// setting applies to all.
    pub(in crate::store::embedded) retention: Duration,
}

impl DurableTable for Checkpoints {
    type Key = CheckpointKey;
    type Row = Checkpoint;
    const NAME: &'static str = "checkpoints";
    const TAG: u8 = 4;
    const MIGRATIONS: &'static [&'static str] = &[
        "CREATE TABLE checkpoints (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)
            STRICT, WITHOUT ROWID",
    ];

    fn expires_at(&self, row: &Checkpoint) -> Option<Timestamp> {
        Some(row.written_at.saturating_add(self.retention))
    }
}
