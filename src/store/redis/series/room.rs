//! How much room each shard had for new series when it was last asked, so that most pushes need no check of their own.
//!
//! Only a hint: each shard checks its quota again when it applies its part. Invariant: a push is not checked as a whole
//! only where every shard had, a moment ago, far more room than the push can take.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a room is believed: other replicas push as well.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The least room that must be left over, so that other writers of this moment don't use it up.
const SLACK: usize = 1_000;

/// The rooms of all shards.
#[derive(Debug)]
pub(super) struct Rooms(Vec<Mutex<Option<(Instant, usize)>>>);

impl Rooms {
    /// Makes rooms of which nothing is known.
    pub(super) fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| Mutex::default()).collect())
    }

    /// Notes the room of a shard.
    pub(super) fn note(&self, shard: usize, room: usize) {
        *self.0[shard].lock() = Some((Instant::now(), room));
    }

    /// Returns whether a shard of that quota surely has room for so many new series.
    pub(super) fn surely(&self, shard: usize, series: usize, quota: usize) -> bool {
        let slack = SLACK.max(quota / 10);
        self.0[shard].lock().is_some_and(|(at, room)| {
            at.elapsed() < MAX_AGE && room >= series.saturating_add(slack)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ample_room_that_was_seen_just_now_is_believed() {
        let rooms = Rooms::new(2);
        assert!(!rooms.surely(0, 0, 10_000), "nothing is known");
        rooms.note(0, 1_005);
        assert!(rooms.surely(0, 5, 10_000));
        assert!(!rooms.surely(0, 6, 10_000), "a thousand must be left");
        assert!(!rooms.surely(0, 5, 20_000), "a tenth of the quota must be left");
        assert!(!rooms.surely(1, 0, 10_000), "another shard");
        let old = Instant::now().checked_sub(MAX_AGE).expect("the machine runs longer");
        *rooms.0[0].lock() = Some((old, 9_999));
        assert!(!rooms.surely(0, 5, 10_000), "it is too long ago");
    }
}
