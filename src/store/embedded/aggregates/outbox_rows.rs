//! The rows of the outbox: notes, and for each pipeline where its notes begin and end.
//!
//! Invariant: the notes of a pipeline are those above `low` of its outbox, whose counts are theirs.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::watch;

use crate::model::time::{SteadyTime, Timestamp};
use crate::store::embedded::durable::{Counter, DurableTable};

/// The last sequence number that was given to a note, or to the begin of an outbox. One for all pipelines.
pub(super) const LAST_NOTE: Counter = Counter::named("outbox.last_note");

/// What a note takes beside its text, in bytes: about as much as its places in the maps.
const NOTE_BYTES: usize = 256;

/// The table of the notes.
#[derive(Debug)]
pub(in crate::store::embedded) struct Notes;

/// The pipeline, and the sequence number.
pub(super) type NoteKey = (String, u64);

/// A note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::embedded) struct NoteRow {
    pub(super) at: SteadyTime,
    pub(super) text: Arc<str>,
}

impl NoteRow {
    /// Returns what the note counts as, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        (NOTE_BYTES + self.text.len()) as u64
    }
}

impl Serialize for NoteRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.at.as_nanos(), &*self.text).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for NoteRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (at, text) = <(i64, String)>::deserialize(deserializer)?;
        Ok(Self { at: SteadyTime::from_nanos(at), text: text.into() })
    }
}

impl DurableTable for Notes {
    type Key = NoteKey;
    type Row = NoteRow;
    const NAME: &'static str = "outbox_notes";
    const TAG: u8 = 10;
    const MIGRATIONS: &'static [&'static str] = &[
        "CREATE TABLE outbox_notes (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)
            STRICT, WITHOUT ROWID",
    ];

    fn expires_at(&self, _: &NoteRow) -> Option<SteadyTime> {
        None
    }

    fn bytes(row: &NoteRow) -> usize {
        NOTE_BYTES + row.text.len()
    }

    /// Raises the last number to the microseconds since 1970, as that of fencing tokens: a store that was restored does
    /// not know the notes of the runs after it, whose numbers readers may have.
    fn begin_epoch(last: &dyn Fn(&Counter) -> i64, now: Timestamp) -> Vec<(Counter, i64)> {
        vec![(LAST_NOTE, last(&LAST_NOTE).max(now.as_nanos() / 1_000))]
    }
}

/// The table of the outboxes.
#[derive(Debug)]
pub(in crate::store::embedded) struct Outboxes {
    /// The most notes of a pipeline.
    pub(super) max_notes: u64,
    /// What they may take, in bytes.
    pub(super) max_bytes: u64,
    /// Counts the commits that changed an outbox.
    pub(super) changes: watch::Sender<u64>,
}

impl Outboxes {
    /// Makes the table, with bounds for each pipeline.
    pub(in crate::store::embedded) fn new(max_notes: usize, max_bytes: usize) -> Self {
        let (max_notes, max_bytes) = (max_notes as u64, max_bytes as u64);
        Self { max_notes, max_bytes, changes: watch::Sender::new(0) }
    }
}

/// An outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store::embedded) struct OutboxRow {
    /// The number that the outbox began with. Another outbox of the same pipeline has another one.
    pub(super) epoch: u64,
    /// Notes up to this number have left.
    pub(super) low: u64,
    /// The number of the newest note, or where there was none yet, the epoch.
    pub(super) newest: u64,
    /// Up to this number the webhook has all notes.
    pub(super) delivered: u64,
    pub(super) notes: u64,
    pub(super) bytes: u64,
    pub(super) undelivered: u64,
    pub(super) dropped: u64,
}

impl OutboxRow {
    /// Begins an outbox.
    pub(super) fn begin(epoch: u64) -> Self {
        Self {
            epoch,
            low: epoch,
            newest: epoch,
            delivered: epoch,
            notes: 0,
            bytes: 0,
            undelivered: 0,
            dropped: 0,
        }
    }
}

impl DurableTable for Outboxes {
    /// The pipeline.
    type Key = String;
    type Row = OutboxRow;
    const NAME: &'static str = "outboxes";
    const TAG: u8 = 11;
    const MIGRATIONS: &'static [&'static str] =
        &["CREATE TABLE outboxes (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)
            STRICT, WITHOUT ROWID"];

    fn expires_at(&self, _: &OutboxRow) -> Option<SteadyTime> {
        None
    }

    fn published(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}
