//! The one thread that changes the durable data, and the queue of commands before it.
//!
//! What is queued forms groups: for each, one commit, then it becomes visible, then all are
//! answered. Invariant: a command is answered with success only when it, and all that it has
//! seen, is committed; a group whose commit failed was never there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::Shared;
use super::counters::Counter;
use super::file::DurableFile;
use super::journal::Entry;
use super::transaction::{Changes, Txn};
use crate::store::{ErrorKind, StoreError, StoreResult};

/// The most commands that may wait. What calls the store limits its requests well below.
const MAX_QUEUED: usize = 1 << 17;
/// The most commands in a group.
const MAX_GROUP: usize = 4096;
/// A group takes no further command when it changes so many rows. A row is at most some 13 KB in
/// the journal (two names of 1 KiB, each byte escaped as six), mostly a hundred bytes; so an entry
/// stays far below what SQLite takes in one blob (1 GB), also with the largest batch on top.
pub(super) const MAX_GROUP_ROWS: usize = 16_384;

/// After a commit that the disk made slow, the thread waits for a part of that time before it takes
/// the next group, so that those who were just answered can be in it. Else two half groups
/// take turns, and each waits for both.
const GATHER_AFTER: Duration = Duration::from_micros(300);
const GATHER_PART: u32 = 8;
/// After a group of this many commands the thread waits shortly, too, when the disk was fast: their
/// callers come back at once, and one group of many costs less than many of a few.
const CROWD: usize = 8;
const CROWD_GATHER: Duration = Duration::from_micros(100);
const MAX_GATHER: Duration = Duration::from_micros(500);

/// Without commands for this long, the thread compacts.
const IDLE: Duration = Duration::from_millis(20);
const IDLE_ROWS: usize = 256;
/// While commands come, it compacts this many rows at most every [`IDLE`].
const BUSY_ROWS: usize = 64;
const OVERFULL_ROWS: usize = 1024;
/// After a compaction failed, it waits this long before the next.
const COMPACTION_RETRY: Duration = Duration::from_secs(1);

/// Something to be done by the thread.
pub(super) trait Command: Send {
    /// Does it to what the group has changed so far.
    fn evaluate(&mut self, txn: &mut Txn<'_>);
    /// Tells the caller.
    fn answer(self: Box<Self>, outcome: StoreResult<()>);
}

/// A command made of a closure.
pub(super) struct Job<F, R> {
    pub(super) work: Option<F>,
    pub(super) result: Option<R>,
    pub(super) reply: oneshot::Sender<StoreResult<R>>,
}

impl<F, R> Command for Job<F, R>
where
    F: FnOnce(&mut Txn<'_>) -> R + Send,
    R: Send,
{
    fn evaluate(&mut self, txn: &mut Txn<'_>) {
        self.result = self.work.take().map(|work| work(txn));
    }

    fn answer(self: Box<Self>, outcome: StoreResult<()>) {
        let Self { result, reply, .. } = *self;
        let missing = || StoreError::new(ErrorKind::Internal, "a command was not evaluated");
        // Whoever asked may have gone away.
        drop(reply.send(outcome.and_then(|()| result.ok_or_else(missing))));
    }
}

/// The commands that wait.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    wake: Condvar,
}

#[derive(Default)]
struct QueueState {
    commands: Vec<Box<dyn Command>>,
    closing: bool,
    /// Why the thread is not there any more.
    ended: Option<String>,
}

enum Next {
    Group,
    Idle,
    Closing,
}

impl Queue {
    /// Adds a command.
    pub(super) fn push(&self, command: Box<dyn Command>) -> StoreResult<()> {
        let mut state = self.state.lock();
        if state.closing || state.ended.is_some() {
            let why = state.ended.clone().unwrap_or_else(|| "the store is closing".to_owned());
            return Err(StoreError::new(ErrorKind::Unavailable, why));
        }
        if state.commands.len() >= MAX_QUEUED {
            return Err(StoreError::new(ErrorKind::Throttled, "too many commands wait"));
        }
        state.commands.push(command);
        let first = state.commands.len() == 1;
        drop(state);
        if first {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Lets the thread end when it has done what waits.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.wake.notify_one();
    }

    /// Returns whether commands are taken, and if not why.
    pub(super) fn is_open(&self) -> Result<(), String> {
        let state = self.state.lock();
        match &state.ended {
            Some(why) => Err(why.clone()),
            None if state.closing => Err("the store is closing".to_owned()),
            None => Ok(()),
        }
    }

    /// Waits for commands and moves them to `group`.
    fn next(&self, group: &mut Vec<Box<dyn Command>>, may_idle: bool) -> Next {
        let mut state = self.state.lock();
        loop {
            if !state.commands.is_empty() {
                if state.commands.len() <= MAX_GROUP {
                    std::mem::swap(&mut state.commands, group);
                } else {
                    group.extend(state.commands.drain(..MAX_GROUP));
                }
                return Next::Group;
            }
            if state.closing {
                return Next::Closing;
            }
            if !may_idle {
                self.wake.wait(&mut state);
            } else if self.wake.wait_for(&mut state, IDLE).timed_out() && state.commands.is_empty()
            {
                return Next::Idle;
            }
        }
    }

    /// Returns why the thread is gone although nobody wanted it to end.
    pub(super) fn lost(&self) -> Option<String> {
        let state = self.state.lock();
        state.ended.clone().filter(|_| !state.closing)
    }

    fn end(&self, why: &str) {
        let mut state = self.state.lock();
        state.ended.get_or_insert_with(|| why.to_owned());
        let left = std::mem::take(&mut state.commands);
        drop(state);
        // Their callers learn it from the dropped channel.
        drop(left);
    }
}

/// Says that the thread is gone, however it went.
struct EndOfThread(Arc<Shared>);

impl Drop for EndOfThread {
    fn drop(&mut self) {
        let why =
            if std::thread::panicking() { "the writer has failed" } else { "the store is closed" };
        self.0.queue.end(why);
        self.0.closed.send_replace(true);
    }
}

/// What the thread owns.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Option<DurableFile>,
    pub(super) last_compaction: Instant,
    pub(super) compaction_retry_at: Option<Instant>,
}

impl Writer {
    /// Serves until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let end = EndOfThread(Arc::clone(&self.shared));
        let mut group = Vec::new();
        loop {
            let may_idle = self.disk.as_ref().is_some_and(DurableFile::has_backlog);
            match self.shared.queue.next(&mut group, may_idle) {
                Next::Group => {
                    let (size, start) = (group.len(), Instant::now());
                    self.commit(&mut group);
                    let took = start.elapsed();
                    self.compact_while_busy();
                    let syncs = self.disk.as_ref().is_some_and(DurableFile::syncs);
                    if syncs && size > 1 && took > GATHER_AFTER {
                        std::thread::sleep((took / GATHER_PART).min(MAX_GATHER));
                    } else if size >= CROWD {
                        std::thread::sleep(CROWD_GATHER);
                    }
                }
                Next::Idle => self.compact_while_idle(),
                Next::Closing => break,
            }
        }
        let shared = Arc::clone(&self.shared);
        if let Some(disk) = self.disk.take()
            && let Err(error) = disk.close()
        {
            tracing::error!(%error, "closing the durable database failed; its journal is kept");
            *shared.close_error.lock() = Some(error);
        }
        drop(end);
    }

