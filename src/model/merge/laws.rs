//! The laws of monoids, as properties of each kind: associativity, commutativity, identity, also through the stored form.
//!
//! Here are the kinds whose laws are exact. Those that keep them within a bound have tests beside them.

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Kind, KindSettings, MergeError, State};
use crate::model::time::Timestamp;

/// A delta and the time of its update in nanoseconds.
pub(super) type Update = (Value, i64);

pub(super) fn kind(settings: &Value) -> Kind {
    let settings = KindSettings::deserialize(settings).expect("a table");
    Kind::parse(&settings).expect("a valid kind")
}

pub(super) fn delta(kind: &Kind, (json, at): &Update) -> State {
    kind.delta(json, Timestamp::from_nanos(*at)).expect("a valid delta")
}

/// Combines updates from the first to the last.
pub(super) fn total(kind: &Kind, updates: &[Update]) -> Result<State, MergeError> {
    updates.iter().try_fold(kind.empty(), |sum, update| sum_of(kind, &sum, &delta(kind, update)))
}

pub(super) fn stored(kind: &Kind, state: &State) -> Vec<u8> {
    kind.encode(state).expect("a state of this kind")
}

/// Combines two states; checks that an error changes nothing.
pub(super) fn sum_of(kind: &Kind, one: &State, other: &State) -> Result<State, MergeError> {
    let mut sum = one.clone();
    match kind.merge(&mut sum, other) {
        Ok(()) => Ok(sum),
        Err(error) => {
            assert_eq!(&sum, one, "{error} changed the state");
            Err(error)
        }
    }
}

/// Returns the state after it was stored and read back.
pub(super) fn reread(kind: &Kind, state: &State) -> State {
    let bytes = stored(kind, state);
    assert!(bytes.len() <= kind.max_state_bytes(), "{} bytes are stored", bytes.len());
    assert!(kind.bytes(state) <= kind.max_state_bytes(), "{} bytes in memory", kind.bytes(state));
    let read = kind.decode(&bytes).expect("what was stored is readable");
    assert_eq!(&read, state);
    assert_eq!(stored(kind, &read), bytes);
    read
}

/// Checks all laws for three states that these updates lead to.
fn check(kind: &Kind, updates: [&[Update]; 3]) -> Result<(), TestCaseError> {
    let [Ok(a), Ok(b), Ok(c)] = updates.map(|updates| total(kind, updates)) else {
        return Ok(());
    };
    for state in [&a, &b, &c] {
        let read = reread(kind, state);
        assert_eq!(sum_of(kind, &kind.empty(), state), Ok(read.clone()));
        assert_eq!(sum_of(kind, &read, &kind.empty()), Ok(read));
    }
    let ab = sum_of(kind, &a, &b);
    assert_eq!(ab, sum_of(kind, &b, &a));
    let left = ab.and_then(|ab| sum_of(kind, &reread(kind, &ab), &c));
    let right = sum_of(kind, &b, &c).and_then(|bc| sum_of(kind, &a, &reread(kind, &bc)));
    // An intermediate result can be out of range where the other order has none such.
    if let (Ok(left), Ok(right)) = (left, right) {
        assert_eq!(left, right);
        assert_eq!(stored(kind, &left), stored(kind, &right));
    }
    Ok(())
}

fn holds_for(settings: &Value, deltas: impl Strategy<Value = Value>) {
    let kind = kind(settings);
    let update = (deltas, -3_i64..3);
    let updates = || proptest::collection::vec(&update, 0..8);
    proptest!(|(a in updates(), b in updates(), c in updates())| check(&kind, [&a, &b, &c])?);
}

fn integers() -> impl Strategy<Value = Value> {
    prop_oneof![(-9_i64..9), any::<i64>(), Just(i64::MAX), Just(i64::MIN)].prop_map(Value::from)
}

fn floats() -> impl Strategy<Value = Value> {
    let special = prop_oneof![Just("NaN"), Just("+Inf"), Just("-Inf")];
    prop_oneof![
        9 => any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(Value::from),
        9 => (-9_i32..9).prop_map(|tenths| Value::from(f64::from(tenths) / 10.0)),
        1 => special.prop_map(|special| json!({ "special": special })),
        1 => Just(json!(-0.0)),
    ]
}

