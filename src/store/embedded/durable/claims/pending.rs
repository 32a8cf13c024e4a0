//! What a group of commands claims, and which rows on disk it removes.
//!
//! Not what is committed. Invariant: the claims of a group are in its journal entry, however many commands made them.

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::chunk::{Chunk, MAX_CLAIMS};
use super::end::ClaimEnd;
use super::table::{ClaimTable, Id};
use crate::store::embedded::durable::changes::AnyPending;
use crate::store::embedded::durable::journal::Entry;

/// What a claim takes until it is committed: here, and in the journal entry.
const PENDING_BYTES: usize = 96;

/// What a group claims.
pub(super) struct ClaimPending<T> {
    pub(super) claims: HashMap<Id, (u64, ClaimEnd), RandomState>,
    /// The keys of rows that have expired.
    pub(super) removed: Vec<Arc<str>>,
    table: PhantomData<fn() -> T>,
}

impl<T> Default for ClaimPending<T> {
    fn default() -> Self {
        Self { claims: HashMap::default(), removed: Vec::new(), table: PhantomData }
    }
}

impl<T: ClaimTable> AnyPending for ClaimPending<T> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn len(&self) -> usize {
        self.removed.len() + self.claims.len().div_ceil(MAX_CLAIMS)
    }

    fn bytes(&self) -> usize {
        self.claims.len() * PENDING_BYTES
    }

    fn encode(&self, entry: &mut Entry) -> serde_json::Result<()> {
        let mut by_end: BTreeMap<ClaimEnd, Vec<(Id, u64)>> = BTreeMap::new();
        for (id, (content, end)) in &self.claims {
            by_end.entry(*end).or_default().push((*id, *content));
        }
        for (end, claims) in by_end {
            for claims in claims.chunks(MAX_CLAIMS) {
                let key = Chunk::key(end, &claims[0].0);
                entry.push_with_key_text(T::TAG, &key, Some(&Chunk::new(end, claims)))?;
            }
        }
        let removed = |key| entry.push_with_key_text::<Chunk>(T::TAG, key, None);
        self.removed.iter().map(|key| &**key).try_for_each(removed)
    }
}