    fn commit(&mut self, group: &mut Vec<Box<dyn Command>>) {
        while !group.is_empty() {
            let mut changes = Changes::default();
            let (evaluated, writes) = self.evaluate(group, &mut changes);
            let outcome = writes.and_then(|writes| self.try_commit(changes, writes));
            for command in group.drain(..evaluated) {
                command.answer(outcome.clone());
            }
        }
    }

    fn try_commit(&mut self, changes: Changes, writes: u64) -> StoreResult<()> {
        if writes == 0 {
            return Ok(());
        }
        #[cfg(test)]
        self.run_test_hook();
        if let Some(disk) = &mut self.disk {
            let mut entry = Entry::new();
            changes.encode(&mut entry).map_err(|error| {
                StoreError::new(ErrorKind::Internal, format!("encoding failed: {error}"))
            })?;
            disk.append(entry)?;
        }
        self.shared.publish(changes, writes);
        Ok(())
    }

    #[cfg(test)]
    fn run_test_hook(&mut self) {
        let hook = self.shared.before_commit.lock().take();
        if let (Some(hook), Some(disk)) = (hook, &mut self.disk) {
            hook(disk);
        }
    }

    /// Evaluates the first commands of `group`, until the changes are enough for one commit. Gives
    /// how many, and how many of them changed something. Where one panics, what it left half done
    /// can't be told from what those before did, so that all of these are given up.
    fn evaluate(
        &self,
        group: &mut [Box<dyn Command>],
        changes: &mut Changes,
    ) -> (usize, StoreResult<u64>) {
        let now = self.shared.clock.now();
        let tables = self.shared.tables.read();
        let (mut evaluated, mut writes) = (0, 0);
        for command in group {
            evaluated += 1;
            let mut txn = Txn::new(&tables, changes, now);
            if catch_unwind(AssertUnwindSafe(|| command.evaluate(&mut txn))).is_err() {
                let error = StoreError::new(ErrorKind::Internal, "a command panicked");
                return (evaluated, Err(error));
            }
            writes += u64::from(txn.changed());
            if changes.len() >= MAX_GROUP_ROWS {
                break;
            }
        }
        if writes > 0 {
            changes.counters.rows.insert(Counter::Clock, Some(now.as_nanos()));
        }
        (evaluated, Ok(writes))
    }

    fn compact_while_busy(&mut self) {
        let Some(disk) = &self.disk else { return };
        if disk.is_overfull() {
            self.compact(OVERFULL_ROWS);
        } else if disk.is_due() && self.last_compaction.elapsed() >= IDLE {
            self.compact(BUSY_ROWS);
        }
    }

    fn compact_while_idle(&mut self) {
        // One step after the other, until a command comes.
        if self.disk.as_ref().is_some_and(DurableFile::is_due) {
            self.compact(IDLE_ROWS);
        }
    }

    fn compact(&mut self, rows: usize) {
        let Some(disk) = &mut self.disk else { return };
        if self.compaction_retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let outcome = disk.compact_step(rows);
        self.last_compaction = Instant::now();
        self.compaction_retry_at =
            outcome.is_err().then(|| self.last_compaction + COMPACTION_RETRY);
        let mut trouble = self.shared.compaction_failure.lock();
        match outcome {
            Ok(()) => *trouble = None,
            Err(error) => {
                if trouble.is_none() {
                    tracing::warn!(%error, "compacting the journal of the durable database failed");
                }
                *trouble = Some(error.to_string());
            }
        }
    }
}
