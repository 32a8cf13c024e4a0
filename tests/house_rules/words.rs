//! The words that the glossary bans. Only those are checked that have no other use here: "line", "link", "place",
//! "turn", "span" and "floor" are also words of the formats, of the documentation and of everyday English.
//! Invariant: whatever is checked is in the glossary's list.

use super::assert_none;
use super::source::{Source, texts};

/// Banned words with their inflections; the first one is in the glossary.
const BANNED: &[&[&str]] = &[
    &["dead"],
    &["grave", "graves"],
    &["bury", "buries", "buried"],
    &["born", "unborn"],
    &["birth", "births"],
    &["patience"],
    &["mistake", "mistakes"],
    &["trouble", "troubles"],
    &["answer", "answers", "answered", "answering"],
];

/// The name of a lint, which is no word of ours.
const LINT: &str = "dead_code";

const CHECKED: &[&str] =
    &["src", "docs", "README.md", "DEVELOPERS.md", "deploy", "docker-compose.yml"];
const ENDINGS: &[&str] = &[".rs", ".lua", ".md", ".toml", ".yml", ".conf"];

fn breaches(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for word in words(&line.replace(LINT, "")) {
            let is_banned = BANNED.iter().any(|forms| forms.contains(&word.as_str()));
            if is_banned {
                found.push(format!("{}:{} says {word:?}", source.path, index + 1));
            }
        }
    }
    found
}

/// Returns the words of a line in lower case, also those that names like `answerLate` and `answer_late` consist of.
fn words(line: &str) -> Vec<String> {
    let mut found: Vec<String> = vec![String::new()];
    let mut last = ' ';
    for c in line.chars() {
        let begins = c.is_uppercase() && !last.is_uppercase();
        if (begins || !c.is_alphabetic()) && found.last().is_some_and(|word| !word.is_empty()) {
            found.push(String::new());
        }
        if let (true, Some(word)) = (c.is_alphabetic(), found.last_mut()) {
            word.extend(c.to_lowercase());
        }
        last = c;
    }
    found.retain(|word| !word.is_empty());
    found
}

fn glossary() -> Source {
    texts(&["docs/glossary.md"], &[".md"]).remove(0)
}

#[test]
fn no_word_that_the_glossary_bans_is_used() {
    let checked = texts(CHECKED, ENDINGS);
    let is_checked = |source: &&Source| source.path != glossary().path;
    let broken: Vec<_> = checked.iter().filter(is_checked).flat_map(breaches).collect();
    assert_none(&broken);
}

#[test]
fn every_checked_word_is_in_the_glossary() {
    let glossary = glossary();
    let (_, banned) = glossary.text.split_once("## Words that are not used").expect("the section");
    let listed = words(banned);
    let missing: Vec<_> =
        BANNED.iter().filter(|forms| !listed.contains(&forms[0].to_owned())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_banned_word_is_found_in_prose_and_in_names() {
    let source = Source::new(
        "x.rs",
        "// Answers late.\nfn bury_it() { isDead() }\nHTTPAnswer answering_machine deadline\nallow(dead_code)",
    );
    let found = breaches(&source);
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!(found[0], "x.rs:1 says \"answers\"");
}
