//! Random numbers: epochs and tokens that must not repeat after a loss of data.

use crate::store::{ErrorKind, StoreError, StoreResult};

/// Returns 64 random bits.
///
/// # Errors
/// When the system has no randomness to offer.
pub(crate) fn random() -> StoreResult<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| {
        // Without the standard library's feature the crate's error is no `Error`.
        let detail = format!("the system returns no random bytes: {error}");
        StoreError::new(ErrorKind::Internal, detail)
    })?;
    Ok(u64::from_ne_bytes(bytes))
}
