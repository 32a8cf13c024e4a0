//! What a fenced write of another store holds open, and a change of hands must shut.
//!
//! There is a gate for a lease only while a fenced write or a change of its hands is under
//! way; other leases, and renewals, never wait. Invariant: while a fenced write is under way,
//! its lease does not change hands visibly.

use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex, RwLock};

use super::table::Pending;
use super::transaction::Tables;
use crate::model::leases::LeaseName;
use crate::model::time::Timestamp;
use crate::store::embedded::leases::Leases;

/// A change of hands that waits longer than this for a fenced write is logged: everything durable
/// waits with it.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// The gates, by the name of the lease.
///
/// The writer, when a lease changes hands, and a fenced write of its former holder:
///
/// ```text
/// writer         commit on disk -> shut the gate ..... -> promote -> open the gate -> answer
/// fenced write     pass the gate -> read the committed lease -> table mutex -> leave
/// ```
///
/// A write that passed before the gate was shut sees the lease as it was, and the promotion waits
/// until it leaves. One that comes later waits until the gate opens, and sees the new holder. So
/// once the new holder has its answer, no write of the former one is under way or will succeed.
/// A crash after the commit changes nothing of that: the fenced writes end with the process.
///
/// The gate comes before every other lock here: nobody waits at a gate while holding the tables,
/// and the writer shuts gates holding nothing else.
#[derive(Debug, Default)]
pub(super) struct FenceLatches {
    gates: Mutex<HashMap<LeaseName, Gate, RandomState>>,
    /// A gate was left by its last write, or opened.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Gate {
    /// Fenced writes that are under way.
    inside: usize,
    shut: bool,
}

/// A fenced write that is under way.
#[derive(Debug)]
pub(super) struct Passage<'a> {
    gates: &'a FenceLatches,
    name: &'a LeaseName,
}

/// Gates that are shut, with nobody inside. Dropping it opens them.
#[derive(Debug)]
pub(super) struct Shut<'a> {
    gates: &'a FenceLatches,
    names: Vec<LeaseName>,
}

impl FenceLatches {
    /// Holds a lease in the hands it is in.
    pub(super) fn pass<'a>(&'a self, name: &'a LeaseName) -> Passage<'a> {
        let mut gates = self.gates.lock();
        while gates.get(name).is_some_and(|gate| gate.shut) {
            self.changed.wait(&mut gates);
        }
        gates.entry(name.clone()).or_default().inside += 1;
        Passage { gates: self, name }
    }

    /// Waits until no fenced write is under way for a lease that `changes` takes from its holder.
    /// Only one thread does this, the writer.
    pub(super) fn shut_for(&self, changes: &Pending<Leases>, tables: &RwLock<Tables>) -> Shut<'_> {
        let mut names = Vec::new();
        if !changes.rows.is_empty() {
            let tables = tables.read();
            names.extend(changes.rows.iter().filter_map(|(name, after)| {
                // One that is over already may still be held open by a write that began before.
                let before = tables.leases.get(name, Timestamp::MIN)?.token;
                (Some(before) != after.as_ref().map(|lease| lease.token)).then(|| name.clone())
            }));
        }
        if !names.is_empty() {
            self.shut(&names);
        }
        Shut { gates: self, names }
    }

    fn shut(&self, names: &[LeaseName]) {
        let mut gates = self.gates.lock();
        for name in names {
            gates.entry(name.clone()).or_default().shut = true;
        }
        let busy = |gates: &mut HashMap<LeaseName, Gate, RandomState>| {
            names.iter().any(|name| gates.get(name).is_some_and(|gate| gate.inside > 0))
        };
        if self.changed.wait_while_for(&mut gates, busy, LONG_WAIT).timed_out() {
            tracing::warn!("a lease changes hands only after a fenced write that takes long");
            self.changed.wait_while(&mut gates, busy);
        }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        let mut gates = self.gates.gates.lock();
        let Some(gate) = gates.get_mut(self.name) else { return };
        gate.inside -= 1;
        if gate.inside > 0 {
            return;
        }
        if gate.shut {
            self.gates.changed.notify_all();
        } else {
            gates.remove(self.name);
        }
    }
}

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        if self.names.is_empty() {
            return;
        }
        let mut gates = self.gates.gates.lock();
        for name in &self.names {
            gates.remove(name);
        }
        self.gates.changed.notify_all();
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
    fn a_gate_waits_for_its_own_writes_and_keeps_others_out_while_it_is_shut() {
        let gates = FenceLatches::default();
        let (ours, other) = (name("ours"), name("other"));
        let passages = (gates.pass(&ours), gates.pass(&ours), gates.pass(&other));
        let (done, is_done) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let names = vec![name("ours")];
                gates.shut(&names);
                done.send("shut").expect("is awaited");
                Shut { gates: &gates, names }
            });
            while !gates.gates.lock()[&ours].shut {
                std::thread::yield_now();
            }
            scope.spawn(|| {
                drop(gates.pass(&ours));
                done.send("passed").expect("is awaited");
            });
            drop(gates.pass(&name("another")));
            drop(passages.0);
            assert!(is_done.try_recv().is_err());
            drop(passages.1);
            assert_eq!(is_done.recv(), Ok("shut"));
            assert_eq!(is_done.recv(), Ok("passed"));
        });
        drop(passages.2);
        assert!(gates.gates.lock().is_empty());
    }
}
