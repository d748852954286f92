//! Decoding: from what a host sent to a tool's arguments, or to a refusal with what to write instead.

use super::coerce;
use crate::error::{Problem, nearest};
use crate::text;
use rmcp::ErrorData;
use rmcp::model::JsonObject;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Arguments that hosts add of their own and that mean nothing to us: Gemini CLI's boolean.
const ADDED_BY_HOSTS: [&str; 1] = ["wait_for_previous"];

/// Names that are reserved for later versions.
const RESERVED: [&str; 5] = ["model", "max_cost_usd", "max_tokens", "canary", "recall"];

/// The most bytes of an unknown name that are quoted.
const MAX_QUOTED_BYTES: usize = 80;

/// Returns the name and the arguments of a `tools/call` that rmcp could not read: some hosts send the arguments as one JSON
/// text.
///
/// # Errors
///
/// A protocol error that names the wrong part.
pub(super) fn loose_call(params: Option<Value>) -> Result<(String, JsonObject), ErrorData> {
    let mut params = params.unwrap_or_default();
    let Some(Value::String(name)) = params.get("name").cloned() else {
        return Err(wrong_call("`name` is missing or no text"));
    };
    let arguments = match params.get_mut("arguments").map(Value::take) {
        None | Some(Value::Null) => JsonObject::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(Value::String(text)) => serde_json::from_str(&text).map_err(|error| {
            wrong_call(&format!("`arguments` is a text, not an object: {error}"))
        })?,
        Some(_) => return Err(wrong_call("`arguments` is no object")),
    };
    Ok((name, arguments))
}

fn wrong_call(what: &str) -> ErrorData {
    let message = format!(
        "tools/call: {what}; send params {{\"name\": TOOL, \"arguments\": {{...}}}}, tools/list has the names"
    );
    ErrorData::invalid_params(message, None)
}

/// Reads the arguments of `tool`, whose schema is `schema`. Null counts as absent.
///
/// # Errors
///
/// The refusal of one argument: unknown, missing or of a wrong type.
pub(super) fn arguments<T: DeserializeOwned>(
    tool: &str,
    schema: &JsonObject,
    mut arguments: JsonObject,
) -> Result<T, Problem> {
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .expect("every tool's input schema has properties");
    arguments.retain(|name, value| !value.is_null() && !ADDED_BY_HOSTS.contains(&name.as_str()));
    if let Some(name) = arguments
        .keys()
        .find(|name| !properties.contains_key(*name))
    {
        return Err(unknown(tool, name, properties));
    }
    coerce::arguments(&mut arguments, properties);
    let required = schema.get("required").and_then(Value::as_array);
    let missing = required
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .find(|name| !arguments.contains_key(*name));
    if let Some(name) = missing {
        return Err(Problem::argument(
            name,
            format!("`{name}` is missing"),
            allowed(&properties[name]),
        )
        .with_hint(described(&properties[name])));
    }
    // The path to a fault is looked for only where there is one.
    T::deserialize(&arguments).or_else(|_| {
        serde_path_to_error::deserialize(&arguments)
            .map_err(|error| wrong(&error, &arguments, properties))
    })
}

/// Adds the argument's description to a refusal without a hint.
pub(super) fn explained(schema: &JsonObject, problem: Problem) -> Problem {
    let meaning = match (&problem.field, &problem.hint) {
        (Some(field), None) => {
            let name = field.split(['.', '[']).next().unwrap_or_default();
            let properties = schema.get("properties");
            properties.and_then(|properties| properties.get(name))
        }
        _ => None,
    };
    match meaning.map(described) {
        Some(hint) => problem.with_hint(hint),
        None => problem,
    }
}

