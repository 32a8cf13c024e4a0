//! Which file of the library uses which: the graph that the rules about order and circles look at.
//!
//! A path counts where it leads, not where it passes: `crate::store::StoreError` is an import of the file that
//! defines `StoreError`, also when `store/mod.rs` re-exports it from there. Re-exports are no imports, and code
//! under `#[cfg(test)]` is left out. Invariant: an edge runs from a file to another one.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::{Module, Reader};
use super::source::Source;

/// An import: file, line, and the imported file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    pub(super) from: String,
    pub(super) line: usize,
    pub(super) to: String,
}

/// All modules of a crate.
pub(super) struct Crate {
    /// By the path of the module, without `crate`.
    modules: BTreeMap<Vec<String>, Module>,
}

impl Crate {
    /// Reads the modules below `src/`.
    pub(super) fn read(sources: &[Source]) -> Self {
        let mut modules = BTreeMap::new();
        let mut tests = BTreeSet::new();
        for source in sources {
            let Some(path) = module_path(&source.path) else { continue };
            let tokens = source.tokens();
            let mut reader = Reader::new(&tokens);
            reader.read();
            let test_children = reader
                .test_children
                .iter()
                .map(|child| [&path[..], std::slice::from_ref(child)].concat());
            tests.extend(test_children);
            reader.module.file = source.path.clone();
            modules.insert(path, reader.module);
        }
        // A file that only tests have is no part of the library.
        modules.retain(|path, _| !(1..=path.len()).any(|length| tests.contains(&path[..length])));
        Self { modules }
    }

    /// Returns every import, each once for each line.
    pub(super) fn edges(&self) -> Vec<Edge> {
        let mut edges = BTreeSet::new();
        for (own, module) in &self.modules {
            for named in &module.named {
                let Some(absolute) = self.absolute(own, &named.segments, 0) else { continue };
                let Some(to) = self.file_of(&absolute, 0) else { continue };
                if *to != module.file {
                    edges.insert(Edge {
                        from: module.file.clone(),
                        line: named.line,
                        to: to.to_owned(),
                    });
                }
            }
        }
        edges.into_iter().collect()
    }

    /// Returns the names of other crates, with the file and the line.
    pub(super) fn outside(&self) -> Vec<(String, usize, String)> {
        let mut found = Vec::new();
        for (own, module) in &self.modules {
            for named in &module.named {
                if self.absolute(own, &named.segments, 0).is_none() {
                    found.push((module.file.clone(), named.line, named.segments[0].clone()));
                }
            }
        }
        found
    }

    /// Turns a path of a file into one from the root of the crate; `None` for a path out of the crate.
    fn absolute(&self, own: &[String], segments: &[String], depth: usize) -> Option<Vec<String>> {
        let (first, rest) = segments.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([own, rest].concat()),
            "super" => {
                let mut base = own.to_vec();
                base.pop()?;
                let mut rest = rest;
                while let Some(("super", further)) =
                    rest.split_first().map(|(s, further)| (s.as_str(), further))
                {
                    base.pop()?;
                    rest = further;
                }
                Some([&base[..], rest].concat())
            }
            _ => {
                let module = &self.modules[own];
                if module.children.contains(first) {
                    return Some([own, segments].concat());
                }
                let alias = module.aliases.get(first)?;
                // `use other::other;` leads to itself.
                if depth > 8 || alias.first() == Some(first) {
                    return None;
                }
                let base = self.absolute(own, alias, depth + 1)?;
                Some([&base[..], rest].concat())
            }
        }
    }

    /// Returns the file in which the item of an absolute path is defined.
    fn file_of(&self, path: &[String], depth: usize) -> Option<&str> {
        let length =
            (0..=path.len()).rev().find(|length| self.modules.contains_key(&path[..*length]))?;
        let (own, module) = self.modules.get_key_value(&path[..length])?;
        let Some(item) = path.get(length) else {
            // The module itself. One that only declares and re-exports others has nothing to use.
            return (!module.is_facade()).then_some(&module.file);
        };
        if depth < 8 {
            let exported = module.exports.iter().filter(|(name, _)| name == item || name == "*");
            for (name, target) in exported {
                let Some(mut target) = self.absolute(own, target, 0) else { continue };
                target.extend_from_slice(if name == "*" {
                    &path[length..]
                } else {
                    &path[length + 1..]
                });
                if let Some(file) = self.file_of(&target, depth + 1)
                    && (name != "*" || self.defines_path(&target))
                {
                    return Some(file);
                }
            }
        }
        Some(&module.file)
    }

    /// A glob may not hold what is looked for: only a module that is found under it is certain.
    fn defines_path(&self, path: &[String]) -> bool {
        self.modules.contains_key(path)
    }
}

/// Returns the path of a file's module, without `crate`; `None` for the binary's own file.
fn module_path(file: &str) -> Option<Vec<String>> {
    let inside = file.strip_prefix("src/")?.strip_suffix(".rs")?;
    let mut path: Vec<String> = inside.split('/').map(str::to_owned).collect();
    match path.last().map(String::as_str) {
        Some("mod") => drop(path.pop()),
        Some("lib") if path.len() == 1 => path.clear(),
        Some("main") if path.len() == 1 => return None,
        _ => {}
    }
    Some(path)
}

/// Returns the circles: sets of files that all lead to each other.
pub(super) fn circles(edges: &[Edge]) -> Vec<BTreeSet<String>> {
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for edge in edges {
        next.entry(&edge.from).or_default().insert(&edge.to);
    }
    for start in next.keys() {
        let mut open = vec![*start];
        let seen = reached.entry(start).or_default();
        while let Some(at) = open.pop() {
            open.extend(next.get(at).into_iter().flatten().filter(|to| seen.insert(to)));
        }
    }
    let mut found = BTreeSet::new();
    for (file, reachable) in &reached {
        let circle: BTreeSet<String> = reachable
            .iter()
            .filter(|other| reached.get(**other).is_some_and(|back| back.contains(file)))
            .map(|other| (*other).to_owned())
            .collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}
