//! The one thread that changes the durable data.
//!
//! The commands in the queue form groups: for each group, one commit, then it becomes visible, then
//! its callers get their responses. Invariant: a command succeeds only when it, and all that it has
//! seen, is committed; a group whose commit failed leaves no trace.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::changes::Changes;
use super::file::DurableFile;
use super::journal::Entry;
use super::last_commit::record_time;
use super::queue::{Command, Next};
use super::shared::{CommitFailure, Shared};
use super::transaction::Txn;
use crate::model::{FailureEvent, LastFailure};
use crate::store::{ErrorKind, StoreError, StoreResult};

/// A group takes no further command when it changes so many rows. A row is at most some 13 KB in
/// the journal (two names of 1 KiB, each byte escaped as six), mostly a hundred bytes; so an entry
/// stays far below what SQLite takes in one blob (1 GB), even with the largest batch on top.
pub(in crate::store::embedded) const MAX_GROUP_ROWS: usize = 16_384;

/// ... or when the rows of paged tables that it reads or changes take so much memory.
const MAX_GROUP_BYTES: usize = 64 << 20;

/// After a commit that the disk made slow, the thread waits for a part of that time before it takes
/// the next group, so that the callers who just got their responses can be in it. Otherwise two
/// half groups alternate, and each of them waits for both commits.
const GATHER_AFTER: Duration = Duration::from_micros(300);
const GATHER_PART: u32 = 8;
const MAX_GATHER: Duration = Duration::from_micros(500);
/// After a group of this many commands the thread waits briefly, even when the disk was fast: their
/// callers come back at once, and one group of many costs less than many of a few.
const CROWD: usize = 8;
const CROWD_GATHER: Duration = Duration::from_micros(100);

/// Without commands for this long, the thread compacts.
const IDLE: Duration = Duration::from_millis(20);
const IDLE_ROWS: usize = 256;
/// While commands come, a commit carries this many rows with it, at most every [`IDLE`].
const BUSY_ROWS: usize = 64;
const OVERFULL_ROWS: usize = 1024;
/// After a compaction or a WAL checkpoint failed, it waits this long before the next.
const UPKEEP_RETRY: Duration = Duration::from_secs(1);
/// Commits are said to succeed again when none has failed for this long.
const COMMITS_AGAIN: Duration = Duration::from_secs(10);

