//! A map of aggregates of one kind, such as a count for each status code.
//!
//! Invariant: the number of keys is bounded; a key has a value that was merged into it, never a bare identity.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::codec::{self, Reader};
use super::{Any, DecodeError, Invalid, MergeError, Monoid, OtherKind, State, Timestamp, tag};
use crate::model::keys::{MAX_KEY_BYTES, check_key};

/// A map of a kind.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MapOf {
    pub(super) of: Box<Any>,
    pub(super) max_keys: usize,
}

/// What an entry of a `BTreeMap` takes with its share of a node, besides what is on the heap.
const ENTRY_BYTES: usize = 2 * size_of::<(Box<str>, State)>();

/// What a map takes besides its entries.
const FIXED_BYTES: usize = 64;

impl MapOf {
    /// Returns how many keys a map of this kind can have whose values never take more than `bytes`.
    pub(super) fn keys_within(of: &Any, bytes: usize) -> usize {
        bytes.saturating_sub(FIXED_BYTES) / Self::most_bytes_of_entry(of)
    }

    fn most_bytes_of_entry(of: &Any) -> usize {
        (MAX_KEY_BYTES + ENTRY_BYTES).saturating_add(of.max_bytes())
    }

    fn check(&self, keys: usize) -> Result<(), String> {
        if keys > self.max_keys {
            return Err(format!("{keys} keys, more than {}", self.max_keys));
        }
        Ok(())
    }
}

impl Monoid for MapOf {
    type State = Box<BTreeMap<Box<str>, State>>;

    fn write_header(&self, out: &mut Vec<u8>) {
        out.push(tag::MAP);
        self.of.write_header(out);
    }

    fn signature(&self) -> String {
        format!("map({})", self.of.signature())
    }

    fn empty(&self) -> Self::State {
        Box::default()
    }

    fn delta(&self, json: &Value, at: Timestamp) -> Result<Self::State, Invalid> {
        let Value::Object(members) = json else {
            return Err(Invalid::new("the delta must be an object of keys and their deltas"));
        };
        self.check(members.len()).map_err(|what| Invalid::new(format!("the delta has {what}")))?;
        let mut entries = BTreeMap::new();
        for (key, json) in members {
            check_key("a key", key)?;
            entries.insert(key.as_str().into(), self.of.delta(json, at)?);
        }
        Ok(Box::new(entries))
    }

    fn merge(&self, into: &mut Self::State, other: &Self::State) -> Result<(), MergeError> {
        let new = other.keys().filter(|key| !into.contains_key(*key)).count();
        if new > 0 {
            self.check(into.len() + new)
                .map_err(|what| MergeError::Full(format!("the map would have {what}")))?;
        }
        // All entries are combined before the first is replaced, since each of them can fail.
        let mut combined = Vec::with_capacity(other.len());
        for (key, other) in &**other {
            combined.push(match into.get(key) {
                Some(state) => {
                    let mut state = state.clone();
                    self.of.merge(&mut state, other)?;
                    state
                }
                None => other.clone(),
            });
        }
        for (key, state) in other.keys().zip(combined) {
            match into.get_mut(key) {
                Some(old) => *old = state,
                None => {
                    into.insert(key.clone(), state);
                }
            }
        }
        Ok(())
    }

    fn encode(&self, state: &Self::State, out: &mut Vec<u8>) -> Result<(), OtherKind> {
        codec::write_length(state.len(), out);
        for (key, state) in &**state {
            codec::write_bytes(key.as_bytes(), out);
            self.of.encode(state, out)?;
        }
        Ok(())
    }

    fn decode(&self, input: &mut Reader<'_>) -> Result<Self::State, DecodeError> {
        let entries = input.list(5, |input| {
            let key = input.text()?;
            check_key("a key", key).map_err(|_| DecodeError::Damaged("a key is not valid"))?;
            Ok((key.into(), self.of.decode(input)?))
        })?;
        if !entries.is_sorted_by(|(one, _), (next, _): &(Box<str>, _)| one < next) {
            return Err(DecodeError::Damaged("the keys of a map are not sorted"));
        }
        Ok(Box::new(entries.into_iter().collect()))
    }

    fn value(&self, state: &Self::State, now: Timestamp) -> Result<Value, OtherKind> {
        let mut values = Map::new();
        for (key, state) in &**state {
            values.insert(key.to_string(), self.of.value(state, now)?);
        }
        Ok(Value::Object(values))
    }

    fn heap_bytes(&self, state: &Self::State) -> usize {
        let entries = state.iter().map(|(key, state)| key.len() + self.of.heap_bytes(state));
        size_of::<Self::State>() + state.len() * ENTRY_BYTES + entries.sum::<usize>()
    }

    fn max_bytes(&self) -> usize {
        let entries = Self::most_bytes_of_entry(&self.of).saturating_mul(self.max_keys);
        entries.saturating_add(FIXED_BYTES)
    }
}
