//! Plain types that are valid once made. No I/O, no clock, no locks.
//!
//! Every key is a newtype built by `parse`, so that what the floors above hold
//! needs no second check. Invariant: two different things never share a key.

pub mod batch;
pub mod cache;
pub mod checkpoints;
pub mod cursor;
pub mod generations;
pub mod leases;
pub mod locks;
pub mod selector;
pub mod series;
pub mod settings;
pub mod time;

use std::fmt;

use thiserror::Error;

/// Says why a piece of input is not what it claims to be.
///
/// The text is written for the client that sent it: it names the field's rule,
/// never internals.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    /// Makes the error from anything that reads as a sentence.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// The longest key that is accepted, in bytes: of a lock, a lease, a generation, a cached value, an
/// org or a repo.
pub const MAX_KEY_BYTES: usize = 1024;

/// Checks the rules that all free-form keys share: not empty, at most
/// [`MAX_KEY_BYTES`] bytes. Anything else is allowed, also `/`, blanks and
/// control characters, since keys are percent-encoded on the wire.
pub(crate) fn check_key(what: &str, key: &str) -> Result<(), Invalid> {
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

/// Writes all digits of a number in lower-case hexadecimal, as `{:016x}` does, but without asking
/// for every digit how to write it.
pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, number: u64) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = number
        .to_be_bytes()
        .map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    f.write_str(std::str::from_utf8(digits.as_flattened()).map_err(|_| fmt::Error)?)
}
