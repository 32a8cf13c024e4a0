//! A kind of aggregate with its parameters, and all that can be done with states of it.
//!
//! Invariant: a kind that exists is valid, and its stored form begins with bytes that no other kind has.

use std::fmt;

use serde_json::Value;

use super::codec::Reader;
use super::element::Element;
use super::settings;
use super::{
    Any, DecodeError, Invalid, KindSettings, MergeError, MetricSample, MetricType, OtherKind,
    QueryError, State, Timestamp,
};

/// The version of the stored form. It is the first byte, so that a later version can be told apart.
const VERSION: u8 = 1;

/// A kind of aggregate, with its parameters.
#[derive(Clone, PartialEq)]
pub struct Kind {
    any: Any,
    /// The version, the kind's tag, and those of its parameters that stored values depend on.
    header: Box<[u8]>,
}

impl Kind {
    /// Makes a kind from its settings.
    ///
    /// # Errors
    /// When there is no such kind, or parameters are missing, unknown or out of range; all of it is named.
    pub fn parse(settings: &KindSettings) -> Result<Self, Invalid> {
        let any = settings::parse(settings)?;
        let mut header = vec![VERSION];
        any.write_header(&mut header);
        Ok(Self { any, header: header.into() })
    }

    /// Returns the canonical text of what stored values depend on, such as `sum(integer)` or `hll(lg_k=12)`. Values
    /// that were stored under another signature mean nothing to this kind. Limits, such as the most items of a set,
    /// are not part of it: they may be changed.
    pub fn signature(&self) -> String {
        self.any.signature()
    }

    /// Returns the identity: the state that changes nothing when it is merged.
    pub fn empty(&self) -> State {
        self.any.empty()
    }

    /// Reads the delta of one update from its JSON form. `at` is the time of the update, for the kinds that depend on
    /// it.
    ///
    /// # Errors
    /// When the JSON is not a delta of this kind; the text names the rule.
    pub fn delta(&self, json: &Value, at: Timestamp) -> Result<State, Invalid> {
        self.any.delta(json, at)
    }

    /// Combines: `into` becomes `into` and `other`.
    ///
    /// # Errors
    /// When the result is beyond what the kind can hold; `into` is then unchanged. [`MergeError::OtherKind`] is a
    /// defect of the caller.
    pub fn merge(&self, into: &mut State, other: &State) -> Result<(), MergeError> {
        self.any.merge(into, other)
    }

    /// Returns the stored form: version, kind, parameters, value. Equal states have equal bytes.
    ///
    /// # Errors
    /// When the state is of another kind, which is a defect of the caller.
    pub fn encode(&self, state: &State) -> Result<Vec<u8>, OtherKind> {
        let mut out = Vec::with_capacity(self.header.len() + 16);
        out.extend_from_slice(&self.header);
        self.any.encode(state, &mut out)?;
        Ok(out)
    }

    /// Reads the stored form. Any bytes may be passed: what is not a state of this kind is an error, and a length in
    /// them is never trusted.
    ///
    /// # Errors
    /// When the bytes are of another version, kind or parameters, or are damaged.
    pub fn decode(&self, bytes: &[u8]) -> Result<State, DecodeError> {
        let Some(body) = bytes.strip_prefix(&*self.header) else {
            return Err(match bytes.first() {
                Some(version) if *version != VERSION => DecodeError::Version(*version),
                _ => DecodeError::OtherKind,
            });
        };
        let mut input = Reader::new(body);
        let state = self.any.decode(&mut input)?;
        input.finish()?;
        Ok(state)
    }

    /// Returns the value as documented JSON, as it is at `now`.
    ///
    /// # Errors
    /// When the state is of another kind, which is a defect of the caller.
    pub fn value(&self, state: &State, now: Timestamp) -> Result<Value, OtherKind> {
        self.any.value(state, now)
    }

    /// Returns a sketch in the format that its family of libraries shares; `None` for kinds that are no sketches.
    ///
    /// # Errors
    /// When the state is of another kind, which is a defect of the caller.
    pub fn export(&self, state: &State) -> Result<Option<Vec<u8>>, OtherKind> {
        self.any.export(state)
    }

    /// Reads a sketch that this kind exported, or another program of its family. [`Kind::delta`] does so with
    /// `{"sketch": BASE64}`. Any bytes may be passed; a length in them is never trusted.
    ///
    /// # Errors
    /// When the kind is no sketch, or the bytes are not a sketch of this kind with these parameters.
    pub fn import(&self, bytes: &[u8]) -> Result<State, Invalid> {
        self.any.import(bytes)
    }

    /// Returns whether an element (JSON: a text or a number) is in a set, or may be in a Bloom filter.
    ///
    /// # Errors
    /// When the JSON is no element, or the kind can't tell.
    pub fn contains(&self, state: &State, element: &Value) -> Result<bool, QueryError> {
        let is_in = self.any.contains(state, &Element::parse(element)?)?;
        Ok(is_in
            .ok_or_else(|| Invalid::new("this kind of aggregate does not know its elements"))?)
    }

    /// Returns the type of the metric that values of this kind can be shown as; `None` where they can't.
    pub fn metric_type(&self) -> Option<MetricType> {
        self.any.metric_type()
    }

    /// Returns a value as samples of that metric, as it is at `now`; none where it is no number, such as a text of
    /// `last`.
    ///
    /// # Errors
    /// When the state is of another kind, which is a defect of the caller.
    pub fn samples(&self, state: &State, now: Timestamp) -> Result<Vec<MetricSample>, OtherKind> {
        self.any.samples(state, now)
    }

    /// Returns whether a value of this kind changes while nothing is merged into it.
    pub fn changes_with_time(&self) -> bool {
        self.any.changes_with_time()
    }

    /// Returns the bytes that a state of this kind takes in memory.
    pub fn bytes(&self, state: &State) -> usize {
        size_of::<State>() + self.any.heap_bytes(state)
    }

    /// Returns the length of what each stored state of this kind begins with.
    #[cfg(test)]
    pub(super) fn header_bytes(&self) -> usize {
        self.header.len()
    }

    /// Returns a bound of [`Kind::bytes`], and of the length of the stored form, that every state of this kind keeps.
    pub fn max_state_bytes(&self) -> usize {
        size_of::<State>() + self.header.len() + self.any.max_bytes()
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.any.fmt(f)
    }
}
