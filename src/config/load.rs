//! Loads the configuration: the defaults, then the file, then the environment.
//!
//! Invariant: an error in one setting hides none in another.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use config::{Map, Value};

use super::composed::Config;
use super::error::{SettingError, SettingErrors};
use super::sources::{self, Given};
use super::{check, show, tree};
use crate::model::settings::Violations;

/// A configuration and where its settings came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    tree: Map<String, Value>,
}

impl Loaded {
    /// Prints every setting with its value and origin, without secrets.
    pub fn show(&self) -> String {
        show::show(&self.tree)
    }
}

/// Reads the defaults, then `file`, then the environment, and checks the whole.
///
/// # Errors
/// All [`SettingErrors`] that there are.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Loaded, SettingErrors> {
    let defaults = sources::defaults().map_err(|error| SettingErrors(vec![error]))?;
    let mut errors = Vec::new();
    let mut given = Given::new();
    if let Some(path) = file {
        sources::from_file(path, &defaults, &mut given, &mut errors);
    }
    sources::from_environment(environment, &defaults, &mut given, &mut errors);

    // A setting that can't be read keeps its default here, so that the rest can be checked as well.
    let mut tree = defaults.clone();
    let mut unreadable = BTreeSet::new();
    for (name, value) in given {
        let origin = value.origin().unwrap_or_default().to_owned();
        let readable = try_alone(&defaults, &name, &value).and_then(|()| {
            let put = tree::put(&mut tree, &name, value);
            put.map_err(|what| SettingError::new(&name, &origin, what))
        });
        match readable {
            Ok(()) => {}
            Err(error) => {
                errors.push(error);
                unreadable.insert(name);
            }
        }
    }
    // Can't fail: each setting could be read alone, and reading one does not depend on another.
    let mut config = Config::read(&tree).map_err(|error| {
        SettingErrors(vec![SettingError::of_value("", "all settings", &error, true)])
    })?;
    errors.extend(with_origins(check::check(&mut config), &tree, &unreadable));
    if errors.is_empty() {
        Ok(Loaded { config, tree })
    } else {
        errors.sort();
        Err(SettingErrors(errors))
    }
}

/// Tries one setting on top of the defaults.
fn try_alone(defaults: &Map<String, Value>, name: &str, value: &Value) -> Result<(), SettingError> {
    let origin = value.origin().unwrap_or_default();
    let mut tree = defaults.clone();
    tree::put(&mut tree, name, value.clone())
        .map_err(|what| SettingError::new(name, origin, what))?;
    Config::read(&tree)
        .map(|_| ())
        .map_err(|error| SettingError::of_value(name, origin, &error, show::holds_secrets(name)))
}

/// Adds to each violation where its first setting was given. Leaves out the rules about settings that
/// could not be read: what they were checked with is the default.
fn with_origins(
    violations: Violations,
    tree: &Map<String, Value>,
    unreadable: &BTreeSet<String>,
) -> impl Iterator<Item = SettingError> {
    violations.into_iter().filter_map(|violation| {
        let setting = violation.settings.first()?;
        let about_unreadable =
            violation.settings.iter().any(|name| unreadable.contains(name.as_ref()));
        let origin = tree::origin(tree, setting);
        (!about_unreadable).then(|| SettingError::new(setting, origin, &*violation.what))
    })
}

#[cfg(test)]
mod tests {
    use config::ValueKind;

    use super::*;

    /// Takes the place of `deny_unknown_fields`, since several structs read one section.
    #[test]
    fn every_setting_is_read_by_a_layer() {
        let defaults = sources::defaults().expect("the defaults are TOML");
        for name in tree::names(&defaults) {
            // No form of a value is a table, but that of the one setting that is a table.
            let unreadable = match tree::get(&defaults, &name).map(|value| &value.kind) {
                Some(ValueKind::Table(_)) => ValueKind::Boolean(true),
                _ => ValueKind::Table(Map::new()),
            };
            let value = Value::new(None, unreadable);
            assert!(try_alone(&defaults, &name, &value).is_err(), "nothing reads {name}");
        }
    }

    #[test]
    fn no_value_is_converted_into_another_one() {
        let defaults = sources::defaults().expect("the defaults are TOML");
        let is_read =
            |name: &str, kind| try_alone(&defaults, name, &Value::new(None, kind)).is_ok();
        let mut numbers = 0;
        for name in tree::names(&defaults) {
            match tree::get(&defaults, &name).map(|value| &value.kind) {
                Some(ValueKind::I64(_)) => {
                    numbers += 1;
                    assert!(!is_read(&name, ValueKind::Float(1.7)), "{name} = 1.7");
                    assert!(!is_read(&name, ValueKind::Boolean(true)), "{name} = true");
                }
                Some(ValueKind::Boolean(_)) => {
                    assert!(!is_read(&name, ValueKind::I64(1)), "{name} = 1");
                }
                _ => {}
            }
        }
        assert!(numbers > 10, "{numbers}");
    }

    #[test]
    fn the_defaults_are_valid() {
        assert!(load(None, std::iter::empty()).is_ok());
    }
}
