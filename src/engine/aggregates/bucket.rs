//! Which bucket a request means: by a time, by a number, or the present one.

use crate::model::Invalid;
use crate::model::aggregates::Bucket;
use crate::model::pipelines::Window;
use crate::model::time::Timestamp;

/// Which bucket is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// That of the present.
    Now,
    /// That of a time.
    At(Timestamp),
    /// That with a number.
    Bucket(i64),
}

/// Returns the bucket that is meant.
///
/// # Errors
/// When it is named by its number, and the pipeline has no buckets.
pub(super) fn bucket_of(
    window: Option<Window>,
    when: When,
    now: Timestamp,
) -> Result<Bucket, Invalid> {
    match (window, when) {
        (Some(_), When::Bucket(number)) => Ok(Bucket(number)),
        (Some(window), When::At(at)) => Ok(Bucket::of(at, window.granularity)),
        (Some(window), When::Now) => Ok(Bucket::of(now, window.granularity)),
        (None, When::Bucket(_)) => Err(Invalid::new("the pipeline has no window, so no buckets")),
        (None, When::At(_) | When::Now) => Ok(Bucket::WHOLE),
    }
}