/// What the thread owns.
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// `None` without a file.
    file: Option<DurableFile>,
    /// When the last compaction or WAL checkpoint ended, and when the next may be tried.
    last_upkeep: Instant,
    upkeep_retry_at: Option<Instant>,
    /// What the tables know to be compacted.
    told_compacted: i64,
    /// Which failure of commits was logged, and when the last one was.
    last_failure: LastFailure,
    failed_commit_at: Option<Instant>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, file: Option<DurableFile>) -> Self {
        Self {
            shared,
            file,
            last_upkeep: Instant::now(),
            upkeep_retry_at: None,
            told_compacted: 0,
            last_failure: LastFailure::default(),
            failed_commit_at: None,
        }
    }

    /// Serves until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let end = EndOfThread(Arc::clone(&self.shared));
        let mut group = Vec::new();
        loop {
            let has_backlog = self.file.as_ref().is_some_and(DurableFile::has_backlog);
            match self.shared.queue.next(&mut group, has_backlog.then_some(IDLE)) {
                Next::Group => {
                    let (size, start) = (group.len(), Instant::now());
                    self.commit(&mut group);
                    let took = start.elapsed();
                    self.checkpoint();
                    self.gather(size, took);
                }
                // One step after the other, until a command comes.
                Next::Idle => {
                    self.compact();
                    self.checkpoint();
                }
                Next::Closing => break,
            }
        }
        if let Some(file) = self.file.take()
            && let Err(error) = file.close()
        {
            *self.shared.close_error.lock() = Some(error);
        }
        // Last: it wakes the callers of `close`, who then read the error.
        drop(end);
    }

    /// Waits for the callers of the last group to come back, see [`GATHER_AFTER`] and [`CROWD`].
    fn gather(&self, size: usize, took: Duration) {
        let syncs = self.file.as_ref().is_some_and(DurableFile::syncs);
        if syncs && size > 1 && took > GATHER_AFTER {
            std::thread::sleep((took / GATHER_PART).min(MAX_GATHER));
        } else if size >= CROWD {
            std::thread::sleep(CROWD_GATHER);
        }
    }

    /// Commits all commands of a group, in one commit, or in several where they change very much.
    fn commit(&mut self, group: &mut Vec<Box<dyn Command>>) {
        while !group.is_empty() {
            let mut changes = Changes::default();
            let Evaluated { commands, failed, writes } = self.evaluate(group, &mut changes);
            let outcome = writes.and_then(|writes| self.try_commit(changes, writes));
            let mut failed = failed.into_iter().peekable();
            // Also those that changed nothing: what they have seen may be the group's.
            for (at, command) in group.drain(..commands).enumerate() {
                let own = failed.next_if(|(of, _)| *of == at).map(|(_, error)| error);
                command.respond(own.map_or_else(|| outcome.clone(), Err));
            }
        }
    }

    fn try_commit(&mut self, changes: Changes, writes: u64) -> StoreResult<()> {
        if writes == 0 {
            return Ok(());
        }
        #[cfg(test)]
        self.run_test_hook();
        // When this fails, `changes` is dropped, and the tables stand as before the group.
        let appended = self.append(&changes);
        let seq = self.note_commit(appended)?;
        self.shared.publish(changes, seq, writes);
        self.tell_compacted();
        Ok(())
    }

    /// Notes how a commit ended. A failure is logged here for all commands of the group: when it begins, when its
    /// cause changes, and when it ends.
    fn note_commit(&mut self, outcome: StoreResult<i64>) -> StoreResult<i64> {
        let now = Instant::now();
        let why = outcome.as_ref().err().map(StoreError::with_causes);
        // Where little room is left, small commits succeed between large ones that fail: that is no end.
        let has_ended = self.failed_commit_at.is_none_or(|at| now - at >= COMMITS_AGAIN);
        let attempt = why.as_deref().map_or(Ok(()), Err);
        let event = (why.is_some() || has_ended).then(|| self.last_failure.record(attempt));
        match event.flatten() {
            Some(FailureEvent::Began) => tracing::error!(cause = why, "durable commits fail"),
            Some(FailureEvent::Ended) => tracing::info!("durable commits succeed again"),
            None => {}
        }
        if why.is_some() {
            self.failed_commit_at = Some(now);
            self.shared.commit_failures.fetch_add(1, Ordering::Relaxed);
        }
        *self.shared.commit_failure.lock() = why.map(|why| CommitFailure { why, at: now });
        outcome.map_err(StoreError::logged)
    }

    /// Writes the changes into the journal, if there is one; returns the number of their entry.
    fn append(&mut self, changes: &Changes) -> StoreResult<i64> {
        let rows = self.rows_while_busy();
        let Some(file) = &mut self.file else { return Ok(0) };
        let mut entry = Entry::new();
        changes.encode(&mut entry).map_err(|error| {
            StoreError::caused_by(ErrorKind::Internal, "cannot encode a journal entry", error)
        })?;
        if rows > 0 {
            let outcome = file.append(entry.clone(), rows);
            let seq = file.last_seq();
            let is_done = outcome.is_ok();
            self.note_upkeep(outcome);
            if is_done {
                return Ok(seq);
            }
        }
        // Alone: where there is room for no more than the commit, it need not fail with a compaction.
        let Some(file) = &mut self.file else { return Ok(0) };
        file.append(entry, 0)?;
        Ok(file.last_seq())
    }

    #[cfg(test)]
    fn run_test_hook(&mut self) {
        let hook = self.shared.before_commit.lock().take();
        if let (Some(hook), Some(file)) = (hook, &mut self.file) {
            hook(file);
        }
    }

    /// Evaluates the first commands of `group`, until the changes are enough for one commit.
    ///
    /// When one panics, or can't read a row after it has changed another, its half-done changes can't
    /// be separated from those of the commands before it. So all of these fail together, and nothing
    /// of them is kept.
    fn evaluate(&self, group: &mut [Box<dyn Command>], changes: &mut Changes) -> Evaluated {
        let now = self.shared.clock.read();
        let tables = self.shared.tables.read();
        let (mut commands, mut writes, mut failed) = (0, 0, Vec::new());
        for command in group {
            commands += 1;
            let mut txn = Txn::new(&tables, changes, now);
            if catch_unwind(AssertUnwindSafe(|| command.evaluate(&mut txn))).is_err() {
                let error = StoreError::new(ErrorKind::Internal, "a command panicked");
                return Evaluated { commands, failed, writes: Err(error) };
            }
            let changed = txn.changed();
            match txn.failure() {
                Some(error) if changed => {
                    return Evaluated { commands, failed, writes: Err(error) };
                }
                Some(error) => failed.push((commands - 1, error)),
                None => writes += u64::from(changed),
            }
            if changes.len() >= MAX_GROUP_ROWS || changes.bytes() >= MAX_GROUP_BYTES {
                break;
            }
        }
        if writes > 0 {
            // In the same commit, so that a later run's steady time never starts before it.
            record_time(&tables, changes, now, self.shared.clock.boot());
        }
        Evaluated { commands, failed, writes: Ok(writes) }
    }

    /// Returns how many rows the next commit compacts on its way.
    fn rows_while_busy(&self) -> usize {
        let due = self.file.as_ref().filter(|file| self.may_try() && file.wants_compaction());
        match due {
            Some(file) if file.is_overfull() => OVERFULL_ROWS,
            Some(_) if self.last_upkeep.elapsed() >= IDLE => BUSY_ROWS,
            _ => 0,
        }
    }

    fn compact(&mut self) {
        let may_try = self.may_try();
        if let Some(file) = self.file.as_mut().filter(|file| may_try && file.wants_compaction()) {
            let outcome = file.compact(IDLE_ROWS);
            self.note_upkeep(outcome);
            self.tell_compacted();
        }
    }

    fn checkpoint(&mut self) {
        let may_try = self.may_try();
        if let Some(file) = self.file.as_mut().filter(|file| may_try && file.wants_checkpoint()) {
            let outcome = file.checkpoint();
            self.note_upkeep(outcome);
        }
    }

    fn may_try(&self) -> bool {
        self.upkeep_retry_at.is_none_or(|at| Instant::now() >= at)
    }

    fn tell_compacted(&mut self) {
        let Some(seq) = self.file.as_ref().map(DurableFile::compacted_seq) else { return };
        if seq != self.told_compacted {
            self.shared.tables.write().compacted(seq);
            self.told_compacted = seq;
        }
    }

    /// Notes how a compaction or a WAL checkpoint ended.
    fn note_upkeep(&mut self, outcome: StoreResult<()>) {
        self.last_upkeep = Instant::now();
        self.upkeep_retry_at = outcome.is_err().then(|| self.last_upkeep + UPKEEP_RETRY);
        let mut failure = self.shared.upkeep_failure.lock();
        match outcome {
            Ok(()) => *failure = None,
            Err(error) => {
                let why = error.with_causes();
                // Once until it works again: it is tried again each second.
                if failure.is_none() {
                    tracing::warn!(error = %why, "compacting the durable database failed");
                }
                *failure = Some(why);
            }
        }
    }
}

/// What became of the first commands of a group.
struct Evaluated {
    commands: usize,
    /// Which of them could not read what they needed, in their order. They changed nothing.
    failed: Vec<(usize, StoreError)>,
    /// How many of the others changed something; an error when all of them fail.
    writes: StoreResult<u64>,
}

/// Tells that the thread is gone, however it ended.
struct EndOfThread(Arc<Shared>);

impl Drop for EndOfThread {
    fn drop(&mut self) {
        let why =
            if std::thread::panicking() { "the writer has failed" } else { "the store is closed" };
        self.0.queue.end(why);
        self.0.closed.send_replace(true);
    }
}
