//! What the server has acknowledged, and what it was asked last.

use std::collections::{BTreeMap, BTreeSet};

use holdall::model::time::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

/// What was written to one place, as growing numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// The last number that was sent.
    pub(super) sent: u64,
    /// The last number that was acknowledged.
    pub(super) acknowledged: u64,
    /// The last number that was acknowledged to be on disk.
    pub(super) durable: u64,
}

/// What is known of one lease.
#[derive(Debug, Clone, Default)]
pub(super) struct LeaseRecord {
    /// The greatest token that was given.
    pub(super) greatest_token: i64,
    /// Who was promised the lease, under which token, until when.
    pub(super) promise: Option<Promise>,
    /// A release or an acquisition is under way: the promise may be over, or another's.
    pub(super) in_doubt: bool,
}

/// A lease that was granted or renewed.
#[derive(Debug, Clone)]
pub(super) struct Promise {
    pub(super) holder: String,
    pub(super) token: i64,
    pub(super) expires_at: Timestamp,
}

#[derive(Debug, Default)]
struct Book {
    locks: Vec<(String, Option<String>)>,
    leases: BTreeMap<String, LeaseRecord>,
    checkpoints: BTreeMap<String, Progress>,
    bumps: BTreeMap<String, Progress>,
    fences: BTreeSet<(String, String)>,
    series: BTreeMap<String, Progress>,
    number: u64,
}

/// What was promised, over all runs of a server.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    book: Mutex<Book>,
    acknowledgements: watch::Sender<u64>,
}

impl Ledger {
    /// Counts the acknowledgements.
    pub(crate) fn acknowledgements(&self) -> u64 {
        *self.acknowledgements.borrow()
    }

    /// Waits until there are so many more acknowledgements.
    pub(crate) async fn until_more(&self, more: u64) {
        let enough = self.acknowledgements() + more;
        let mut seen = self.acknowledgements.subscribe();
        let reached = seen.wait_for(|count| *count >= enough);
        tokio::time::timeout(crate::harness::DEADLINE, reached)
            .await
            .expect("the load goes on")
            .expect("the ledger exists");
    }

    fn acknowledged(&self) {
        self.acknowledgements.send_modify(|count| *count += 1);
    }

    /// Returns a number that was never given before.
    pub(super) fn next_number(&self) -> u64 {
        let mut book = self.book.lock();
        book.number += 1;
        book.number
    }

    pub(super) fn locked(&self, keys: Vec<String>) {
        self.book.lock().locks.extend(keys.into_iter().map(|key| (key, None)));
        self.acknowledged();
    }

    pub(super) fn locked_until(&self, key: String, expires_at: String) {
        self.book.lock().locks.push((key, Some(expires_at)));
        self.acknowledged();
    }

    /// Returns all locks that were taken, with their end where it is known.
    pub(super) fn locks(&self) -> Vec<(String, Option<String>)> {
        self.book.lock().locks.clone()
    }

    pub(super) fn lease(&self, name: &str) -> LeaseRecord {
        self.book.lock().leases.get(name).cloned().unwrap_or_default()
    }

    pub(super) fn leases(&self) -> Vec<(String, LeaseRecord)> {
        let book = self.book.lock();
        book.leases.iter().map(|(name, record)| (name.clone(), record.clone())).collect()
    }

    pub(super) fn lease_in_doubt(&self, name: &str) {
        self.book.lock().leases.entry(name.to_owned()).or_default().in_doubt = true;
    }

    /// Notes that a lease was granted: its token must be greater than all before.
    #[track_caller]
    pub(super) fn lease_granted(&self, name: &str, promise: Promise) {
        let mut book = self.book.lock();
        let record = book.leases.entry(name.to_owned()).or_default();
        let greatest = record.greatest_token;
        assert!(promise.token > greatest, "{name}: token {} after {greatest}", promise.token);
        record.greatest_token = promise.token;
        record.promise = Some(promise);
        record.in_doubt = false;
        drop(book);
        self.acknowledged();
    }

    pub(super) fn lease_renewed(&self, name: &str, expires_at: Timestamp) {
        let mut book = self.book.lock();
        let record = book.leases.entry(name.to_owned()).or_default();
        if let Some(promise) = &mut record.promise {
            promise.expires_at = expires_at;
        }
        drop(book);
        self.acknowledged();
    }

    pub(super) fn lease_over(&self, name: &str) {
        let mut book = self.book.lock();
        let record = book.leases.entry(name.to_owned()).or_default();
        record.promise = None;
        record.in_doubt = false;
        drop(book);
        self.acknowledged();
    }

    pub(super) fn send_checkpoint(&self, path: &str) -> u64 {
        send(&mut self.book.lock().checkpoints, path)
    }

    pub(super) fn checkpoint_stands(&self, path: &str, value: u64) {
        self.book.lock().checkpoints.entry(path.to_owned()).or_default().acknowledged = value;
        self.acknowledged();
    }

    pub(super) fn checkpoints(&self) -> BTreeMap<String, Progress> {
        self.book.lock().checkpoints.clone()
    }

    pub(super) fn send_bump(&self, path: &str) {
        send(&mut self.book.lock().bumps, path);
    }

    /// Notes that a generation was raised: further than ever, and with a fence of its own.
    #[track_caller]
    pub(super) fn bumped(&self, path: &str, generation: u64, fence: &str) {
        let mut book = self.book.lock();
        let progress = book.bumps.entry(path.to_owned()).or_default();
        let possible = progress.acknowledged + 1..=progress.sent;
        assert!(possible.contains(&generation), "{path}: {generation} after {progress:?}");
        progress.acknowledged = generation;
        let is_new = book.fences.insert((path.to_owned(), fence.to_owned()));
        assert!(is_new, "{path}: the fence {fence} came twice");
        drop(book);
        self.acknowledged();
    }

    pub(super) fn bumps(&self) -> BTreeMap<String, Progress> {
        self.book.lock().bumps.clone()
    }

    pub(super) fn send_series(&self, name: &str) -> u64 {
        send(&mut self.book.lock().series, name)
    }

    pub(super) fn series_stands(&self, name: &str, value: u64) {
        self.book.lock().series.entry(name.to_owned()).or_default().acknowledged = value;
        self.acknowledged();
    }

    pub(super) fn acknowledged_series(&self) -> Vec<(String, u64)> {
        let book = self.book.lock();
        book.series.iter().map(|(name, p)| (name.clone(), p.acknowledged)).collect()
    }

    pub(super) fn series_durable(&self, values: Vec<(String, u64)>) {
        let mut book = self.book.lock();
        for (name, value) in values {
            let progress = book.series.entry(name).or_default();
            progress.durable = progress.durable.max(value);
        }
    }

    /// Notes what a new run of the server began with.
    pub(super) fn series_fell_back(&self, name: &str, value: u64) {
        let mut book = self.book.lock();
        let progress = book.series.entry(name.to_owned()).or_default();
        progress.acknowledged = value;
        progress.durable = value;
    }

    pub(super) fn series(&self) -> BTreeMap<String, Progress> {
        self.book.lock().series.clone()
    }
}

fn send(places: &mut BTreeMap<String, Progress>, place: &str) -> u64 {
    let progress = places.entry(place.to_owned()).or_default();
    progress.sent += 1;
    progress.sent
}
