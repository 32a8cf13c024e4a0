//! The rules that all free-form keys share.
//!
//! Not the keys themselves: each is a newtype beside its resource.
//! Invariant: a key is not empty and at most [`MAX_KEY_BYTES`] long.

use super::Invalid;

/// The longest key that is accepted, in bytes: of a lock, a lease, a generation, a cached value, an
/// org or a repo.
pub const MAX_KEY_BYTES: usize = 1024;

/// Checks that `key` is not empty and at most [`MAX_KEY_BYTES`] long. Anything else is allowed, also
/// `/`, blanks and control characters, since keys are percent-encoded on the wire.
pub(super) fn check_key(what: &str, key: &str) -> Result<(), Invalid> {
    if key.is_empty() {
        return Err(Invalid::new(format!("{what} must not be empty")));
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(Invalid::new(format!(
            "{what} is {} bytes long, more than {MAX_KEY_BYTES}",
            key.len()
        )));
    }
    Ok(())
}
