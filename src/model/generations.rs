//! Generations: counters that tell whether what was made from a source is still true.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Invalid, check_key, write_hex};

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

/// A place in the order of all bumps, an opaque string to clients.
///
/// It holds for a key until the key is bumped after it, or the store can't tell any more. No
/// bump ever gets the number of another one, so a number that starts again, be it by
/// cleanup, a lost file or a restored one, is never taken for the former.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GenerationFence(pub i64);

const FENCE_DIGITS: usize = 16;

impl GenerationFence {
    /// Reads what `Display` prints.
    ///
    /// # Errors
    /// When the text was not made by this server's kind.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let plain = text.len() == FENCE_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = plain.then(|| i64::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or_else(|| Invalid::new("not a fence that this server gave"))
    }
}

impl fmt::Display for GenerationFence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, self.0.cast_unsigned())
    }
}

/// The generation of a key as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// How often the key was bumped since it was last forgotten; 0 when it is not known.
    pub number: i64,
    /// Where the key stands in the order of all bumps.
    pub fence: GenerationFence,
}

/// What somebody saw of a generation before making a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The fence. It tells for certain whether the key was bumped since.
    Fence(GenerationFence),
    /// The number alone. A key that was forgotten and bumped again can show it once more.
    Number(i64),
}

impl Seen {
    /// Returns whether what was seen still stands, where `now` is what stands and `last` the place of
    /// the last bump of all.
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
    fn fences_read_back_and_nothing_else_is_one() {
        let fence = GenerationFence(1_795_000_000_000_000);
        assert_eq!(GenerationFence::parse(&fence.to_string()), Ok(fence));
        for text in ["", "7", "+000000000000001", "ffffffffffffffff", "000000000000000g"] {
            assert!(GenerationFence::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_fence_holds_until_its_key_is_bumped_after_it() {
        let at = |number, fence| Generation { number, fence: GenerationFence(fence) };
        let last = GenerationFence(9);
        let seen = Seen::Fence(GenerationFence(5));
        assert!(seen.holds(&at(1, 5), last));
        assert!(seen.holds(&at(1, 4), last));
        assert!(!seen.holds(&at(1, 6), last));
        // One that was never given.
        assert!(!Seen::Fence(GenerationFence(10)).holds(&at(1, 5), last));
        assert!(Seen::Number(1).holds(&at(1, 5), last));
        assert!(!Seen::Number(1).holds(&at(2, 6), last));
    }
}
