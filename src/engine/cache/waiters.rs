//! The waiters of each key: requests that wait for the claimant's value.
//!
//! Invariant: an entry lives as long as a request waits at it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::model::cache::CacheKey;

/// All waiters, by key.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<HashMap<CacheKey, watch::Sender<()>>>);

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    waiters: Arc<Waiters>,
    key: CacheKey,
    changes: Option<watch::Receiver<()>>,
}

impl Waiters {
    /// Joins the waiters of a key: every [`Self::wake`] from now on is seen.
    pub(super) fn join(self: &Arc<Self>, key: &CacheKey) -> Waiter {
        let changes = match self.0.lock().entry(key.clone()) {
            Entry::Occupied(known) => known.get().subscribe(),
            Entry::Vacant(free) => free.insert(watch::Sender::new(())).subscribe(),
        };
        Waiter { waiters: Arc::clone(self), key: key.clone(), changes: Some(changes) }
    }

    /// Returns the number of keys with waiters.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Wakes all waiters of a key.
    pub(super) fn wake(&self, key: &CacheKey) {
        if let Some(changed) = self.0.lock().get(key) {
            changed.send_replace(());
        }
    }
}

impl Waiter {
    /// Returns the number of waiters of the key at this server.
    pub(super) fn count(&self) -> u32 {
        let waiters = self.waiters.0.lock();
        let count = waiters.get(&self.key).map_or(1, watch::Sender::receiver_count);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Waits until the key is woken.
    pub(super) async fn woken(&mut self) {
        match &mut self.changes {
            // The sender is in the map as long as this waiter lives.
            Some(changes) => drop(changes.changed().await),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiters = self.waiters.0.lock();
        // Before the count, which would count this waiter otherwise.
        drop(self.changes.take());
        if waiters.get(&self.key).is_some_and(|changed| changed.receiver_count() == 0) {
            waiters.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cache::Namespace;

    #[tokio::test]
    async fn all_waiters_of_a_key_are_woken_and_the_last_one_removes_it() {
        let waiters = Arc::new(Waiters::default());
        let namespace = Namespace::parse("n").expect("valid");
        let key = CacheKey::parse(namespace, "k").expect("valid");
        let (mut one, mut two) = (waiters.join(&key), waiters.join(&key));
        waiters.wake(&key);
        one.woken().await;
        two.woken().await;
        drop(one);
        assert_eq!(waiters.len(), 1);
        drop(two);
        assert_eq!(waiters.len(), 0);
    }
}
