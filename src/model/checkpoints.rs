//! Checkpoints: how far a repository of an organisation was processed.

use serde::{Deserialize, Serialize};

use super::time::Timestamp;
use super::{Invalid, check_key};

/// The name of a checkpoint. Two fields, never joined, so that org `a/b` with repo `c`
/// stays apart from org `a` with repo `b/c`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CheckpointKey {
    /// The organisation, trimmed.
    pub org: String,
    /// The repository, trimmed.
    pub repo: String,
}

impl CheckpointKey {
    /// Builds a key from parts whose surrounding blanks are dropped.
    ///
    /// # Errors
    /// When a part is blank or longer than [`super::MAX_KEY_BYTES`].
    pub fn parse(org: &str, repo: &str) -> Result<Self, Invalid> {
        Ok(Self { org: parse_org(org)?, repo: parse_part("a repo", repo)? })
    }
}

/// Reads an organisation, trimmed.
///
/// # Errors
/// When it is blank or longer than [`super::MAX_KEY_BYTES`].
pub fn parse_org(org: &str) -> Result<String, Invalid> {
    parse_part("an org", org)
}

fn parse_part(what: &str, part: &str) -> Result<String, Invalid> {
    let part = part.trim();
    check_key(what, part)?;
    Ok(part.to_owned())
}

/// A checkpoint as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// How far was processed.
    pub checkpoint: Timestamp,
    /// When that was written.
    pub written_at: Timestamp,
}
