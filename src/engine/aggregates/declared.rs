//! `[pipelines.<name>]`: how pipelines are declared.
//!
//! Not the parameters of the kinds: these read their own. Invariant: every error of every declaration is reported, and
//! a setting that is not known, or not supported yet, is one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use config::{Map, Value, ValueKind};
use serde::Deserialize;

use super::export::{ExportSettings, shared_names};
use super::hooks;
use crate::model::hooks::Hook;
use crate::model::merge::{Kind, KindSettings};
use crate::model::pipelines::{MIN_GRANULARITY, Pipeline, PipelineName, Window};
use crate::model::settings::{self, Settings, Violations};
use crate::model::time::format_duration;

/// The most pipelines. Each has some metrics of its own.
const MAX_PIPELINES: usize = 256;

/// Settings of pipelines that this version does not support, each with what it would be.
const LATER: [(&str, &str); 2] =
    [("store", "a store of its own"), ("cache", "a cache in front of the store")];

/// `[pipelines]`: a table for each pipeline, and the pipelines once these are checked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "BTreeMap<String, Value>")]
pub struct PipelineSettings {
    given: BTreeMap<String, Value>,
    declared: Vec<Declaration>,
}

/// A pipeline as it was declared.
#[derive(Debug, Clone)]
pub struct Declaration {
    /// The pipeline.
    pub pipeline: Arc<Pipeline>,
    /// How its values are shown on /metrics, if they are.
    pub export: Option<ExportSettings>,
}

impl From<BTreeMap<String, Value>> for PipelineSettings {
    fn from(given: BTreeMap<String, Value>) -> Self {
        Self { given, declared: Vec::new() }
    }
}

impl PipelineSettings {
    /// The settings whose values are secrets. The name of a pipeline stands where the `*` is.
    pub const SECRETS: &[&str] = &["pipelines.*.hook.secret"];

    /// Returns the pipelines, sorted by name; none before the settings were checked.
    pub fn declared(&self) -> &[Declaration] {
        &self.declared
    }

    /// Declares pipelines by TOML text, for tests.
    #[cfg(test)]
    pub(crate) fn of_toml(text: &str) -> Self {
        use config::{File, FileFormat, Source as _};
        let given = File::from_str(text, FileFormat::Toml).collect().expect("TOML");
        let mut settings = Self::from(given.into_iter().collect::<BTreeMap<_, _>>());
        let mut violations = Violations::default();
        settings.check(&mut violations);
        assert!(violations.into_iter().next().is_none(), "a pipeline is not valid");
        settings
    }
}

impl Settings for PipelineSettings {
    fn check(&mut self, violations: &mut Violations) {
        violations.require(self.given.len() <= MAX_PIPELINES, &["pipelines"], || {
            format!("has more than {MAX_PIPELINES} pipelines")
        });
        let declared =
            self.given.iter().filter_map(|(name, given)| declare(name, given, violations));
        self.declared = declared.collect();
        let exports = self.declared.iter().filter_map(|declaration| {
            Some((declaration.pipeline.name.as_str(), declaration.export.as_ref()?))
        });
        for (name, pipelines) in shared_names(exports) {
            let settings = pipelines.iter().map(|pipeline| format!("pipelines.{pipeline}.export"));
            let what = format!("would both have the series {name} on /metrics");
            violations.report(settings.collect::<Vec<_>>().join(", "), what);
        }
    }
}

/// Makes a pipeline; `None` after errors, which are reported.
fn declare(name: &str, given: &Value, violations: &mut Violations) -> Option<Declaration> {
    let setting = format!("pipelines.{name}");
    let ValueKind::Table(table) = given.kind.clone() else {
        violations.report(setting, "is not a table of settings");
        return None;
    };
    let mut reader = Reader { setting, table, violations, failed: false };
    let name = PipelineName::parse(name).map_err(|why| reader.fail("", why.0)).ok();
    for (key, what) in LATER {
        if reader.table.remove(key).is_some() {
            reader.fail(key, format!("is not supported yet: pipelines can't have {what}"));
        }
    }
    let window = reader.window();
    let dedup = reader.duration("dedup");
    let hook = reader.hook();
    let export = reader.table.remove("export");
    let kind = reader.kind();
    let export = export.and_then(|export| reader.export(export, kind.as_ref(), window));
    if reader.failed {
        return None;
    }
    let pipeline = Arc::new(Pipeline { name: name?, kind: kind?, window, dedup, hook });
    Some(Declaration { pipeline, export })
}

/// The settings of one pipeline that are not read yet.
struct Reader<'a> {
    /// The name of the table.
    setting: String,
    table: Map<String, Value>,
    violations: &'a mut Violations,
    failed: bool,
}

