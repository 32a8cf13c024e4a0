//! Who waits for a value that somebody else makes.
//!
//! Invariant: an entry lives as long as somebody waits at it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::model::cache::CacheKey;

/// All who wait.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<HashMap<CacheKey, watch::Sender<()>>>);

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Waiter {
    waiters: Arc<Waiters>,
    key: CacheKey,
    changes: Option<watch::Receiver<()>>,
}

impl Waiters {
    /// Begins to wait: every [`Self::wake`] from now on is seen.
    pub(super) fn join(self: &Arc<Self>, key: &CacheKey) -> Waiter {
        let changes = match self.0.lock().entry(key.clone()) {
            Entry::Occupied(known) => known.get().subscribe(),
            Entry::Vacant(free) => free.insert(watch::Sender::new(())).subscribe(),
        };
        Waiter { waiters: Arc::clone(self), key: key.clone(), changes: Some(changes) }
    }

    /// Counts the keys that somebody waits for.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Wakes all who wait for a key.
    pub(super) fn wake(&self, key: &CacheKey) {
        if let Some(changed) = self.0.lock().get(key) {
            changed.send_replace(());
        }
    }
}

impl Waiter {
    /// Counts who waits for the key here.
    pub(super) fn count(&self) -> u32 {
        let waiters = self.waiters.0.lock();
        let count = waiters.get(&self.key).map_or(1, watch::Sender::receiver_count);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Waits until somebody wakes the key.
    pub(super) async fn woken(&mut self) {
        match &mut self.changes {
            // The sender lives in the map as long as this does.
            Some(changes) => drop(changes.changed().await),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiters = self.waiters.0.lock();
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
    async fn whoever_waits_is_woken_and_forgotten() {
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
