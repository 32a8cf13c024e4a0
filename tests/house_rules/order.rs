//! What may use what: layers, the order inside of the backends, resources apart, no circles, and the homes of
//! drivers and frameworks. The orders are data; the highest comes first.

use super::imports::{Crate, Edge, circles};
use super::source::{Source, sources};
use super::{RESOURCES, assert_none};

/// A folder, and what lies directly in it from the highest to the lowest rank. What is used has a lower rank, or
/// the same one.
struct Order {
    folder: &'static str,
    ranks: &'static [&'static [&'static str]],
}

/// Stands for all resources in a rank.
const EACH_RESOURCE: &str = "<resource>";

const ORDERS: &[Order] = &[
    Order {
        folder: "src/",
        ranks: &[
            &["lib"],
            &["cli"],
            &["app"],
            &["config"],
            &["http"],
            &["exposition"],
            &["ingest"],
            &["engine"],
            &["store"],
            &["clock"],
            &["model"],
        ],
    },
    Order {
        folder: "src/store/embedded/",
        ranks: &[
            &["mod"],
            &["operation"],
            &[EACH_RESOURCE],
            &["fences"],
            &["durable", "buffered"],
            &["sqlite", "blocking"],
        ],
    },
    Order {
        folder: "src/store/redis/",
        ranks: &[&["mod"], &["operation"], &[EACH_RESOURCE], &["core"]],
    },
];

/// Where each resource has a file or a folder of its own, which no other resource uses.
const FOLDERS_OF_RESOURCES: &[&str] =
    &["src/store/embedded/", "src/store/redis/", "src/http/routes/"];

/// Crates, and the only places that may name them.
const HOMES: &[(&str, &[&str])] = &[
    ("rusqlite", &["src/store/embedded/"]),
    ("redis", &["src/store/redis/"]),
    ("axum", &["src/http/", "src/app", "src/cli.rs"]),
    ("axum_extra", &["src/http/"]),
    ("utoipa", &["src/http/", "src/app", "src/cli.rs"]),
    ("utoipa_axum", &["src/http/"]),
    ("hyper", &["src/http/"]),
    ("hyper_util", &["src/http/"]),
    ("tower", &["src/http/"]),
    ("clap", &["src/cli.rs", "src/main.rs"]),
];

/// Returns the name of what lies directly in `folder` and is or holds `path`.
fn part<'a>(folder: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(folder)?.split(['/', '.']).next()
}

impl Order {
    fn rank(&self, part: &str) -> Option<usize> {
        self.ranks.iter().position(|rank| {
            rank.contains(&part) || rank.contains(&EACH_RESOURCE) && RESOURCES.contains(&part)
        })
    }

    fn breaches(&self, edges: &[Edge]) -> Vec<String> {
        let mut found = Vec::new();
        for edge in edges {
            let (Some(from), Some(to)) =
                (part(self.folder, &edge.from), part(self.folder, &edge.to))
            else {
                continue;
            };
            match (self.rank(from), self.rank(to)) {
                (Some(own), Some(used)) if used < own => found.push(show(edge)),
                (Some(_), Some(_)) => {}
                (None, _) => found.push(format!("{} has no rank in {}", edge.from, self.folder)),
                (_, None) => found.push(format!("{} has no rank in {}", edge.to, self.folder)),
            }
        }
        found
    }
}

fn show(edge: &Edge) -> String {
    format!("{}:{} uses {}", edge.from, edge.line, edge.to)
}

/// A resource that is built on another one, with the reason.
const BUILT_ON: &[(&str, &str, &str)] =
    &[("cache", "generations", "a cached value is valid by the generation of its key")];

fn mixed_resources(folder: &str, edges: &[Edge]) -> Vec<String> {
    let resource = |path| part(folder, path).filter(|part| RESOURCES.contains(part));
    let is_allowed = |own: &str, used: &str| {
        own == used || BUILT_ON.iter().any(|(above, below, _)| (*above, *below) == (own, used))
    };
    let mixed = edges.iter().filter(|edge| match (resource(&edge.from), resource(&edge.to)) {
        (Some(own), Some(used)) => !is_allowed(own, used),
        _ => false,
    });
    mixed.map(show).collect()
}

