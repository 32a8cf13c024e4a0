//! Sketches are exchanged with the DataSketches library for Python, in both directions and to the byte.
//!
//! Not Bloom filters, which that library does not have: the tests beside the code compare them with the one for Rust.
//! Needs target/venv, which `make setup-test` makes.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdall::model::merge::{Kind, KindSettings, State};
use holdall::model::time::Timestamp;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_nanos(0);

/// Lets the library process requests.
fn ask(requests: &[Value]) -> Vec<Value> {
    let mut python = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv/bin/python"))
        .args(["-B", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sketches/peer.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("target/venv has a Python; `make setup-test` makes it");
    let mut stdin = python.stdin.take().expect("piped");
    stdin.write_all(json!(requests).to_string().as_bytes()).expect("Python reads");
    drop(stdin);
    let output = python.wait_with_output().expect("Python ends");
    assert!(output.status.success(), "Python failed");
    serde_json::from_slice(&output.stdout).expect("a list of replies")
}

fn kind(settings: Value) -> Kind {
    let settings: KindSettings = serde_json::from_value(settings).expect("a table");
    Kind::parse(&settings).expect("a valid kind")
}

fn merged(kind: &Kind, parts: &[Vec<Value>]) -> State {
    let mut state = kind.empty();
    for part in parts {
        let delta = kind.delta(&json!(part), NOW).expect("a valid delta");
        kind.merge(&mut state, &delta).expect("in range");
    }
    state
}

fn export(kind: &Kind, state: &State) -> Vec<u8> {
    kind.export(state).expect("its kind").expect("a sketch")
}

fn sketch(text: &Value) -> Vec<u8> {
    STANDARD.decode(text.as_str().expect("a text")).expect("base64")
}

/// Returns a sketch with its coupons sorted: libraries write them in the order of updates, or of a table.
fn sorted(mut sketch: Vec<u8>) -> Vec<u8> {
    let coupons = match sketch[7] & 3 {
        0 => 8,
        1 => 12,
        _ => return sketch,
    };
    let (coupons, _) = sketch[coupons..].as_chunks_mut::<4>();
    coupons.sort_unstable();
    sketch
}

/// Elements of all types. The second part has half of those of the first.
fn parts(count: usize) -> Vec<Vec<Value>> {
    let element = |number: usize| match number % 10 {
        3 => json!(number * 1_000_003),
        6 => json!(-(number as f64) / 8.0 - 0.0625),
        _ => json!(format!("visitör-{number}")),
    };
    vec![(0..count).map(element).collect(), (count / 2..count * 3 / 2).map(element).collect()]
}

#[test]
fn distinct_counts_are_exchanged_with_python() {
    let mut cases = Vec::new();
    for (lg_k, count) in [(12, 0), (12, 4), (12, 30), (12, 250), (12, 9_000), (4, 500), (8, 3_000)]
    {
        let kind = kind(json!({"kind": "hll", "lg_k": lg_k}));
        let parts = parts(count);
        let state = merged(&kind, &parts);
        for hll_type in ["HLL_4", "HLL_6", "HLL_8"] {
            let other = STANDARD.encode(export(&kind, &state));
            let request = json!({
                "family": "hll", "lg_k": lg_k, "type": hll_type, "parts": parts, "other": other,
            });
            cases.push((kind.clone(), parts.clone(), state.clone(), request));
        }
    }
    let requests: Vec<_> = cases.iter().map(|(.., request)| request.clone()).collect();
    for ((kind, parts, state, request), reply) in cases.iter().zip(ask(&requests)) {
        let case = format!("{} {}", kind.signature(), request["type"]);
        for (number, bytes) in reply["sketches"].as_array().expect("a list").iter().enumerate() {
            let read = kind.import(&sketch(bytes));
            assert_eq!(read.as_ref(), Ok(state), "{case}, sketch {number}");
        }
        let last = merged(kind, &parts[1..]);
        assert_eq!(kind.import(&sketch(&reply["part"])), Ok(last), "{case}, part");
        let exported = sorted(export(kind, state));
        assert!(sorted(sketch(&reply["rewritten"])) == exported, "{case}: not what was exported");
        if request["type"] == json!("HLL_8") {
            assert!(sorted(sketch(&reply["sketches"][0])) == exported, "{case}: other bytes");
        }
        let value = kind.value(state, NOW).expect("its kind");
        for name in ["estimate", "lower", "upper"] {
            let [own, theirs] = [&value, &reply].map(|v| v[name].as_f64().expect("a number"));
            assert!((own - theirs).abs() <= 1e-9 * theirs, "{case}: {name} {own}, not {theirs}");
        }
    }
}

type Bounds = BTreeMap<String, [u64; 2]>;

fn bounds(value: &Value) -> Bounds {
    let bound = |item: &Value| {
        let bounds = ["lower", "upper"].map(|name| item[name].as_u64().expect("a number"));
        (item["item"].as_str().expect("a text").to_owned(), bounds)
    };
    value["items"].as_array().expect("a list").iter().map(bound).collect()
}

#[test]
fn top_lists_are_exchanged_with_python() {
    let kind = kind(json!({"kind": "topk", "k": 100, "map_size": 512}));
    let mut cases = Vec::new();
    for items in [0, 50, 3_000] {
        // The smaller a number, the more of its multiples are below the limit.
        let part = |from: usize| -> Vec<Value> {
            let numbers = (1..=items).flat_map(|n| (n..=items * 3).step_by(n).map(move |_| n));
            numbers.skip(from).step_by(2).map(|n| json!(format!("/pagé/{n}"))).collect()
        };
        let parts = vec![part(0), part(1)];
        let state = merged(&kind, &parts);
        let other = STANDARD.encode(export(&kind, &state));
        let request = json!({"family": "topk", "lg_map_size": 9, "parts": parts, "other": other});
        cases.push((items, state, request));
    }
    let requests: Vec<_> = cases.iter().map(|(.., request)| request.clone()).collect();
    for ((items, state, _), reply) in cases.iter().zip(ask(&requests)) {
        let theirs = kind.import(&sketch(&reply["sketch"])).expect("a sketch");
        let rewritten = kind.import(&sketch(&reply["rewritten"])).expect("a sketch");
        assert_eq!(&rewritten, state, "{items}");
        if *items < 384 {
            assert_eq!(&theirs, state, "{items}: nothing was evicted, so both are exact");
        }
        for (name, state) in [("other", state), ("merged", &theirs)] {
            let value = kind.value(state, NOW).expect("its kind");
            let all: Bounds = serde_json::from_value(reply[name].clone()).expect("bounds");
            for (item, bounds) in bounds(&value) {
                assert_eq!(all.get(&item), Some(&bounds), "{items} {name} {item}");
            }
        }
        let value = kind.value(state, NOW).expect("its kind");
        assert_eq!(reply["total"], value["total"], "{items}");
        assert_eq!(*items > 384, value["max_error"] != json!(0), "{items}");
    }
}
