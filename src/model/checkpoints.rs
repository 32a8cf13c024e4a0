//! Checkpoints: how far a repository of an organisation was processed.
//!
//! Invariant: org and repo stay two fields and are never joined into one text.

use serde::{Deserialize, Serialize};

use super::Invalid;
use super::keys::check_key;
use super::time::Timestamp;

/// The name of a checkpoint. Two fields, never joined, so that org `a/b` with repo `c` differs from
/// org `a` with repo `b/c`.
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

/// A checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// How far the repository was processed.
    pub checkpoint: Timestamp,
    /// When the checkpoint was written.
    pub written_at: Timestamp,
}
