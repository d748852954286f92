//! The tools, each as data first: lists, schemas, documents, the command line and the checks all walk this table.

mod health;
mod memory;
mod pools;
mod repos;
mod workflows;

use super::{decode, schema};
use crate::api::{Answer, Caller, Tools};
use crate::error::{ErrorKind, Problem};
use futures_util::future::BoxFuture;
use rmcp::model::{JsonObject, MetaObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, LazyLock};

/// What calling a tool can do to the world; shown to hosts as annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Only looks.
    Reads,
    /// Only looks, also at what is outside this machine.
    ReadsOutside,
    /// Adds or sets something of our own; the same call again changes nothing more.
    Sets,
    /// The same, also outside this machine.
    SetsOutside,
    /// May end or overwrite something; the same call again changes nothing more.
    Destroys,
    /// Runs what the caller says, wherever that leads.
    Runs,
}

impl Effect {
    /// Returns whether calling changes nothing.
    pub fn is_read_only(self) -> bool {
        matches!(self, Self::Reads | Self::ReadsOutside)
    }

    fn annotations(self, title: &str) -> ToolAnnotations {
        ToolAnnotations::with_title(title)
            .read_only(self.is_read_only())
            .destructive(matches!(self, Self::Destroys | Self::Runs))
            .idempotent(self != Self::Runs)
            .open_world(matches!(
                self,
                Self::ReadsOutside | Self::SetsOutside | Self::Runs
            ))
    }
}

/// What is said of a tool.
struct About {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    search_hint: &'static str,
    effect: Effect,
}

type Handler = Box<
    dyn for<'a> Fn(
            &'a ToolSpec,
            &'a dyn Tools,
            JsonObject,
            &'a Caller,
        ) -> BoxFuture<'a, Result<String, Problem>>
        + Send
        + Sync,
>;

/// Made when it is first asked for: most of a process's life needs none, or one.
type Schema = LazyLock<Arc<JsonObject>>;

/// One tool.
pub struct ToolSpec {
    /// The name that hosts call it by.
    pub name: &'static str,
    /// What it does, in a few words, for people.
    pub title: &'static str,
    /// What it does, for models.
    pub description: &'static str,
    /// Words that a host's tool search should find it by.
    pub search_hint: &'static str,
    /// What calling it can do to the world.
    pub effect: Effect,
    input: Schema,
    output: Schema,
    handler: Handler,
}

impl ToolSpec {
    fn new<A, R>(
        about: About,
        method: for<'a> fn(&'a (dyn Tools + 'static), A, &'a Caller) -> Answer<'a, R>,
    ) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        R: Serialize + JsonSchema + Send + 'static,
    {
        Self {
            name: about.name,
            title: about.title,
            description: about.description,
            search_hint: about.search_hint,
            effect: about.effect,
            input: LazyLock::new(|| Arc::new(schema::input::<A>())),
            output: LazyLock::new(|| Arc::new(schema::output::<R>())),
            handler: Box::new(move |spec, tools, arguments, caller| {
                Box::pin(async move {
                    let arguments = decode::arguments(spec, arguments)?;
                    let result = method(tools, arguments, caller).await;
                    let result = result.map_err(|problem| decode::explained(spec, problem))?;
                    serde_json::to_string(&result).map_err(|error| {
                        Problem::new(ErrorKind::Internal, format!("encode the answer: {error}"))
                    })
                })
            }),
        }
    }

    /// Returns the schema of its arguments.
    pub fn input(&self) -> &JsonObject {
        &self.input
    }

    /// Returns the schema of its result.
    pub fn output(&self) -> &JsonObject {
        &self.output
    }

    /// Returns what `tools/list` says of it.
    pub fn tool(&self) -> Tool {
        let mut meta = MetaObject::new();
        meta.0
            .insert("anthropic/searchHint".into(), self.search_hint.into());
        Tool::new(self.name, self.description, Arc::clone(&self.input))
            .with_title(self.title)
            .with_raw_output_schema(Arc::clone(&self.output))
            .with_annotations(self.effect.annotations(self.title))
            .with_meta(meta)
    }

    /// Decodes `arguments`, calls the tool and encodes its result as JSON.
    pub(super) fn call<'a>(
        &'a self,
        tools: &'a (dyn Tools + 'static),
        arguments: JsonObject,
        caller: &'a Caller,
    ) -> BoxFuture<'a, Result<String, Problem>> {
        (self.handler)(self, tools, arguments, caller)
    }
}

static TABLE: LazyLock<Vec<ToolSpec>> = LazyLock::new(|| {
    let mut table = workflows::starters();
    table.extend(repos::finding());
    table.extend(workflows::following());
    table.extend(repos::bringing_home());
    table.extend(memory::tools());
    table.extend(pools::tools());
    table.extend(health::tools());
    table
});

/// Returns all tools, in the order in which they are listed: what is needed first comes first.
pub fn all() -> &'static [ToolSpec] {
    &TABLE
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
    fn every_tool_tells_what_hosts_ask_for() {
        let mut names = HashSet::new();
        for spec in all() {
            let tool = spec.tool();
            let name = spec.name;
            assert!(names.insert(name), "{name} is there twice");
            assert!(!spec.title.is_empty() && spec.title.len() < 60, "{name}");
            assert!(spec.description.len() > 40, "{name}: say what it does");
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
    fn every_schema_is_one_that_all_hosts_take() {
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
    fn every_optional_argument_tells_its_default() {
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
                let tells = text.contains("Default:") || text.contains("Either this or");
                let is_required = required.iter().any(|required| *required == name);
                assert!(tells || is_required, "{}.{name}: {text}", spec.name);
            }
        }
    }
}
