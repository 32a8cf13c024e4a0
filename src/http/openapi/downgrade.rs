//! The document in OpenAPI 3.0.3, for generators that don't read 3.1.
//!
//! Invariant: it is derived from the newer document and never says more.

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

use crate::http::problem::PROBLEM_JSON;

const LICENSE_URL: &str = "https://www.apache.org/licenses/LICENSE-2.0";

/// Derives the document of OpenAPI 3.0.3, as JSON text.
pub(crate) fn downgraded(document: &OpenApi) -> String {
    let mut value = serde_json::to_value(document).unwrap_or_default();
    value["openapi"] = json!("3.0.3");
    if let Some(license) = value.pointer_mut("/info/license").and_then(Value::as_object_mut) {
        license.remove("identifier");
        // 3.0 has no SPDX identifiers of licences.
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

/// `$ref: X, description: D` is `allOf: [$ref: X], description: D` in 3.0, which ignores what is
/// beside a reference.
fn described_reference_to_all_of(object: &mut Map<String, Value>) {
    if object.contains_key("description") && object.get("$ref").is_some_and(Value::is_string) {
        let target = object.remove("$ref");
        object.insert("allOf".to_owned(), json!([{ "$ref": target }]));
    }
}

/// Generators of 3.0 take one media type, and know no `application/problem+json`.
fn one_content(content: &mut Map<String, Value>) {
    if let Some(problem) = content.remove(PROBLEM_JSON) {
        content.insert("application/json".to_owned(), problem);
    }
    if content.contains_key("application/json") {
        content.retain(|media, _| media == "application/json");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::openapi::document;
    use crate::http::routes;

    #[test]
    fn the_3_0_document_has_nothing_that_3_0_lacks() {
        let older: Value =
            serde_json::from_str(&downgraded(&document(&routes::all()))).expect("JSON");
        assert_eq!(older["openapi"], "3.0.3");
        let text = older.to_string();
        assert!(!text.contains("\"null\""), "no null types");
        assert!(!text.contains("propertyNames") && !text.contains("problem+json"));
        assert!(older["info"]["license"].get("identifier").is_none());
    }
}