impl Reader<'_> {
    /// Reports an error of the setting `key`, or of the table as a whole.
    fn fail(&mut self, key: &str, what: String) {
        let setting = match key {
            "" => self.setting.clone(),
            key => format!("{}.{key}", self.setting),
        };
        self.violations.report(setting, what);
        self.failed = true;
    }

    fn duration(&mut self, key: &str) -> Option<Duration> {
        match settings::duration(self.table.remove(key)?) {
            Ok(duration) => Some(duration),
            Err(config::ConfigError::Message(why)) => {
                self.fail(key, why);
                None
            }
            Err(_) => {
                self.fail(key, "not a duration such as \"1h\"".to_owned());
                None
            }
        }
    }

    fn window(&mut self) -> Option<Window> {
        let given = |key| self.table.contains_key(key);
        let (windowed, retained) = (given("window"), given("retention"));
        let (granularity, retention) = (self.duration("window"), self.duration("retention"));
        if windowed && !retained {
            self.fail("retention", "is missing: how long a bucket lives after its end".to_owned());
        }
        if retained && !windowed {
            self.fail("retention", "needs window: other values end only with a ttl".to_owned());
        }
        if granularity.is_some_and(|granularity| granularity < MIN_GRANULARITY) {
            let shortest = format_duration(MIN_GRANULARITY);
            self.fail("window", format!("must not be shorter than {shortest}"));
        }
        Some(Window { granularity: granularity?, retention: retention? })
    }

    fn hook(&mut self) -> Option<Hook> {
        let errors = match hooks::settings::read(self.table.remove("hook")?) {
            Ok(Hook { webhook: Some(_), .. }) => {
                vec![("url", "is not supported yet: hooks can have a stream".to_owned())]
            }
            Ok(hook) => return Some(hook),
            Err(errors) => errors,
        };
        for (key, what) in errors {
            let key = if key.is_empty() { "hook".to_owned() } else { format!("hook.{key}") };
            self.fail(&key, what);
        }
        None
    }

    fn export(
        &mut self,
        export: Value,
        kind: Option<&Kind>,
        window: Option<Window>,
    ) -> Option<ExportSettings> {
        if window.is_some() {
            let why =
                "is for pipelines without window: a series has one value, not one for each bucket";
            self.fail("export", why.to_owned());
        }
        match ExportSettings::read(export, kind?) {
            Ok(export) => Some(export),
            Err(errors) => {
                for (setting, what) in errors {
                    let setting = format!("export.{setting}");
                    self.fail(setting.trim_end_matches('.'), what);
                }
                None
            }
        }
    }

    /// Reads what is left: the kind and its parameters.
    fn kind(&mut self) -> Option<Kind> {
        let table = std::mem::take(&mut self.table);
        let kind = Value::new(None, ValueKind::Table(table))
            .try_deserialize::<KindSettings>()
            .map_err(|error| error.to_string())
            .and_then(|settings| Kind::parse(&settings).map_err(|why| why.0));
        kind.map_err(|why| self.fail("", why)).ok()
    }
}

#[cfg(test)]
mod tests {
    use config::{File, FileFormat, Source as _};

    use super::*;

    fn check(text: &str) -> (PipelineSettings, Vec<String>) {
        let given = File::from_str(text, FileFormat::Toml).collect().expect("TOML");
        let mut settings = PipelineSettings::from(given.into_iter().collect::<BTreeMap<_, _>>());
        let mut violations = Violations::default();
        settings.check(&mut violations);
        let shown = violations.into_iter().map(|v| format!("{}: {}", v.settings[0], v.what));
        (settings, shown.collect())
    }

    #[test]
    fn a_pipeline_is_its_kind_with_a_window_and_a_period_of_deduplication() {
        let (settings, errors) = check(
            "[views]\nkind = \"sum\"\nwindow = \"1h\"\nretention = \"7days\"\ndedup = \"24h\"\n\
             [total]\nkind = \"count\"\n",
        );
        assert_eq!(errors, [""; 0]);
        let [total, views] = settings.declared() else { panic!("two pipelines") };
        let hour = Duration::from_secs(3600);
        let (total, views) = (&total.pipeline, &views.pipeline);
        let window = Window { granularity: hour, retention: 7 * 24 * hour };
        assert_eq!((views.window, views.dedup), (Some(window), Some(24 * hour)));
        assert_eq!((total.window, total.dedup), (None, None));
        assert_eq!(views.signature(), "sum(integer); window=1h");
        assert_eq!(total.signature(), "count");
    }

    #[test]
    fn all_errors_of_all_pipelines_are_reported() {
        let (settings, errors) = check(
            "loose = 1\n\
             [Views]\nkind = \"sum\"\n\
             [a]\nkind = \"sun\"\nwindow = \"1ms\"\ndedup = \"soon\"\nhook = \"http://x\"\n\
             [b]\nkind = \"sum\"\nretention = \"1h\"\nwindows = \"1h\"\n",
        );
        assert!(settings.declared().is_empty());
        for part in [
            "pipelines.loose: is not a table",
            "pipelines.Views: the name of a pipeline is",
            "pipelines.a: kind must be one of",
            "pipelines.a.window: must not be shorter than 1s",
            "pipelines.a.retention: is missing",
            "pipelines.a.dedup: not a duration",
            "pipelines.a.hook: is not a table of settings",
            "pipelines.b.retention: needs window",
            "pipelines.b: windows is not a setting",
        ] {
            assert!(errors.iter().any(|error| error.starts_with(part)), "{part}: {errors:#?}");
        }
        assert_eq!(errors.len(), 9, "{errors:#?}");
    }

    #[test]
    fn the_number_of_pipelines_is_bounded() {
        let table = |n| format!("[p{n}]\nkind = \"sum\"\n");
        let text: String = (0..=MAX_PIPELINES).map(table).collect();
        assert_eq!(check(&text).1, ["pipelines: has more than 256 pipelines"]);
    }
}
