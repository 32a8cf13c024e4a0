//! Buffered data: what is in memory at once, and on disk with the next flush.
//!
//! Knows no resource.

pub(super) mod dirty;
