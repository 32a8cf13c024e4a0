//! Against exact counts, with forced evictions, and against the library.

use std::collections::HashMap;

use datasketches::frequencies::FrequentItemsSketch;
use serde_json::{Value, json};

use crate::model::merge::laws::{kind, reread, sum_of, total};
use crate::model::merge::streams::zipf;
use crate::model::merge::{Kind, MergeError, State};
use crate::model::time::Timestamp;

const NOW: Timestamp = Timestamp::from_nanos(0);

/// A kind with 96 counters, so that long streams force evictions.
fn small() -> Kind {
    kind(&json!({"kind": "topk", "k": 10, "map_size": 128}))
}

fn stream(seed: u64) -> Vec<String> {
    zipf(seed, 20_000).take(100_000).map(|item| format!("/page/{item}")).collect()
}

fn of(kind: &Kind, items: &[String]) -> State {
    total(kind, &[(json!(items), 0)]).expect("in range")
}

/// Checks everything that a value says against the exact counts.
fn check(kind: &Kind, state: &State, items: &[String]) {
    let mut exact = HashMap::<&str, u64>::new();
    for item in items {
        *exact.entry(item).or_default() += 1;
    }
    let value = kind.value(state, NOW).expect("its kind");
    let max_error = value["max_error"].as_u64().expect("a number");
    assert_eq!(value["total"], json!(items.len()));
    assert!(max_error > 0, "nothing was evicted");
    // Each eviction takes the same from half of the counters, so the error can't be more than this.
    assert!(max_error <= 2 * items.len() as u64 / 96, "{max_error}");
    let mut ranked: Vec<_> = exact.iter().map(|(item, count)| (*count, *item)).collect();
    ranked.sort_unstable_by(|one, other| other.cmp(one));
    let tenth = ranked[9].0;
    let shown = value["items"].as_array().expect("a list");
    for item in shown {
        let count = exact[item["item"].as_str().expect("a text")];
        let [lower, upper] = ["lower", "upper"].map(|name| item[name].as_u64().expect("a number"));
        assert!((lower..=upper).contains(&count), "{count} is not in {item}");
        assert!(item["certain"] == json!(false) || count >= tenth, "{item} is not in the top");
    }
    // No text that is more frequent than the error is missing, as long as there is a place for it.
    let is_shown = |name: &str| shown.iter().any(|item| item["item"] == json!(name));
    let least = shown.last().expect("ten")["lower"].as_u64().expect("a number");
    for (count, name) in ranked.iter().take_while(|(count, _)| *count > least + max_error) {
        assert!(is_shown(name), "{name} with {count} is missing");
    }
    assert_eq!(shown[0]["certain"], json!(true));
}

#[test]
fn counts_are_within_their_bounds_whatever_was_merged_first() {
    let kind = small();
    let items = stream(1);
    let parts: Vec<_> = items.chunks(1_000).map(|part| of(&kind, part)).collect();
    let merge = |one: &State, other: &State| {
        let sum = sum_of(&kind, one, other).expect("in range");
        assert_eq!(Ok(&sum), sum_of(&kind, other, one).as_ref(), "not commutative");
        reread(&kind, &sum)
    };
    let forwards = parts.iter().fold(kind.empty(), |sum, part| merge(&sum, part));
    let backwards = parts.iter().rev().fold(kind.empty(), |sum, part| merge(&sum, part));
    let mut tree = parts;
    while tree.len() > 1 {
        tree = tree.chunks(2).map(|pair| merge(&pair[0], pair.last().expect("one"))).collect();
        if tree.len() % 2 == 1 && tree.len() > 1 {
            tree.push(kind.empty());
        }
    }
    for state in [&forwards, &backwards] {
        check(&kind, state, &items);
        assert_eq!(sum_of(&kind, state, &kind.empty()).as_ref(), Ok(state));
    }
}

#[test]
fn one_large_delta_is_counted_like_many_small_ones() {
    let items = stream(2);
    check(&small(), &of(&small(), &items), &items);
    let one_by_one = items.iter().fold(small().empty(), |sum, item| {
        let mut sum = sum;
        small().merge(&mut sum, &of(&small(), std::slice::from_ref(item))).expect("in range");
        sum
    });
    check(&small(), &one_by_one, &items);
}

#[test]
fn counts_are_exact_as_long_as_there_are_counters() {
    let kind = kind(&json!({"kind": "topk", "k": 2}));
    let updates = [
        (json!(["a", "b", "a"]), 0),
        (json!({"item": "c", "count": 2}), 0),
        (json!([{"item": "c", "count": 2}, "b", {"item": "d", "count": 0}]), 0),
    ];
    let value = kind.value(&total(&kind, &updates).expect("in range"), NOW).expect("its kind");
    let item = |name, count| json!({"item": name, "lower": count, "upper": count, "certain": true});
    let expected = json!({
        "items": [item("c", 4), item("a", 2)], "max_error": 0, "total": 8, "fill": 3.0 / 768.0,
    });
    assert_eq!(value, expected);
}

#[test]
fn a_total_beyond_64_bits_is_an_error() {
    let kind = small();
    let most = total(&kind, &[(json!({"item": "a", "count": i64::MAX}), 0)]).expect("in range");
    assert!(matches!(
        sum_of(&kind, &most, &of(&kind, &["b".into()])),
        Err(MergeError::Overflow(_))
    ));
    let twice = json!([{"item": "a", "count": i64::MAX}, "b"]);
    assert!(kind.delta(&twice, NOW).is_err());
    for wrong in [json!({"item": "a", "count": -1}), json!(""), json!(1), json!({"item": "a"})] {
        assert!(kind.delta(&wrong, NOW).is_err(), "{wrong}");
    }
}

#[test]
fn sketches_are_exchanged_with_the_library() {
    let kind = small();
    let items = stream(3);
    let mut library = FrequentItemsSketch::<String>::new(128).expect("a power of two");
    assert_eq!(kind.import(&library.serialize()), Ok(kind.empty()));
    for item in &items {
        library.update(item.clone());
    }
    let state = kind.import(&library.serialize()).expect("a sketch");
    let value = kind.value(&state, NOW).expect("its kind");
    assert_eq!(value["max_error"], json!(library.maximum_error()));
    let first = &value["items"][0];
    let name = first["item"].as_str().expect("a text");
    assert_eq!(first["lower"], json!(library.lower_bound(name)));

    let own = of(&kind, &items);
    let bytes = kind.export(&own).expect("its kind").expect("a sketch");
    let read = FrequentItemsSketch::<String>::deserialize(&bytes).expect("a sketch");
    assert_eq!(kind.import(&bytes).as_ref(), Ok(&own));
    let value = kind.value(&own, NOW).expect("its kind");
    assert_eq!(value["max_error"], json!(read.maximum_error()));
    for item in value["items"].as_array().expect("a list") {
        let name = item["item"].as_str().expect("a text");
        assert_eq!(item["lower"], json!(read.lower_bound(name)));
        assert_eq!(item["upper"], json!(read.upper_bound(name)));
    }
    let larger = FrequentItemsSketch::<String>::new(256).expect("a power of two").serialize();
    assert!(kind.import(&larger).is_err(), "another size");
}

#[test]
fn there_are_many_more_counters_than_are_shown() {
    for (settings, map_size) in [(json!({"k": 10}), 1_024), (json!({"k": 100}), 2_048)] {
        let Value::Object(mut settings) = settings else { panic!("a table") };
        settings.insert("kind".to_owned(), json!("topk"));
        let signature = kind(&Value::Object(settings)).signature();
        assert_eq!(signature, format!("topk(map_size={map_size})"));
    }
}
