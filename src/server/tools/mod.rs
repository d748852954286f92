//! The tools, each as data first: lists, schemas, documents, the command line and the checks all walk one table.

mod spec;
mod table;

pub use spec::{About, Effect, ToolSpec};

/// Returns all tools, in the order in which they are listed.
pub fn all() -> &'static [ToolSpec] {
    &table::TABLE
}

/// Returns the tool called `name`.
pub fn find(name: &str) -> Option<&'static ToolSpec> {
    all().iter().find(|tool| tool.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::HashSet;

    #[test]
    fn every_tool_has_what_hosts_ask_for() {
        let mut names = HashSet::new();
        for spec in all() {
            let tool = spec.tool();
            let name = spec.name;
            assert!(names.insert(name), "{name} is a duplicate");
            assert!(!spec.title.is_empty() && spec.title.len() < 60, "{name}");
            assert!(spec.description.len() > 40, "{name}: describe it");
            assert!(spec.search_hint.len() > 10, "{name}");
            let annotations = tool.annotations.expect("annotations");
            assert!(annotations.title.is_some(), "{name}");
            assert!(annotations.read_only_hint.is_some(), "{name}");
            assert!(annotations.destructive_hint.is_some(), "{name}");
            assert!(annotations.idempotent_hint.is_some(), "{name}");
            assert!(annotations.open_world_hint.is_some(), "{name}");
            assert!(tool.output_schema.is_some(), "{name}");
        }
    }

    #[test]
    fn every_schema_is_portable() {
        for spec in all() {
            check(spec.name, &Value::Object(spec.input().clone()));
            check(spec.name, &Value::Object(spec.output().clone()));
            assert_eq!(spec.input()["type"], "object", "{}", spec.name);
            assert_eq!(spec.output()["type"], "object", "{}", spec.name);
        }
    }

    /// Walks a schema; `path` names the place in a failure.
    fn check(path: &str, schema: &Value) {
        let Value::Object(fields) = schema else {
            panic!("{path}: {schema} is no schema object");
        };
        for banned in [
            "$ref", "$defs", "$schema", "anyOf", "oneOf", "allOf", "const",
        ] {
            assert!(
                !fields.contains_key(banned),
                "{path} has {banned}: {schema}"
            );
        }
        assert!(fields["type"].is_string(), "{path}: {schema}");
        let numeric = fields["type"] == "integer" || fields["type"] == "number";
        assert!(
            !(numeric && fields.contains_key("format")),
            "{path}: {schema}"
        );
        assert!(
            fields.get("default").is_none_or(|value| !value.is_null()),
            "{path}"
        );
        if let Some(items) = fields.get("items") {
            check(&format!("{path}[]"), items);
        }
        for (name, property) in fields
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let path = format!("{path}.{name}");
            let described = property.get("description").and_then(Value::as_str);
            assert!(
                described.is_some_and(|text| !text.is_empty()),
                "{path} is not described"
            );
            check(&path, property);
        }
    }

    #[test]
    fn every_optional_argument_names_its_default() {
        for spec in all() {
            let required: Vec<_> = spec
                .input()
                .get("required")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .collect();
            let properties = spec.input()["properties"].as_object().expect("an object");
            for (name, property) in properties {
                let text = property["description"].as_str().expect("described");
                let has_default = text.contains("Default:") || text.contains("Either this or");
                let is_required = required.iter().any(|required| *required == name);
                assert!(has_default || is_required, "{}.{name}: {text}", spec.name);
            }
        }
    }
}
