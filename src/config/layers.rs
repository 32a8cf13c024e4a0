//! The layers that settings come from: the defaults, the user's file, the environment.
//!
//! Knows where each setting was given, and which settings exist: those of `default.toml`.
//! Not what they mean. Invariant: nothing that the user wrote is dropped in silence; it
//! becomes a setting or a mistake.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use config::{ConfigError, File, FileFormat, Map, Source, Value, ValueKind};

use super::mistake::Mistake;

/// The defaults, and the documentation of every setting.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// Tables that are one setting each, replaced as a whole.
const WHOLE_TABLES: [&str; 1] = ["series.guards"];

/// Variables that begin like settings and are none: ours, and those that Kubernetes sets in
/// every pod beside a service called `holdall`.
const NOT_SETTINGS: [&str; 4] =
    ["HOLDALL_CONFIG", "HOLDALL_PORT", "HOLDALL_PORT_*", "HOLDALL_SERVICE_*"];

const ENV_PREFIX: &str = "HOLDALL_";
/// Where a setting comes from that nobody gave.
pub(super) const DEFAULT_ORIGIN: &str = "the defaults";

/// The settings that a user gave, by their full name, with the value's origin in the value.
pub(super) type Given = BTreeMap<String, Value>;

/// Reads the defaults.
pub(super) fn defaults() -> Result<Map<String, Value>, Mistake> {
    parse(DEFAULT_TOML, DEFAULT_ORIGIN)
}

/// Reads what the user's file gives.
pub(super) fn from_file(
    path: &Path,
    defaults: &Map<String, Value>,
    given: &mut Given,
    mistakes: &mut Vec<Mistake>,
) {
    let origin = path.display().to_string();
    let table = std::fs::read_to_string(path)
        .map_err(|error| Mistake::of_file(&origin, format!("can't be read: {error}")))
        .and_then(|text| parse(&text, &origin));
    match table {
        Ok(table) => flatten(table, "", &origin, defaults, given, mistakes),
        Err(mistake) => mistakes.push(mistake),
    }
}

fn parse(text: &str, origin: &str) -> Result<Map<String, Value>, Mistake> {
    File::from_str(text, FileFormat::Toml)
        .collect()
        .map_err(|error| Mistake::of_file(origin, syntax_error(&error)))
}

/// Keeps the place and the reason, and leaves out the line itself, which may hold a secret.
fn syntax_error(error: &ConfigError) -> String {
    let cause = match error {
        ConfigError::FileParse { cause, .. } => cause.to_string(),
        other => other.to_string(),
    };
    let mut lines = cause.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or_default().trim();
    match lines.next_back() {
        Some(last) if !last.contains('|') => format!("{first}: {}", last.trim()),
        _ => first.to_owned(),
    }
}

/// Lists the settings of a file by their full names.
fn flatten(
    table: Map<String, Value>,
    prefix: &str,
    origin: &str,
    defaults: &Map<String, Value>,
    given: &mut Given,
    mistakes: &mut Vec<Mistake>,
) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match (find(defaults, &name), value.kind) {
            (None, _) => mistakes.push(Mistake::unknown(&name, origin, defaults)),
            (Some(Known::Section), ValueKind::Table(inner)) => {
                flatten(inner, &name, origin, defaults, given, mistakes);
            }
            (Some(Known::Section), _) => {
                mistakes.push(Mistake::new(&name, origin, "is a section, not a setting"));
            }
            (Some(Known::Setting), kind) => {
                given.insert(name, Value::new(Some(&origin.to_owned()), kind));
            }
        }
    }
}

/// Reads what the environment gives.
pub(super) fn from_environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
    defaults: &Map<String, Value>,
    given: &mut Given,
    mistakes: &mut Vec<Mistake>,
) {
    for (variable, text) in variables {
        let Some(variable) = variable.to_str().filter(|v| is_setting(v)) else { continue };
        let origin = format!("the environment variable {variable}");
        let name = variable[ENV_PREFIX.len()..].to_lowercase().replace("__", ".");
        let Some(text) = text.to_str() else {
            mistakes.push(Mistake::new(&name, &origin, "is not valid UTF-8"));
            continue;
        };
        match find(defaults, &name) {
            Some(Known::Setting) => {
                let value = value_from_environment(&name, text);
                given.insert(name, Value::new(Some(&origin), value));
            }
            Some(Known::Section) => {
                mistakes.push(Mistake::new(&name, &origin, "is a section, not a setting"));
            }
            None => mistakes.push(Mistake::unknown(&name, &origin, defaults)),
        }
    }
}