fn unknown(tool: &str, name: &str, properties: &Map<String, Value>) -> Problem {
    let known = properties.keys().map(String::as_str);
    let shown = quoted(name);
    if RESERVED.contains(&name) {
        return Problem::argument(
            name,
            format!("`{name}` is reserved and has no meaning yet"),
            listed(properties),
        )
        .with_hint(format!("leave `{name}` out"));
    }
    let problem = Problem::argument(
        shown,
        format!("{tool} has no argument `{shown}`"),
        listed(properties),
    );
    match nearest(name, known) {
        Some(near) => problem.with_hint(format!("did you mean `{near}`?")),
        None => problem,
    }
}

fn listed(properties: &Map<String, Value>) -> String {
    if properties.is_empty() {
        return "no arguments".into();
    }
    let names: Vec<_> = properties.keys().map(String::as_str).collect();
    names.join(", ")
}

fn wrong(
    error: &serde_path_to_error::Error<serde_json::Error>,
    given: &JsonObject,
    properties: &Map<String, Value>,
) -> Problem {
    let path = error.path().to_string();
    let name = path.split(['.', '[']).next().unwrap_or_default();
    let schema = properties.get(name).unwrap_or(&Value::Null);
    let inner = plain_words(&error.inner().to_string());
    let problem = Problem::argument(path.clone(), format!("`{path}`: {inner}"), allowed(schema));
    let near = given
        .get(name)
        .and_then(Value::as_str)
        .and_then(|value| nearest(value, choices(schema)));
    match near {
        Some(near) => problem.with_hint(format!("did you mean `{near}`?")),
        None => problem.with_hint(described(schema)),
    }
}

/// Replaces serde's names of types by words.
fn plain_words(message: &str) -> String {
    message
        .replace("expected i64", "expected a whole number below 2^63")
        .replace("expected f64", "expected a number")
        .replace("expected a sequence", "expected a list")
        .replace("expected a map", "expected an object")
}

/// Returns what an argument with this schema may be, in words.
fn allowed(schema: &Value) -> String {
    let values: Vec<_> = choices(schema).collect();
    if !values.is_empty() {
        return values.join(", ");
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => match schema.get("items").map(allowed) {
            Some(items) => format!("a list, each of it {items}"),
            None => "a list".into(),
        },
        Some("integer") => "a whole number".into(),
        Some("number") => "a number".into(),
        Some("boolean") => "true or false".into(),
        _ => "a text".into(),
    }
}

