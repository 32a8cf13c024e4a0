//! Every setting: read from its layers, checked as a whole, shown without its secrets.
//!
//! Not what the settings do. Invariant: a [`Config`] that exists is valid as a whole; where it
//! is not, *every* mistake is named at once, with its setting and where it was given.

mod check;
mod floors;
mod layers;
mod mistake;
mod secret;
pub mod sections;
mod show;
pub mod values;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use config::{Map, Value, ValueKind};
use serde::Deserialize;

pub use self::layers::DEFAULT_TOML;
pub use self::mistake::{Mistake, Mistakes};
pub use self::secret::Secret;

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The listener.
    pub server: sections::Server,
    /// How much requests may ask for.
    pub limits: sections::Limits,
    /// How long things may take.
    pub timeouts: sections::Timeouts,
    /// Who may do what.
    pub access: sections::Access,
    /// Where everything is kept.
    pub store: sections::Store,
    /// Series.
    pub series: sections::Series,
    /// Checkpoints.
    pub checkpoints: sections::Checkpoints,
    /// Generations.
    pub generations: sections::Generations,
    /// The cache.
    pub cache: sections::Cache,
    /// When buffered writes are brought to disk.
    pub flush: sections::Flush,
    /// When the pages of /metrics are renewed.
    pub refresh: sections::Periodic,
    /// When what has expired is removed.
    pub gc: sections::Periodic,
    /// The log.
    pub log: sections::Log,
}

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
/// All [`Mistakes`] that there are.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Loaded, Mistakes> {
    let defaults = layers::defaults().map_err(|mistake| Mistakes(vec![mistake]))?;
    let mut mistakes = Vec::new();
    let mut given = layers::Given::new();
    if let Some(path) = file {
        layers::from_file(path, &defaults, &mut given, &mut mistakes);
    }
    layers::from_environment(environment, &defaults, &mut given, &mut mistakes);

    let mut tree = defaults.clone();
    let mut bad = BTreeSet::new();
    for (name, value) in given {
        match try_alone(&defaults, &name, &value) {
            Ok(()) => layers::put(&mut tree, &name, value),
            Err(mistake) => {
                mistakes.push(mistake);
                bad.insert(name);
            }
        }
    }
    let config = from_tree(&tree).map_err(|error| {
        Mistakes(vec![Mistake::of_value("", "the settings together", &error, true)])
    });
    let config = match config {
        Ok(config) => check::check(config, &tree, &bad, &mut mistakes),
        Err(more) => return Err(more),
    };
    if mistakes.is_empty() {
        Ok(Loaded { config, tree })
    } else {
        mistakes.sort();
        Err(Mistakes(mistakes))
    }
}

/// Tries one setting on top of the defaults: so a mistake in one hides none in another.
fn try_alone(defaults: &Map<String, Value>, name: &str, value: &Value) -> Result<(), Mistake> {
    let mut tree = defaults.clone();
    layers::put(&mut tree, name, value.clone());
    from_tree(&tree).map(|_| ()).map_err(|error| {
        let origin = value.origin().unwrap_or_default();
        Mistake::of_value(name, origin, &error, show::is_secret(name))
    })
}

fn from_tree(tree: &Map<String, Value>) -> Result<Config, config::ConfigError> {
    Value::new(None, ValueKind::Table(tree.clone())).try_deserialize()
}
