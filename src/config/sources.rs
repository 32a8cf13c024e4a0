//! The sources of settings: the defaults, the user's file, the environment.
//!
//! Knows where each setting was given, not what it means. Invariant: nothing that the user wrote is dropped
//! in silence; it becomes a setting or an error.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use config::{ConfigError, File, FileFormat, Map, Source, Value, ValueKind};

use super::error::SettingError;
use super::kubernetes;
use super::tree::{self, DEFAULT_ORIGIN, DEFAULT_TOML, Known, WHOLE_TABLES};

const ENV_PREFIX: &str = "HOLDALL_";
/// Begins like a setting, and names the file of settings.
const CONFIG_VARIABLE: &str = "HOLDALL_CONFIG";

/// The settings that a user gave, by their full name, with the value's origin in the value.
pub(super) type Given = BTreeMap<String, Value>;

/// Reads the defaults.
pub(super) fn defaults() -> Result<Map<String, Value>, SettingError> {
    parse(DEFAULT_TOML, DEFAULT_ORIGIN)
}

/// Reads what the user's file gives.
pub(super) fn from_file(
    path: &Path,
    defaults: &Map<String, Value>,
    given: &mut Given,
    errors: &mut Vec<SettingError>,
) {
    let origin = path.display().to_string();
    let table = std::fs::read_to_string(path)
        .map_err(|error| SettingError::of_file(&origin, format!("can't be read: {error}")))
        .and_then(|text| parse(&text, &origin));
    match table {
        Ok(table) => flatten(table, "", &origin, defaults, given, errors),
        Err(error) => errors.push(error),
    }
}

fn parse(text: &str, origin: &str) -> Result<Map<String, Value>, SettingError> {
    File::from_str(text, FileFormat::Toml)
        .collect()
        .map_err(|error| SettingError::of_file(origin, syntax_error(&error)))
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
    errors: &mut Vec<SettingError>,
) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match (tree::find(defaults, &name), value.kind) {
            (None, _) => errors.push(unknown(&name, origin, defaults)),
            (Some(Known::Section), ValueKind::Table(inner)) => {
                flatten(inner, &name, origin, defaults, given, errors);
            }
            (Some(Known::Section), _) => {
                errors.push(SettingError::new(&name, origin, "is a section, not a setting"));
            }
            (Some(Known::Declared), ValueKind::Table(inner)) if !inner.is_empty() => {
                flatten(inner, &name, origin, defaults, given, errors);
            }
            (Some(Known::Setting | Known::Declared), kind) => {
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
    errors: &mut Vec<SettingError>,
) {
    // Sorted, so that the same environment always leads to the same errors.
    let mut variables: Vec<_> = variables.collect();
    variables.sort();
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (variable, text) in variables {
        let Some(variable) = variable.to_str().filter(|v| v.starts_with(ENV_PREFIX)) else {
            continue;
        };
        if variable == CONFIG_VARIABLE || kubernetes::is_of_a_service(variable, &text) {
            continue;
        }
        let origin = format!("the environment variable {variable}");
        let name = variable[ENV_PREFIX.len()..].to_lowercase().replace("__", ".");
        let Some(text) = text.to_str() else {
            errors.push(SettingError::new(&name, &origin, "is not valid UTF-8"));
            continue;
        };
        if let Some(other) = seen.insert(name.clone(), variable.to_owned()) {
            errors.push(SettingError::new(&name, &origin, format!("is also given by {other}")));
            continue;
        }
        match tree::find(defaults, &name) {
            Some(Known::Setting | Known::Declared) => {
                if let Some(list) = given.get(&name).filter(|list| would_be_emptied(list, text)) {
                    let list = list.origin().unwrap_or(DEFAULT_ORIGIN);
                    let what = format!("is empty, and would discard the list of {list}");
                    errors.push(SettingError::new(&name, &origin, what));
                    continue;
                }
                let value = value_from_environment(&name, text);
                given.insert(name, Value::new(Some(&origin), value));
            }
            Some(Known::Section) => {
                errors.push(SettingError::new(&name, &origin, "is a section, not a setting"));
            }
            None => errors.push(unknown(&name, &origin, defaults)),
        }
    }
}

/// Returns whether this text of the environment would silently remove what a list of the file has, such as all access
/// tokens.
fn would_be_emptied(list: &Value, text: &str) -> bool {
    let blank = |text: &str| text.chars().all(|c| c.is_whitespace() || ",[]".contains(c));
    match &list.kind {
        ValueKind::Array(items) => !items.is_empty() && blank(text),
        ValueKind::Table(items) => !items.is_empty() && text.trim().is_empty(),
        _ => false,
    }
}

/// Takes a text as it is; tables are written as inline TOML tables. Settings that the user named may be any TOML, since
/// nothing says here which form they have: a text that is not TOML is taken as it is.
fn value_from_environment(name: &str, text: &str) -> ValueKind {
    let is_toml = WHOLE_TABLES.contains(&name) || tree::is_declared(name);
    if is_toml
        && let Ok(mut parsed) = parse(&format!("value = {text}"), "the environment")
        && let Some(value) = parsed.remove("value")
    {
        return value.kind;
    }
    ValueKind::String(text.to_owned())
}

/// Makes the error of a name that is no setting; names the setting that was probably meant.
fn unknown(setting: &str, origin: &str, defaults: &Map<String, Value>) -> SettingError {
    let meant = tree::names(defaults)
        .into_iter()
        .find(|known| known.replace('.', "_") == setting.replace('.', "_"))
        .map(|known| {
            let variable = known.to_uppercase().replace('.', "__");
            format!("; {known} is {ENV_PREFIX}{variable} in the environment")
        })
        .unwrap_or_default();
    SettingError::new(setting, origin, format!("is not a setting{meant}"))
}
