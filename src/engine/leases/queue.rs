//! The queues of requests that want a lease: which request is next.
//!
//! Knows nothing of stores or time. Invariant: a queue has an entry for each [`Ticket`] that lives, in the order in
//! which they joined; a ticket that becomes the first of its queue is woken.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::leases::LeaseName;

/// All queues, by lease.
#[derive(Debug, Default)]
pub(super) struct Queues {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_number: u64,
    queues: HashMap<LeaseName, VecDeque<Entry>>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    wake: Arc<Notify>,
}

impl Queues {
    /// Joins the queue of a lease at its end.
    pub(super) fn join(self: &Arc<Self>, name: &LeaseName) -> Ticket {
        let wake = Arc::new(Notify::new());
        let mut state = self.state.lock();
        state.last_number += 1;
        let number = state.last_number;
        let entry = Entry { number, wake: Arc::clone(&wake) };
        // The name is copied only for the first ticket of a queue.
        if let Some(queue) = state.queues.get_mut(name) {
            queue.push_back(entry);
        } else {
            state.queues.insert(name.clone(), VecDeque::from([entry]));
        }
        Ticket { queues: Arc::clone(self), name: name.clone(), number, wake }
    }

    /// Wakes the first ticket of a queue, if there is one.
    pub(super) fn wake_first(&self, name: &LeaseName) {
        if let Some(first) = self.state.lock().queues.get(name).and_then(VecDeque::front) {
            first.wake.notify_one();
        }
    }

    #[cfg(test)]
    pub(super) fn length(&self, name: &LeaseName) -> usize {
        self.state.lock().queues.get(name).map_or(0, VecDeque::len)
    }
}

/// An entry of a queue; dropping it leaves the queue.
#[derive(Debug)]
pub(super) struct Ticket {
    queues: Arc<Queues>,
    name: LeaseName,
    number: u64,
    wake: Arc<Notify>,
}

impl Ticket {
    /// Returns whether this is the first ticket of its queue.
    pub(super) fn is_first(&self) -> bool {
        let state = self.queues.state.lock();
        let first = state.queues.get(&self.name).and_then(VecDeque::front);
        first.is_some_and(|first| first.number == self.number)
    }

    /// Waits until this ticket becomes the first, or the first should ask the store again. A wake-up before the call
    /// counts too.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.queues.state.lock();
        let Some(queue) = state.queues.get_mut(&self.name) else { return };
        // Numbers grow along a queue.
        if let Ok(at) = queue.binary_search_by_key(&self.number, |entry| entry.number) {
            queue.remove(at);
            match queue.front() {
                // The first has left, so another one is the first now.
                Some(first) if at == 0 => first.wake.notify_one(),
                Some(_) => {}
                None => drop(state.queues.remove(&self.name)),
            }
        }
    }
}
