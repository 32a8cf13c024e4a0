//! The head of the OpenAPI document, and its older form for generators that read only 3.0.
//!
//! Invariant: the older form is derived from the newer and never says more.

use serde_json::{Map, Value, json};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, ContactBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder,
    ServerBuilder,
};
use utoipa::{PartialSchema, ToSchema};

use super::decorate::BEARER;
use super::problem::ProblemBody;
use super::router::document;
use super::routes::locks::LockKindName;

const LICENSE_URL: &str = "https://www.apache.org/licenses/LICENSE-2.0";

const TAGS: [(&str, &str); 9] = [
    ("series", "The newest sample of every series, and what changed"),
    ("streams", "What changed, as server-sent events"),
    ("locks", "Keys that are claimed once for a time"),
    ("leases", "Locks with a holder and a fencing token"),
    ("checkpoints", "How far a repository of an organisation was processed"),
    ("generations", "Counters that tell whether what was made from a source is still true"),
    ("cache", "Values that are true until the generation of their key moves"),
    ("operation", "The server itself"),
    ("health", "For orchestrators; open to everybody"),
];

/// Returns the document without any path.
pub(crate) fn head() -> OpenApi {
    let mut license = LicenseBuilder::new().name("Apache-2.0").build();
    license.identifier = Some("Apache-2.0".to_owned());
    let info = InfoBuilder::new()
        .title("holdall")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(env!("CARGO_PKG_DESCRIPTION")))
        .contact(Some(ContactBuilder::new().name(Some("The makers of holdall")).build()))
        .license(Some(license))
        .build();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("One of the configured tokens; none is needed where none is configured"))
        .build();
    let mut schemas = vec![("Problem".to_owned(), ProblemBody::schema())];
    ProblemBody::schemas(&mut schemas);
    // Only a parameter refers to it, and those bring no schemas along.
    schemas.push(("LockKindName".to_owned(), LockKindName::schema()));
    let components = ComponentsBuilder::new()
        .security_scheme(BEARER, SecurityScheme::Http(bearer))
        .schemas_from_iter(schemas)
        .build();
    let tags =
        TAGS.map(|(name, about)| TagBuilder::new().name(name).description(Some(about)).build());
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([ServerBuilder::new().url("/").description(Some("This server")).build()]))
        .components(Some(components))
        .tags(Some(tags))
        .build()
}

/// Returns the document as text, in OpenAPI 3.1: what stands at /openapi.json.
pub fn openapi_3_1() -> String {
    pretty(&document())
}

/// Returns the document as text, in OpenAPI 3.0.3: what stands at /openapi-3.0.json.
pub fn openapi_3_0() -> String {
    downgraded(&document())
}

/// Writes the document with a line for each member, so that changes of it can be read.
pub(crate) fn pretty(document: &OpenApi) -> String {
    document.to_pretty_json().map_or_else(|_| String::new(), |text| text + "\n")
}

/// Derives the document of OpenAPI 3.0.3, as JSON text.
pub(crate) fn downgraded(document: &OpenApi) -> String {
    let mut value = serde_json::to_value(document).unwrap_or_default();
    value["openapi"] = json!("3.0.3");
    if let Some(license) = value.pointer_mut("/info/license").and_then(Value::as_object_mut) {
        license.remove("identifier");
        // 3.0 knows licences by their address only.
        license.insert("url".to_owned(), json!(LICENSE_URL));
    }
    downgrade(&mut value);
    serde_json::to_string_pretty(&value).map_or_else(|_| String::new(), |text| text + "\n")
}

fn downgrade(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(downgrade),
        Value::Object(object) => {
            null_type_to_nullable(object);
            null_variant_to_nullable(object);
            described_reference_to_all_of(object);
            object.remove("propertyNames");
            if let Some(content) = object.get_mut("content").and_then(Value::as_object_mut) {
                one_content(content);
            }
            object.values_mut().for_each(downgrade);
        }
        _ => {}
    }
}

/// `type: [string, null]` is `type: string, nullable: true` in 3.0.
fn null_type_to_nullable(object: &mut Map<String, Value>) {
    let Some(Value::Array(types)) = object.get("type") else { return };
    let kept = types.iter().find(|kind| *kind != "null").cloned();
    let nullable = types.iter().any(|kind| kind == "null");
    object.insert("type".to_owned(), kept.unwrap_or_else(|| json!("string")));
    if nullable {
        object.insert("nullable".to_owned(), json!(true));
    }
}

/// `oneOf: [null, X]` is `allOf: [X], nullable: true` in 3.0.
fn null_variant_to_nullable(object: &mut Map<String, Value>) {
    let Some(Value::Array(variants)) = object.get_mut("oneOf") else { return };
    let before = variants.len();
    variants.retain(|variant| variant.get("type") != Some(&json!("null")));
    if variants.len() == before {
        return;
    }
    if let Some(variants) = object.remove("oneOf") {
        let word =
            if variants.as_array().is_some_and(|v| v.len() == 1) { "allOf" } else { "oneOf" };
        object.insert(word.to_owned(), variants);
        object.insert("nullable".to_owned(), json!(true));
    }
}

/// `$ref: X, description: D` is `allOf: [$ref: X], description: D` in 3.0, which ignores what
/// stands beside a reference.
fn described_reference_to_all_of(object: &mut Map<String, Value>) {
    if object.contains_key("description") && object.get("$ref").is_some_and(Value::is_string) {
        let target = object.remove("$ref");
        object.insert("allOf".to_owned(), json!([{ "$ref": target }]));
    }
}

/// Generators of 3.0 take one media type, and know no `application/problem+json`.
fn one_content(content: &mut Map<String, Value>) {
    if let Some(problem) = content.remove("application/problem+json") {
        content.insert("application/json".to_owned(), problem);
    }
    if content.contains_key("application/json") {
        content.retain(|media, _| media == "application/json");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(document: &OpenApi) -> Value {
        serde_json::to_value(document).expect("JSON")
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
        let document = value(&document());
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
        let document = value(&document());
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

    #[test]
    fn the_older_form_has_nothing_that_3_0_does_not_know() {
        let older: Value = serde_json::from_str(&downgraded(&document())).expect("JSON");
        assert_eq!(older["openapi"], "3.0.3");
        let text = older.to_string();
        assert!(!text.contains("\"null\""), "no null types");
        assert!(!text.contains("propertyNames") && !text.contains("problem+json"));
        assert!(older["info"]["license"].get("identifier").is_none());
    }
}
