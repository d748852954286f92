//! Schemas that every host takes without a warning.
//!
//! What schemars writes is valid, but hosts differ in what they understand of it. The rules come from measurements: no
//! `$ref`, no number formats, no nullable types, enums as plain `enum`, no unions at the top.

use crate::error::Problem;
use rmcp::model::JsonObject;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// What the server adds to every answer.
#[derive(Serialize, JsonSchema)]
struct Added {
    /// Whether texts or rows were cut for size.
    truncated: bool,
    /// Why the call was refused or failed; nothing else is there then.
    error: Problem,
    /// What could not be reported before, such as a run that was interrupted.
    notices: Vec<String>,
}

/// Returns the schema of arguments of type `T`.
pub(super) fn input<T: JsonSchema>() -> JsonObject {
    object::<T>(SchemaSettings::draft2020_12().for_deserialize())
}

/// Returns the schema of a result of type `T`, with the fields that the server adds to every answer.
///
/// Nothing is required: the official TypeScript SDK (1.32) checks the structure of an `isError` result too, and would
/// report its own error in place of ours.
pub(super) fn output<T: JsonSchema>() -> JsonObject {
    let serialized = || SchemaSettings::draft2020_12().for_serialize();
    let mut schema = object::<T>(serialized());
    if let Some(Value::Object(properties)) = schema.get_mut("properties")
        && let Some(Value::Object(added)) = object::<Added>(serialized()).remove("properties")
    {
        for (name, property) in added {
            properties.entry(name).or_insert(property);
        }
    }
    schema.remove("required");
    schema
}

/// Returns the schema of the object `T`, without what only its Rust type is called.
fn object<T: JsonSchema>(settings: SchemaSettings) -> JsonObject {
    let settings = settings.with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let settings = settings.with_transform(RecursiveTransform(make_portable));
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let Value::Object(mut schema) = schema.to_value() else {
        return JsonObject::new();
    };
    for key in ["title", "description"] {
        schema.remove(key);
    }
    schema.entry("type").or_insert_with(|| json!("object"));
    schema.entry("properties").or_insert_with(|| json!({}));
    schema
}

/// Brings a schema into the form that all hosts take; schemars applies it to those inside as well.
fn make_portable(schema: &mut Schema) {
    let Some(schema) = schema.as_object_mut() else {
        return;
    };
    plain_option(schema);
    plain_enum(schema);
    if let Some(Value::Object(items)) = schema.get_mut("items") {
        let has_parts = ["enum", "oneOf", "properties"]
            .iter()
            .any(|key| items.contains_key(*key));
        if !has_parts {
            // It repeats the list's own description.
            items.remove("description");
        }
    }
    if is_number(schema) {
        schema.remove("format");
    }
    if schema.get("default").is_some_and(is_empty) {
        schema.remove("default");
    }
    one_line(schema);
}

/// Returns whether a default is what absence means in any case.
fn is_empty(default: &Value) -> bool {
    match default {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Writes `Option<T>` as `T`: only `required` marks what may be absent.
fn plain_option(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    let is_null = |branch: &Value| branch.get("type").is_some_and(|kind| kind == "null");
    let Some(Value::Array(branches)) = schema.get_mut("anyOf") else {
        return;
    };
    branches.retain(|branch| !is_null(branch));
    if branches.len() != 1 {
        return;
    }
    let Some(Value::Object(inner)) = branches.pop() else {
        return;
    };
    schema.remove("anyOf");
    for (key, value) in inner {
        // The field's own description is the more exact one.
        if key != "description" || !schema.contains_key("description") {
            schema.insert(key, value);
        }
    }
}

/// Writes an enum whose variants have docs (`oneOf` of `const`) as `enum`, the docs in the description.
fn plain_enum(schema: &mut Map<String, Value>) {
    let Some(Value::Array(variants)) = schema.get("oneOf") else {
        return;
    };
    let mut names = Vec::new();
    let mut docs = Vec::new();
    for variant in variants {
        let doc = variant.get("description").and_then(Value::as_str);
        let of_variant = match (variant.get("const"), variant.get("enum")) {
            (Some(name), _) => vec![name.clone()],
            (None, Some(Value::Array(several))) => several.clone(),
            _ => return,
        };
        if let (Some(doc), [Value::String(name)]) = (doc, of_variant.as_slice()) {
            docs.push(format!("{name}: {}", doc.trim_end_matches('.')));
        }
        names.extend(of_variant);
    }
    schema.remove("oneOf");
    schema.insert("type".into(), json!("string"));
    schema.insert("enum".into(), Value::Array(names));
    if !docs.is_empty() {
        let docs = format!("{}.", docs.join("; "));
        let own = schema.get("description").and_then(Value::as_str);
        let joined = own.map_or(docs.clone(), |own| format!("{own} {docs}"));
        schema.insert("description".into(), joined.into());
    }
}

fn is_number(schema: &Map<String, Value>) -> bool {
    matches!(
        schema.get("type").and_then(Value::as_str),
        Some("integer" | "number")
    )
}

/// Unwraps the lines of a doc comment.
fn one_line(schema: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = schema.get_mut("description")
        && text.contains('\n')
    {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};

    /// An enum with docs.
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Colour {
        /// Like blood.
        Red,
        /// Like leaves.
        Green,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Sample {
        /// How many, over
        /// two lines.
        count: u32,
        /// Perhaps a number. Default: none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        perhaps: Option<i64>,
        /// Which colour.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        colour: Option<Colour>,
        /// Colours.
        #[serde(default)]
        colours: Vec<Colour>,
    }

    #[test]
    fn schemas_use_only_what_every_host_understands() {
        let expected = json!({
            "count": {"type": "integer", "minimum": 0, "description": "How many, over two lines."},
            "perhaps": {"type": "integer", "description": "Perhaps a number. Default: none."},
            "colour": {
                "type": "string", "enum": ["red", "green"],
                "description": "Which colour. red: Like blood; green: Like leaves."
            },
            "colours": {
                "type": "array", "description": "Colours.",
                "items": {
                    "type": "string", "enum": ["red", "green"],
                    "description": "An enum with docs. red: Like blood; green: Like leaves."
                }
            },
        });
        let input = Value::Object(input::<Sample>());
        assert_eq!(input["properties"], expected);
        assert_eq!(input["required"], json!(["count"]));
        assert_eq!(input["type"], "object");
    }

    #[test]
    fn every_output_has_the_fields_of_every_answer() {
        let output = output::<Sample>();
        assert!(output["properties"]["notices"]["items"]["type"] == "string");
        assert!(output["properties"].get("truncated").is_some());
    }
}