#[test]
fn sums_of_integers_are_a_monoid() {
    holds_for(&json!({"kind": "sum"}), integers());
}

#[test]
fn counts_are_a_monoid() {
    let steps = prop_oneof![0_i64..9, 0..=i64::MAX];
    holds_for(&json!({"kind": "count"}), steps.prop_map(Value::from));
}

#[test]
fn extremes_are_a_monoid() {
    for kind in ["min", "max"] {
        holds_for(&json!({"kind": kind}), integers());
        holds_for(&json!({"kind": kind, "number": "float"}), floats());
    }
}

#[test]
fn sums_of_floats_are_a_monoid() {
    holds_for(&json!({"kind": "sum", "number": "float"}), floats());
}

#[test]
fn first_and_last_are_a_monoid_also_where_times_are_equal() {
    let values = || prop_oneof![floats(), elements(), Just(json!({"b": [1], "a": null}))];
    holds_for(&json!({"kind": "first"}), values());
    holds_for(&json!({"kind": "last"}), values());
}

/// One of a few elements, or a list of them.
fn elements() -> impl Strategy<Value = Value> {
    let element = || {
        let text = (0..40_u32).prop_map(|number| Value::from(format!("e{number}")));
        prop_oneof![3 => text, 1 => (-3..3_i64).prop_map(Value::from), 1 => Just(json!(0.5))]
    };
    let list = proptest::collection::vec(element(), 0..30).prop_map(Value::from);
    prop_oneof![element(), list]
}

#[test]
fn sets_are_a_monoid_also_when_full() {
    holds_for(&json!({"kind": "set"}), elements());
    holds_for(&json!({"kind": "set", "max_items": 30}), elements());
}

#[test]
fn sketches_of_distinct_elements_are_a_monoid_in_both_of_their_forms() {
    for lg_k in [4, 8, 12] {
        holds_for(&json!({"kind": "hll", "lg_k": lg_k}), elements());
    }
    for capacity in [5, 1_000] {
        holds_for(&json!({"kind": "bloom", "capacity": capacity}), elements());
    }
}

/// Finite values, of which some are far from each other.
fn finite_values() -> impl Strategy<Value = Value> {
    let value = || prop_oneof![-9.0..9.0, any::<f64>().prop_filter("finite", |f| f.is_finite())];
    let list = proptest::collection::vec(value(), 0..9).prop_map(Value::from);
    prop_oneof![value().prop_map(Value::from), list]
}

#[test]
fn sketches_of_quantiles_are_a_monoid_also_when_bins_collapse() {
    holds_for(&json!({"kind": "quantiles"}), finite_values());
    let coarse = json!({"kind": "quantiles", "relative_accuracy": 0.2, "max_bins": 128});
    holds_for(&coarse, finite_values());
}

#[test]
fn top_lists_are_a_monoid_as_long_as_nothing_is_evicted() {
    holds_for(&json!({"kind": "topk"}), texts());
}

fn texts() -> impl Strategy<Value = Value> {
    proptest::collection::vec((0..40_u32).prop_map(|number| format!("e{number}")), 0..9)
        .prop_map(Value::from)
}

#[test]
fn maps_and_tuples_of_monoids_are_monoids() {
    let key = prop_oneof![Just("a"), Just("b"), Just("c")];
    let map = proptest::collection::btree_map(key, integers(), 0..3);
    let of = json!({"kind": "sum"});
    holds_for(&json!({"kind": "map", "of": of, "max_keys": 2}), map.prop_map(|map| json!(map)));
    let fields = json!({"hits": {"kind": "count"}, "last": {"kind": "last"}, "of": {"kind": "map", "of": of}});
    let delta = (0..9_u32, elements(), proptest::bool::ANY).prop_map(|(hits, last, has_last)| {
        let mut delta = json!({"hits": hits, "of": {"x": hits}});
        if has_last {
            delta["last"] = last;
        }
        delta
    });
    holds_for(&json!({"kind": "tuple", "fields": fields}), delta);
}
