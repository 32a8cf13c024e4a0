//! Against the library, and against exact counts.

use std::collections::HashSet;

use datasketches::hash::value::{canonical_float, raw_bytes};
use datasketches::hll::{HllSketch, HllType};
use serde_json::{Value, json};

use crate::model::merge::laws::{kind, reread, sum_of, total};
use crate::model::merge::streams::zipf;
use crate::model::merge::{Kind, State};
use crate::model::time::Timestamp;

const NOW: Timestamp = Timestamp::from_nanos(0);

fn hll(lg_k: u8) -> Kind {
    kind(&json!({"kind": "hll", "lg_k": lg_k}))
}

fn of(kind: &Kind, elements: &[String]) -> State {
    total(kind, &[(json!(elements), 0)]).expect("in range")
}

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("visitor-{number}")).collect()
}

fn library(lg_k: u8, hll_type: HllType, elements: &[String]) -> HllSketch {
    let mut sketch = HllSketch::new(lg_k, hll_type).expect("a valid lg_k");
    for element in elements {
        sketch.update(raw_bytes::from_str(element));
    }
    sketch
}

#[test]
fn sketches_of_the_library_are_read_in_all_their_forms() {
    for lg_k in [4, 7, 8, 12] {
        let kind = hll(lg_k);
        for count in [0, 1, 7, 8, 24, 25, 384, 385, 2_000, 60_000] {
            let elements = texts(count);
            let own = of(&kind, &elements);
            for hll_type in [HllType::Hll4, HllType::Hll6, HllType::Hll8] {
                let bytes = library(lg_k, hll_type, &elements).serialize();
                assert_eq!(kind.import(&bytes), Ok(own.clone()), "{lg_k} {count} {hll_type:?}");
            }
        }
    }
}

#[test]
fn the_library_reads_what_is_exported() {
    let kind = hll(10);
    for count in [0, 5, 50, 5_000] {
        let elements = texts(count);
        let state = of(&kind, &elements);
        let bytes = kind.export(&state).expect("its kind").expect("a sketch");
        let read = HllSketch::deserialize(&bytes).expect("a sketch");
        let same = library(10, HllType::Hll8, &elements);
        assert_eq!(read.composite_estimate(), same.composite_estimate());
        assert_eq!(read.serialize().len(), bytes.len());
        assert_eq!(kind.import(&bytes), Ok(state));
    }
}

#[test]
fn numbers_are_hashed_as_the_library_does() {
    let kind = hll(12);
    let mut sketch = HllSketch::new(12, HllType::Hll8).expect("a valid lg_k");
    sketch.update(-7_i64);
    sketch.update(canonical_float::from_f64(0.25));
    let own = total(&kind, &[(json!([-7, 0.25, -7.0]), 0)]);
    assert_eq!(kind.import(&sketch.serialize()), Ok(own.expect("in range")));
}

#[test]
fn sketches_with_other_parameters_are_refused() {
    let bytes = library(11, HllType::Hll8, &texts(10)).serialize();
    let error = hll(12).import(&bytes).expect_err("another lg_k");
    assert!(error.0.contains("lg_k = 11, not 12"), "{error}");
    let delta = json!({"sketch": "not base64"});
    assert!(hll(12).delta(&delta, NOW).is_err());
}

#[test]
fn a_state_of_another_lg_k_is_no_operand() {
    let other = of(&hll(10), &texts(5_000));
    let kind = hll(12);
    assert!(sum_of(&kind, &kind.empty(), &other).is_err());
    assert!(sum_of(&kind, &other, &kind.empty()).is_err());
    assert!(kind.value(&other, NOW).is_err());
}

#[test]
fn distinct_counts_are_within_their_bounds_after_many_merges() {
    for (lg_k, seed) in [(10, 1), (11, 2), (12, 3), (14, 4)] {
        let kind = hll(lg_k);
        let stream: Vec<_> =
            zipf(seed, 200_000).take(100_000).map(|item| format!("item-{item}")).collect();
        let parts: Vec<_> = stream.chunks(5_000).map(|part| of(&kind, part)).collect();
        let merged = parts.iter().fold(kind.empty(), |sum, part| {
            sum_of(&kind, &reread(&kind, &sum), part).expect("in range")
        });
        assert_eq!(merged, of(&kind, &stream));
        let exact = stream.iter().collect::<HashSet<_>>().len() as f64;
        let value = kind.value(&merged, NOW).expect("its kind");
        let number = |name: &str| value[name].as_f64().expect("a number");
        let (lower, upper) = (number("lower"), number("upper"));
        assert!((lower..=upper).contains(&exact), "{exact} is not in {value}");
        // The bounds say something: two standard errors of a merged sketch.
        assert!(upper / lower < 1.0 + 5.0 / f64::from(1_u32 << lg_k).sqrt(), "{value}");
        assert!((0.0..=1.0).contains(&number("fill")));
    }
}

#[test]
fn few_elements_are_counted_almost_exactly() {
    let kind = hll(12);
    let value = |count| kind.value(&of(&kind, &texts(count)), NOW).expect("its kind");
    assert_eq!(value(0), json!({"estimate": 0.0, "lower": 0.0, "upper": 0.0, "fill": 0.0}));
    let estimate = |value: &Value| value["estimate"].as_f64().expect("a number").round();
    assert_eq!([3, 300].map(|count| estimate(&value(count))), [3.0, 300.0]);
}
