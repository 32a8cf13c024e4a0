//! The outbox of the embedded store: what a merge adds to it, and how it is read and emptied.
//!
//! Not who gets the notes. Invariant: a command that changes notes writes the row of their outbox as well.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::outbox_rows::{LAST_NOTE, NoteRow, Notes, OutboxRow, Outboxes};
use crate::clock::Moment;
use crate::model::cursor::Cursor;
use crate::model::hooks::{Note, OutboxState};
use crate::model::pipelines::Pipeline;
use crate::store::embedded::durable::{DurableStore, DurableTable, Tables, Txn};
use crate::store::embedded::sqlite::corrupt;
use crate::store::{After, NoteLimits, NotePage, OutboxStore, StoreError, StoreResult};

/// How many notes of an outbox that is removed leave in one command.
const REMOVED_AT_ONCE: usize = 1_000;

/// Adds the notes of updates that are merged in this command; those that there is no room for then leave.
pub(super) fn add_notes<'a>(
    txn: &mut Txn<'_>,
    pipeline: &Pipeline,
    texts: impl Iterator<Item = &'a Arc<str>>,
) {
    let mut texts = texts.peekable();
    if texts.peek().is_none() {
        return;
    }
    let name = pipeline.name.as_str();
    let mut outbox = outbox_of(txn, name);
    let at = txn.now.steady;
    for text in texts {
        let row = NoteRow { at, text: Arc::clone(text) };
        outbox.newest = next_number(txn);
        (outbox.notes, outbox.bytes) = (outbox.notes + 1, outbox.bytes + row.bytes());
        outbox.undelivered += 1;
        txn.put::<Notes>((name.to_owned(), outbox.newest), row);
    }
    if !has_webhook(pipeline) {
        (outbox.delivered, outbox.undelivered) = (outbox.newest, 0);
    }
    let (max_notes, max_bytes) = {
        let table = txn.table::<Outboxes>();
        (table.max_notes, table.max_bytes)
    };
    let is_full = |outbox: &OutboxRow| outbox.notes > max_notes || outbox.bytes > max_bytes;
    let newest = outbox.newest;
    remove_oldest(txn, name, &mut outbox, |outbox, number| is_full(outbox) && number < newest);
    txn.put::<Outboxes>(name.to_owned(), outbox);
}

/// Removes notes from the oldest on, for as long as `leaves` says that the one with this number leaves.
fn remove_oldest(
    txn: &mut Txn<'_>,
    name: &str,
    outbox: &mut OutboxRow,
    mut leaves: impl FnMut(&OutboxRow, u64) -> bool,
) {
    let mut left = Vec::new();
    txn.rows_after::<Notes>(&(name.to_owned(), outbox.low), |(of, number), row| {
        if of != name || !leaves(outbox, *number) {
            return false;
        }
        (outbox.notes, outbox.bytes) = (outbox.notes - 1, outbox.bytes - row.bytes());
        if *number > outbox.delivered {
            (outbox.undelivered, outbox.dropped) = (outbox.undelivered - 1, outbox.dropped + 1);
        }
        outbox.low = *number;
        left.push(*number);
        true
    });
    for number in left {
        txn.delete::<Notes>((name.to_owned(), number));
    }
}

fn outbox_of(txn: &mut Txn<'_>, name: &str) -> OutboxRow {
    match txn.get::<Outboxes>(&name.to_owned()) {
        Some(outbox) => *outbox,
        None => OutboxRow::begin(next_number(txn)),
    }
}

fn next_number(txn: &mut Txn<'_>) -> u64 {
    // It is the time at the start, and grows by one: far from being negative.
    txn.next(LAST_NOTE).unsigned_abs()
}

fn has_webhook(pipeline: &Pipeline) -> bool {
    pipeline.hook.as_ref().is_some_and(|hook| hook.webhook.is_some())
}

fn has_stream(pipeline: &Pipeline) -> bool {
    pipeline.hook.as_ref().is_some_and(|hook| hook.stream)
}

/// Notes that the webhook has all notes up to a number, which leave if there is no stream.
fn deliver(txn: &mut Txn<'_>, pipeline: &Pipeline, cursor: &Cursor) {
    let name = pipeline.name.as_str();
    let Some(mut outbox) = txn.get::<Outboxes>(&name.to_owned()).copied() else { return };
    let up_to = cursor.as_single().filter(|up_to| {
        cursor.epoch == outbox.epoch && (outbox.delivered + 1..=outbox.newest).contains(up_to)
    });
    let Some(up_to) = up_to else { return };
    let first = (name.to_owned(), outbox.delivered.max(outbox.low));
    let mut delivered = 0;
    txn.rows_after::<Notes>(&first, |(of, number), _| {
        let is_delivered = of == name && *number <= up_to;
        delivered += u64::from(is_delivered);
        is_delivered
    });
    (outbox.delivered, outbox.undelivered) = (up_to, outbox.undelivered - delivered);
    if !has_stream(pipeline) {
        remove_oldest(txn, name, &mut outbox, |_, number| number <= up_to);
    }
    txn.put::<Outboxes>(name.to_owned(), outbox);
}

