//! Claims on disk: a row holds many of them, which end together. Its key begins with the end, so that what expires
//! together lies together.
//!
//! Invariant: no two rows have the same key unless they hold the same claims: the key names one of them, which no other
//! row with that end can hold.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use super::end::ClaimEnd;
use super::table::Id;

/// The most claims of a row.
pub(super) const MAX_CLAIMS: usize = 2_000;
const CLAIM_BYTES: usize = 16 + 8;

/// A row.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Chunk {
    pub(super) end: ClaimEnd,
    /// Id and content of each claim, packed, as base64.
    claims: String,
}

impl Chunk {
    /// Makes a row of claims that end together.
    pub(super) fn new(end: ClaimEnd, claims: &[(Id, u64)]) -> Self {
        let mut packed = Vec::with_capacity(claims.len() * CLAIM_BYTES);
        for (id, content) in claims {
            packed.extend_from_slice(id);
            packed.extend_from_slice(&content.to_le_bytes());
        }
        Self { end, claims: BASE64.encode(packed) }
    }

    /// Returns the key of the row that begins with the claim `first`, as JSON.
    pub(super) fn key(end: ClaimEnd, first: &Id) -> Arc<str> {
        let id = u128::from_be_bytes(*first);
        format!("\"{:08x}{id:032x}\"", end.0).into()
    }

    /// Returns the claims; `None` when they do not read.
    pub(super) fn claims(&self) -> Option<Vec<(Id, u64)>> {
        let packed = BASE64.decode(&self.claims).ok()?;
        let (claims, rest) = packed.as_chunks::<CLAIM_BYTES>();
        let read = |claim: &[u8; CLAIM_BYTES]| {
            let (id, content) = claim.split_at(16);
            Some((id.try_into().ok()?, u64::from_le_bytes(content.try_into().ok()?)))
        };
        if !rest.is_empty() {
            return None;
        }
        claims.iter().map(read).collect()
    }
}

/// Returns when a row, which is given as JSON, expires.
pub(super) fn end_of(row: &str) -> serde_json::Result<Option<i64>> {
    serde_json::from_str::<Chunk>(row).map(|chunk| Some(chunk.end.as_nanos()))
}