/// Takes a text as it is; tables are written as inline TOML tables.
fn value_from_environment(name: &str, text: &str) -> ValueKind {
    if WHOLE_TABLES.contains(&name)
        && let Ok(mut parsed) = parse(&format!("table = {text}"), "the environment")
        && let Some(table) = parsed.remove("table")
    {
        return table.kind;
    }
    ValueKind::String(text.to_owned())
}

fn is_setting(variable: &str) -> bool {
    variable.starts_with(ENV_PREFIX)
        && !NOT_SETTINGS.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(head) => variable.starts_with(head),
            None => variable == *pattern,
        })
}

enum Known {
    Section,
    Setting,
}

fn find(defaults: &Map<String, Value>, name: &str) -> Option<Known> {
    if WHOLE_TABLES.contains(&name) {
        return Some(Known::Setting);
    }
    let (head, rest) = name.split_once('.').map_or((name, None), |(h, r)| (h, Some(r)));
    match (&defaults.get(head)?.kind, rest) {
        // A name below a setting that happens to be a table is not a setting of its own.
        (ValueKind::Table(_), Some(_)) if WHOLE_TABLES.iter().any(|t| is_below(name, t)) => None,
        (ValueKind::Table(inner), Some(rest)) => find(inner, rest),
        (ValueKind::Table(_), None) => Some(Known::Section),
        (_, Some(_)) => None,
        (_, None) => Some(Known::Setting),
    }
}

fn is_below(name: &str, table: &str) -> bool {
    name.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'))
}

/// Lists the names of all settings.
pub(super) fn names(defaults: &Map<String, Value>) -> Vec<String> {
    fn walk(table: &Map<String, Value>, prefix: &str, names: &mut Vec<String>) {
        for (key, value) in table {
            let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match &value.kind {
                ValueKind::Table(inner) if !WHOLE_TABLES.contains(&name.as_str()) => {
                    walk(inner, &name, names);
                }
                _ => names.push(name),
            }
        }
    }
    let mut names = Vec::new();
    walk(defaults, "", &mut names);
    names.sort();
    names
}

/// Puts a setting into the tree of all settings.
pub(super) fn put(tree: &mut Map<String, Value>, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            tree.insert(name.to_owned(), value);
        }
        Some((head, rest)) => {
            if let Some(ValueKind::Table(inner)) = tree.get_mut(head).map(|v| &mut v.kind) {
                put(inner, rest, value);
            }
        }
    }
}

/// Takes a setting out of the tree of all settings.
pub(super) fn get<'a>(tree: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    match name.split_once('.') {
        None => tree.get(name),
        Some((head, rest)) => match &tree.get(head)?.kind {
            ValueKind::Table(inner) => get(inner, rest),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_explained() {
        let mut explained = false;
        let mut settings = 0;
        for line in DEFAULT_TOML.lines() {
            if line.starts_with('#') {
                explained = true;
            } else if line.contains('=') {
                assert!(explained, "{line} is not explained");
                // The entries of a table are explained together, in front of it.
                explained = line.starts_with("leader = ");
                settings += 1;
            }
        }
        let names = names(&defaults().expect("the defaults are TOML"));
        // One line for each setting, but two for the one that is a table.
        assert_eq!(settings, names.len() + 1, "{names:?}");
    }

    #[test]
    fn names_below_a_setting_that_is_a_table_are_no_settings() {
        let defaults = defaults().expect("the defaults are TOML");
        let known = |name| find(&defaults, name).is_some();
        assert!(known("series.guards") && known("series") && known("limits.point.labels"));
        assert!(!known("series.guards.leader") && !known("server.listen.port") && !known("x"));
    }

    #[test]
    fn variables_of_kubernetes_are_no_settings() {
        for variable in ["HOLDALL_PORT", "HOLDALL_PORT_80_TCP", "HOLDALL_SERVICE_HOST", "HOME"] {
            assert!(!is_setting(variable), "{variable}");
        }
        assert!(is_setting("HOLDALL_STORE__PATH") && is_setting("HOLDALL_STORE_PATH"));
    }
}
