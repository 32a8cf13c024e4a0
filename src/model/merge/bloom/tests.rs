//! Against the library, byte for byte, and against the rate that is stated.

use datasketches::bloom::{BloomFilter, BloomFilterBuilder};
use datasketches::hash::value::{canonical_float, raw_bytes};
use serde_json::json;

use crate::model::merge::laws::{kind, sum_of, total};
use crate::model::merge::{Kind, QueryError, State};
use crate::model::time::Timestamp;

const NOW: Timestamp = Timestamp::from_nanos(0);

fn bloom(capacity: u32) -> Kind {
    kind(&json!({"kind": "bloom", "capacity": capacity, "false_positive_rate": 0.01}))
}

fn library(capacity: u64) -> BloomFilter {
    BloomFilterBuilder::with_accuracy(capacity, 0.01).seed(9_001).build().expect("valid")
}

fn of(kind: &Kind, elements: impl IntoIterator<Item = String>) -> State {
    let elements: Vec<_> = elements.into_iter().collect();
    total(kind, &[(json!(elements), 0)]).expect("in range")
}

fn export(kind: &Kind, state: &State) -> Vec<u8> {
    kind.export(state).expect("its kind").expect("a sketch")
}

#[test]
fn filters_are_those_of_the_library_to_the_byte() {
    for capacity in [1, 10, 1_000, 12_345] {
        let kind = bloom(capacity);
        let mut library = library(u64::from(capacity));
        for count in [0, 1, 5, 100] {
            let texts = (0..count).map(|number| format!("user-{number}"));
            texts.clone().for_each(|text| library.insert(raw_bytes::from_string(text)));
            let state = of(&kind, texts);
            assert_eq!(export(&kind, &state), library.serialize(), "{capacity} {count}");
            assert_eq!(kind.import(&library.serialize()), Ok(state));
        }
    }
}

#[test]
fn numbers_are_hashed_as_the_library_does() {
    let mut library = library(100);
    library.insert(-7_i64);
    library.insert(canonical_float::from_f64(0.25));
    let state = total(&bloom(100), &[(json!([-7, 0.25]), 0)]).expect("in range");
    assert_eq!(export(&bloom(100), &state), library.serialize());
}

#[test]
fn a_full_filter_keeps_its_rate_and_forgets_nothing() {
    let kind = bloom(10_000);
    let text = |number: u32| format!("user-{number}");
    let parts = (0..10).map(|part| of(&kind, (part * 1_000..(part + 1) * 1_000).map(text)));
    let state = parts.fold(kind.empty(), |sum, part| sum_of(&kind, &sum, &part).expect("in range"));
    let contains = |number| kind.contains(&state, &json!(text(number))).expect("a text");
    assert!((0..10_000).all(contains), "a false negative");
    let others = 100_000_u32;
    let found = (10_000..10_000 + others).filter(|number| contains(*number)).count();
    let measured = found as f64 / f64::from(others);
    let value = kind.value(&state, NOW).expect("its kind");
    let number = |name: &str| value[name].as_f64().expect("a number");
    let stated = number("false_positive_rate");
    assert!((0.009..0.011).contains(&stated), "{value}");
    assert!((measured - stated).abs() < 0.1 * stated, "{measured}, not {stated}");
    assert!((number("estimated_count") - 10_000.0).abs() < 100.0, "{value}");
    assert!((0.48..0.52).contains(&number("fill")), "{value}");
}

#[test]
fn a_delta_takes_little_memory_also_where_the_filter_is_large() {
    let kind = bloom(1_000_000);
    assert!(kind.bytes(&of(&kind, ["one".to_owned()])) < 200);
}

#[test]
fn filters_with_other_parameters_are_refused() {
    let kind = bloom(100);
    let other_seed = BloomFilterBuilder::with_accuracy(100, 0.01).seed(1).build().expect("valid");
    for other in [library(200), other_seed] {
        assert!(kind.import(&other.serialize()).is_err());
    }
    let other = of(&bloom(100_000), ["a".to_owned(), "b".to_owned()]);
    assert!(sum_of(&kind, &kind.empty(), &other).is_err());
}

#[test]
fn sets_and_filters_know_their_elements_and_other_kinds_do_not() {
    let set = kind(&json!({"kind": "set"}));
    let state = total(&set, &[(json!(["a", 1]), 0)]).expect("in range");
    let contains = |element| set.contains(&state, &element);
    assert_eq!([json!("a"), json!(1.0), json!("1")].map(contains), [Ok(true), Ok(true), Ok(false)]);
    let sum = kind(&json!({"kind": "sum"}));
    assert!(matches!(sum.contains(&sum.empty(), &json!(1)), Err(QueryError::Invalid(_))));
    assert!(matches!(sum.contains(&state, &json!(1)), Err(QueryError::OtherKind(_))));
}
