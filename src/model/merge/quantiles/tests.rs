//! Against exact quantiles.

use serde_json::{Value, json};

use crate::model::merge::laws::{kind, reread, sum_of, total};
use crate::model::merge::streams::uniform;
use crate::model::merge::{Kind, State};
use crate::model::time::Timestamp;

const SHARES: [f64; 7] = [0.0, 0.01, 0.25, 0.5, 0.9, 0.999, 1.0];

fn quantiles(accuracy: f64, max_bins: u32) -> Kind {
    kind(&json!({
        "kind": "quantiles", "relative_accuracy": accuracy, "max_bins": max_bins, "quantiles": SHARES,
    }))
}

fn value(kind: &Kind, state: &State) -> Value {
    kind.value(state, Timestamp::MIN).expect("its kind")
}

/// Latencies: most are near to one, a few are very long; the part of those below zero can be chosen.
fn latencies(seed: u64, negative: f64) -> Vec<f64> {
    let shares = uniform(seed).take(100_000);
    shares.map(|share| ((share - negative) * 12.0).sinh() / 1e3).collect()
}

fn check(value: &Value, mut values: Vec<f64>, accuracy: f64) {
    values.sort_by(f64::total_cmp);
    for share in SHARES {
        let rank = (share * (values.len() - 1) as f64) as usize;
        let (exact, found) = (values[rank], value["quantiles"][share.to_string()].as_f64());
        let found = found.expect("a number");
        assert!(
            (found - exact).abs() <= accuracy * exact.abs() * (1.0 + 1e-9),
            "{share}: {found}, not {exact}"
        );
    }
    assert_eq!(value["min"], json!(values[0]));
    assert_eq!(value["max"], json!(values[values.len() - 1]));
    assert_eq!(value["count"], json!(values.len()));
}

#[test]
fn quantiles_are_within_the_accuracy_after_many_merges() {
    for (accuracy, negative) in [(0.01, 0.0), (0.01, 0.5), (0.05, 1.0), (0.001, 0.3)] {
        let kind = quantiles(accuracy, 65_536);
        let values = latencies(7, negative);
        let parts: Vec<_> = values
            .chunks(5_000)
            .map(|part| total(&kind, &[(json!(part), 0)]).expect("in range"))
            .collect();
        let merged = parts.iter().fold(kind.empty(), |sum, part| {
            sum_of(&kind, &reread(&kind, &sum), part).expect("in range")
        });
        let value = value(&kind, &merged);
        check(&value, values, accuracy);
        assert_eq!(value["collapsed"], json!(0));
    }
}

#[test]
fn values_that_were_collapsed_are_counted_and_the_others_are_accurate() {
    // 128 bins of 4 percent reach from the greatest value down to a 160th of it.
    let kind = quantiles(0.02, 128);
    let values: Vec<_> = (1..=1_000).map(f64::from).collect();
    let state = total(&kind, &[(json!(values), 0)]).expect("in range");
    let value = value(&kind, &state);
    let collapsed = value["collapsed"].as_u64().expect("a number");
    assert!((4..=8).contains(&collapsed), "{value}");
    let found = value["quantiles"]["0.01"].as_f64().expect("a number");
    assert!((found - 10.0).abs() <= 0.2, "{value}");
    assert_eq!(value["quantiles"]["0"], json!(1.0));
    assert!(value["fill"].as_f64().is_some_and(|fill| (0.5..=1.0).contains(&fill)), "{value}");
}

#[test]
fn the_sum_is_exact_and_zeros_and_tiny_values_are_kept() {
    let kind = quantiles(0.01, 2_048);
    let state = total(&kind, &[(json!([0.1, 0.2, 0.0, -0.0, 5e-324, -0.1, -0.2]), 0)]);
    let value = value(&kind, &state.expect("in range"));
    assert_eq!((&value["sum"], &value["count"]), (&json!(5e-324), &json!(7)));
    assert_eq!(value["quantiles"]["0.5"], json!(0.0));
    assert_eq!((&value["min"], &value["max"]), (&json!(-0.2), &json!(0.2)));
}

#[test]
fn nothing_has_no_quantiles_and_what_is_not_finite_is_refused() {
    let kind = quantiles(0.01, 2_048);
    let value = value(&kind, &kind.empty());
    assert_eq!((&value["quantiles"]["0.5"], &value["min"]), (&Value::Null, &Value::Null));
    assert_eq!(value["count"], json!(0));
    assert!(kind.delta(&json!([1, {"special": "NaN"}]), Timestamp::MIN).is_err());
    assert!(kind.delta(&json!([f64::MAX, f64::MAX]), Timestamp::MIN).is_err());
}

#[test]
fn exports_are_imported_with_the_same_parameters_only() {
    let kind = quantiles(0.01, 2_048);
    let state = total(&kind, &[(json!(latencies(1, 0.2)[..500]), 0)]).expect("in range");
    let bytes = kind.export(&state).expect("its kind").expect("a sketch");
    assert_eq!(kind.import(&bytes), Ok(state));
    assert!(quantiles(0.02, 2_048).import(&bytes).is_err());
    assert!(quantiles(0.01, 1_024).import(&bytes).is_err());
}