#[async_trait]
impl OutboxStore for DurableStore {
    async fn notes(
        &self,
        pipeline: &Arc<Pipeline>,
        after: After<'_>,
        limits: NoteLimits,
    ) -> StoreResult<Option<NotePage>> {
        let name = pipeline.name.as_str();
        let (tables, now) = self.read()?;
        let outbox = tables.rows::<Outboxes>().get(&name.to_owned(), now.steady);
        let outbox = *outbox.ok_or_else(no_outbox)?;
        let after = match after {
            After::Nothing => outbox.low,
            After::Delivered => outbox.delivered.max(outbox.low),
            After::Cursor(cursor) => {
                // Notes up to `low` have left. What is above `newest` was seen before it was lost, or is made up.
                let within = |after: &u64| (outbox.low..=outbox.newest).contains(after);
                let known = cursor.as_single().filter(|_| cursor.epoch == outbox.epoch);
                let Some(after) = known.filter(within) else { return Ok(None) };
                after
            }
        };
        let key = (name.to_owned(), after);
        let rows = rows_from::<Notes>(&tables, Bound::Excluded(&key), now);
        let (mut notes, mut bytes) = (Vec::new(), 0);
        for ((of, sequence), row) in rows {
            bytes += row.text.len();
            let has_room = notes.is_empty() || notes.len() < limits.notes && bytes <= limits.bytes;
            if of != name || !has_room {
                break;
            }
            let text = Arc::clone(&row.text);
            notes.push(Note { sequence: *sequence, at: row.at, text });
        }
        let last = notes.last().map_or(after, |note| note.sequence);
        Ok(Some(NotePage { notes, next: Cursor::single(outbox.epoch, last) }))
    }

    async fn set_delivered(&self, pipeline: &Arc<Pipeline>, cursor: &Cursor) -> StoreResult<()> {
        let (pipeline, cursor) = (Arc::clone(pipeline), cursor.clone());
        self.write(move |txn| deliver(txn, &pipeline, &cursor)).await
    }

    async fn outbox_state(&self, pipeline: &Arc<Pipeline>) -> StoreResult<OutboxState> {
        let name = pipeline.name.as_str();
        let (tables, now) = self.read()?;
        let outbox = tables.rows::<Outboxes>().get(&name.to_owned(), now.steady);
        let outbox = *outbox.ok_or_else(no_outbox)?;
        let first = (name.to_owned(), outbox.delivered.max(outbox.low));
        let mut undelivered = rows_from::<Notes>(&tables, Bound::Excluded(&first), now);
        let oldest = undelivered.next().filter(|((of, _), _)| of == name);
        Ok(OutboxState {
            newest: Cursor::single(outbox.epoch, outbox.newest),
            delivered: Cursor::single(outbox.epoch, outbox.delivered),
            notes: outbox.notes,
            bytes: outbox.bytes,
            undelivered: outbox.undelivered,
            oldest_undelivered: oldest
                .map_or(Duration::ZERO, |(_, row)| now.steady.saturating_since(row.at)),
            dropped: outbox.dropped,
        })
    }

    async fn open_outboxes(&self, pipelines: &[Arc<Pipeline>]) -> StoreResult<()> {
        let names: Vec<_> = pipelines.iter().map(|of| of.name.as_str().to_owned()).collect();
        let others: Vec<(String, OutboxRow)> = {
            let (tables, now) = self.read()?;
            let outboxes = rows_from::<Outboxes>(&tables, Bound::Unbounded, now);
            let others = outboxes.filter(|(name, _)| !names.contains(name));
            others.map(|(name, outbox)| (name.clone(), *outbox)).collect()
        };
        for (pipeline, OutboxRow { undelivered, .. }) in others {
            tracing::warn!(
                pipeline,
                undelivered,
                "removing the notes of a pipeline without a hook"
            );
            let name = Arc::<str>::from(pipeline);
            let mut is_last = false;
            while !is_last {
                let name = Arc::clone(&name);
                is_last = self.write(move |txn| remove_some(txn, &name)).await?;
            }
        }
        let begin = move |txn: &mut Txn<'_>| {
            for name in names {
                if txn.get::<Outboxes>(&name).is_none() {
                    let outbox = OutboxRow::begin(next_number(txn));
                    txn.put::<Outboxes>(name, outbox);
                }
            }
        };
        self.write(begin).await
    }

    fn note_changes(&self) -> watch::Receiver<u64> {
        self.table::<Outboxes, _>(|outboxes| outboxes.changes.subscribe())
    }
}

/// Returns the rows from `from` on. None of these tables has rows that expire.
fn rows_from<'a, T: DurableTable>(
    tables: &'a Tables,
    from: Bound<&T::Key>,
    now: Moment,
) -> impl Iterator<Item = (&'a T::Key, &'a T::Row)> {
    tables.rows::<T>().range(from, now.steady).filter_map(|(key, row)| Some((key, row?)))
}

/// Removes the first notes of an outbox, and with the last ones the outbox itself; returns whether that is done.
fn remove_some(txn: &mut Txn<'_>, name: &str) -> bool {
    let Some(mut outbox) = txn.get::<Outboxes>(&name.to_owned()).copied() else { return true };
    let mut left = REMOVED_AT_ONCE;
    remove_oldest(txn, name, &mut outbox, |_, _| {
        let leaves = left > 0;
        left = left.saturating_sub(1);
        leaves
    });
    match outbox.notes {
        0 => txn.delete::<Outboxes>(name.to_owned()),
        _ => txn.put::<Outboxes>(name.to_owned(), outbox),
    }
    outbox.notes == 0
}

fn no_outbox() -> StoreError {
    corrupt("a pipeline with a hook has no outbox")
}
