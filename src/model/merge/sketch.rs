//! Sketches that come from outside, as base64 in deltas.
//!
//! Invariant: what is said about a sketch that can't be read tells its sender what to change.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{DecodeError, Invalid};

/// Returns the bytes of the sketch in a delta of the form `{"sketch": BASE64}`; `None` for a delta of another form.
pub(super) fn in_delta(json: &Value) -> Result<Option<Vec<u8>>, Invalid> {
    let Value::Object(object) = json else { return Ok(None) };
    let Some(sketch) = object.get("sketch") else { return Ok(None) };
    let text = sketch.as_str().filter(|_| object.len() == 1);
    let text = text.ok_or_else(|| Invalid::new("a sketch is {\"sketch\": BASE64}"))?;
    STANDARD.decode(text).map(Some).map_err(|_| Invalid::new("the sketch is not base64"))
}

/// Says why a sketch could not be read.
pub(super) fn not_readable(what: &str, error: &DecodeError) -> Invalid {
    match error {
        DecodeError::Damaged(why) => Invalid::new(format!("{what} can't be read: {why}")),
        DecodeError::Version(_) | DecodeError::OtherKind => {
            Invalid::new(format!("{what} can't be read: {error}"))
        }
    }
}
