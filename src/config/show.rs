//! The effective settings as text, for the one who runs `check-config`.
//!
//! Invariant: what is printed holds no secret.

use std::fmt::Write as _;

use config::{Map, Value, ValueKind};

use super::layers;

const REDACTED: &str = "\"[redacted]\"";
/// Keys whose values are secrets wherever they stand.
const SECRET_KEYS: [&str; 2] = ["token", "token_sha256"];
/// Settings that may hold a secret.
const SECRET_SETTINGS: [&str; 4] =
    ["access.tokens", "store.redis.url", "store.redis.cluster", "store.redis.password"];

/// Returns whether a setting may hold a secret.
pub(super) fn is_secret(setting: &str) -> bool {
    SECRET_SETTINGS.contains(&setting)
}

/// Prints one setting a line, with its origin.
pub(super) fn show(tree: &Map<String, Value>) -> String {
    let mut text = String::new();
    for name in layers::names(tree) {
        let Some(value) = layers::get(tree, &name) else { continue };
        let origin = value.origin().unwrap_or(layers::DEFAULT_ORIGIN);
        let shown = match &value.kind {
            // A list that came in one text: it can't be told apart from here where its secrets are.
            ValueKind::String(text) if is_secret(&name) && !text.trim().is_empty() => {
                REDACTED.to_owned()
            }
            _ => literal(value),
        };
        // Writing to a String can't fail.
        let _ = writeln!(text, "{name} = {shown}  # from {origin}");
    }
    text
}

fn literal(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Array(items) => {
            let items: Vec<_> = items.iter().map(literal).collect();
            format!("[{}]", items.join(", "))
        }
        ValueKind::Table(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            let entries: Vec<_> =
                entries.into_iter().map(|(key, value)| entry(key, value)).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        _ => value.to_string(),
    }
}

fn entry(key: &str, value: &Value) -> String {
    let shown = if SECRET_KEYS.contains(&key) { REDACTED.to_owned() } else { literal(value) };
    format!("{key} = {shown}")
}
