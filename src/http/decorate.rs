//! What every operation of the OpenAPI document has in common, added in one place.
//!
//! Invariant: every operation has an operationId in lowerCamel, a summary, explicit security,
//! and explicit codes for its problems.

use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::response::Response;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

use super::access::Scope;
use super::problem::PROBLEM_JSON;

/// The name of the security scheme.
pub(crate) const BEARER: &str = "bearer";

/// Walks the operations of a path, with their methods.
pub(crate) fn operations(
    item: &mut PathItem,
) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("GET", &mut item.get),
        ("PUT", &mut item.put),
        ("POST", &mut item.post),
        ("DELETE", &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Adds to one operation what all have.
pub(crate) fn describe(operation: &mut Operation, scope: Option<Scope>, fails: &[u16]) {
    operation.operation_id = operation.operation_id.take().map(|name| lower_camel(&name));
    let text = [operation.summary.take(), operation.description.take()];
    let text = text.into_iter().flatten().collect::<Vec<_>>().join(" ").replace('\n', " ");
    let (summary, rest) = text.split_once(". ").unwrap_or((text.trim_end_matches('.'), ""));
    operation.summary = Some(summary.to_owned());
    let needs = scope.map(|scope| format!("Needs the scope `{}`.", scope.as_str()));
    let description = [Some(rest.to_owned()), needs].into_iter().flatten();
    let description = description.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    operation.description = (!description.is_empty()).then_some(description);
    operation.security = Some(match scope {
        Some(_) => vec![SecurityRequirement::new(BEARER, Vec::<String>::new())],
        None => Vec::new(),
    });
    for &status in fails {
        operation.responses.responses.insert(status.to_string(), problem(status).into());
    }
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

fn problem(status: u16) -> Response {
    let schema: RefOr<_> = Ref::from_schema_name("Problem").into();
    ResponseBuilder::new()
        .description(meaning(status))
        .content(PROBLEM_JSON, ContentBuilder::new().schema(Some(schema)).build())
        .build()
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request is not what it should be",
        401 => "No known bearer token",
        403 => "Not allowed to this token, role or address",
        404 => "Not found",
        408 => "The body did not arrive in time",
        409 => "In conflict with what is held",
        410 => "The cursor is no longer known: take a new snapshot",
        412 => "The fence, or the generation, does not hold any more",
        413 => "The body, a value or the answer is too large",
        415 => "The body is of a kind that is not read here",
        422 => "The body is well-formed, but refused",
        428 => "This write must carry a fence, or the generation that was seen",
        500 => "The server failed",
        503 => "Not now; see Retry-After",
        507 => "No room is left",
        _ => "Refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_ids_are_lower_camel() {
        assert_eq!(lower_camel("get_series_delta"), "getSeriesDelta");
        assert_eq!(lower_camel("push"), "push");
    }
}
