//! How kinds are declared in the configuration: `kind = "hll"`, and the parameters of the kind beside it.
//!
//! The parameters differ from kind to kind, so they are read here and not by serde. Invariant: every error is named, with
//! the path of its setting, such as `of.kind`; a parameter that the kind does not have is an error.

use std::ops::RangeInclusive;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::bloom::Bloom;
use super::count::Count;
use super::decayed::DecayedSum;
use super::extreme::{Extreme, FloatExtreme, IntegerExtreme};
use super::hll::Hll;
use super::map::MapOf;
use super::quantiles::{Quantiles, Scale};
use super::set::Set;
use super::sum::{FloatSum, IntegerSum};
use super::timed::{End, Timed};
use super::topk::TopK;
use super::tuple::Tuple;
use super::{Any, Invalid};
use crate::model::time::parse_ttl;

/// The settings of a kind as they were written: a table with `kind` and its parameters. The settings of a pipeline can
/// hold it as `#[serde(flatten)]`, so that it takes what they do not name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct KindSettings(pub Map<String, Value>);

/// Makes the kind that the settings declare.
pub(super) fn parse(settings: &KindSettings) -> Result<Any, Invalid> {
    let mut errors = Vec::new();
    let (settings, known) = (&settings.0, Vec::new());
    let table = Table { settings, path: String::new(), depth: 1, known, errors: &mut errors };
    let kind = table.kind();
    if let Some(kind) = &kind
        && kind.max_bytes() > MAX_STATE_BYTES
    {
        errors.push(format!(
            "one value could take {} bytes, more than {MAX_STATE_BYTES}: choose smaller limits",
            kind.max_bytes()
        ));
    }
    match kind {
        Some(kind) if errors.is_empty() => Ok(kind),
        _ => Err(Invalid::new(errors.join("; "))),
    }
}

/// The names of all kinds.
pub(super) const KINDS: &str =
    "sum, count, min, max, first, last, set, hll, topk, bloom, decayed_sum, quantiles, map, tuple";

/// The most that one value may take. What is larger is better kept under several entities.
const MAX_STATE_BYTES: usize = 16 << 20;

/// How deep maps and tuples can be in one another.
const MAX_DEPTH: usize = 3;

/// One table of settings that is being read.
struct Table<'a> {
    settings: &'a Map<String, Value>,
    /// The names of the tables around this one, each with a dot behind it.
    path: String,
    depth: usize,
    known: Vec<&'static str>,
    errors: &'a mut Vec<String>,
}

impl<'a> Table<'a> {
    /// Reads the kind and its parameters; `None` after an error, which is noted.
    fn kind(mut self) -> Option<Any> {
        let name = self.get("kind").and_then(Value::as_str).unwrap_or_default();
        let kind = match name {
            "sum" => self.by_number(Any::IntegerSum(IntegerSum), Any::FloatSum(FloatSum)),
            "count" => Some(Any::Count(Count)),
            "min" => self.extreme(Extreme::Min),
            "max" => self.extreme(Extreme::Max),
            "first" => self.timed(End::First),
            "last" => self.timed(End::Last),
            "set" => self.set(),
            "hll" => self.hll(),
            "topk" => self.topk(),
            "bloom" => self.bloom(),
            "decayed_sum" => self.decayed_sum(),
            "quantiles" => self.quantiles(),
            "map" => self.map(),
            "tuple" => self.tuple(),
            _ => return self.fail("kind", &format!("must be one of {KINDS}")),
        };
        for unknown in self.settings.keys().filter(|key| !self.known.contains(&key.as_str())) {
            self.errors.push(format!("{}{unknown} is not a setting of the kind {name}", self.path));
        }
        kind
    }

    fn extreme(&mut self, extreme: Extreme) -> Option<Any> {
        let integer = Any::IntegerExtreme(IntegerExtreme(extreme));
        self.by_number(integer, Any::FloatExtreme(FloatExtreme(extreme)))
    }

    fn by_number(&mut self, integer: Any, float: Any) -> Option<Any> {
        match self.get("number").map(Value::as_str) {
            None | Some(Some("integer")) => Some(integer),
            Some(Some("float")) => Some(float),
            Some(_) => self.fail("number", "must be integer or float"),
        }
    }

