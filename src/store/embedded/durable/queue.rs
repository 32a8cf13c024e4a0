//! The queue of commands before the writer.
//!
//! Invariant: once the writer is gone no command is taken, and those in the queue fail.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::transaction::Txn;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// The most commands in the queue. The layers above limit their requests well below.
const MAX_QUEUED: usize = 1 << 17;
/// The most commands in a group.
const MAX_GROUP: usize = 4096;

/// A command for the writer.
pub(super) trait Command: Send {
    /// Does it to what the group has changed so far.
    fn evaluate(&mut self, txn: &mut Txn<'_>);
    /// Tells the caller how it ended.
    fn respond(self: Box<Self>, outcome: StoreResult<()>);
}

/// A command made of a closure.
pub(super) struct Job<F, R> {
    work: Option<F>,
    result: Option<R>,
    reply: oneshot::Sender<StoreResult<R>>,
}

impl<F, R> Job<F, R> {
    /// Makes a command whose outcome goes to `reply`.
    pub(super) fn new(work: F, reply: oneshot::Sender<StoreResult<R>>) -> Self {
        Self { work: Some(work), result: None, reply }
    }
}

impl<F, R> Command for Job<F, R>
where
    F: FnOnce(&mut Txn<'_>) -> R + Send,
    R: Send,
{
    fn evaluate(&mut self, txn: &mut Txn<'_>) {
        self.result = self.work.take().map(|work| work(txn));
    }

    fn respond(self: Box<Self>, outcome: StoreResult<()>) {
        let Self { result, reply, .. } = *self;
        let missing = || StoreError::new(ErrorKind::Internal, "a command was not evaluated");
        // Sending fails when the caller went away, which changes nothing.
        drop(reply.send(outcome.and_then(|()| result.ok_or_else(missing))));
    }
}

/// The queue.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    wake: Condvar,
}

#[derive(Default)]
struct QueueState {
    commands: Vec<Box<dyn Command>>,
    closing: bool,
    /// Why the writer is gone.
    ended: Option<String>,
}

/// What the writer does next.
pub(super) enum Next {
    /// Commits the group.
    Group,
    /// Works in the background.
    Idle,
    /// Ends.
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
            return Err(StoreError::new(ErrorKind::Throttled, "too many commands are waiting"));
        }
        state.commands.push(command);
        let first = state.commands.len() == 1;
        drop(state);
        // With commands in the queue the writer is awake, or on its way.
        if first {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Lets the writer end when it has done what is in the queue.
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

    /// Waits for commands and moves them to `group`, which is empty; with `idle`, at most that long.
    pub(super) fn next(&self, group: &mut Vec<Box<dyn Command>>, idle: Option<Duration>) -> Next {
        let mut state = self.state.lock();
        loop {
            if !state.commands.is_empty() {
                if state.commands.len() <= MAX_GROUP {
                    // The two vectors take turns, so that neither is allocated anew.
                    std::mem::swap(&mut state.commands, group);
                } else {
                    group.extend(state.commands.drain(..MAX_GROUP));
                }
                return Next::Group;
            }
            if state.closing {
                return Next::Closing;
            }
            match idle {
                None => self.wake.wait(&mut state),
                Some(idle) => {
                    let timed_out = self.wake.wait_for(&mut state, idle).timed_out();
                    if timed_out && state.commands.is_empty() {
                        return Next::Idle;
                    }
                }
            }
        }
    }

    /// Returns why the writer is gone without having been closed.
    pub(super) fn lost(&self) -> Option<String> {
        let state = self.state.lock();
        state.ended.clone().filter(|_| !state.closing)
    }

    /// Notes that the writer is gone.
    pub(super) fn end(&self, why: &str) {
        let mut state = self.state.lock();
        state.ended.get_or_insert_with(|| why.to_owned());
        let left = std::mem::take(&mut state.commands);
        drop(state);
        // Their callers learn it from the dropped channel.
        drop(left);
    }
}
