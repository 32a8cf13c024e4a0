//! The effective settings as text, for `check-config`.
//!
//! Invariant: what is printed holds no secret.

use std::fmt::Write as _;

use config::{Map, Value, ValueKind};

use super::composed::SECRETS;
use super::tree;

const REDACTED: &str = "\"[redacted]\"";

/// Prints one setting a line, with its origin.
pub(super) fn show(tree: &Map<String, Value>) -> String {
    let mut text = String::new();
    for name in tree::names(tree) {
        let Some(value) = tree::get(tree, &name) else { continue };
        let origin = value.origin().unwrap_or(tree::DEFAULT_ORIGIN);
        // Writing to a String can't fail.
        let _ = writeln!(text, "{name} = {}  # from {origin}", literal(&name, value));
    }
    text
}

/// Returns whether a setting, or a part of it, is a secret.
pub(super) fn holds_secrets(name: &str) -> bool {
    SECRETS.into_iter().flatten().any(|secret| {
        let mut parts = secret.split('.');
        name.split('.').all(|part| parts.next().is_some_and(|of| of == part || of == "*"))
    })
}

/// Prints the value of `name`, which is that of a setting or of a part of one, such as
/// `access.tokens.token`.
fn literal(name: &str, value: &Value) -> String {
    match &value.kind {
        // Also a list or a table that was given as one text: where the secrets are in it is not known here.
        ValueKind::String(text) if holds_secrets(name) && !text.trim().is_empty() => {
            REDACTED.to_owned()
        }
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| literal(name, item)).collect();
            format!("[{}]", items.join(", "))
        }
        ValueKind::Table(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            let entry = |(key, value): (&String, &Value)| {
                format!("{key} = {}", literal(&format!("{name}.{key}"), value))
            };
            let entries: Vec<_> = entries.into_iter().map(entry).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        // A number can be a secret as well: a password of digits.
        _ if holds_secrets(name) => REDACTED.to_owned(),
        _ => value.to_string(),
    }
}
