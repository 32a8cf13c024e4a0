//! What one file declares and names: its `use` trees, its other paths, and its children.
//! It reads tokens, not the grammar: a path is a row of words with `::` between them.
//! Invariant: what stands under `#[cfg(test)]` is skipped.

use std::collections::{BTreeMap, BTreeSet};

use super::source::Token;

/// A path in the code: its segments, and its line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Named {
    pub(super) line: usize,
    pub(super) segments: Vec<String>,
}

/// What one file declares and names.
#[derive(Debug, Default)]
pub(super) struct Module {
    pub(super) file: String,
    /// Public names, and the paths that they stand for.
    pub(super) exports: Vec<(String, Vec<String>)>,
    /// Private names in this file, and their paths.
    pub(super) aliases: BTreeMap<String, Vec<String>>,
    pub(super) named: Vec<Named>,
    pub(super) children: BTreeSet<String>,
}

impl Module {
    /// Whether the file only declares and re-exports.
    pub(super) fn is_facade(&self) -> bool {
        self.named.is_empty() && self.file.ends_with("mod.rs")
    }
}

/// Reads the tokens of one file.
pub(super) struct Reader<'a> {
    tokens: &'a [(usize, Token)],
    at: usize,
    /// For each open brace: the name of an inline module, if it is one's.
    braces: Vec<Option<String>>,
    pub(super) module: Module,
    /// Children that only tests have.
    pub(super) test_children: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(tokens: &'a [(usize, Token)]) -> Self {
        Self {
            tokens,
            at: 0,
            braces: Vec::new(),
            module: Module::default(),
            test_children: Vec::new(),
        }
    }

    fn token(&self, ahead: usize) -> Option<&'a Token> {
        self.tokens.get(self.at + ahead).map(|(_, token)| token)
    }

    fn word(&self, ahead: usize) -> Option<&'a str> {
        match self.token(ahead)? {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    fn is_sign(&self, ahead: usize, sign: char) -> bool {
        self.token(ahead) == Some(&Token::Sign(sign))
    }

    pub(super) fn read(&mut self) {
        let mut is_public = false;
        while self.at < self.tokens.len() {
            if self.is_sign(0, '#') && self.is_test_attribute() {
                self.skip_test_item();
                continue;
            }
            match self.word(0) {
                Some("pub") => {
                    is_public = true;
                    self.at += 1;
                    if self.is_sign(0, '(') {
                        self.skip_balanced('(', ')');
                    }
                    continue;
                }
                Some("use") if !self.follows_path() => {
                    self.at += 1;
                    self.read_use(is_public && self.braces.is_empty());
                }
                Some("mod") => self.read_mod(),
                Some(_) => self.read_path(),
                None => self.read_sign(),
            }
            is_public = false;
        }
    }

    /// Whether a path goes on here: a leading `::`, as in `::std::fs`, begins one.
    fn follows_path(&self) -> bool {
        let before = |distance: usize| self.at.checked_sub(distance).map(|at| &self.tokens[at].1);
        before(1) == Some(&Token::Path)
            && matches!(before(2), Some(Token::Word(_) | Token::Sign('>' | '$')))
    }

    fn read_sign(&mut self) {
        match self.token(0) {
            Some(Token::Sign('{')) => self.braces.push(None),
            Some(Token::Sign('}')) => drop(self.braces.pop()),
            _ => {}
        }
        self.at += 1;
    }

    /// `#[cfg(test)]`, also with further conditions.
    fn is_test_attribute(&self) -> bool {
        let start = if self.is_sign(1, '!') { 2 } else { 1 };
        self.is_sign(start, '[')
            && self.word(start + 1) == Some("cfg")
            && (start + 2..start + 8).any(|ahead| self.word(ahead) == Some("test"))
            && !(start + 2..start + 5).any(|ahead| self.word(ahead) == Some("not"))
    }

    /// Skips an item that only tests have: to its `;`, or over its braces.
    fn skip_test_item(&mut self) {
        self.at += 1;
        self.skip_balanced('[', ']');
        loop {
            match self.token(0) {
                None => return,
                Some(Token::Sign('#')) => {
                    self.at += 1;
                    self.skip_balanced('[', ']');
                }
                Some(Token::Sign(';' | ',')) => break self.at += 1,
                Some(Token::Sign('{')) => break self.skip_balanced('{', '}'),
                Some(Token::Sign('(')) => self.skip_balanced('(', ')'),
                Some(Token::Word(word)) if word == "mod" && self.is_sign(2, ';') => {
                    self.test_children.extend(self.word(1).map(str::to_owned));
                    self.at += 1;
                }
                Some(_) => self.at += 1,
            }
        }
    }

    fn skip_balanced(&mut self, open: char, close: char) {
        let mut depth = 0;
        while self.at < self.tokens.len() {
            depth += i32::from(self.is_sign(0, open)) - i32::from(self.is_sign(0, close));
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    fn read_mod(&mut self) {
        let Some(name) = self.word(1) else { return self.at += 1 };
        if self.is_sign(2, ';') {
            self.module.children.insert(name.to_owned());
        } else if self.is_sign(2, '{') {
            self.braces.push(Some(name.to_owned()));
        }
        self.at += 3;
    }

    /// A path outside of `use`, such as `crate::model::Id::parse`.
    fn read_path(&mut self) {
        let line = self.tokens[self.at].0;
        let mut segments = Vec::new();
        let is_continued = self.follows_path();
        while let Some(word) = self.word(0) {
            segments.push(word.to_owned());
            self.at += 1;
            if self.token(0) != Some(&Token::Path) || self.word(1).is_none() {
                break;
            }
            self.at += 1;
        }
        if segments.len() > 1 && !is_continued {
            self.add(line, segments);
        }
    }

    fn add(&mut self, line: usize, segments: Vec<String>) {
        if let Some(segments) = self.path_of_file(segments) {
            self.module.named.push(Named { line, segments });
        }
    }

    /// Turns a path inside of inline modules into one of the file; `None` when it stays in the file.
    fn path_of_file(&self, mut segments: Vec<String>) -> Option<Vec<String>> {
        let mut inline = self.braces.iter().flatten().count();
        while inline > 0
            && segments.first().is_some_and(|first| first == "super" || first == "self")
        {
            if segments.remove(0) == "super" {
                inline -= 1;
            } else {
                return None;
            }
            if inline == 0 && segments.first().is_some_and(|first| first != "super") {
                segments.insert(0, "self".to_owned());
            }
        }
        (!segments.is_empty()).then_some(segments)
    }

    /// A tree after `use`, to its `;`.
    fn read_use(&mut self, is_public: bool) {
        let line = self.tokens.get(self.at).map_or(0, |(line, _)| *line);
        if self.token(0) == Some(&Token::Path) {
            self.at += 1;
        }
        let mut found = Vec::new();
        self.read_tree(&[], &mut found);
        for (name, path) in found {
            let Some(path) = self.path_of_file(path) else { continue };
            if is_public {
                self.module.exports.push((name, path));
            } else {
                // A path of one segment is a crate or a child; used paths through it count where they stand.
                if path.len() > 1 {
                    self.module.named.push(Named { line, segments: path.clone() });
                }
                self.module.aliases.insert(name, path);
            }
        }
    }

    /// Reads one branch of a tree; its end is `,`, `}` or `;`.
    fn read_tree(&mut self, prefix: &[String], found: &mut Vec<(String, Vec<String>)>) {
        let mut path = prefix.to_vec();
        loop {
            match self.token(0) {
                Some(Token::Word(word)) if word == "as" => {
                    let name = self.word(1).unwrap_or("_").to_owned();
                    self.at += 2;
                    return found.push((name, path));
                }
                Some(Token::Word(word)) => {
                    path.push(word.clone());
                    self.at += 1;
                }
                Some(Token::Path) => self.at += 1,
                Some(Token::Sign('*')) => {
                    self.at += 1;
                    return found.push(("*".to_owned(), path));
                }
                Some(Token::Sign('{')) => {
                    self.at += 1;
                    while !self.is_sign(0, '}') && self.at < self.tokens.len() {
                        self.read_tree(&path, found);
                        if self.is_sign(0, ',') {
                            self.at += 1;
                        }
                    }
                    return self.at += 1;
                }
                _ => break,
            }
        }
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        if let Some(last) = path.last() {
            found.push((last.clone(), path.clone()));
        }
    }
}