    fn timed(&mut self, end: End) -> Option<Any> {
        let max_value_bytes = self.size("max_value_bytes", 1 << 10, 1..=1 << 16)?;
        Some(Any::Timed(Timed { end, max_value_bytes }))
    }

    fn set(&mut self) -> Option<Any> {
        let max_items = self.size("max_items", 1_000, 1..=100_000);
        let max_bytes = self.size("max_bytes", 1 << 16, 1..=1 << 22);
        Some(Any::Set(Set { max_items: max_items?, max_bytes: max_bytes? }))
    }

    fn hll(&mut self) -> Option<Any> {
        let lg_k = self.whole("lg_k", 12, Hll::LG_K)?;
        Some(Any::Hll(Hll { lg_k: u8::try_from(lg_k).ok()? }))
    }

    fn topk(&mut self) -> Option<Any> {
        let k = self.size("k", 10, 1..=1_000);
        // Many more counters than are shown: with as many, all but the first ranks would be noise.
        let default = (16 * k.unwrap_or(1)).next_power_of_two().max(1_024);
        let map_size = self.size("map_size", default, 8..=1 << 20);
        let (k, map_size) = (k?, map_size?);
        if !map_size.is_power_of_two() || map_size < 4 * k {
            return self.fail("map_size", "must be a power of two, and at least 4 k");
        }
        let lg_map_size = u8::try_from(map_size.trailing_zeros()).ok()?;
        Some(Any::TopK(TopK { k, lg_map_size }))
    }

    fn bloom(&mut self) -> Option<Any> {
        let capacity = self.whole("capacity", 0, 1..=100_000_000);
        let rate = self.float("false_positive_rate", 0.01, 1e-9, 0.5);
        let seed = self.whole("seed", 9_001, 0..=i64::MAX);
        let [capacity, seed] = [capacity, seed].map(|number| u64::try_from(number?).ok());
        Some(Any::Bloom(Bloom::new(capacity?, rate?, seed?)))
    }

    fn decayed_sum(&mut self) -> Option<Any> {
        let Some(half_life) = self.get("half_life") else {
            return self.fail("half_life", "is missing");
        };
        match half_life.as_str().map(parse_ttl) {
            Some(Ok(half_life)) => Some(Any::DecayedSum(DecayedSum { half_life })),
            _ => self.fail("half_life", "must be a duration longer than zero, such as \"1h\""),
        }
    }

    fn quantiles(&mut self) -> Option<Any> {
        let accuracy = self.float("relative_accuracy", 0.01, 1e-4, 0.25);
        let max_bins = self.whole("max_bins", 2_048, 128..=65_536);
        let shown = match self.get("quantiles") {
            None => Some(vec![0.5, 0.9, 0.95, 0.99]),
            Some(list) => self.shares(list),
        };
        let scale = Scale::new(accuracy?, i32::try_from(max_bins?).ok()?);
        Some(Any::Quantiles(Quantiles { scale, shown: shown? }))
    }

    fn shares(&mut self, list: &Value) -> Option<Vec<f64>> {
        let share = |item: &Value| item.as_f64().filter(|share| (0.0..=1.0).contains(share));
        let shares = list.as_array().and_then(|list| list.iter().map(share).collect());
        match shares {
            Some(shares) if list.as_array().is_some_and(|list| list.len() <= 100) => Some(shares),
            _ => self.fail("quantiles", "must be a list of at most 100 numbers from 0 to 1"),
        }
    }

    fn map(&mut self) -> Option<Any> {
        let of = match self.get("of") {
            Some(Value::Object(of)) => self.inner(of, "of"),
            _ => self.fail("of", "must be a table with the kind of the values"),
        };
        // Of large values there are fewer, unless somebody asks for more.
        let fitting = of.as_ref().map_or(1, |of| MapOf::keys_within(of, MAX_STATE_BYTES));
        let max_keys = self.size("max_keys", fitting.clamp(1, 1_000), 1..=100_000);
        Some(Any::MapOf(MapOf { of: Box::new(of?), max_keys: max_keys? }))
    }

