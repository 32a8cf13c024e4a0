//! The lines of requests before the leases: who is next.
//!
//! Knows nothing of stores or time. Invariant: a line has an entry for each [`Place`] that
//! lives, in the order in which they joined; whoever becomes the first of a line is woken.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::model::leases::LeaseName;

/// All lines.
#[derive(Debug)]
pub(super) struct Lines {
    state: Mutex<State>,
    waiting: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    last_ticket: u64,
    lines: HashMap<LeaseName, VecDeque<Entry>>,
}

#[derive(Debug)]
struct Entry {
    ticket: u64,
    wake: Arc<Notify>,
}

impl Lines {
    pub(super) fn new(max_waiting: usize) -> Arc<Self> {
        let waiting = Arc::new(Semaphore::new(max_waiting.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { state: Mutex::default(), waiting })
    }

    /// Joins the line of a lease at its end.
    pub(super) fn join(self: &Arc<Self>, name: &LeaseName) -> Place {
        let wake = Arc::new(Notify::new());
        let mut state = self.state.lock();
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        let entry = Entry { ticket, wake: Arc::clone(&wake) };
        if let Some(line) = state.lines.get_mut(name) {
            line.push_back(entry);
        } else {
            state.lines.insert(name.clone(), VecDeque::from([entry]));
        }
        Place { lines: Arc::clone(self), name: name.clone(), ticket, wake }
    }

    /// Wakes the first of a line, if there is one.
    pub(super) fn wake_first(&self, name: &LeaseName) {
        if let Some(first) = self.state.lock().lines.get(name).and_then(VecDeque::front) {
            first.wake.notify_one();
        }
    }

    /// Counts one more request as waiting, for as long as the permit lives; `None` when there are
    /// too many.
    pub(super) fn begin_to_wait(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.waiting).try_acquire_owned().ok()
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.waiting.available_permits()
    }

    #[cfg(test)]
    pub(super) fn length(&self, name: &LeaseName) -> usize {
        self.state.lock().lines.get(name).map_or(0, VecDeque::len)
    }
}

/// A place in a line; dropping it leaves the line.
#[derive(Debug)]
pub(super) struct Place {
    lines: Arc<Lines>,
    name: LeaseName,
    ticket: u64,
    wake: Arc<Notify>,
}

impl Place {
    /// Returns whether nobody is before this place.
    pub(super) fn is_first(&self) -> bool {
        let state = self.lines.state.lock();
        let first = state.lines.get(&self.name).and_then(VecDeque::front);
        first.is_some_and(|first| first.ticket == self.ticket)
    }

    /// Waits until this place became the first, or something happened that the first should
    /// look at. What happened before the call counts too.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.lines.state.lock();
        let Some(line) = state.lines.get_mut(&self.name) else { return };
        // Tickets grow along a line.
        if let Ok(at) = line.binary_search_by_key(&self.ticket, |entry| entry.ticket) {
            line.remove(at);
            match line.front() {
                Some(first) if at == 0 => first.wake.notify_one(),
                Some(_) => {}
                None => drop(state.lines.remove(&self.name)),
            }
        }
    }
}
