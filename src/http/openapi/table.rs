//! The route table as text: what the API consists of, on one screen.
//!
//! `openapi/routes.txt` is its committed copy. Invariant: it is made from the rows that the router serves.

use std::fmt::Write as _;

use super::operation::operation_id;
use crate::http::access::Scope;
use crate::http::problem::Code;
use crate::http::route::{
    EVERY_ROUTE, Resource, Route, WITH_BODY, WITH_FENCE, WITH_SCOPE, WITH_STORE, WITH_WRITE,
};

/// Returns the table of `resources`.
pub(crate) fn table(resources: &[Resource]) -> String {
    let mut out = String::from(
        "# Every route: method, path, operationId, scope, request class, properties, and its own problem codes.\n\
         # Made by `make openapi`; do not edit. A route also has these codes, depending on its row:\n",
    );
    for (which, codes) in [
        ("all", EVERY_ROUTE),
        ("with a scope", WITH_SCOPE),
        ("scope read, write or admin", WITH_STORE),
        ("scope write or admin", WITH_WRITE),
        ("body", WITH_BODY),
        ("fenced", WITH_FENCE),
    ] {
        line(&mut out, format!("#   {which:<28}{}", words(codes)));
    }
    for resource in resources {
        line(&mut out, format!("\n# {}: {}", resource.tag, resource.description));
        for route in &resource.routes {
            line(&mut out, row(route));
        }
    }
    out.push_str("\n# Problem codes, with their status and meaning\n");
    for code in Code::ALL {
        let (status, code, meaning) = (code.status().as_u16(), code.as_str(), code.meaning());
        line(&mut out, format!("{status}    {code:<24}{meaning}"));
    }
    out
}

fn row(route: &Route) -> String {
    let properties =
        [(route.takes_body, "body"), (route.fenced, "fenced"), (route.compressed, "compressed")];
    let properties = properties.iter().filter(|(holds, _)| *holds).map(|(_, name)| *name);
    format!(
        "{:<7}{:<40}{:<24}{:<9}{:<11}{:<18}{}",
        route.method,
        route.path,
        operation_id(route).as_deref().unwrap_or("-"),
        route.scope.map_or("-", Scope::as_str),
        route.class.as_str(),
        or_dash(&properties.collect::<Vec<_>>().join(" ")),
        words(route.own_codes),
    )
}

fn words(codes: &[Code]) -> String {
    codes.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(" ")
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn line(out: &mut String, text: impl std::fmt::Display) {
    // Writing to a string can't fail; a row without own codes ends in spaces.
    let _ = writeln!(out, "{}", text.to_string().trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::router::route_table;

    #[test]
    fn the_committed_table_is_what_the_router_serves() {
        let committed = include_str!("../../../openapi/routes.txt");
        assert!(committed == route_table(), "the routes have changed: make openapi");
    }

    #[test]
    fn a_row_shows_what_its_route_asks_for() {
        let resources = crate::http::routes::all();
        let text = table(&resources);
        let row = text.lines().find(|row| row.contains(" setCheckpoint ")).expect("a row");
        let words: Vec<_> = row.split_whitespace().collect();
        let path = "/v1/checkpoints/{org}/{repo}";
        let codes = ["checkpoint_not_later", "fence_required", "too_many_checkpoints"];
        assert_eq!(words[..3], ["PUT", path, "setCheckpoint"]);
        assert_eq!(words[3..7], ["write", "prompt", "body", "fenced"]);
        assert_eq!(words[7..], codes);
    }
}