    fn tuple(&mut self) -> Option<Any> {
        let fields = match self.get("fields") {
            Some(Value::Object(fields)) if (1..=64).contains(&fields.len()) => fields,
            _ => return self.fail("fields", "must be a table of 1 to 64 fields with their kinds"),
        };
        let mut kinds = Vec::with_capacity(fields.len());
        for (name, kind) in fields {
            let field = format!("fields.{name}");
            kinds.push(match kind {
                Value::Object(kind) => self.inner(kind, &field).map(|kind| (name.clone(), kind)),
                _ => self.fail(&field, "must be a table with a kind"),
            });
        }
        let mut fields: Vec<_> = kinds.into_iter().collect::<Option<_>>()?;
        fields.sort_by(|(one, _), (other, _): &(String, _)| one.cmp(other));
        Some(Any::Tuple(Tuple { fields }))
    }

    /// Reads a kind inside of this one.
    fn inner(&mut self, settings: &Map<String, Value>, name: &str) -> Option<Any> {
        if self.depth == MAX_DEPTH {
            return self.fail(name, "is too deep");
        }
        let path = format!("{}{name}.", self.path);
        let errors = &mut *self.errors;
        Table { settings, path, depth: self.depth + 1, known: Vec::new(), errors }.kind()
    }

    /// Reads a whole number, also from a text: the environment knows nothing else.
    fn whole(
        &mut self,
        name: &'static str,
        default: i64,
        range: RangeInclusive<i64>,
    ) -> Option<i64> {
        let number = match self.get(name) {
            None => Some(default),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(number) => number.as_i64(),
        };
        match number {
            Some(number) if range.contains(&number) => Some(number),
            _ => self.fail(name, &format!("must be from {} to {}", range.start(), range.end())),
        }
    }

    fn size(
        &mut self,
        name: &'static str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Option<usize> {
        let wide = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        let number = self.whole(name, wide(default), wide(*range.start())..=wide(*range.end()))?;
        usize::try_from(number).ok()
    }

    fn float(&mut self, name: &'static str, default: f64, least: f64, most: f64) -> Option<f64> {
        let number = match self.get(name) {
            None => Some(default),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(number) => number.as_f64(),
        };
        match number {
            Some(number) if (least..=most).contains(&number) => Some(number),
            _ => self.fail(name, &format!("must be from {least} to {most}")),
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
            (json!({"kind": "sum", "number": "float"}), "sum(float)"),
            (json!({"kind": "hll"}), "hll(lg_k=12)"),
            (json!({"kind": "hll", "lg_k": " 14 "}), "hll(lg_k=14)"),
            (json!({"kind": "topk", "k": 5}), "topk(map_size=1024)"),
            (json!({"kind": "bloom", "capacity": 100}), "bloom(bits=960,hashes=7,seed=9001)"),
            (json!({"kind": "decayed_sum", "half_life": "90m"}), "decayed_sum(half_life=1h30m)"),
            (
                json!({"kind": "quantiles", "relative_accuracy": "0.02"}),
                "quantiles(relative_accuracy=0.02,max_bins=2048)",
            ),
            // What only limits a value, or how much of it is shown, does not change what it means.
            (json!({"kind": "set", "max_items": 7}), "set"),
            (json!({"kind": "last", "max_value_bytes": 7}), "last"),
            (json!({"kind": "map", "of": {"kind": "min"}, "max_keys": 7}), "map(min(integer))"),
            (
                json!({"kind": "tuple", "fields": {"b": {"kind": "count"}, "a": {"kind": "first"}}}),
                "tuple(a=first,b=count)",
            ),
        ] {
            assert_eq!(kind(&settings), Ok(signature.to_owned()));
        }
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        for settings in [
            json!({"kind": "topk", "k": 100, "map_size": 256}),
            json!({"kind": "topk", "map_size": 1000}),
            json!({"kind": "bloom"}),
            json!({"kind": "bloom", "capacity": 100, "false_positive_rate": 0.0}),
            json!({"kind": "decayed_sum"}),
            json!({"kind": "decayed_sum", "half_life": "0s"}),
            json!({"kind": "quantiles", "quantiles": [0.5, 1.5]}),
            json!({"kind": "quantiles", "relative_accuracy": 0}),
            json!({"kind": "set", "max_items": 0}),
            json!({"kind": "map"}),
            json!({"kind": "tuple", "fields": {}}),
        ] {
            assert!(kind(&settings).is_err(), "{settings}");
        }
    }

