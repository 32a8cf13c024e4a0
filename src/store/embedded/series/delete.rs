//! Deletions by selector: a scan, then a selection of what it found, piece by piece, then one step that ends all of it.
//!
//! That step is the moment of the deletion. It costs the same for any number of series, and is one with the check of
//! the fence. Invariant: no reader ever sees a part of a deletion, and no piece takes long.

use std::sync::Arc;

use super::EmbeddedSeries;
use super::purge::PURGED_AT_ONCE;
use super::shared::Shared;
use crate::model::selector::Selector;
use crate::store::embedded::blocking::off_thread;
use crate::store::scan::{LOOKED_AT, Scan};
use crate::store::{DeleteOutcome, Fenced, SeriesWriter, StoreResult};

impl EmbeddedSeries {
    /// See [`crate::store::SeriesStore::delete_matching`]. It ends with its caller while it scans, and goes on to its
    /// end from then on.
    pub(super) async fn scan_and_delete(
        &self,
        selectors: &[Selector],
        dry_run: bool,
        writer: SeriesWriter,
    ) -> StoreResult<Fenced<DeleteOutcome>> {
        let admitted = self.shared.turns.admit()?;
        let scan = Scan::new(selectors.to_vec(), None, usize::MAX);
        let (scan, ()) = self.scan(scan, false, |_, _| Ok(Some(()))).await?;
        // Never closed.
        let turn = Arc::clone(&self.shared.deletions).acquire_owned().await.ok();
        let shared = Arc::clone(&self.shared);
        off_thread(move || {
            let _held = (admitted, turn);
            shared.delete_found(scan, dry_run, &writer)
        })
        .await
    }
}

impl Shared {
    fn delete_found(
        &self,
        mut scan: Scan<u32>,
        dry_run: bool,
        writer: &SeriesWriter,
    ) -> StoreResult<Fenced<DeleteOutcome>> {
        // What a deletion selected that ended half-way, since its thread panicked.
        self.purge_selected()?;
        {
            let mut table = self.table.lock();
            let changeable = table.roles.changeable_by(writer)?;
            table.core.deletion.begin(changeable);
        }
        let outcome = loop {
            loop {
                let found = scan.take_found(LOOKED_AT);
                if found.is_empty() {
                    break;
                }
                self.table.lock().core.select(&found);
            }
            if !scan.is_ready() {
                // Series that were created since the last piece.
                let piece = self.read(|table| scan.read_piece(table))?;
                scan.take(piece);
            } else if let Some(outcome) = self.delete_selected(&mut scan, dry_run, writer)? {
                break outcome;
            }
        };
        // In a dry run, and after a refusal, the series are live as before.
        self.purge_selected()?;
        Ok(outcome)
    }

    /// Deletes what is selected; returns `None` when more pieces have to be read or purged first.
    fn delete_selected(
        &self,
        scan: &mut Scan<u32>,
        dry_run: bool,
        writer: &SeriesWriter,
    ) -> StoreResult<Option<Fenced<DeleteOutcome>>> {
        let outcome = self.write(writer.fence.as_ref(), |table, now| {
            table.purge_some(now);
            // What has expired is not counted.
            if !table.is_purged || !scan.finish(table) {
                return None;
            }
            table.core.select(&scan.take_found(usize::MAX));
            if table.core.deletion.count_of_others() > 0 {
                let others = table.core.selected_of_others(&table.roles);
                return Some(DeleteOutcome::OthersSeries(others));
            }
            let deletion = &mut table.core.deletion;
            if !dry_run && deletion.count() > 0 {
                deletion.make(now.steady);
                table.is_purged = false;
            }
            Some(DeleteOutcome::Deleted(table.core.deletion.count()))
        })?;
        Ok(match outcome {
            Fenced::Refused => Some(Fenced::Refused),
            Fenced::Done(deleted) => deleted.map(Fenced::Done),
        })
    }

    /// Deletes the selected series when they have ended, or lets them go, until none is selected.
    fn purge_selected(&self) -> StoreResult<()> {
        loop {
            let is_over = self.read(|table| {
                let is_over = table.purge_selected(PURGED_AT_ONCE) < PURGED_AT_ONCE;
                table.trim();
                is_over
            })?;
            if is_over {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
