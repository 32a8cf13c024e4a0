//! The rules of the house that a program can check, so that nobody has to watch them.

use std::path::{Path, PathBuf};

/// The floors from the lowest to the highest: a floor uses only lower ones.
const FLOORS: [&str; 10] =
    ["model", "clock", "store", "engine", "ingest", "exposition", "http", "config", "app", "cli"];
const MAX_LINES: usize = 500;

/// What may be named only inside some folders or files.
const AT_HOME: [(&str, &[&str]); 5] = [
    ("rusqlite", &["src/store/embedded/"]),
    ("axum", &["src/http/", "src/app", "src/cli.rs"]),
    ("utoipa", &["src/http/", "src/app", "src/cli.rs"]),
    ("hyper", &["src/http/"]),
    ("clap", &["src/cli.rs", "src/main.rs"]),
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    fn floor(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        let floor = rest.split(['/', '.']).next()?;
        FLOORS.contains(&floor).then_some(floor)
    }

    /// Returns the lines of code with their numbers, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(folder), &mut found);
    assert!(!found.is_empty(), "{folder} holds no source");
    found
        .into_iter()
        .map(|path| Source {
            text: std::fs::read_to_string(&path).expect("a source is readable"),
            path: path.strip_prefix(root).expect("below the root").display().to_string(),
        })
        .collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder is readable") {
        let path = entry.expect("an entry is readable").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn rank(floor: &str) -> Option<usize> {
    FLOORS.iter().position(|known| *known == floor)
}

/// Returns the floors that a line of code names.
fn named_floors(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).flat_map(|rest| {
        let first = rest.trim_start_matches('{');
        let end = first.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let one = &first[..end.unwrap_or(first.len())];
        // `use crate::{app, http};` names several.
        let several = rest.strip_prefix('{').and_then(|group| group.split_once('}'));
        std::iter::once(one)
            .chain(several.into_iter().flat_map(|(group, _)| group.split(',').map(str::trim)))
    })
}

#[track_caller]
fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "{} breaches:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn no_floor_uses_a_higher_one() {
    let mut broken = Vec::new();
    for source in sources("src") {
        let Some(own) = source.floor().and_then(rank) else { continue };
        for (number, line) in source.code() {
            for floor in named_floors(line) {
                if rank(floor).is_some_and(|named| named > own) {
                    broken.push(format!("{}:{number} uses {floor}", source.path));
                }
            }
        }
    }
    assert_none(&broken);
}

#[test]
fn drivers_and_frameworks_stay_at_home() {
    let mut broken = Vec::new();
    for source in sources("src") {
        for (name, homes) in AT_HOME {
            if homes.iter().any(|home| source.path.starts_with(home)) {
                continue;
            }
            for (number, line) in source.code() {
                let named = line
                    .match_indices(name)
                    .any(|(at, _)| line[at + name.len()..].starts_with("::"));
                if named {
                    broken.push(format!("{}:{number} names {name}", source.path));
                }
            }
        }
    }
    assert_none(&broken);
}

#[test]
fn every_file_says_what_it_is_and_stays_short() {
    let mut broken = Vec::new();
    for source in ["src", "tests", "benches"].into_iter().flat_map(sources) {
        if !source.text.starts_with("//!") {
            broken.push(format!("{} does not open with what it is", source.path));
        }
        let lines = source.text.lines().count();
        if source.path.starts_with("src/") && lines > MAX_LINES {
            broken.push(format!("{} has {lines} lines, more than {MAX_LINES}", source.path));
        }
    }
    assert_none(&broken);
}

#[test]
fn no_name_says_nothing() {
    let empty = ["utils", "util", "helpers", "helper", "common", "manager", "misc"];
    let broken: Vec<_> = ["src", "tests"]
        .into_iter()
        .flat_map(sources)
        .map(|source| source.path)
        .filter(|path| path.split(['/', '.']).any(|part| empty.contains(&part)))
        .collect();
    assert_none(&broken);
}

/// Hosts that packages come from, and the home of one machine: neither belongs into a repository. In
/// parts, since this file is one of it.
const ELSEWHERE: [&str; 8] = [
    concat!("proxy.", "golang"),
    concat!("pypi", ".org"),
    concat!("python", "hosted"),
    concat!("npm", "js.org"),
    concat!("index.", "crates"),
    concat!("static.", "crates"),
    concat!("arti", "factory"),
    concat!("\"/", "root/"),
];

#[test]
fn no_package_host_and_no_folder_of_a_machine_is_named() {
    let mut broken = Vec::new();
    for source in ["src", "tests", "benches"].into_iter().flat_map(sources) {
        let named = ELSEWHERE.iter().filter(|word| source.text.contains(*word));
        broken.extend(named.map(|word| format!("{} names {word}", source.path)));
    }
    assert_none(&broken);
}

#[test]
fn no_test_is_ignored() {
    let attribute = concat!("#[", "ignore");
    let broken: Vec<_> = ["src", "tests"]
        .into_iter()
        .flat_map(sources)
        .filter(|source| source.text.contains(attribute))
        .map(|source| source.path)
        .collect();
    assert_none(&broken);
}

#[test]
fn the_rules_can_be_broken() {
    assert_eq!(named_floors("use crate::http::Router;").next(), Some("http"));
    let several: Vec<_> = named_floors("use crate::{app, http};").collect();
    assert!(several.contains(&"http") && several.contains(&"app"), "{several:?}");
    assert!(rank("http") > rank("engine"));
}
