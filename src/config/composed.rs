//! The settings of all layers, as one.
//!
//! Not how they are read and checked: each layer says that for its own. A new resource adds its settings to
//! the list of its layer ([`StoreSettings`], [`EngineSettings`]), a new layer one line to each list here.

use config::{ConfigError, Map, Value, ValueKind};
use serde::de::DeserializeOwned;

use super::log::LogSettings;
use super::tree;
use crate::engine::EngineSettings;
use crate::engine::aggregates::PipelineSettings;
use crate::exposition::ExpositionSettings;
use crate::http::{AccessSettings, HttpSettings};
use crate::model::settings::Settings;
use crate::store::StoreSettings;
use crate::store::backends::BackendSettings;
use crate::store::redis::RedisSettings;

/// The settings whose values are secrets, by their full names; a `*` stands for one part of any name.
pub(super) const SECRETS: [&[&str]; 3] =
    [AccessSettings::SECRETS, RedisSettings::SECRETS, PipelineSettings::SECRETS];

/// All settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which store is used, and the settings of each backend.
    pub backend: BackendSettings,
    /// What all backends have in common.
    pub store: StoreSettings,
    /// The rules.
    pub engine: EngineSettings,
    /// The pages of /metrics.
    pub exposition: ExpositionSettings,
    /// The listener, limits, timeouts and access.
    pub http: HttpSettings,
    /// The log.
    pub log: LogSettings,
}

impl Config {
    /// Reads the settings of each layer from the tree of all settings.
    ///
    /// # Errors
    /// The first setting that can't be read.
    pub(super) fn read(tree: &Map<String, Value>) -> Result<Self, ConfigError> {
        Ok(Self {
            backend: section(tree, "store")?,
            store: all_sections(tree)?,
            engine: all_sections(tree)?,
            exposition: all_sections(tree)?,
            http: all_sections(tree)?,
            log: section(tree, "log")?,
        })
    }

    /// Returns the settings of each layer, which checks its own.
    pub(super) fn layers(&mut self) -> [&mut dyn Settings; 6] {
        [
            &mut self.backend,
            &mut self.store,
            &mut self.engine,
            &mut self.exposition,
            &mut self.http,
            &mut self.log,
        ]
    }
}

/// Reads settings that have a field for each of their sections; they ignore the other sections.
fn all_sections<T: DeserializeOwned>(tree: &Map<String, Value>) -> Result<T, ConfigError> {
    Value::new(None, ValueKind::Table(tree.clone())).try_deserialize()
}

/// Reads settings that are one section.
fn section<T: DeserializeOwned>(tree: &Map<String, Value>, name: &str) -> Result<T, ConfigError> {
    let section = tree::get(tree, name).ok_or_else(|| ConfigError::NotFound(name.to_owned()))?;
    section.clone().try_deserialize()
}