    #[test]
    fn a_kind_is_bounded_in_depth_and_bytes() {
        let map = |of: Value| json!({"kind": "map", "of": of, "max_keys": 1_000});
        assert!(kind(&map(map(json!({"kind": "sum"})))).is_err(), "1000 maps of 1000 keys");
        let map = |of: Value| json!({"kind": "map", "of": of, "max_keys": 2});
        let two = map(map(json!({"kind": "sum"})));
        assert!(kind(&two).is_ok());
        let error = kind(&map(two)).expect_err("three maps and a sum");
        assert!(error.contains("of.of.of is too deep"), "{error}");
        let error = kind(&json!({"kind": "bloom", "capacity": 100_000_000})).expect_err("114 MiB");
        assert!(error.contains("choose smaller limits"), "{error}");
    }

    #[test]
    fn a_map_has_by_default_as_many_keys_as_fit_and_at_most_a_thousand() {
        let max_keys = |of: Value| {
            let settings = KindSettings::deserialize(json!({"kind": "map", "of": of}));
            match parse(&settings.expect("a table")) {
                Ok(Any::MapOf(map)) => map.max_keys,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(max_keys(json!({"kind": "sum"})), 1_000);
        for of in [
            json!({"kind": "topk"}),
            json!({"kind": "topk", "k": 100}),
            json!({"kind": "hll", "lg_k": 14}),
            json!({"kind": "map", "of": {"kind": "sum"}}),
            json!({"kind": "bloom", "capacity": 10_000_000}),
        ] {
            let keys = max_keys(of.clone());
            assert!((1..1_000).contains(&keys), "{keys} of {of}");
            let one_more = json!({"kind": "map", "of": of, "max_keys": keys + 1});
            assert!(kind(&one_more).is_err(), "{one_more}");
        }
        let huge = json!({"kind": "bloom", "capacity": 100_000_000});
        assert!(kind(&json!({"kind": "map", "of": huge})).is_err());
        // The default leaves no room for anything beside the map.
        let tuple = |map: Value| json!({"kind": "tuple", "fields": {"a": map, "b": map}});
        let map = json!({"kind": "map", "of": {"kind": "topk"}});
        let small = json!({"kind": "map", "of": {"kind": "topk"}, "max_keys": 10});
        assert!(kind(&tuple(map)).expect_err("too large").contains("choose smaller limits"));
        assert!(kind(&tuple(small)).is_ok());
    }

    #[test]
    fn all_errors_are_named() {
        let error = kind(&json!({"kind": "sum", "number": "real", "lg_k": 12, "window": 1}));
        let error = error.expect_err("three errors");
        for part in ["number must be", "lg_k is not a setting of the kind sum", "window is not"] {
            assert!(error.contains(part), "{error}");
        }
        let fields = json!({"a": {"kind": "summ"}, "b": {"kind": "hll", "lg_k": 22}, "c": 1});
        let error = kind(&json!({"kind": "map", "of": {"kind": "tuple", "fields": fields}}));
        let error = error.expect_err("three errors");
        for part in
            ["of.fields.a.kind must be", "of.fields.b.lg_k must be from 4 to 21", "of.fields.c"]
        {
            assert!(error.contains(part), "{error}");
        }
        // A parameter that is wrong does not make the others unknown.
        let error = kind(&json!({"kind": "topk", "k": 0, "map_size": 7})).expect_err("two errors");
        for part in ["k must be from 1", "map_size must be from 8"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains("is not a setting"), "{error}");
        assert!(kind(&json!({})).is_err() && kind(&json!({"kind": 1})).is_err());
    }
}
