//! Roles: who writes series, such as `leader` and `follower`.
//!
//! Not what a role may do: the engine says that.
//! Invariant: a role's name fits into one byte's worth of length, since stores keep it with each series.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::Invalid;

/// The name of a role. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoleName(Arc<str>);

impl RoleName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 100;

    /// Builds a name.
    ///
    /// # Errors
    /// When it is empty or longer than [`Self::MAX_BYTES`].
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        if name.is_empty() || name.len() > Self::MAX_BYTES {
            let most = Self::MAX_BYTES;
            return Err(Invalid::new(format!("the name of a role has 1 to {most} bytes")));
        }
        Ok(Self(name.into()))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for RoleName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_not_empty_and_not_too_long() {
        assert_eq!(RoleName::parse("leader").as_ref().map(RoleName::as_str), Ok("leader"));
        assert!(RoleName::parse("").is_err());
        assert!(RoleName::parse(&"r".repeat(RoleName::MAX_BYTES)).is_ok());
        assert!(RoleName::parse(&"r".repeat(RoleName::MAX_BYTES + 1)).is_err());
    }
}
