//! The examples of docs/aggregates.md are true, and there is one of each kind.

use serde_json::Value;

use super::laws::{kind, total};
use crate::model::time::Timestamp;

const DOCUMENT: &str = include_str!("../../../docs/aggregates.md");

/// Returns the JSON values between the backquotes of a cell.
fn values(cell: &str) -> Vec<Value> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.map(|text| serde_json::from_str(text).expect("an example is JSON")).collect()
}

/// Whether a value is the documented one, whose floats are rounded to five digits.
fn is_close(found: &Value, shown: &Value) -> bool {
    match (found, shown) {
        (Value::Object(found), Value::Object(shown)) => {
            found.len() == shown.len()
                && found.iter().all(|(name, found)| {
                    shown.get(name).is_some_and(|shown| is_close(found, shown))
                })
        }
        (Value::Array(found), Value::Array(shown)) => {
            found.len() == shown.len()
                && found.iter().zip(shown).all(|(found, shown)| is_close(found, shown))
        }
        (Value::Number(found), Value::Number(shown)) if found.is_f64() && shown.is_f64() => {
            let [found, shown] = [found, shown].map(|number| number.as_f64().expect("a float"));
            (found - shown).abs() <= 5e-5 * shown.abs()
        }
        _ => found == shown,
    }
}

#[test]
fn the_documented_examples_are_true() {
    let time = |text| Timestamp::parse(text).expect("a time");
    let updated_at = time("2026-01-31T12:00:00Z").as_nanos();
    let read_at = time("2026-01-31T13:00:00Z");
    let (_, examples) = DOCUMENT.split_once("### Examples").expect("the section");
    let rows: Vec<_> = examples.lines().filter(|line| line.starts_with("| `")).collect();
    let mut kinds = Vec::new();
    let mut wrong = Vec::new();
    for row in rows {
        let cells: Vec<_> = row.split(" | ").map(values).collect();
        let [settings, deltas, value] = &cells[..] else { panic!("{row} has not three cells") };
        kinds.extend(settings[0]["kind"].as_str().map(str::to_owned));
        let kind = kind(&settings[0]);
        let updates: Vec<_> = deltas.iter().map(|delta| (delta.clone(), updated_at)).collect();
        let state = total(&kind, &updates).expect("in range");
        let found = kind.value(&state, read_at).expect("its kind");
        if !is_close(&found, &value[0]) {
            wrong.push(format!("{row}\n  is {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for name in super::settings::KINDS.split(", ") {
        assert!(kinds.iter().any(|kind| kind == name), "there is no example of {name}");
    }
}
