//! Schemas that every host takes without a warning.
//!
//! What schemars writes is valid, but hosts differ in what they understand of it. The rules were measured: no `$ref`,
//! no number formats, no nullable types, enums as plain `enum`, no unions at the top.

use crate::error::Problem;
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// Returns the schema of arguments of type `T`.
pub(super) fn input<T: JsonSchema>() -> JsonObject {
    root(
        SchemaSettings::draft2020_12().for_deserialize(),
        T::json_schema,
    )
}

/// Returns the schema of a result of type `T`, with the fields that the server adds to every answer.
///
/// Nothing is required: the official TypeScript SDK (1.32) checks the structure of an `isError` result too, and would
/// show its own complaint in place of our `error`.
pub(super) fn output<T: JsonSchema>() -> JsonObject {
    let mut schema = root(
        SchemaSettings::draft2020_12().for_serialize(),
        T::json_schema,
    );
    let properties = schema
        .entry("properties")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .expect("`properties` of an object's schema is an object");
    properties.entry("truncated").or_insert_with(
        || json!({"type": "boolean", "description": "Whether texts or rows were cut for size."}),
    );
    properties.insert("error".into(), error());
    properties.insert(
        "notices".into(),
        json!({
            "type": "array",
            "items": {"type": "string"},
            "description": "What could not be told before, such as a run that was interrupted."
        }),
    );
    schema.remove("required");
    schema
}

/// Returns the schema of what a refused or failed call answers with.
fn error() -> Value {
    let schema = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<Problem>();
    let mut schema = portable(schema.to_value());
    if let Value::Object(fields) = &mut schema {
        for key in ["$schema", "$defs", "title"] {
            fields.remove(key);
        }
        fields.insert(
            "description".into(),
            json!("Why the call was refused or failed; nothing else is there then."),
        );
    }
    schema
}

fn root(
    settings: SchemaSettings,
    of: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
) -> JsonObject {
    let mut generator = settings
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .into_generator();
    let Value::Object(mut schema) = portable(of(&mut generator).to_value()) else {
        return JsonObject::new();
    };
    for key in ["$schema", "$defs", "title", "description"] {
        schema.remove(key);
    }
    schema.entry("type").or_insert_with(|| json!("object"));
    schema.entry("properties").or_insert_with(|| json!({}));
    schema
}

/// Returns `schema` in the form that all hosts take.
fn portable(schema: Value) -> Value {
    let Value::Object(mut schema) = schema else {
        return schema;
    };
    plain_option(&mut schema);
    plain_enum(&mut schema);
    for key in ["properties", "$defs"] {
        if let Some(Value::Object(children)) = schema.get_mut(key) {
            for child in children.values_mut() {
                *child = portable(child.take());
            }
        }
    }
    if let Some(items) = schema.get_mut("items") {
        *items = portable(items.take());
        let is_choice = items.get("enum").is_some() || items.get("properties").is_some();
        if let (false, Value::Object(items)) = (is_choice, items) {
            // The list's own description says it; a repeated one only costs the model's room.
            items.remove("description");
        }
    }
    if is_number(&schema) {
        schema.remove("format");
    }
    let tells_nothing = |default: &Value| match default {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    if schema.get("default").is_some_and(tells_nothing) {
        schema.remove("default");
    }
    one_line(&mut schema);
    Value::Object(schema)
}

/// Writes `Option<T>` as `T`: absence is said by `required` alone.
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
        // The field's own words stay; what its type says in general is said there already.
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
        join_description(schema, &format!("{}.", docs.join("; ")));
    }
}

fn join_description(schema: &mut Map<String, Value>, more: &str) {
    let joined = match schema.get("description").and_then(Value::as_str) {
        Some(own) if !more.is_empty() => format!("{own} {more}"),
        Some(own) => own.to_owned(),
        None => more.to_owned(),
    };
    schema.insert("description".into(), Value::String(joined));
}

fn is_number(schema: &Map<String, Value>) -> bool {
    matches!(
        schema.get("type").and_then(Value::as_str),
        Some("integer" | "number")
    )
}

/// Unwraps the lines of a doc comment: where it was wrapped says nothing to a host.
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
    fn what_hosts_stumble_over_is_gone() {
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
    fn every_output_has_room_for_notices() {
        let output = output::<Sample>();
        assert!(output["properties"]["notices"]["items"]["type"] == "string");
        assert!(output["properties"].get("truncated").is_some());
    }
}
