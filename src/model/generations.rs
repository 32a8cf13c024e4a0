//! Generations: counters that tell whether a value is still valid that was made from a source.
//!
//! Not the counting itself, which the stores do.
//! Invariant: a fence that a bump has invalidated never becomes valid again.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Invalid;
use super::hex::{parse_hex, write_hex};
use super::keys::check_key;

/// What a generation is counted for: any text that names a source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GenerationKey(String);

impl GenerationKey {
    /// Builds a key.
    ///
    /// # Errors
    /// When it is empty or longer than [`super::MAX_KEY_BYTES`].
    pub fn parse(key: impl Into<String>) -> Result<Self, Invalid> {
        let key = key.into();
        check_key("a generation's key", &key)?;
        Ok(Self(key))
    }

    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The position of a bump in the order of all bumps. To clients it is an opaque string.
///
/// A fence is valid for a key until the key is bumped after it, or until the store has forgotten the
/// key. No two bumps ever get the same position, so that a counter which restarts (after a purge, with a lost
/// file or a restored one) can't make an old fence valid again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GenerationFence(pub i64);

impl GenerationFence {
    /// Reads what `Display` prints.
    ///
    /// # Errors
    /// When the text is not a fence.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let number = parse_hex(text).and_then(|number| i64::try_from(number).ok());
        number.map(Self).ok_or_else(|| Invalid::new("not a fence that this server issued"))
    }
}

impl fmt::Display for GenerationFence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, self.0.cast_unsigned())
    }
}

/// The generation of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// How often the key was bumped since it was last forgotten; 0 when it is unknown.
    pub number: i64,
    /// The position of the key's last bump, or a later one at which the key was not bumped.
    pub fence: GenerationFence,
}

/// What a writer saw of a generation before it made a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The fence. It tells with certainty whether the key was bumped since.
    Fence(GenerationFence),
    /// The number alone. A key that was forgotten and bumped again can have it a second time.
    Number(i64),
}

impl Seen {
    /// Returns whether what was seen is still valid, where `now` is the current generation and `last` the
    /// position of the last bump of all keys.
    pub fn holds(self, now: &Generation, last: GenerationFence) -> bool {
        match self {
            Self::Fence(fence) => now.fence <= fence && fence <= last,
            Self::Number(number) => now.number == number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_reads_back_as_printed_and_other_text_is_refused() {
        let fence = GenerationFence(1_795_000_000_000_000);
        assert_eq!(GenerationFence::parse(&fence.to_string()), Ok(fence));
        for text in ["", "7", "+000000000000001", "ffffffffffffffff", "000000000000000g"] {
            assert!(GenerationFence::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_fence_is_valid_until_its_key_is_bumped_after_it() {
        let at = |number, fence| Generation { number, fence: GenerationFence(fence) };
        let last = GenerationFence(9);
        let seen = Seen::Fence(GenerationFence(5));
        assert!(seen.holds(&at(1, 5), last));
        assert!(seen.holds(&at(1, 4), last));
        assert!(!seen.holds(&at(1, 6), last));
        // A fence that was never issued.
        assert!(!Seen::Fence(GenerationFence(10)).holds(&at(1, 5), last));
        assert!(Seen::Number(1).holds(&at(1, 5), last));
        assert!(!Seen::Number(1).holds(&at(2, 6), last));
    }
}
