//! What this replica has seen of a shard: scripts get it, and start a new epoch where the shard is behind it.
//!
//! A process that serves a shard may be the same as before and still have lost data: an old master is back behind
//! the address, or an older file was loaded into it. Its run id tells nothing then, but its numbers are lower than
//! others were told. Invariant: what is remembered never goes back, but for sequence numbers at a new epoch.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

/// An epoch, and the newest sequence number of series in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SeenEpoch {
    /// The epoch; empty before the first one was seen.
    pub(crate) epoch: String,
    /// A number that is greater for each later epoch of a shard.
    pub(crate) started: i64,
    /// The newest sequence number.
    pub(crate) seq: i64,
}

/// The highest numbers that were seen of one shard.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    epoch: Mutex<SeenEpoch>,
    token: AtomicI64,
    bump: AtomicI64,
}

impl Seen {
    /// Notes the state of the shard's epoch. One that came late, from before the epoch that is known, is ignored.
    pub(crate) fn note_epoch(&self, new: SeenEpoch) {
        let mut known = self.epoch.lock();
        if new.started > known.started || known.epoch.is_empty() {
            *known = new;
        } else if new.epoch == known.epoch {
            known.seq = known.seq.max(new.seq);
        }
    }

    /// Returns the epoch; empty before the first one was seen.
    pub(crate) fn epoch(&self) -> String {
        self.epoch.lock().epoch.clone()
    }

    /// Notes a fencing token that the shard issued or was told.
    pub(crate) fn note_token(&self, token: i64) {
        self.token.fetch_max(token, Ordering::AcqRel);
    }

    /// Notes the number of a bump.
    pub(crate) fn note_bump(&self, bump: i64) {
        self.bump.fetch_max(bump, Ordering::AcqRel);
    }

    /// Appends what `epoch_check.lua` compares: `,started,epoch,seq,token,bump`.
    pub(crate) fn append_to(&self, text: &mut String) {
        let SeenEpoch { epoch, started, seq } = &*self.epoch.lock();
        let (token, bump) = (self.token.load(Ordering::Acquire), self.bump.load(Ordering::Acquire));
        // Writing to a string cannot fail.
        let _ = write!(text, ",{started},{epoch},{seq},{token},{bump}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(epoch: &str, started: i64, seq: i64) -> SeenEpoch {
        SeenEpoch { epoch: epoch.to_owned(), started, seq }
    }

    fn text(seen: &Seen) -> String {
        let mut text = String::new();
        seen.append_to(&mut text);
        text
    }

    #[test]
    fn numbers_never_go_back_but_for_a_new_epochs_sequence() {
        let seen = Seen::default();
        assert_eq!(text(&seen), ",0,,0,0,0");
        seen.note_epoch(epoch("aa", 5, 100));
        seen.note_token(7);
        seen.note_token(6);
        seen.note_bump(9);
        seen.note_bump(8);
        seen.note_epoch(epoch("aa", 5, 90));
        assert_eq!(text(&seen), ",5,aa,100,7,9");
        seen.note_epoch(epoch("00", 4, 1_000));
        assert_eq!(text(&seen), ",5,aa,100,7,9");
        seen.note_epoch(epoch("bb", 6, 3));
        assert_eq!(text(&seen), ",6,bb,3,7,9");
    }
}
