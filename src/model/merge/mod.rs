//! The kinds of aggregates: how deltas are read, combined, stored and shown. Pure code that every backend uses, so that
//! no two backends can disagree.
//!
//! Not a store, and no clock: times are arguments. Each kind is a monoid: an operation that combines two states, with an
//! identity. Invariant: combining is commutative and associative (exactly, or within the bound that the kind documents),
//! so a value does not depend on the order in which deltas arrive, nor on who combined which of them first.

mod bloom;
mod codec;
mod count;
mod decayed;
mod element;
mod error;
mod exact;
#[cfg(test)]
mod examples;
mod extreme;
mod hll;
#[cfg(test)]
mod hostile;
mod kind;
#[cfg(test)]
mod laws;
mod map;
mod number;
mod quantiles;
mod sample;
mod set;
mod settings;
mod sketch;
#[cfg(test)]
mod streams;
mod sum;
#[cfg(test)]
mod tests;
mod timed;
mod topk;
mod tuple;

use serde_json::Value;

pub use self::error::{DecodeError, MergeError, OtherKind, QueryError};
pub use self::kind::Kind;
pub use self::sample::MetricSample;
pub use self::settings::KindSettings;

use self::bloom::Bloom;
use self::codec::Reader;
use self::count::Count;
use self::decayed::DecayedSum;
use self::element::Element;
use self::extreme::{FloatExtreme, IntegerExtreme};
use self::hll::Hll;
use self::map::MapOf;
use self::quantiles::Quantiles;
use self::set::Set;
use self::sum::{FloatSum, IntegerSum};
use self::timed::Timed;
use self::topk::TopK;
use self::tuple::Tuple;
use super::Invalid;
use super::series::MetricType;
use super::time::Timestamp;

/// One kind with its parameters.
trait Monoid {
    /// What a value of this kind is made of. Large states are boxed, so that a [`State`] stays small.
    type State: Clone + PartialEq + std::fmt::Debug;

    /// Appends what the stored form of a state depends on: the kind's tag, and the parameters without which its bytes
    /// mean nothing. Limits are not among them, since they may change.
    fn write_header(&self, out: &mut Vec<u8>);

    /// Returns the same as text.
    fn signature(&self) -> String;

    /// Returns the identity.
    fn empty(&self) -> Self::State;

    /// Reads the delta of an update that happened at `at`.
    fn delta(&self, json: &Value, at: Timestamp) -> Result<Self::State, Invalid>;

    /// Combines; `into` is unchanged after an error.
    fn merge(&self, into: &mut Self::State, other: &Self::State) -> Result<(), MergeError>;

    /// Appends the stored form, without the header. Equal states have equal bytes.
    fn encode(&self, state: &Self::State, out: &mut Vec<u8>) -> Result<(), OtherKind>;

