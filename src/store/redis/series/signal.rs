//! Waking the waiters for changes: at once for changes by this replica, within an interval for those by
//! others.
//!
//! Invariant: no polling without a waiter, and each change is signalled at least once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::Inner;

/// How often changes by other replicas are polled for.
const INTERVAL: Duration = Duration::from_millis(100);

/// The signal.
#[derive(Debug)]
pub(super) struct Signal {
    sender: watch::Sender<u64>,
    /// The newest sequence number of each shard that was signalled.
    seen: Vec<AtomicU64>,
    polling: AtomicBool,
}

impl Signal {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            sender: watch::Sender::new(0),
            seen: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            polling: AtomicBool::new(false),
        }
    }

    /// Notes the newest change of a shard, and wakes all waiters if it was not known.
    pub(super) fn changed(&self, shard: usize, seq: u64) {
        // After a loss of data the sequence number is lower, and that is a change as well.
        let known = self.seen.get(shard).map(|seen| seen.swap(seq, Ordering::AcqRel));
        if known != Some(seq) {
            self.sender.send_modify(|number| *number += 1);
        }
    }
}

/// Returns a receiver, and polls for changes by other replicas as long as any receiver exists.
pub(super) fn subscribe(inner: &Arc<Inner>) -> watch::Receiver<u64> {
    let receiver = inner.signal.sender.subscribe();
    if let Ok(runtime) = tokio::runtime::Handle::try_current()
        && !inner.signal.polling.swap(true, Ordering::AcqRel)
    {
        runtime.spawn(poll(Arc::downgrade(inner)));
    }
    receiver
}

async fn poll(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(inner) = inner.upgrade() else { return };
        let signal = &inner.signal;
        if signal.sender.receiver_count() == 0 {
            signal.polling.store(false, Ordering::Release);
            // A waiter may have subscribed just now, and found `polling` still set.
            if signal.sender.receiver_count() == 0 || signal.polling.swap(true, Ordering::AcqRel) {
                return;
            }
        }
        // When Redis is away, waiters learn it from their own calls.
        if let Ok(states) = inner.states().await {
            for (shard, state) in states.iter().enumerate() {
                signal.changed(shard, state.seq);
            }
        }
    }
}
