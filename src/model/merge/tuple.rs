//! A tuple of named fields, each an aggregate of its own kind, such as a count and a maximum that belong together.
//!
//! Invariant: all fields are there; a field that a delta leaves out is unchanged.

use serde_json::{Map, Value};

use super::codec::Reader;
use super::{
    Any, DecodeError, Invalid, MergeError, Monoid, OtherKind, State, Timestamp, codec, tag,
};

/// Fields in the order of their names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tuple {
    pub(super) fields: Vec<(String, Any)>,
}

impl Monoid for Tuple {
    type State = Box<[State]>;

    fn write_header(&self, out: &mut Vec<u8>) {
        out.push(tag::TUPLE);
        codec::write_length(self.fields.len(), out);
        for (name, kind) in &self.fields {
            codec::write_bytes(name.as_bytes(), out);
            kind.write_header(out);
        }
    }

    fn signature(&self) -> String {
        let field = |(name, kind): &(String, Any)| format!("{name}={}", kind.signature());
        format!("tuple({})", self.fields.iter().map(field).collect::<Vec<_>>().join(","))
    }

    fn empty(&self) -> Box<[State]> {
        self.fields.iter().map(|(_, kind)| kind.empty()).collect()
    }

    fn delta(&self, json: &Value, at: Timestamp) -> Result<Box<[State]>, Invalid> {
        let Value::Object(members) = json else {
            return Err(Invalid::new("the delta must be an object of fields and their deltas"));
        };
        let is_field = |name: &String| self.fields.iter().any(|(field, _)| field == name);
        if let Some(unknown) = members.keys().find(|name| !is_field(name)) {
            return Err(Invalid::new(format!("the tuple has no field {unknown:?}")));
        }
        let state = |(name, kind): &(String, Any)| match members.get(name) {
            Some(json) => kind.delta(json, at),
            None => Ok(kind.empty()),
        };
        self.fields.iter().map(state).collect()
    }

    fn merge(&self, into: &mut Box<[State]>, other: &Box<[State]>) -> Result<(), MergeError> {
        if [into.len(), other.len()] != [self.fields.len(); 2] {
            return Err(OtherKind.into());
        }
        // All fields are combined before the first is replaced, since each of them can fail.
        let mut combined = into.clone();
        for (((_, kind), into), other) in self.fields.iter().zip(&mut combined).zip(other) {
            kind.merge(into, other)?;
        }
        *into = combined;
        Ok(())
    }

    fn encode(&self, state: &Box<[State]>, out: &mut Vec<u8>) -> Result<(), OtherKind> {
        if state.len() != self.fields.len() {
            return Err(OtherKind);
        }
        self.fields.iter().zip(state).try_for_each(|((_, kind), state)| kind.encode(state, out))
    }

    fn decode(&self, input: &mut Reader<'_>) -> Result<Box<[State]>, DecodeError> {
        self.fields.iter().map(|(_, kind)| kind.decode(input)).collect()
    }

    fn value(&self, state: &Box<[State]>, now: Timestamp) -> Result<Value, OtherKind> {
        if state.len() != self.fields.len() {
            return Err(OtherKind);
        }
        let fields = self.fields.iter().zip(state);
        let values =
            fields.map(|((name, kind), state)| Ok((name.clone(), kind.value(state, now)?)));
        values.collect::<Result<Map<_, _>, _>>().map(Value::Object)
    }

    fn heap_bytes(&self, state: &Box<[State]>) -> usize {
        let fields = self.fields.iter().zip(state);
        let heap: usize = fields.map(|((_, kind), state)| kind.heap_bytes(state)).sum();
        size_of_val(&**state) + heap
    }

    fn max_bytes(&self) -> usize {
        let field = |(_, kind): &(String, Any)| size_of::<State>().saturating_add(kind.max_bytes());
        self.fields.iter().map(field).fold(0, usize::saturating_add)
    }
}
