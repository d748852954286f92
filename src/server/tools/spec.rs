//! One tool: what is published of it, and its handler.

use crate::api::{Answer, Caller, Tools};
use crate::error::{ErrorKind, Problem};
use crate::server::{decode, schema};
use futures_util::future::BoxFuture;
use rmcp::model::{JsonObject, MetaObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

/// What calling a tool can do to the world; shown to hosts as annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Only reads.
    Reads,
    /// Only reads, also outside this machine.
    ReadsOutside,
    /// Adds or sets something of the server's own; the same call again changes nothing more.
    Sets,
    /// The same, also outside this machine.
    SetsOutside,
    /// May end or overwrite something; the same call again changes nothing more.
    Destroys,
    /// Runs programs that the caller names, with any effect.
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

/// What is published of a tool beside its schemas.
pub struct About {
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
}

type Handler = Box<
    dyn for<'a> Fn(
            &'a ToolSpec,
            &'a dyn Tools,
            JsonObject,
            &'a Caller,
        ) -> BoxFuture<'a, Result<Value, Problem>>
        + Send
        + Sync,
>;

/// Made when it is first asked for: most of a process's life needs none, or one.
type Schema = LazyLock<Arc<JsonObject>>;

/// One tool; its names and texts are those of [`About`].
pub struct ToolSpec {
    about: About,
    input: Schema,
    output: Schema,
    handler: Handler,
}

impl Deref for ToolSpec {
    type Target = About;

    fn deref(&self) -> &About {
        &self.about
    }
}

impl ToolSpec {
    /// Returns the tool that is answered by `method`.
    pub(super) fn new<A, R>(
        about: About,
        method: for<'a> fn(&'a (dyn Tools + 'static), A, &'a Caller) -> Answer<'a, R>,
    ) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        R: Serialize + JsonSchema + Send + 'static,
    {
        Self {
            about,
            input: LazyLock::new(|| Arc::new(schema::input::<A>())),
            output: LazyLock::new(|| Arc::new(schema::output::<R>())),
            handler: Box::new(move |spec, tools, arguments, caller| {
                Box::pin(async move {
                    let arguments = decode::arguments(spec.name, &spec.input, arguments)?;
                    let result = method(tools, arguments, caller).await;
                    let result =
                        result.map_err(|problem| decode::explained(&spec.input, problem))?;
                    serde_json::to_value(&result).map_err(|error| {
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

    /// Returns its entry in `tools/list`.
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

    /// Decodes `arguments`, calls the tool and encodes its result as a JSON object.
    pub(in crate::server) fn call<'a>(
        &'a self,
        tools: &'a (dyn Tools + 'static),
        arguments: JsonObject,
        caller: &'a Caller,
    ) -> BoxFuture<'a, Result<Value, Problem>> {
        (self.handler)(self, tools, arguments, caller)
    }
}
