//! Bytes that are no states: neither reading them, nor using what was read, panics or takes more memory than there is data.
//!
//! Each byte and each number of valid states and sketches is set to extremes, and random bytes are read. Invariant of each
//! try: what is accepted is a state like all others.

use allocation_counter::measure;
use proptest::prelude::{any, proptest};
use serde_json::{Value, json};

use super::laws::{Update, kind, reread, sum_of, total};
use super::{Kind, State};
use crate::model::time::Timestamp;

/// Kinds with small parameters, and updates that fill them in each of their forms.
fn subjects() -> Vec<(Kind, Vec<Update>)> {
    let few = json!(["a", "b", 7, 0.5]);
    let many = json!((0..200).map(|number| format!("e{number}")).collect::<Vec<_>>());
    let texts = json!((0..60).map(|number| format!("e{number}")).collect::<Vec<_>>());
    let values = json!([0.1, 0.2, -3.0, 0.0, 1e300, 1e-300]);
    let map = json!({"kind": "map", "of": {"kind": "sum", "number": "float"}});
    let subjects = [
        (json!({"kind": "sum"}), vec![json!(5)]),
        (json!({"kind": "sum", "number": "float"}), vec![json!(0.1), json!(0.2), json!(1e300)]),
        (json!({"kind": "count"}), vec![json!(5)]),
        (json!({"kind": "min", "number": "float"}), vec![json!(0.5)]),
        (json!({"kind": "last"}), vec![json!({"a": [1, null]})]),
        (json!({"kind": "set"}), vec![few.clone()]),
        (json!({"kind": "hll", "lg_k": 5}), vec![few.clone()]),
        (json!({"kind": "hll", "lg_k": 9}), vec![many.clone()]),
        (json!({"kind": "hll", "lg_k": 5}), vec![many.clone()]),
        (json!({"kind": "topk", "k": 2, "map_size": 16}), vec![texts]),
        (json!({"kind": "bloom", "capacity": 100}), vec![json!("a")]),
        (json!({"kind": "bloom", "capacity": 100}), vec![many]),
        (json!({"kind": "decayed_sum", "half_life": "1h"}), vec![json!(0.1)]),
        (json!({"kind": "quantiles"}), vec![values.clone()]),
        (json!({"kind": "quantiles", "max_bins": 128}), vec![values]),
        (map.clone(), vec![json!({"x": 0.1, "y": 0.2}), json!({"x": 0.2})]),
        (
            json!({"kind": "tuple", "fields": {"m": map, "s": {"kind": "set"}}}),
            vec![json!({"s": few})],
        ),
    ];
    let updates = |deltas: Vec<Value>| deltas.into_iter().map(|delta| (delta, 0)).collect();
    subjects.into_iter().map(|(settings, deltas)| (kind(&settings), updates(deltas))).collect()
}

/// Reads bytes as the stored form and as a sketch, and uses what comes out.
fn try_all(kind: &Kind, valid: &State, bytes: &[u8]) {
    let mut read = Vec::new();
    let used = measure(|| {
        read.extend(kind.decode(bytes).ok());
        read.extend(kind.import(bytes).ok());
    });
    // A sketch of a few coupons may have the form of all registers; text and numbers of errors are short.
    let most = (kind.max_state_bytes() + 4_096).min(4_096 + 64 * bytes.len() + 2_048);
    assert!(
        used.bytes_max <= most as u64,
        "{} for {} bytes of {kind:?}",
        used.bytes_max,
        bytes.len()
    );
    for state in read {
        reread(kind, &state);
        kind.value(&state, Timestamp::MAX).expect("its kind");
        kind.export(&state).expect("its kind");
        // It may be too large to be merged with another one, but that is an error.
        let _ = sum_of(kind, &state, valid);
        let _ = sum_of(kind, valid, &state);
    }
}

/// Returns variants of valid bytes: cut off, with one more byte, and with each number at each place at its extremes.
fn variants(valid: &[u8]) -> Vec<Vec<u8>> {
    let mut variants = vec![[valid, &[0]].concat()];
    for at in 0..valid.len().min(160) {
        variants.push(valid[..at].to_vec());
        for extreme in [0, 0x7F, 0xFF] {
            for width in [1, 4, 8] {
                let mut variant = valid.to_vec();
                let end = (at + width).min(valid.len());
                variant[at..end].fill(extreme);
                variants.push(variant);
            }
        }
        // One more or less, as a length that is almost right.
        for step in [1, u8::MAX] {
            let mut variant = valid.to_vec();
            variant[at] = variant[at].wrapping_add(step);
            variants.push(variant);
        }
    }
    variants
}

#[test]
fn damaged_states_and_sketches_neither_panic_nor_take_memory() {
    for (kind, updates) in subjects() {
        let state = total(&kind, &updates).expect("in range");
        let stored = kind.encode(&state).expect("its kind");
        let exported = kind.export(&state).expect("its kind");
        for valid in std::iter::once(stored).chain(exported) {
            try_all(&kind, &state, &valid);
            variants(&valid).iter().for_each(|variant| try_all(&kind, &state, variant));
        }
    }
}

#[test]
fn damaged_sketches_of_other_programs_neither_panic_nor_take_memory() {
    use datasketches::hash::value::raw_bytes;
    use datasketches::hll::{HllSketch, HllType};

    for (lg_k, count) in [(4, 6), (9, 30), (4, 3_000), (6, 100_000)] {
        let kind = kind(&json!({"kind": "hll", "lg_k": lg_k}));
        for hll_type in [HllType::Hll4, HllType::Hll6, HllType::Hll8] {
            let mut sketch = HllSketch::new(lg_k, hll_type).expect("a valid lg_k");
            for number in 0..count {
                sketch.update(raw_bytes::from_string(format!("e{number}")));
            }
            let valid = sketch.serialize();
            let state = kind.import(&valid).expect("a sketch");
            variants(&valid).iter().for_each(|variant| try_all(&kind, &state, variant));
        }
    }
}

#[test]
fn a_few_bytes_do_not_ask_for_gigabytes() {
    // A Bloom filter that says that it is empty, of 2^31 - 1 words.
    let mut filter = vec![3, 1, 21, 4, 7, 0, 0, 0];
    filter.extend(9_001_u64.to_le_bytes());
    filter.extend(i32::MAX.to_le_bytes());
    filter.extend([0; 4]);
    let kind = kind(&json!({"kind": "bloom", "capacity": 100}));
    let used = measure(|| assert!(kind.import(&filter).is_err()));
    assert!(used.bytes_max < 4_096, "{}", used.bytes_max);
}

proptest! {
    #[test]
    fn random_bytes_neither_panic_nor_take_memory(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), behind_header in any::<bool>(),
    ) {
        for (kind, _) in subjects() {
            let empty = kind.empty();
            let mut read = bytes.clone();
            if behind_header {
                // The header of the kind, so that the body is reached.
                let header = kind.encode(&empty).expect("its kind");
                read.splice(..0, header.into_iter().take(kind.header_bytes()));
            }
            try_all(&kind, &empty, &read);
        }
    }
}
