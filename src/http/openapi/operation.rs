//! What every operation of the document has in common, added in one place.
//!
//! Invariant: what an operation says of its scope and its problems follows from the row of its route.

use std::collections::BTreeMap;

use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::Response;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

use crate::http::problem::{Code, PROBLEM_JSON};
use crate::http::route::Route;

/// The name of the security scheme.
pub(super) const BEARER: &str = "bearer";

/// Returns the operation of a route; `None` for routes that are not documented.
pub(super) fn describe(route: &Route, tag: &str) -> Option<Operation> {
    let mut operation = route.documented.as_ref()?.operation.clone();
    operation.tags = Some(vec![tag.to_owned()]);
    operation.operation_id = operation.operation_id.map(|name| lower_camel(&name));
    // The first sentence of the handler's documentation is the summary, and the rest describes.
    let text = [operation.summary.take(), operation.description.take()];
    let text = text.into_iter().flatten().collect::<Vec<_>>().join(" ").replace('\n', " ");
    let (summary, rest) = text.split_once(". ").unwrap_or((text.trim_end_matches('.'), ""));
    operation.summary = Some(summary.to_owned());
    let needs = route.scope.map(|scope| format!("Needs the scope `{}`.", scope.as_str()));
    let description = [Some(rest.to_owned()), needs].into_iter().flatten();
    let description = description.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    operation.description = (!description.is_empty()).then_some(description);
    operation.security = Some(match route.scope {
        Some(_) => vec![SecurityRequirement::new(BEARER, Vec::<String>::new())],
        None => Vec::new(),
    });
    for (status, codes) in by_status(&route.codes()) {
        operation.responses.responses.insert(status.to_string(), problem(&codes).into());
    }
    Some(operation)
}

/// Returns the operationId of a route; `None` for routes that are not documented.
pub(super) fn operation_id(route: &Route) -> Option<String> {
    route.documented.as_ref()?.operation.operation_id.as_deref().map(lower_camel)
}

fn lower_camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut out = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}

fn by_status(codes: &[Code]) -> BTreeMap<u16, Vec<Code>> {
    let mut by_status = BTreeMap::<_, Vec<_>>::new();
    for code in codes {
        by_status.entry(code.status().as_u16()).or_default().push(*code);
    }
    by_status
}

/// Returns the response of one status, which names its codes and says what they mean.
fn problem(codes: &[Code]) -> Response {
    let schema: RefOr<_> = Ref::from_schema_name("Problem").into();
    let describe = |code: &Code| format!("`{}`: {}.", code.as_str(), code.meaning());
    let description = codes.iter().map(describe).collect::<Vec<_>>().join(" ");
    let words: Vec<_> = codes.iter().map(|code| code.as_str()).collect();
    let mut response = ResponseBuilder::new()
        .description(description)
        .content(PROBLEM_JSON, ContentBuilder::new().schema(Some(schema)).build())
        .build();
    response.extensions = Some(ExtensionsBuilder::new().add("x-problem-codes", words).build());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_ids_are_lower_camel() {
        assert_eq!(lower_camel("get_series_delta"), "getSeriesDelta");
        assert_eq!(lower_camel("push"), "push");
    }

    #[test]
    fn a_response_lists_the_codes_of_its_status() {
        let found = by_status(&[Code::NotFound, Code::CacheMiss, Code::Internal]);
        assert_eq!(found[&404], [Code::NotFound, Code::CacheMiss]);
        assert_eq!(found[&500], [Code::Internal]);
        let response = problem(&found[&404]);
        assert!(response.description.starts_with("`not_found`: "), "{}", response.description);
        assert!(response.description.contains("`cache_miss`: "), "{}", response.description);
    }
}
