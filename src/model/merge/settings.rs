//! How kinds are declared in the configuration: `kind = "hll"`, and the parameters of the kind beside it.
//!
//! The parameters differ from kind to kind, so they are read here and not by serde. Invariant: every error is named, with
//! the path of its setting, such as `of.kind`; a parameter that the kind does not have is an error.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::count::Count;
use super::extreme::{Extreme, FloatExtreme, IntegerExtreme};
use super::number::Number;
use super::sum::IntegerSum;
use super::{Any, Invalid};

/// The settings of a kind as they were written: a table with `kind` and its parameters. The settings of a pipeline can
/// hold it as `#[serde(flatten)]`, so that it takes what they do not name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct KindSettings(pub Map<String, Value>);

/// Makes the kind that the settings declare.
pub(super) fn parse(settings: &KindSettings) -> Result<Any, Invalid> {
    let mut errors = Vec::new();
    let kind = Table::new(&settings.0, "", &mut errors).kind();
    match kind {
        Some(kind) if errors.is_empty() => Ok(kind),
        _ => Err(Invalid::new(errors.join("; "))),
    }
}

const KINDS: &str = "sum, count, min, max";

/// One table of settings that is being read.
struct Table<'a> {
    settings: &'a Map<String, Value>,
    /// The names of the tables around this one, each with a dot behind it.
    path: &'a str,
    known: Vec<&'static str>,
    errors: &'a mut Vec<String>,
}

impl<'a> Table<'a> {
    fn new(settings: &'a Map<String, Value>, path: &'a str, errors: &'a mut Vec<String>) -> Self {
        Self { settings, path, known: Vec::new(), errors }
    }

    /// Reads the kind and its parameters; `None` after an error, which is noted.
    fn kind(mut self) -> Option<Any> {
        let name = self.get("kind").and_then(Value::as_str).unwrap_or_default();
        let kind = match name {
            "sum" => self.number().and_then(|number| match number {
                Number::Integer => Some(Any::IntegerSum(IntegerSum)),
                Number::Float => self.fail("number", "must be integer"),
            }),
            "count" => Some(Any::Count(Count)),
            "min" => self.extreme(Extreme::Min),
            "max" => self.extreme(Extreme::Max),
            _ => return self.fail("kind", &format!("must be one of {KINDS}")),
        };
        for unknown in self.settings.keys().filter(|key| !self.known.contains(&key.as_str())) {
            self.errors.push(format!("{}{unknown} is not a setting of a {name}", self.path));
        }
        kind
    }

    fn extreme(&mut self, extreme: Extreme) -> Option<Any> {
        Some(match self.number()? {
            Number::Integer => Any::IntegerExtreme(IntegerExtreme(extreme)),
            Number::Float => Any::FloatExtreme(FloatExtreme(extreme)),
        })
    }

    fn number(&mut self) -> Option<Number> {
        match self.get("number").map(Value::as_str) {
            None | Some(Some("integer")) => Some(Number::Integer),
            Some(Some("float")) => Some(Number::Float),
            Some(_) => self.fail("number", "must be integer or float"),
        }
    }

    fn get(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.settings.get(name)
    }

    /// Notes an error of a setting, as the end of a sentence whose subject is the setting.
    fn fail<T>(&mut self, name: &str, what: &str) -> Option<T> {
        self.errors.push(format!("{}{name} {what}", self.path));
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::merge::Kind;

    fn kind(settings: &Value) -> Result<String, String> {
        let settings = KindSettings::deserialize(settings).expect("a table");
        Kind::parse(&settings).map(|kind| kind.signature()).map_err(|error| error.0)
    }

    #[test]
    fn kinds_have_defaults_and_canonical_signatures() {
        for (settings, signature) in [
            (json!({"kind": "sum"}), "sum(integer)"),
            (json!({"kind": "count"}), "count"),
            (json!({"kind": "min", "number": "float"}), "min(float)"),
            (json!({"kind": "max", "number": "integer"}), "max(integer)"),
        ] {
            assert_eq!(kind(&settings), Ok(signature.to_owned()));
        }
    }

    #[test]
    fn all_errors_are_named() {
        let error = kind(&json!({"kind": "sum", "number": "real", "lg_k": 12, "window": 1}));
        let error = error.expect_err("three errors");
        for part in ["number must be", "lg_k is not a setting of a sum", "window is not"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(kind(&json!({})).is_err() && kind(&json!({"kind": 1})).is_err());
    }
}
