//! The content of an update, as a number: the same event with another content is noticed.
//!
//! Invariant: equal updates have equal numbers, however their JSON was written, in every run and version: the numbers
//! are stored.

use std::time::Duration;

use serde_json::{Number, Value};

use super::bucket::When;

/// Returns a hash of all that an update says: 64 bits of BLAKE3. A time that is left to the server is not part of it,
/// since it differs when the update is sent again.
pub(super) fn content_of(entity: &str, when: When, ttl: Option<Duration>, delta: &Value) -> u64 {
    let mut bytes = Vec::with_capacity(128);
    push_bytes(&mut bytes, entity.as_bytes());
    match when {
        When::Now => bytes.push(0),
        When::At(at) => push_number(&mut bytes, 1, at.as_nanos()),
        When::Bucket(number) => push_number(&mut bytes, 2, number),
    }
    match ttl {
        None => bytes.push(0),
        Some(ttl) => {
            bytes.push(1);
            bytes.extend_from_slice(&ttl.as_nanos().to_le_bytes());
        }
    }
    push_json(&mut bytes, delta);
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// Appends JSON so that no two values have the same bytes: each begins with a byte for its type, and has its length
/// where it needs one. `5.0` is the number 5, and the order of the keys of an object means nothing.
fn push_json(bytes: &mut Vec<u8>, json: &Value) {
    match json {
        Value::Null => bytes.push(0),
        Value::Bool(is_true) => bytes.extend([1, u8::from(*is_true)]),
        Value::Number(number) => push_json_number(bytes, number),
        Value::String(text) => {
            bytes.push(5);
            push_bytes(bytes, text.as_bytes());
        }
        Value::Array(items) => {
            bytes.push(6);
            push_length(bytes, items.len());
            items.iter().for_each(|item| push_json(bytes, item));
        }
        Value::Object(object) => {
            bytes.push(7);
            push_length(bytes, object.len());
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            for (key, value) in entries {
                push_bytes(bytes, key.as_bytes());
                push_json(bytes, value);
            }
        }
    }
}

fn push_json_number(bytes: &mut Vec<u8>, number: &Number) {
    const EXACT_FLOATS: f64 = 9_007_199_254_740_992.0;
    if let Some(integer) = number.as_i64() {
        return push_number(bytes, 2, integer);
    }
    if let Some(large) = number.as_u64() {
        bytes.push(3);
        return bytes.extend_from_slice(&large.to_le_bytes());
    }
    let float = number.as_f64().unwrap_or(f64::NAN);
    if float.fract() == 0.0 && float.abs() <= EXACT_FLOATS {
        #[expect(clippy::cast_possible_truncation, reason = "whole and at most 2^53")]
        return push_number(bytes, 2, float as i64);
    }
    bytes.push(4);
    bytes.extend_from_slice(&float.to_bits().to_le_bytes());
}

fn push_number(bytes: &mut Vec<u8>, tag: u8, number: i64) {
    bytes.push(tag);
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn push_bytes(bytes: &mut Vec<u8>, text: &[u8]) {
    push_length(bytes, text.len());
    bytes.extend_from_slice(text);
}

fn push_length(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::time::Timestamp;

    fn update(entity: &str, delta: &str, when: When, ttl: Option<Duration>) -> u64 {
        content_of(entity, when, ttl, &serde_json::from_str(delta).expect("JSON"))
    }

    #[test]
    fn the_same_content_is_the_same_number_however_it_was_written() {
        let of = |delta| update("a", delta, When::Now, None);
        for (one, other) in [
            ("5", "5.0"),
            ("1000", "1e3"),
            ("{\"a\": 1, \"b\": [2, 3]}", "{\"b\":[2.0,3],\"a\":1}"),
            ("\"\\u0041\"", "\"A\""),
        ] {
            assert_eq!(of(one), of(other), "{one} {other}");
        }
    }

    #[test]
    fn every_part_of_an_update_is_a_part_of_its_content() {
        let at = |nanos| When::At(Timestamp::from_nanos(nanos));
        let second = Some(Duration::from_secs(1));
        let contents = [
            update("a", "1", When::Now, None),
            update("b", "1", When::Now, None),
            update("a", "2", When::Now, None),
            update("a", "1", When::Now, second),
            update("a", "1", at(1), None),
            update("a", "1", at(2), None),
            update("a", "1", When::Bucket(1), None),
            update("a", "\"1\"", When::Now, None),
            update("a", "[1]", When::Now, None),
            update("a", "[[1],2]", When::Now, None),
            update("a", "[[1,2]]", When::Now, None),
            update("a", "{\"a\":null}", When::Now, None),
            update("a", "{\"a\":false}", When::Now, None),
            update("a", "18446744073709551615", When::Now, None),
            update("a", "-1", When::Now, None),
            update("a", "0.5", When::Now, None),
        ];
        for (at, content) in contents.iter().enumerate() {
            assert!(!contents[..at].contains(content), "{at}");
        }
    }

    /// The numbers are compared with stored ones.
    #[test]
    fn the_number_of_a_content_never_changes() {
        let delta = json!({"count": 3, "of": ["x", 0.5, true, null]});
        let when = When::At(Timestamp::from_nanos(1_700_000_000_000_000_000));
        let ttl = Some(Duration::from_secs(60));
        let content = content_of("page", when, ttl, &delta);
        assert_eq!(content, 7_008_580_394_483_609_681);
    }
}