fn choices(schema: &Value) -> impl Iterator<Item = &str> {
    let of = |schema: &Value| schema.get("enum").and_then(Value::as_array).is_some();
    let holder = match schema.get("items") {
        Some(items) if !of(schema) => items,
        _ => schema,
    };
    holder
        .get("enum")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn described(schema: &Value) -> String {
    schema
        .get("description")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn quoted(name: &str) -> &str {
    text::head(name, MAX_QUOTED_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{GetWorkflow, ListPools, SetPool, StartMany};
    use crate::server::tools;
    use serde_json::json;

    fn read<T: DeserializeOwned>(tool: &str, value: Value) -> Result<T, Problem> {
        let Value::Object(object) = value else {
            panic!("an object")
        };
        let schema = tools::find(tool).expect("a tool").input();
        arguments(tool, schema, object)
    }

    #[test]
    fn arguments_added_by_hosts_are_dropped_and_null_is_absent() {
        let args: ListPools = read(
            "list_pools",
            json!({"wait_for_previous": true, "pools": null, "detail": null}),
        )
        .expect("reads");
        assert_eq!(args, ListPools::default());
    }

    #[test]
    fn an_unknown_argument_is_refused_with_the_nearest_name() {
        let problem = read::<ListPools>("list_pools", json!({"pool": ["a"]})).expect_err("refused");
        assert_eq!(problem.field.as_deref(), Some("pool"));
        assert_eq!(problem.hint.as_deref(), Some("did you mean `pools`?"));
        assert_eq!(problem.allowed.as_deref(), Some("pools, detail, cursor"));
        let reserved = read::<StartMany>(
            "execute_workflow_parallel",
            json!({"repos": ["a"], "model": "x"}),
        )
        .expect_err("refused");
        assert!(reserved.message.contains("reserved"), "{reserved:?}");
    }

    #[test]
    fn a_wrong_value_is_named_by_its_path() {
        let cases = [
            (
                json!({"repos": {"a": 1}}),
                "repos",
                "a list, each of it a text",
            ),
            (
                json!({"repos": ["a", 3]}),
                "repos[1]",
                "a list, each of it a text",
            ),
            (
                json!({"repos": ["a"], "retries": 1.5}),
                "retries",
                "a whole number",
            ),
            (
                json!({"repos": ["a"], "retries": 1e30}),
                "retries",
                "a whole number",
            ),
            (
                json!({"repos": ["a"], "wait_s": "soon"}),
                "wait_s",
                "a number",
            ),
            (
                json!({"repos": ["a"], "dry_run": 1}),
                "dry_run",
                "true or false",
            ),
            (
                json!({"repos": ["a"], "isolation": "worktre"}),
                "isolation",
                "worktree, in_place, read_only",
            ),
            (json!({}), "repos", "a list, each of it a text"),
        ];
        for (value, field, allowed) in cases {
            let problem =
                read::<StartMany>("execute_workflow_parallel", value.clone()).expect_err("refused");
            assert_eq!(problem.field.as_deref(), Some(field), "{value}");
            assert_eq!(problem.allowed.as_deref(), Some(allowed), "{value}");
            assert!(problem.hint.is_some(), "{value}");
        }
    }

    #[test]
    fn the_nearest_choice_is_offered() {
        let problem = read::<StartMany>(
            "execute_workflow_parallel",
            json!({"repos": ["a"], "isolation": "worktre"}),
        )
        .expect_err("refused");
        assert_eq!(problem.hint.as_deref(), Some("did you mean `worktree`?"));
    }

    #[test]
    fn json_texts_are_taken_for_what_they_mean() {
        let many: StartMany = read(
            "execute_workflow_parallel",
            json!({
                "repos": "[\"a\",\"b\"]", "command": "true", "wait_s": "5", "retries": "2",
                "dry_run": "true", "max_failures": "null", "task": "5",
            }),
        )
        .expect("reads");
        let (repos, options) = many.split();
        assert_eq!(
            (repos, options.command),
            (vec!["a".to_owned(), "b".into()], vec!["true".into()])
        );
        assert_eq!((options.wait_s, options.retries), (Some(5.0), Some(2)));
        assert_eq!((options.dry_run, options.max_failures), (true, None));
        assert_eq!(options.task.as_deref(), Some("5"), "a text stays one");
        let get: GetWorkflow =
            read("get_workflow", json!({"items": "[0,\"repo\"]"})).expect("reads");
        assert_eq!(get.items.len(), 2);
        let get: GetWorkflow = read("get_workflow", json!({"items": 0})).expect("reads");
        assert_eq!(get.items.len(), 1);
    }

    #[test]
    fn a_call_with_its_arguments_as_a_text_is_read() {
        let params = |arguments: Value| Some(json!({"name": "list_pools", "arguments": arguments}));
        let (name, arguments) = loose_call(params(json!("{\"pools\":[]}"))).expect("reads");
        assert_eq!((name.as_str(), arguments.len()), ("list_pools", 1));
        let wrong = [
            params(json!("[1]")),
            params(json!([1])),
            Some(json!({"name": 5})),
            None,
        ];
        for params in wrong {
            let error = loose_call(params).expect_err("refused");
            assert!(
                error.message.contains("\"name\": TOOL"),
                "{}",
                error.message
            );
        }
    }

    #[test]
    fn whole_fractions_and_both_forms_of_items_are_read() {
        let set: SetPool =
            read("set_pool", json!({"name": "a", "max_workers": 4.0})).expect("reads");
        assert_eq!(set.max_workers, Some(4));
        let get: GetWorkflow =
            read("get_workflow", json!({"items": [0, "1", "repo"]})).expect("reads");
        assert_eq!(get.items.len(), 3);
    }
}
