//! Aggregates: values that many writers merge into, under the keys of a pipeline; and what makes an update count once.
//!
//! Not how values are merged, which their kind says.
//! Invariant: an event id, and a bucket, mean the same in every run and on every backend.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Invalid;
use super::keys::check_key;
use super::merge::State;
use super::time::Timestamp;

/// What a value is about: any text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entity(String);

impl Entity {
    /// Builds a key.
    ///
    /// # Errors
    /// When it is empty or longer than [`super::MAX_KEY_BYTES`].
    pub fn parse(entity: impl Into<String>) -> Result<Self, Invalid> {
        let entity = entity.into();
        check_key("an entity", &entity)?;
        Ok(Self(entity))
    }

    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which stretch of time a value is about: its number, counted from 1970 in steps of the granularity of the pipeline's
/// window. Without a window there is [`Bucket::WHOLE`] only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bucket(pub i64);

impl Bucket {
    /// The one bucket of a pipeline without a window.
    pub const WHOLE: Self = Self(0);

    /// Returns the bucket that contains `at`, also before 1970: the first nanosecond of 1970 begins bucket 0, and the
    /// one before it is the last of bucket -1.
    ///
    /// # Panics
    /// When the granularity is zero, which no window has.
    pub fn of(at: Timestamp, granularity: Duration) -> Self {
        let at = i128::from(at.as_nanos());
        Self(clamp(at.div_euclid(nanos(granularity))))
    }

    /// Returns when the bucket begins.
    pub fn start(self, granularity: Duration) -> Timestamp {
        Timestamp::from_nanos(clamp(i128::from(self.0).saturating_mul(nanos(granularity))))
    }

    /// Returns when the bucket has ended, which is when the next one begins.
    pub fn end(self, granularity: Duration) -> Timestamp {
        let next = i128::from(self.0) + 1;
        Timestamp::from_nanos(clamp(next.saturating_mul(nanos(granularity))))
    }

    /// Returns the bucket `count` earlier.
    #[must_use]
    pub fn back(self, count: u32) -> Self {
        Self(self.0.saturating_sub(i64::from(count)))
    }
}

fn nanos(granularity: Duration) -> i128 {
    i128::try_from(granularity.as_nanos()).unwrap_or(i128::MAX)
}

fn clamp(number: i128) -> i64 {
    let within = number.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    i64::try_from(within).expect("it was clamped")
}

/// What identifies an event within a scope: 128 bits of BLAKE3 over the scope and the client's own id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub [u8; 16]);

impl EventId {
    /// Makes the id of an event that the client calls `id`. The scope is the name of a pipeline, or something that no
    /// pipeline is called.
    ///
    /// # Errors
    /// When `id` is empty or longer than [`super::MAX_KEY_BYTES`].
    pub fn parse(scope: &str, id: &str) -> Result<Self, Invalid> {
        check_key("an event id", id)?;
        let mut hasher = blake3::Hasher::new();
        // With the length before it, no part of the id is taken for a part of the scope.
        hasher.update(&(scope.len() as u64).to_le_bytes());
        hasher.update(scope.as_bytes());
        hasher.update(id.as_bytes());
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        Ok(Self(bytes))
    }
}

/// An event that an update carries, so that it counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Which event.
    pub id: EventId,
    /// A hash of all that the update says. The same id with another content is a conflict.
    pub content: u64,
}

/// Who numbers its batches: any text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Producer(String);

impl Producer {
    /// Builds a name.
    ///
    /// # Errors
    /// When it is empty or longer than [`super::MAX_KEY_BYTES`].
    pub fn parse(producer: impl Into<String>) -> Result<Self, Invalid> {
        let producer = producer.into();
        check_key("a producer", &producer)?;
        Ok(Self(producer))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The number of a batch: the cheap alternative to an id for each of its updates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerSequence {
    /// Who sent the batch.
    pub producer: Producer,
    /// Greater by one than that of the producer's batch before.
    pub seq: u64,
}

/// One update of a batch: merges `delta` into the value of `entity` in `bucket`.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// What it is about.
    pub entity: Entity,
    /// When; [`Bucket::WHOLE`] where the pipeline has no window.
    pub bucket: Bucket,
    /// What is merged, of the pipeline's kind.
    pub delta: State,
    /// Makes it count once.
    pub event: Option<Event>,
    /// Sets the end of the value, or moves it to a later time; never to an earlier one.
    pub ttl: Option<Duration>,
    /// What the outbox says about it, where the pipeline has a hook: the text of a JSON object.
    pub note: Option<Arc<str>>,
}

/// A value that is held.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// The value, of the pipeline's kind.
    pub state: State,
    /// When it expires; `None` when never.
    pub expires_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn buckets_are_floors_also_before_1970() {
        let hour = i64::try_from(HOUR.as_nanos()).expect("fits");
        for (at, bucket) in
            [(0, 0), (hour - 1, 0), (hour, 1), (-1, -1), (-hour, -1), (-hour - 1, -2)]
        {
            let of = Bucket::of(Timestamp::from_nanos(at), HOUR);
            assert_eq!(of, Bucket(bucket), "{at}");
            assert!(of.start(HOUR).as_nanos() <= at && at < of.end(HOUR).as_nanos(), "{at}");
        }
    }

    #[test]
    fn a_bucket_beyond_all_time_begins_and_ends_at_its_limit() {
        for bucket in [i64::MIN, i64::MAX] {
            let (start, end) = (Bucket(bucket).start(HOUR), Bucket(bucket).end(HOUR));
            assert!(start == end && [Timestamp::MIN, Timestamp::MAX].contains(&start));
        }
        assert_eq!(Bucket(i64::MIN).back(1), Bucket(i64::MIN));
        assert_eq!(Bucket::of(Timestamp::MIN, Duration::from_nanos(1)), Bucket(i64::MIN));
    }

    #[test]
    fn no_two_events_share_an_id() {
        let ids = [("a", "bc"), ("ab", "c"), ("a", "c"), ("b", "bc")]
            .map(|(scope, id)| EventId::parse(scope, id).expect("valid"));
        for (at, id) in ids.iter().enumerate() {
            assert!(ids[..at].iter().all(|other| other != id));
        }
        assert!(EventId::parse("a", "").is_err());
        // Stored ids are compared with new ones for as long as the deduplication lasts.
        assert_eq!(EventId::parse("views", "e-1").expect("valid").0[..4], [99, 216, 12, 179]);
    }
}
