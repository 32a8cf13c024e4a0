//! What all kinds have in common, and the values of the small ones.

use allocation_counter::measure;
use serde_json::{Value, json};

use super::laws::{kind, stored, sum_of, total};
use super::{DecodeError, MergeError, OtherKind, State};
use crate::model::time::Timestamp;

const NOW: Timestamp = Timestamp::from_nanos(0);

/// Returns the value after these deltas.
fn value(settings: &Value, deltas: &[Value]) -> Value {
    let kind = kind(settings);
    let updates: Vec<_> = deltas.iter().map(|delta| (delta.clone(), 0)).collect();
    kind.value(&total(&kind, &updates).expect("in range"), NOW).expect("its kind")
}

#[test]
fn a_state_takes_three_words() {
    assert!(size_of::<State>() <= 24, "{}", size_of::<State>());
}

#[test]
fn merges_into_known_keys_allocate_nothing() {
    let texts =
        |from: u32| json!((from..from + 3_000).map(|n| format!("e{n}")).collect::<Vec<_>>());
    for (settings, deltas) in [
        (json!({"kind": "sum"}), [json!(1), json!(2)]),
        (json!({"kind": "count"}), [json!(1), json!(2)]),
        (json!({"kind": "max", "number": "float"}), [json!(1), json!(2)]),
        (json!({"kind": "sum", "number": "float"}), [json!(0.5), json!(0.25)]),
        (json!({"kind": "decayed_sum", "half_life": "1h"}), [json!(1), json!(2)]),
        (json!({"kind": "hll"}), [texts(0), texts(1_000)]),
        (json!({"kind": "bloom", "capacity": 1_000}), [texts(0), texts(1_000)]),
    ] {
        let kind = kind(&settings);
        let [mut one, other] = deltas.map(|delta| kind.delta(&delta, NOW).expect("a delta"));
        let used = measure(|| kind.merge(&mut one, &other).expect("in range"));
        assert_eq!(used.count_total, 0, "{settings}");
    }
}

#[test]
fn a_state_of_another_kind_is_an_error() {
    let (sum, min) = (kind(&json!({"kind": "sum"})), kind(&json!({"kind": "min"})));
    let state = min.empty();
    assert_eq!(sum_of(&sum, &sum.empty(), &state), Err(MergeError::OtherKind(OtherKind)));
    assert_eq!(sum.encode(&state), Err(OtherKind));
    assert_eq!(sum.value(&state, NOW), Err(OtherKind));
    assert_eq!(sum.decode(&stored(&min, &state)), Err(DecodeError::OtherKind));
}

#[test]
fn kinds_without_sketches_neither_export_nor_import() {
    let kind = kind(&json!({"kind": "sum"}));
    assert_eq!(kind.export(&kind.empty()), Ok(None));
    assert!(kind.import(&stored(&kind, &kind.empty())).is_err());
}

#[test]
fn damaged_and_later_forms_are_told_apart() {
    let kind = kind(&json!({"kind": "sum"}));
    let bytes = stored(&kind, &kind.empty());
    assert!(matches!(kind.decode(&bytes[..bytes.len() - 1]), Err(DecodeError::Damaged(_))));
    assert!(matches!(kind.decode(&[&*bytes, &[0]].concat()), Err(DecodeError::Damaged(_))));
    assert_eq!(kind.decode(&[2, 1]), Err(DecodeError::Version(2)));
    assert_eq!(kind.decode(&[]), Err(DecodeError::OtherKind));
}

#[test]
fn an_overflow_is_an_error_and_not_a_wrap() {
    for settings in [json!({"kind": "sum"}), json!({"kind": "count"})] {
        let kind = kind(&settings);
        let largest = total(&kind, &[(json!(i64::MAX), 0)]).expect("in range");
        let one = total(&kind, &[(json!(1), 0)]).expect("in range");
        assert!(matches!(sum_of(&kind, &largest, &one), Err(MergeError::Overflow(_))));
    }
}

#[test]
fn a_count_never_goes_down() {
    let count = kind(&json!({"kind": "count"}));
    assert!(count.delta(&json!(-1), NOW).is_err());
    let mut negative = stored(&count, &count.empty());
    *negative.last_mut().expect("not empty") = 0xFF;
    assert!(matches!(count.decode(&negative), Err(DecodeError::Damaged(_))));
}

#[test]
fn extremes_of_nothing_are_null_and_negative_maxima_are_kept() {
    let (min, max) = (json!({"kind": "min"}), json!({"kind": "max"}));
    assert_eq!(value(&min, &[]), Value::Null);
    assert_eq!(value(&max, &[json!(-7), json!(-3)]), json!(-3));
    assert_eq!(value(&min, &[json!(7), json!(3)]), json!(3));
}

#[test]
fn nan_gives_way_to_each_number_and_zeros_are_ordered() {
    let nan = json!({"special": "NaN"});
    for (name, number) in [("min", "+Inf"), ("max", "-Inf")] {
        let kind = json!({"kind": name, "number": "float"});
        let number = json!({ "special": number });
        assert_eq!(value(&kind, &[nan.clone(), number.clone(), nan.clone()]), number);
        assert_eq!(value(&kind, std::slice::from_ref(&nan)), nan);
    }
    let min = value(&json!({"kind": "min", "number": "float"}), &[json!(0.0), json!(-0.0)]);
    assert!(min.as_f64().expect("a number").is_sign_negative());
}