    /// Reads what `encode` wrote. Allocates no more than a small multiple of the input.
    fn decode(&self, input: &mut Reader<'_>) -> Result<Self::State, DecodeError>;

    /// Returns the documented JSON form.
    fn value(&self, state: &Self::State, now: Timestamp) -> Result<Value, OtherKind>;

    /// Returns the sketch in the format of its family; `None` for a kind that is no sketch.
    fn export(&self, _state: &Self::State) -> Option<Vec<u8>> {
        None
    }

    /// Reads a sketch in the format of its family.
    fn import(&self, _bytes: &[u8]) -> Result<Self::State, Invalid> {
        Err(Invalid::new("this kind of aggregate has no sketch that could be imported"))
    }

    /// Returns whether an element is, or may be, in the state; `None` for a kind that can't tell.
    fn contains(&self, _state: &Self::State, _element: &Element) -> Option<bool> {
        None
    }

    /// Returns the type of the metric that values can be shown as; `None` where they can't.
    fn metric_type(&self) -> Option<MetricType> {
        None
    }

    /// Returns a value as samples of that metric, as it is at `now`; none where it is no number.
    fn samples(&self, _state: &Self::State, _now: Timestamp) -> Vec<MetricSample> {
        Vec::new()
    }

    /// Returns whether a value changes while nothing is merged into it.
    fn changes_with_time(&self) -> bool {
        false
    }

    /// Returns the bytes that a state takes on the heap.
    fn heap_bytes(&self, state: &Self::State) -> usize;

    /// Returns the most bytes that the stored form or the memory of a state can take.
    fn max_bytes(&self) -> usize;
}

/// Declares all kinds once: [`Any`] is one of them, a [`State`] the state of one of them.
macro_rules! kinds {
    ($($name:ident),*) => {
        #[derive(Debug, Clone, PartialEq)]
        enum Any {
            $($name($name)),*
        }

        /// A value of an aggregate, or a delta; only its [`Kind`] can tell what it means.
        #[derive(Debug, Clone, PartialEq)]
        pub struct State(Repr);

        #[derive(Debug, Clone, PartialEq)]
        enum Repr {
            $($name(<$name as Monoid>::State)),*
        }

        impl Any {
            fn write_header(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name(kind) => kind.write_header(out)),*
                }
            }

            fn signature(&self) -> String {
                match self {
                    $(Self::$name(kind) => kind.signature()),*
                }
            }

            fn empty(&self) -> State {
                State(match self {
                    $(Self::$name(kind) => Repr::$name(kind.empty())),*
                })
            }

            fn delta(&self, json: &Value, at: Timestamp) -> Result<State, Invalid> {
                Ok(State(match self {
                    $(Self::$name(kind) => Repr::$name(kind.delta(json, at)?)),*
                }))
            }

            fn merge(&self, into: &mut State, other: &State) -> Result<(), MergeError> {
                match (self, &mut into.0, &other.0) {
                    $((Self::$name(kind), Repr::$name(into), Repr::$name(other)) => {
                        kind.merge(into, other)
                    })*
                    _ => Err(OtherKind.into()),
                }
            }

            fn encode(&self, state: &State, out: &mut Vec<u8>) -> Result<(), OtherKind> {
                match (self, &state.0) {
                    $((Self::$name(kind), Repr::$name(state)) => kind.encode(state, out),)*
                    _ => Err(OtherKind),
                }
            }

            fn decode(&self, input: &mut Reader<'_>) -> Result<State, DecodeError> {
                Ok(State(match self {
                    $(Self::$name(kind) => Repr::$name(kind.decode(input)?)),*
                }))
            }

            fn value(&self, state: &State, now: Timestamp) -> Result<Value, OtherKind> {
                match (self, &state.0) {
                    $((Self::$name(kind), Repr::$name(state)) => kind.value(state, now),)*
                    _ => Err(OtherKind),
                }
            }

            fn export(&self, state: &State) -> Result<Option<Vec<u8>>, OtherKind> {
                match (self, &state.0) {
                    $((Self::$name(kind), Repr::$name(state)) => Ok(kind.export(state)),)*
                    _ => Err(OtherKind),
                }
            }

            fn import(&self, bytes: &[u8]) -> Result<State, Invalid> {
                Ok(State(match self {
                    $(Self::$name(kind) => Repr::$name(kind.import(bytes)?)),*
                }))
            }

            fn contains(
                &self,
                state: &State,
                element: &Element,
            ) -> Result<Option<bool>, OtherKind> {
                match (self, &state.0) {
                    $((Self::$name(kind), Repr::$name(state)) => Ok(kind.contains(state, element)),)*
                    _ => Err(OtherKind),
                }
            }

            fn metric_type(&self) -> Option<MetricType> {
                match self {
                    $(Self::$name(kind) => kind.metric_type()),*
                }
            }

            fn samples(
                &self,
                state: &State,
                now: Timestamp,
            ) -> Result<Vec<MetricSample>, OtherKind> {
                match (self, &state.0) {
                    $((Self::$name(kind), Repr::$name(state)) => Ok(kind.samples(state, now)),)*
                    _ => Err(OtherKind),
                }
            }

            fn changes_with_time(&self) -> bool {
                match self {
                    $(Self::$name(kind) => kind.changes_with_time()),*
                }
            }

            fn heap_bytes(&self, state: &State) -> usize {
                match (self, &state.0) {
                    $((Self::$name(kind), Repr::$name(state)) => kind.heap_bytes(state),)*
                    _ => 0,
                }
            }

            fn max_bytes(&self) -> usize {
                match self {
                    $(Self::$name(kind) => kind.max_bytes()),*
                }
            }
        }
    };
}

kinds!(
    IntegerSum,
    FloatSum,
    Count,
    IntegerExtreme,
    FloatExtreme,
    Timed,
    Set,
    Hll,
    TopK,
    Bloom,
    DecayedSum,
    Quantiles,
    MapOf,
    Tuple
);

/// The first byte behind the version of a stored state, which tells the kind. A tag is never given to another kind.
mod tag {
    pub(super) const INTEGER_SUM: u8 = 1;
    pub(super) const COUNT: u8 = 2;
    pub(super) const INTEGER_MIN: u8 = 3;
    pub(super) const INTEGER_MAX: u8 = 4;
    pub(super) const FLOAT_MIN: u8 = 5;
    pub(super) const FLOAT_MAX: u8 = 6;
    pub(super) const FLOAT_SUM: u8 = 7;
    pub(super) const FIRST: u8 = 8;
    pub(super) const LAST: u8 = 9;
    pub(super) const SET: u8 = 10;
    pub(super) const HLL: u8 = 11;
    pub(super) const TOPK: u8 = 12;
    pub(super) const BLOOM: u8 = 13;
    pub(super) const DECAYED_SUM: u8 = 14;
    pub(super) const QUANTILES: u8 = 15;
    pub(super) const MAP: u8 = 16;
    pub(super) const TUPLE: u8 = 17;
}
