//! NDJSON: an update in each line.
//!
//! Invariant: an invalid line does not affect how the others are read.

use super::builder::Builder;
use super::wire::WireUpdate;
use crate::http::problem::Problem;
use crate::http::wire::Object;
use crate::ingest::Lines;

/// Reads all updates into `builder`.
///
/// # Errors
/// What stopped the builder.
pub(super) fn parse(bytes: &[u8], builder: &mut Builder<'_>) -> Result<(), Problem> {
    for (number, line) in Lines::new(bytes) {
        let pointer = || format!("line {number}");
        let Some(line) = line else {
            builder.fail(pointer(), "not UTF-8".to_owned());
            continue;
        };
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_str::<Object<WireUpdate<'_>>>(line) {
            Ok(Object(update)) => {
                let line = u32::try_from(number).unwrap_or(u32::MAX);
                builder.add(update, Some(line))?;
            }
            Err(error) => {
                let text = error.to_string();
                let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
                builder.fail(pointer(), format!("{what} at column {}", error.column()));
                builder.count_one()?;
            }
        }
    }
    Ok(())
}

/// Reads the event id of an update of a body that was read before.
pub(super) fn event_id(bytes: &[u8], line: u32) -> Option<String> {
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let (_, line) = Lines::new(bytes).nth(index)?;
    serde_json::from_str::<WireUpdate<'_>>(line?).ok()?.event_id.map(|id| id.0.into_owned())
}