fn far_from_home(named: &[(String, usize, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (file, line, name) in named {
        let home = HOMES.iter().find(|(driver, _)| driver == name);
        if home.is_some_and(|(_, homes)| !homes.iter().any(|home| file.starts_with(home))) {
            found.push(format!("{file}:{line} names {name}"));
        }
    }
    found
}

fn library() -> Crate {
    Crate::read(&sources("src"))
}

#[test]
fn imports_follow_the_order_of_layers_and_of_the_parts_of_a_backend() {
    let edges = library().edges();
    assert!(edges.len() > 300, "only {} imports are found", edges.len());
    let broken: Vec<_> = ORDERS.iter().flat_map(|order| order.breaches(&edges)).collect();
    assert_none(&broken);
}

#[test]
fn no_resource_imports_another_one() {
    let edges = library().edges();
    let broken: Vec<_> =
        FOLDERS_OF_RESOURCES.iter().flat_map(|folder| mixed_resources(folder, &edges)).collect();
    assert_none(&broken);
}

/// Whether a file uses what the `mod.rs` of its own folder defines. These two are one module in two files: the
/// parent puts its parts together, and they share its types. That is no circle; one with any other file is.
fn is_to_its_parent(edge: &Edge) -> bool {
    let inside = edge.from.strip_suffix("/mod.rs").unwrap_or(&edge.from);
    inside.rsplit_once('/').is_some_and(|(folder, _)| edge.to == format!("{folder}/mod.rs"))
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut edges = library().edges();
    edges.retain(|edge| !is_to_its_parent(edge));
    let mut broken = Vec::new();
    for circle in circles(&edges) {
        let inside = |edge: &&Edge| circle.contains(&edge.from) && circle.contains(&edge.to);
        // One line for each pair of files is enough to see the circle.
        let mut arrows: Vec<_> = edges.iter().filter(inside).collect();
        arrows.sort_by(|one, other| (&one.from, &one.to).cmp(&(&other.from, &other.to)));
        arrows.dedup_by(|one, other| (&one.from, &one.to) == (&other.from, &other.to));
        let arrows: Vec<_> = arrows.into_iter().map(show).collect();
        let first = circle.first().expect("a circle has files");
        let others = circle.len() - 1;
        broken.push(format!(
            "{first} and {others} others use each other:\n  {}",
            arrows.join("\n  ")
        ));
    }
    assert_none(&broken);
}

#[test]
fn drivers_and_frameworks_are_named_only_at_home() {
    assert_none(&far_from_home(&library().outside()));
}

/// The edges of a crate that is made of these files.
fn edges_of(files: &[(&str, &str)]) -> Vec<(String, String)> {
    let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    Crate::read(&sources).edges().into_iter().map(|edge| (edge.from, edge.to)).collect()
}

#[test]
fn an_import_leads_to_the_file_that_defines_the_item() {
    let files = [
        ("src/lib.rs", "pub mod a; pub mod b;"),
        ("src/a/mod.rs", "mod inner; pub use self::inner::{Thing as Other, deep::*};"),
        ("src/a/inner.rs", "pub struct Thing; // crate::b::f()"),
        (
            "src/b.rs",
            "use crate::a::{self, Other}; mod c { use super::g; } #[cfg(test)] use crate::a::X;",
        ),
    ];
    assert_eq!(edges_of(&files), [("src/b.rs".to_owned(), "src/a/inner.rs".to_owned())]);
    let through_a_module = [
        ("src/a.rs", "use crate::b; fn f() { b::c::g() }"),
        ("src/b/mod.rs", "pub mod c;"),
        ("src/b/c.rs", ""),
    ];
    assert_eq!(edges_of(&through_a_module), [("src/a.rs".to_owned(), "src/b/c.rs".to_owned())]);
    let upwards = [
        ("src/a/mod.rs", "mod b; fn f() { b::g() }"),
        ("src/a/b.rs", "mod t { fn g() { super::super::h() } }"),
    ];
    assert_eq!(edges_of(&upwards).len(), 2, "{:?}", edges_of(&upwards));
}

#[test]
fn the_rules_of_order_can_be_broken() {
    let files = [
        ("src/model.rs", "use crate::http::routes::locks::lock;"),
        ("src/http/routes/locks.rs", "use super::leases::lease; use axum::Router;"),
        ("src/http/routes/leases/mod.rs", "fn f() { crate::model::x() }"),
        ("src/other.rs", "fn f() { ::redis::cmd(); crate::model::x() }"),
    ];
    let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    let library = Crate::read(&sources);
    let edges = library.edges();
    let layers = ORDERS[0].breaches(&edges);
    assert_eq!(layers.len(), 2, "{layers:?}");
    assert!(layers[0].starts_with("src/model.rs:1 uses src/http"), "{layers:?}");
    assert!(layers[1].starts_with("src/other.rs has no rank"), "{layers:?}");
    let mixed = mixed_resources("src/http/routes/", &edges);
    assert_eq!(mixed, ["src/http/routes/locks.rs:1 uses src/http/routes/leases/mod.rs"]);
    assert_eq!(circles(&edges)[0].len(), 3);
    assert!(edges.iter().all(|edge| !is_to_its_parent(edge)));
    let (from, to) = ("src/a/b/mod.rs".to_owned(), "src/a/mod.rs".to_owned());
    assert!(is_to_its_parent(&Edge { from, line: 1, to }));
    let named = library.outside();
    assert_eq!(far_from_home(&named), ["src/other.rs:1 names redis"]);
}
