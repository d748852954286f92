//! The MCP client of `mahavishnu call`: greets the server, calls a tool, follows what it started.

use super::bar::Bar;
use parking_lot::Mutex;
use rmcp::model::{CallToolRequestParams, CallToolResult, JsonObject};
use rmcp::service::{ClientInitializeError, RoleClient, RunningService};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::{ServiceError, ServiceExt};
use serde_json::{Map, Value, json};
use tokio::process::{ChildStdin, ChildStdout};

/// How long one `get_workflow` waits while a run is followed; the server caps it as it does for any host.
const FOLLOW_WAIT_S: u32 = 600;

/// How far to follow what a call started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Until its workflow is done.
    ToTheEnd,
    /// Not beyond the first answer.
    FirstAnswer,
}

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The tool.
    pub tool: &'static str,
    /// Its arguments.
    pub arguments: JsonObject,
    /// How far to follow what it starts.
    pub follow: Follow,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The server closed the connection.
    Closed,
    /// The server answered with a protocol error, or with something else than MCP.
    Refused(String),
}

impl From<ClientInitializeError> for NoAnswer {
    fn from(error: ClientInitializeError) -> Self {
        match error {
            ClientInitializeError::ConnectionClosed(_)
            | ClientInitializeError::TransportError { .. } => Self::Closed,
            other => Self::Refused(other.to_string()),
        }
    }
}

impl From<ServiceError> for NoAnswer {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::TransportSend(_) | ServiceError::TransportClosed => Self::Closed,
            ServiceError::McpError(error) => Self::Refused(error.message.into_owned()),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// The workflow that runs in the called server, which ends with it.
#[derive(Debug, Default)]
pub(super) struct OwnRun(Mutex<Option<String>>);

impl OwnRun {
    /// Returns the workflow's id, where there is one.
    pub(super) fn id(&self) -> Option<String> {
        self.0.lock().clone()
    }

    fn see(&self, answer: &Value) {
        if answer["status"] == "running"
            && answer["owner"] == "this"
            && let Some(id) = answer["workflow_id"].as_str()
        {
            *self.0.lock() = Some(id.to_owned());
        }
    }
}

/// Makes the call over the server's stdout and stdin, then closes them, which asks the server to end. Reports the workflow
/// that runs to `own_run`.
pub(super) async fn call(
    (stdout, stdin): (ChildStdout, ChildStdin),
    bar: Bar,
    call: Call,
    own_run: &OwnRun,
) -> Result<Value, NoAnswer> {
    let transport = AsyncRwTransport::new_client(stdout, stdin);
    let client = bar.serve(transport).await?;
    let answer = follow(&client, call, own_run).await;
    // The answer is there; how the connection closes does not matter.
    let _ = client.cancel().await;
    answer
}

async fn follow(
    client: &RunningService<RoleClient, Bar>,
    call: Call,
    own_run: &OwnRun,
) -> Result<Value, NoAnswer> {
    let mut answer = ask(client, call.tool, call.arguments).await?;
    own_run.see(&answer);
    while call.follow == Follow::ToTheEnd && answer["status"] == "running" {
        let Some(id) = answer.get("workflow_id").cloned() else {
            break;
        };
        let arguments = Map::from_iter([
            ("workflow_id".to_owned(), id),
            ("wait_for".to_owned(), json!("done")),
            ("wait_s".to_owned(), json!(FOLLOW_WAIT_S)),
        ]);
        answer = ask(client, "get_workflow", arguments).await?;
        own_run.see(&answer);
    }
    Ok(answer)
}

async fn ask(
    client: &RunningService<RoleClient, Bar>,
    tool: &'static str,
    arguments: JsonObject,
) -> Result<Value, NoAnswer> {
    let params = CallToolRequestParams::new(tool).with_arguments(arguments);
    Ok(structure(client.call_tool(params).await?))
}

fn structure(result: CallToolResult) -> Value {
    result.structured_content.unwrap_or_else(|| {
        let texts = result.content.iter().filter_map(|block| block.as_text());
        Value::String(texts.map(|text| text.text.as_str()).collect())
    })
}
