//! What a fenced write of another store holds, and a change of hands must close.
//!
//! There is a latch for a lease only while a fenced write or a change of its hands is under
//! way; other leases, and renewals, never wait. Invariant: while a fenced write is under way,
//! its lease does not visibly change hands.

use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex, RwLock};

use super::rows::Leases;
use crate::model::leases::LeaseName;
use crate::store::embedded::durable::{Changes, PublishGuard, PublishHook, Tables};

/// A change of hands that waits longer than this for a fenced write is logged: everything durable
/// waits with it.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// The latches, by the name of the lease.
///
/// The writer, when a lease changes hands, and a fenced write of its former holder:
///
/// ```text
/// writer         commit on disk -> close the latch ......... -> publish -> open the latch -> respond
/// fenced write     hold the latch -> read the committed lease -> table mutex -> let go
/// ```
///
/// A write that held the latch before it was closed sees the lease as it was, and publishing waits
/// until it lets go. One that comes later waits until the latch opens, and sees the new holder. So
/// once the new holder has its response, no write of the former one is under way or will succeed.
/// A crash after the commit changes nothing about that: the fenced writes end with the process.
///
/// The latch comes before every other lock here: nothing waits at a latch while it holds the
/// tables, and the writer closes latches while it holds nothing else.
#[derive(Debug, Default)]
pub(in crate::store::embedded) struct FenceLatches {
    latches: Mutex<HashMap<LeaseName, Latch, RandomState>>,
    /// A latch was let go by its last write, or opened.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Latch {
    /// Fenced writes that are under way.
    writes: usize,
    closed: bool,
}

/// A fenced write that is under way.
#[derive(Debug)]
pub(super) struct HeldLatch<'a> {
    latches: &'a FenceLatches,
    name: &'a LeaseName,
}

/// Latches that are closed, with no write under way. Dropping it opens them.
#[derive(Debug)]
struct ClosedLatches<'a> {
    latches: &'a FenceLatches,
    names: Vec<LeaseName>,
}

impl FenceLatches {
    /// Keeps a lease from changing hands.
    pub(super) fn hold<'a>(&'a self, name: &'a LeaseName) -> HeldLatch<'a> {
        let mut latches = self.latches.lock();
        while latches.get(name).is_some_and(|latch| latch.closed) {
            self.changed.wait(&mut latches);
        }
        latches.entry(name.clone()).or_default().writes += 1;
        HeldLatch { latches: self, name }
    }

    /// Waits until no fenced write is under way for these leases, and keeps new ones out.
    fn close(&self, names: Vec<LeaseName>) -> ClosedLatches<'_> {
        let mut latches = self.latches.lock();
        for name in &names {
            latches.entry(name.clone()).or_default().closed = true;
        }
        // All are closed before the first is waited for, so that no new write prolongs the wait.
        let busy = |latches: &mut HashMap<LeaseName, Latch, RandomState>| {
            names.iter().any(|name| latches.get(name).is_some_and(|latch| latch.writes > 0))
        };
        if self.changed.wait_while_for(&mut latches, busy, LONG_WAIT).timed_out() {
            tracing::warn!("a lease changes hands only after a fenced write that takes long");
            self.changed.wait_while(&mut latches, busy);
        }
        drop(latches);
        ClosedLatches { latches: self, names }
    }
}

impl PublishHook for FenceLatches {
    /// Closes the latches of the leases that `changes` takes from their holders.
    fn before_publish<'a>(
        &'a self,
        changes: &Changes,
        tables: &RwLock<Tables>,
    ) -> Option<Box<dyn PublishGuard + 'a>> {
        let changes = changes.pending::<Leases>()?;
        let mut names = Vec::new();
        let tables = tables.read();
        for (name, after) in &changes.rows {
            // Also of one that has expired: a write that began before its end may hold the latch.
            let before = tables.rows::<Leases>().get_unpurged(name).map(|lease| lease.token);
            let after = after.as_ref().map(|lease| lease.token);
            if before.is_some() && before != after {
                names.push(name.clone());
            }
        }
        // A fenced write reads the tables while it holds its latch, so they must be free.
        drop(tables);
        if names.is_empty() {
            return None;
        }
        Some(Box::new(self.close(names)))
    }
}

impl PublishGuard for ClosedLatches<'_> {}

impl Drop for HeldLatch<'_> {
    fn drop(&mut self) {
        let mut latches = self.latches.latches.lock();
        let Some(latch) = latches.get_mut(self.name) else { return };
        latch.writes -= 1;
        if latch.writes > 0 {
            return;
        }
        if latch.closed {
            self.latches.changed.notify_all();
        } else {
            latches.remove(self.name);
        }
    }
}

impl Drop for ClosedLatches<'_> {
    fn drop(&mut self) {
        let mut latches = self.latches.latches.lock();
        for name in &self.names {
            latches.remove(name);
        }
        self.latches.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn name(name: &str) -> LeaseName {
        LeaseName::parse(name).expect("valid")
    }

    #[test]
    fn a_closing_latch_waits_for_its_own_writes_and_keeps_new_ones_out() {
        let latches = FenceLatches::default();
        let (ours, other) = (name("ours"), name("other"));
        let held = (latches.hold(&ours), latches.hold(&ours), latches.hold(&other));
        let (done, is_done) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let closed = latches.close(vec![name("ours")]);
                done.send("closed").expect("is awaited");
                closed
            });
            while !latches.latches.lock()[&ours].closed {
                std::thread::yield_now();
            }
            scope.spawn(|| {
                drop(latches.hold(&ours));
                done.send("held").expect("is awaited");
            });
            drop(latches.hold(&name("another")));
            drop(held.0);
            assert!(is_done.try_recv().is_err());
            drop(held.1);
            assert_eq!(is_done.recv(), Ok("closed"));
            assert_eq!(is_done.recv(), Ok("held"));
        });
        drop(held.2);
        assert!(latches.latches.lock().is_empty());
    }
}
