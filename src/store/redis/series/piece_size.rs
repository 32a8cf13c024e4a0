//! How many bytes of series a script returns at most: less after one did not arrive in time.
//!
//! Invariant: between [`LEAST`] and [`MOST`]; one series is returned however large it is.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::store::{ErrorKind, StoreError};

const MOST: usize = 1 << 20;
const LEAST: usize = 64 << 10;

/// The size.
#[derive(Debug)]
pub(super) struct PieceSize(AtomicUsize);

impl Default for PieceSize {
    fn default() -> Self {
        Self(AtomicUsize::new(MOST))
    }
}

impl PieceSize {
    /// Returns the most bytes of the next piece.
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes how a piece of `asked` bytes at most ended. Of pieces that run at the same time, each counts alone: the
    /// size follows from what was asked.
    pub(super) fn note<T>(&self, asked: usize, outcome: &Result<T, StoreError>) {
        match outcome {
            Err(error) if error.kind == ErrorKind::Timeout => {
                self.0.fetch_min((asked / 4).max(LEAST), Ordering::Relaxed);
            }
            Err(_) => {}
            Ok(_) => {
                self.0.fetch_max((asked * 2).min(MOST), Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_shrink_after_a_timeout_and_grow_again() {
        let size = PieceSize::default();
        let late: Result<(), _> = Err(StoreError::new(ErrorKind::Timeout, "late"));
        for expected in [MOST / 4, LEAST, LEAST] {
            size.note(size.bytes(), &late);
            assert_eq!(size.bytes(), expected);
        }
        let away: Result<(), _> = Err(StoreError::new(ErrorKind::Unavailable, "away"));
        size.note(size.bytes(), &away);
        assert_eq!(size.bytes(), LEAST, "size is not why it failed");
        for expected in [LEAST * 2, LEAST * 4, LEAST * 8, MOST, MOST] {
            size.note(size.bytes(), &Ok(()));
            assert_eq!(size.bytes(), expected);
        }
    }
}
