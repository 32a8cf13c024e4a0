//! How a checkpoint and its key are stored.
//!
//! Invariant: the bytes of keys order as org and repo do, and two keys are never stored alike.

use super::super::core::replies::number;
use super::super::core::time::{NANOS_PER_MILLI, time_of};
use crate::model::checkpoints::{Checkpoint, CheckpointKey};
use crate::model::time::Timestamp;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// Separates org and repo. A zero byte of an org itself is followed by [`ESCAPE`], so that no org contains
/// the separator, and the separator orders before everything that an org can continue with.
const SEPARATOR: [u8; 2] = [0, 0];
const ESCAPE: u8 = 0xFF;

/// Returns what the keys of an org begin with.
pub(super) fn prefix(org: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(org.len() + SEPARATOR.len());
    for byte in org.bytes() {
        bytes.push(byte);
        if byte == 0 {
            bytes.push(ESCAPE);
        }
    }
    bytes.extend(SEPARATOR);
    bytes
}

/// Returns a key as it is stored.
pub(super) fn member(key: &CheckpointKey) -> Vec<u8> {
    let mut bytes = prefix(&key.org);
    bytes.extend(key.repo.bytes());
    bytes
}

/// Returns the range of stored keys after `after` in `org` (in all orgs when `None`), as ZRANGEBYLEX
/// takes it.
pub(super) fn range(org: Option<&str>, after: Option<&CheckpointKey>) -> (Vec<u8>, Vec<u8>) {
    let exclusive = |bytes: &[u8]| [b"(", bytes].concat();
    let after = after.map(member);
    let first = org.map(prefix);
    let from = match (&after, &first) {
        (Some(after), Some(first)) if after < first => exclusive(first),
        (Some(after), _) => exclusive(after),
        (None, Some(first)) => exclusive(first),
        (None, None) => b"-".to_vec(),
    };
    // Above all keys of the org: its prefix with the last byte of the separator raised by one.
    let to = first.map_or(b"+".to_vec(), |mut first| {
        first.pop();
        first.push(1);
        exclusive(&first)
    });
    (from, to)
}

/// Reads what [`member`] wrote; `None` when it did not write this.
pub(super) fn key_of(member: &[u8]) -> Option<CheckpointKey> {
    let mut org = Vec::new();
    let mut rest = member;
    loop {
        match *rest {
            [0, ESCAPE, ref after @ ..] => {
                org.push(0);
                rest = after;
            }
            [0, 0, ref repo @ ..] => {
                let repo = String::from_utf8(repo.to_vec()).ok()?;
                return Some(CheckpointKey { org: String::from_utf8(org).ok()?, repo });
            }
            [0, ..] | [] => return None,
            [byte, ref after @ ..] => {
                org.push(byte);
                rest = after;
            }
        }
    }
}

/// Reads a checkpoint as the scripts write it.
///
/// # Errors
/// When it is damaged.
pub(super) fn checkpoint_of(record: &str) -> StoreResult<Checkpoint> {
    let damaged = || StoreError::new(ErrorKind::Corrupt, format!("{record:?} is no checkpoint"));
    let [millis, nanos, written] = record.split(' ').collect::<Vec<&str>>()[..] else {
        return Err(damaged());
    };
    // In 128 bits: the first millisecond of all time starts before the least number of 64 bits.
    let whole = i128::from(number(millis)?) * i128::from(NANOS_PER_MILLI);
    let at = i64::try_from(whole + i128::from(number(nanos)?)).map_err(|_| damaged())?;
    Ok(Checkpoint { checkpoint: Timestamp::from_nanos(at), written_at: time_of(written)? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn stored_keys_read_back_and_order_as_the_keys_do(
            a in ("[\0\u{1}ab\u{ff}]{1,4}", "[\0\u{1}ab\u{ff}]{1,4}"),
            b in ("[\0\u{1}ab\u{ff}]{1,4}", "[\0\u{1}ab\u{ff}]{1,4}"),
        ) {
            let [a, b] = [a, b].map(|(org, repo)| CheckpointKey { org, repo });
            prop_assert_eq!(key_of(&member(&a)), Some(a.clone()));
            prop_assert_eq!(member(&a).cmp(&member(&b)), a.cmp(&b));
            let within = member(&b).starts_with(&prefix(&a.org));
            prop_assert_eq!(within, a.org == b.org);
        }

        #[test]
        fn times_read_back_to_the_nanosecond(nanos: i64) {
            let (millis, rest) =
                (nanos.div_euclid(NANOS_PER_MILLI), nanos.rem_euclid(NANOS_PER_MILLI));
            let read = checkpoint_of(&format!("{millis} {rest} 5")).expect("valid");
            prop_assert_eq!(read.checkpoint.as_nanos(), nanos);
        }
    }

    #[test]
    fn a_damaged_record_is_an_error() {
        for record in ["", "1 2", "1 2 3 4", "x 2 3", "1 2 x"] {
            assert!(checkpoint_of(record).is_err(), "{record:?}");
        }
        for member in [&b"org"[..], b"", b"org\0", b"org\0\x01repo", b"\xff\0\0repo"] {
            assert_eq!(key_of(member), None, "{member:?}");
        }
    }
}
