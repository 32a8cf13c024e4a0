//! The files that the rules read, as text and as tokens. It is not a parser of Rust: it knows comments, literals,
//! identifiers and punctuation, which is what the rules need.
//! Invariant: a token has the number of the line that it stands in.

use std::path::{Path, PathBuf};

/// A source file, with its path from the root of the repository.
pub(super) struct Source {
    pub(super) path: String,
    pub(super) text: String,
}

/// A piece of code.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// An identifier or a keyword.
    Word(String),
    /// `::`.
    Path,
    /// Any other character of code; a literal is one `"`.
    Sign(char),
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Returns the tokens with their lines. Comments have none.
    pub(super) fn tokens(&self) -> Vec<(usize, Token)> {
        let chars: Vec<char> = self.text.chars().collect();
        let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
        while at < chars.len() {
            let start = at;
            match (chars[at], chars.get(at + 1)) {
                ('/', Some('/')) => at = end_of_line(&chars, at),
                ('/', Some('*')) => at = end_of_block_comment(&chars, at),
                (':', Some(':')) => {
                    found.push((line, Token::Path));
                    at += 2;
                }
                ('"', _) => {
                    found.push((line, Token::Sign('"')));
                    at = end_of_string(&chars, at);
                }
                ('\'', _) => {
                    found.push((line, Token::Sign('"')));
                    at = end_of_char(&chars, at);
                }
                (c, _) if c.is_alphabetic() || c == '_' => {
                    at = end_of_word(&chars, at);
                    let word: String = chars[start..at].iter().collect();
                    // Prefixes of literals: r"", r#""#, b"", b'', c"".
                    if word.contains('r')
                        && word.len() <= 2
                        && matches!(chars.get(at), Some('#' | '"'))
                    {
                        at = end_of_raw_string(&chars, at).unwrap_or(at);
                    }
                    if at == start + word.chars().count() {
                        found.push((line, Token::Word(word)));
                    }
                }
                (c, _) => {
                    if !c.is_whitespace() {
                        found.push((line, Token::Sign(c)));
                    }
                    at += 1;
                }
            }
            line += chars[start..at].iter().filter(|c| **c == '\n').count();
        }
        found
    }
}

fn end_of_line(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |length| at + length)
}

fn end_of_word(chars: &[char], at: usize) -> usize {
    let length = chars[at..].iter().position(|c| !c.is_alphanumeric() && *c != '_');
    length.map_or(chars.len(), |length| at + length)
}

fn end_of_block_comment(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn end_of_string(chars: &[char], mut at: usize) -> usize {
    at += 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// Returns the end of a character literal, or of the quote of a lifetime.
fn end_of_char(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => {
            let close = chars[at + 3..].iter().position(|c| *c == '\'');
            close.map_or(chars.len(), |length| at + 4 + length)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

fn end_of_raw_string(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + hashes) != Some(&'"') {
        return None; // A raw identifier: r#type.
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = &chars[at + hashes + 1..];
    let length = body.windows(close.len()).position(|window| window == close)?;
    Some(at + hashes + 1 + length + close.len())
}

/// Returns every Rust file below a folder of the repository.
pub(super) fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(folder), &mut found);
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(!found.is_empty(), "{folder} has no source");
    found.sort();
    found.iter().map(|path| read(root, path)).collect()
}

/// Returns every file of these folders and these single files, if its name ends so.
pub(super) fn texts(paths: &[&str], endings: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for path in paths {
        let path = root.join(path);
        if path.is_dir() { walk(&path, &mut found) } else { found.push(path) }
    }
    found.retain(|path| endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)));
    found.sort();
    found.iter().map(|path| read(root, path)).collect()
}

fn read(root: &Path, path: &Path) -> Source {
    Source {
        text: std::fs::read_to_string(path).expect("a source is readable"),
        path: path.strip_prefix(root).expect("below the root").display().to_string(),
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder is readable") {
        let path = entry.expect("an entry is readable").path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

#[test]
fn comments_and_literals_are_not_code() {
    let text =
        "a /* b /* c */ */ \"d \\\" e\" // f\n r#\"g \" h\"# 'i' '\\'' '\\u{1F}' &'static j r#k";
    let source = Source::new("x.rs", text);
    let words: Vec<_> = source
        .tokens()
        .into_iter()
        .filter_map(|(line, token)| match token {
            Token::Word(word) => Some((line, word)),
            _ => None,
        })
        .collect();
    let expected = [(1, "a"), (2, "static"), (2, "j"), (2, "r"), (2, "k")];
    assert_eq!(words, expected.map(|(line, word)| (line, word.to_owned())));
}
