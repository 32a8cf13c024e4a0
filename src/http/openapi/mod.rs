//! The OpenAPI documents and the table of routes, made from the rows of the resources.
//!
//! Not the router, which is made from the same rows: so they can't disagree. The committed copies are `openapi/` at
//! the root of the repository. Invariant: every operation has an operationId in lowerCamel, a summary, explicit
//! security, and an explicit response for each status that a problem may have.

mod downgrade;
mod operation;
mod table;

use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, ComponentsBuilder, ContactBuilder, InfoBuilder, LicenseBuilder, OpenApi,
    OpenApiBuilder, Ref, RefOr, ServerBuilder,
};
use utoipa::{PartialSchema, ToSchema};

use self::operation::BEARER;
use super::problem::{Code, ProblemBody};
use super::route::{ProblemMember, Resource};

pub(crate) use self::downgrade::downgraded;
pub(crate) use self::table::table;

/// Returns the document of `resources`.
pub(crate) fn document(resources: &[Resource]) -> OpenApi {
    let mut document = OpenApiBuilder::new()
        .info(info())
        .servers(Some([ServerBuilder::new().url("/").description(Some("This server")).build()]))
        .components(Some(components(resources)))
        .tags(Some(resources.iter().filter(|resource| is_shown(resource)).map(|resource| {
            TagBuilder::new().name(resource.tag).description(Some(resource.description)).build()
        })))
        .build();
    for resource in resources {
        for route in &resource.routes {
            let Some(operation) = operation::describe(route, resource.tag) else { continue };
            document.paths.add_path_operation(&route.path, vec![method(route.method)], operation);
        }
    }
    document
}

fn is_shown(resource: &Resource) -> bool {
    resource.routes.iter().any(|route| route.documented.is_some())
}

fn info() -> utoipa::openapi::Info {
    let mut license = LicenseBuilder::new().name("Apache-2.0").build();
    license.identifier = Some("Apache-2.0".to_owned());
    InfoBuilder::new()
        .title("holdall")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(env!("CARGO_PKG_DESCRIPTION")))
        .contact(Some(ContactBuilder::new().name(Some("The makers of holdall")).build()))
        .license(Some(license))
        .build()
}

fn components(resources: &[Resource]) -> Components {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "One of the configured access tokens; not needed when none is configured",
        ))
        .build();
    let mut schemas = Vec::new();
    ProblemBody::schemas(&mut schemas);
    for resource in resources {
        schemas.extend(resource.schemas.iter().cloned());
        let documented = resource.routes.iter().filter_map(|route| route.documented.as_ref());
        schemas.extend(documented.flat_map(|documented| documented.schemas.iter().cloned()));
    }
    let members = resources.iter().flat_map(|resource| &resource.problem_members);
    schemas.push((ProblemBody::name().into_owned(), problem_schema(members)));
    ComponentsBuilder::new()
        .security_scheme(BEARER, SecurityScheme::Http(bearer))
        .schemas_from_iter(schemas)
        .build()
}

/// Returns the schema of problems, with the members that resources add and the codes that exist.
fn problem_schema<'a>(members: impl Iterator<Item = &'a ProblemMember>) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut problem)) = ProblemBody::schema() else {
        unreachable!("a struct with named fields is an object")
    };
    for member in members {
        let mut schema = Ref::from_schema_name(&member.schema_name);
        schema.description = member.description.to_owned();
        problem.properties.insert(member.name.to_owned(), RefOr::Ref(schema));
    }
    if let Some(RefOr::T(Schema::Object(code))) = problem.properties.get_mut("code") {
        // Not an `enum`: generated clients would reject a code that a later version adds.
        let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        code.extensions = Some(ExtensionsBuilder::new().add("x-extensible-enum", codes).build());
    }
    RefOr::T(Schema::Object(problem))
}

fn method(name: &str) -> HttpMethod {
    match name {
        "GET" => HttpMethod::Get,
        "PUT" => HttpMethod::Put,
        "DELETE" => HttpMethod::Delete,
        _ => HttpMethod::Post,
    }
}

/// Writes the document with a line for each member, so that changes of it can be read.
pub(crate) fn pretty(document: &OpenApi) -> String {
    document.to_pretty_json().map_or_else(|_| String::new(), |text| text + "\n")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::http::routes;

    fn value() -> Value {
        serde_json::to_value(document(&routes::all())).expect("JSON")
    }

    fn operations(document: &Value) -> Vec<(&String, &String, &Value)> {
        let paths = document["paths"].as_object().expect("paths");
        paths
            .iter()
            .flat_map(|(path, item)| {
                let item = item.as_object().expect("an item");
                item.iter().map(move |(method, operation)| (path, method, operation))
            })
            .collect()
    }

    #[test]
    fn every_operation_says_what_generators_need() {
        let document = value();
        assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
        let mut ids = std::collections::BTreeSet::new();
        for (path, method, operation) in operations(&document) {
            let at = format!("{method} {path}");
            let id = operation["operationId"].as_str().expect(&at);
            assert!(ids.insert(id.to_owned()) && !id.contains('_'), "{at}: {id}");
            assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{at}");
            let summary = operation["summary"].as_str().expect(&at);
            assert!(!summary.is_empty() && !summary.contains('\n'), "{at}");
            assert!(operation["security"].is_array(), "{at}");
            let responses = operation["responses"].as_object().expect(&at);
            let good = responses.keys().filter(|status| status.starts_with('2')).count();
            assert_eq!(good, 1, "{at}");
            for (status, response) in responses.iter().filter(|(s, _)| s.as_str() >= "400") {
                let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{at} {status}");
            }
        }
        assert!(ids.len() >= 35);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = value();
        let mut open = vec![&document];
        while let Some(value) = open.pop() {
            if let Some(target) = value.get("$ref").and_then(Value::as_str) {
                let pointer = target.strip_prefix('#').expect("a local reference");
                assert!(document.pointer(pointer).is_some(), "{target}");
            }
            match value {
                Value::Array(items) => open.extend(items),
                Value::Object(object) => open.extend(object.values()),
                _ => {}
            }
        }
    }
}
