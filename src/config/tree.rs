//! The tree of all settings: which there are, and where a value stands in it.
//!
//! Which settings exist is said by `default.toml` alone. Invariant: a name is a section or a setting, never
//! both.

use config::{Map, Value, ValueKind};

/// The defaults, and the documentation of every setting.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// Tables whose entries the user names: what is below them is declared by whoever writes it, and checked by the layer
/// that reads it.
const OPEN_TABLES: [&str; 1] = ["pipelines"];

/// Tables that are one setting each, replaced as a whole.
pub(super) const WHOLE_TABLES: [&str; 1] = ["series.guards"];

/// The origin of a setting that was not given.
pub(super) const DEFAULT_ORIGIN: &str = "the defaults";

/// What a name stands for.
pub(super) enum Known {
    /// A table of settings.
    Section,
    /// A setting.
    Setting,
    /// A setting, or a table of settings, that the user named.
    Declared,
}

/// Returns what `name` stands for; `None` where there is no such setting.
pub(super) fn find(defaults: &Map<String, Value>, name: &str) -> Option<Known> {
    if WHOLE_TABLES.contains(&name) {
        return Some(Known::Setting);
    }
    if is_declared(name) {
        return Some(Known::Declared);
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

/// Returns whether a name is in a table whose entries the user names.
pub(super) fn is_declared(name: &str) -> bool {
    OPEN_TABLES.iter().any(|table| is_below(name, table))
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

/// Puts a setting into the tree of all settings, with the tables that it is in.
///
/// # Errors
/// When one of these tables is a setting with a value already.
pub(super) fn put(tree: &mut Map<String, Value>, name: &str, value: Value) -> Result<(), String> {
    let Some((head, rest)) = name.split_once('.') else {
        tree.insert(name.to_owned(), value);
        return Ok(());
    };
    let no_table = || Value::new(None, ValueKind::Table(Map::new()));
    match &mut tree.entry(head.to_owned()).or_insert_with(no_table).kind {
        ValueKind::Table(inner) => put(inner, rest, value),
        _ => Err(format!("is below {head:?}, which has a value of its own")),
    }
}

/// Returns a setting or a section of the tree of all settings.
pub(super) fn get<'a>(tree: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    match name.split_once('.') {
        None => tree.get(name),
        Some((head, rest)) => match &tree.get(head)?.kind {
            ValueKind::Table(inner) => get(inner, rest),
            _ => None,
        },
    }
}

/// Returns where a setting was given. Of a table, and of what is missing in one, that is where its first setting was
/// given.
pub(super) fn origin<'a>(tree: &'a Map<String, Value>, name: &str) -> &'a str {
    fn first(value: &Value) -> Option<&str> {
        match &value.kind {
            ValueKind::Table(inner) if value.origin().is_none() => {
                let mut inner: Vec<_> = inner.iter().collect();
                inner.sort_by_key(|(name, _)| name.as_str());
                inner.into_iter().find_map(|(_, value)| first(value))
            }
            _ => value.origin(),
        }
    }
    let own = get(tree, name).and_then(first);
    let parent = || name.rsplit_once('.').and_then(|(table, _)| get(tree, table).and_then(first));
    own.or_else(parent).unwrap_or(DEFAULT_ORIGIN)
}

#[cfg(test)]
mod tests {
    use config::{File, FileFormat, Source as _};

    use super::*;

    fn defaults() -> Map<String, Value> {
        File::from_str(DEFAULT_TOML, FileFormat::Toml).collect().expect("the defaults are TOML")
    }

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
        let names = names(&defaults());
        // One line for each setting, but two for the one that is a table.
        assert_eq!(settings, names.len() + 1, "{names:?}");
    }

    #[test]
    fn names_below_a_setting_that_is_a_table_are_no_settings() {
        let defaults = defaults();
        let known = |name| find(&defaults, name).is_some();
        assert!(known("series.guards") && known("series") && known("limits.point.labels"));
        assert!(!known("series.guards.leader") && !known("server.listen.port") && !known("x"));
    }

    #[test]
    fn what_is_below_an_open_table_is_declared_by_the_user_and_found_with_its_origin() {
        let mut tree = defaults();
        assert!(matches!(find(&tree, "pipelines"), Some(Known::Section)));
        assert!(matches!(find(&tree, "pipelines.x.y.z"), Some(Known::Declared)));
        let given = |origin: &str| Value::new(Some(&origin.to_owned()), ValueKind::Boolean(true));
        assert_eq!(put(&mut tree, "pipelines.x.y", given("here")), Ok(()));
        assert!(put(&mut tree, "pipelines.x.y.z", given("there")).is_err());
        for name in ["pipelines.x.y", "pipelines.x", "pipelines.x.missing"] {
            assert_eq!(origin(&tree, name), "here", "{name}");
        }
        assert_eq!(origin(&tree, "series.retention"), DEFAULT_ORIGIN);
    }
}
