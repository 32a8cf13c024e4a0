//! The rules of the house that a program can check, so that no reviewer has to: one file for each kind of rule.
//! Each rule is shown to fail by a small broken example.

mod imports;
mod order;
mod reader;
mod source;
mod words;

use self::source::{Source, sources, texts};

/// The resources; each has the same name in every layer.
const RESOURCES: &[&str] =
    &["series", "locks", "leases", "checkpoints", "generations", "cache", "aggregates"];

/// The most lines of a file.
const MAX_LINES: usize = 400;

/// The folders with Rust.
const CODE: [&str; 3] = ["src", "tests", "benches"];

#[track_caller]
fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "{} breaches:\n{}", broken.len(), broken.join("\n"));
}

fn form_of(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    if !source.text.starts_with("//!") {
        found.push(format!("{} does not open with what it is", source.path));
    }
    let lines = source.text.lines().count();
    if lines > MAX_LINES {
        found.push(format!("{} has {lines} lines, more than {MAX_LINES}", source.path));
    }
    found
}

#[test]
fn every_file_says_what_it_is_and_stays_short() {
    let broken: Vec<_> =
        CODE.into_iter().flat_map(sources).flat_map(|source| form_of(&source)).collect();
    assert_none(&broken);
}

fn empty_names(source: &Source) -> bool {
    let empty = ["utils", "util", "helpers", "helper", "common", "manager", "misc"];
    source.path.split(['/', '.']).any(|part| empty.contains(&part))
}

#[test]
fn every_file_has_a_telling_name() {
    let named = CODE.into_iter().flat_map(sources).filter(empty_names);
    assert_none(&named.map(|source| source.path).collect::<Vec<_>>());
}

/// Hosts that packages come from, and the home of one machine: neither belongs into a repository. In
/// parts, since this file is in it.
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

fn elsewhere(source: &Source) -> Vec<String> {
    let named = ELSEWHERE.iter().filter(|word| source.text.contains(*word));
    named.map(|word| format!("{} names {word}", source.path)).collect()
}

#[test]
fn no_package_host_and_no_folder_of_a_machine_is_named() {
    let paths = [
        "src",
        "tests",
        "benches",
        "docs",
        "deploy",
        ".ci",
        "Makefile",
        "README.md",
        "Cargo.toml",
        "deny.toml",
    ];
    let broken: Vec<_> = texts(&paths, &[""]).iter().flat_map(elsewhere).collect();
    assert_none(&broken);
}

fn is_ignoring(source: &Source) -> bool {
    source.text.contains(concat!("#[", "ignore"))
}

#[test]
fn no_test_is_ignored() {
    let broken = CODE.into_iter().flat_map(sources).filter(is_ignoring);
    assert_none(&broken.map(|source| source.path).collect::<Vec<_>>());
}

#[test]
fn the_rules_of_form_can_be_broken() {
    let long = Source::new("src/helpers/x.rs", &"fn f() {}\n".repeat(MAX_LINES + 1));
    assert_eq!(form_of(&long).len(), 2);
    assert!(empty_names(&long));
    assert_eq!(elsewhere(&Source::new("x", concat!("https://pypi", ".org"))).len(), 1);
    assert!(is_ignoring(&Source::new("x", concat!("#[", "ignore]"))));
}
