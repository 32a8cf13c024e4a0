//! Merges that wait: those of the same keys are combined before they reach Redis.
//!
//! A group of merges is carried out at a time for each key; what arrives meanwhile waits, and is the next group.
//! Invariant: no two groups that run have a key or a producer in common, merges of one key are carried out in the order
//! of their arrival, and a group runs to its end, also when its callers have left.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, Hash};
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Inner;
use super::group::Group;
use super::merge::Merged;
use crate::store::Merge;

/// The most updates of a group that has several merges.
const MAX_UPDATES: usize = 10_000;

/// The merges that wait, and the keys of those that run.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    hasher: RandomState,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    running: HashSet<u64>,
}

/// A merge that waits.
struct Waiting {
    merge: Merge,
    /// Hashes of its keys and of its producer.
    keys: HashSet<u64>,
    /// The hash of its producer, of which a group may have one batch.
    producer: Option<u64>,
    reply: oneshot::Sender<Merged>,
}

/// Merges that are carried out together.
#[derive(Default)]
struct Gathered {
    merges: Vec<Waiting>,
    updates: usize,
}

impl Queue {
    /// Adds a merge; returns what its outcome comes from.
    pub(super) fn add(&self, merge: Merge) -> oneshot::Receiver<Merged> {
        let (reply, outcome) = oneshot::channel();
        let pipeline = merge.pipeline.name.as_str();
        let hash = |key: &dyn Fn(&mut foldhash::fast::FoldHasher<'_>)| {
            let mut hasher = self.hasher.build_hasher();
            pipeline.hash(&mut hasher);
            key(&mut hasher);
            std::hash::Hasher::finish(&hasher)
        };
        let of_update = |update: &crate::model::aggregates::Update| {
            hash(&|hasher| (0_u8, &update.entity, update.bucket).hash(hasher))
        };
        let mut keys: HashSet<u64> = merge.updates.iter().map(of_update).collect();
        let producer = merge
            .sequence
            .as_ref()
            .map(|sequence| hash(&|hasher| (1_u8, &sequence.producer).hash(hasher)));
        keys.extend(producer);
        self.state.lock().waiting.push_back(Waiting { merge, keys, producer, reply });
        outcome
    }

    /// Takes the merges that can run now, in groups.
    fn take(&self) -> Vec<Gathered> {
        let mut state = self.state.lock();
        let State { waiting, running } = &mut *state;
        let mut groups: Vec<Gathered> = Vec::new();
        // Which group has a key.
        let mut owners: HashMap<u64, usize> = HashMap::new();
        // Keys of merges that have to wait longer: later ones must not overtake them.
        let mut blocked: HashSet<u64> = HashSet::new();
        let mut later = VecDeque::new();
        for next in waiting.drain(..) {
            let is_free =
                next.keys.iter().all(|key| !running.contains(key) && !blocked.contains(key));
            let touched: HashSet<usize> =
                next.keys.iter().filter_map(|key| owners.get(key).copied()).collect();
            if is_free && fits(&groups, &touched, &next) {
                join(&mut groups, &mut owners, &touched, next);
            } else {
                blocked.extend(&next.keys);
                later.push_back(next);
            }
        }
        *waiting = later;
        running.extend(owners.keys());
        groups.retain(|group| !group.merges.is_empty());
        groups
    }

    fn release(&self, keys: &HashSet<u64>) {
        let mut state = self.state.lock();
        state.running.retain(|key| !keys.contains(key));
    }
}

/// Returns whether a merge may join the groups that it has keys in common with.
fn fits(groups: &[Gathered], touched: &HashSet<usize>, next: &Waiting) -> bool {
    let mut updates = next.merge.updates.len();
    for group in touched {
        let group = &groups[*group];
        updates += group.updates;
        let is_apart = |other: &Waiting| {
            other.merge.fence.is_some() || next.producer.is_some_and(|p| other.producer == Some(p))
        };
        if next.merge.fence.is_some() || group.merges.iter().any(is_apart) {
            return false;
        }
    }
    touched.is_empty() || updates <= MAX_UPDATES
}

/// Adds a merge to the groups that it touches, which become one.
fn join(
    groups: &mut Vec<Gathered>,
    owners: &mut HashMap<u64, usize>,
    touched: &HashSet<usize>,
    next: Waiting,
) {
    let first = touched.iter().min().copied().unwrap_or_else(|| {
        groups.push(Gathered::default());
        groups.len() - 1
    });
    let mut joined = std::mem::take(&mut groups[first]);
    let mut others: Vec<usize> = touched.iter().copied().filter(|group| *group != first).collect();
    others.sort_unstable();
    for other in others {
        let Gathered { merges, updates } = std::mem::take(&mut groups[other]);
        owners.extend(merges.iter().flat_map(|merge| &merge.keys).map(|key| (*key, first)));
        joined.merges.extend(merges);
        joined.updates += updates;
    }
    owners.extend(next.keys.iter().map(|key| (*key, first)));
    joined.updates += next.merge.updates.len();
    joined.merges.push(next);
    groups[first] = joined;
}

/// Starts what can run now.
pub(super) fn start(inner: &Arc<Inner>) {
    // There is none any more when the last groups are dropped with the runtime itself.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    for Gathered { merges, .. } in inner.queue.take() {
        let keys = merges.iter().flat_map(|merge| merge.keys.iter().copied()).collect();
        let running = Running { inner: Arc::clone(inner), keys };
        runtime.spawn(async move {
            let (merges, replies): (Vec<_>, Vec<_>) =
                merges.into_iter().map(|waiting| (waiting.merge, waiting.reply)).unzip();
            let Some(group) = Group::new(&running.inner.shards, merges) else { return };
            let outcomes = running.inner.merge_group(group).await;
            // Before the replies: who sends the next merge after one was acknowledged finds its keys free.
            drop(running);
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                // A caller that has left is not told.
                drop(reply.send(outcome));
            }
        });
    }
}

/// A group that runs. Its keys are free when it ends, however that was.
struct Running {
    inner: Arc<Inner>,
    keys: HashSet<u64>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.inner.queue.release(&self.keys);
        start(&self.inner);
    }
}
