//! The worker kind `mcp`: a tool of another MCP server, its arguments made from a template of the config.

use super::remote::{Remote, end_of, step};
use super::template::{fill_all, names};
use super::{End, Events, Task};
use crate::error::{ErrorKind, Problem, nearest};
use crate::mcp_client::{CallReply, ClientError, McpClient};
use crate::text::one_line;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the tools of a server that refused a call are asked for, to say what it has instead.
const LOOK: Duration = Duration::from_secs(5);

/// The longest that a probe waits; its caller usually waits less.
const PROBE: Duration = Duration::from_secs(60);

/// How many tools a message names.
const NAMED: usize = 10;

/// The longest message made of a tool's own words, in characters.
const SAID_CHARS: usize = 300;

/// One tool of one server.
pub(crate) struct McpTool {
    kind: String,
    client: McpClient,
    tool: String,
    arguments: Map<String, Value>,
}

impl McpTool {
    /// Returns the worker kind `kind` of the tool.
    pub(crate) fn new(
        kind: &str,
        client: &McpClient,
        tool: &str,
        arguments: &Map<String, Value>,
    ) -> Self {
        Self {
            kind: kind.to_owned(),
            client: client.clone(),
            tool: tool.to_owned(),
            arguments: arguments.clone(),
        }
    }

    /// Returns what a call without an answer means, and, where the server refused it, whether it has the tool at all.
    async fn unanswered(&self, error: &ClientError) -> End {
        let mut end = end_of(error);
        if let End::NotStarted(problem) = &mut end
            && matches!(error, ClientError::Refused { .. })
        {
            if let Err(missing) = self.look(Instant::now() + LOOK).await {
                *problem = missing;
            }
            problem.hint.get_or_insert_with(|| {
                format!(
                    "compare `arguments` of [workers.{}] in the config file with the tool's input schema",
                    self.kind
                )
            });
        }
        end
    }

    /// Looks whether the server has the tool.
    async fn look(&self, deadline: Instant) -> Result<(), Problem> {
        let tools = self.client.list_tools(deadline).await;
        let tools = tools?;
        let known: Vec<&str> = tools.iter().map(|tool| tool.name.as_ref()).collect();
        if known.contains(&self.tool.as_str()) {
            return Ok(());
        }
        let meant = nearest(&self.tool, known.iter().copied());
        let meant = meant.map(|name| format!("; did you mean {name}?"));
        let message = format!(
            "the server of worker kind {} has no tool {}{}",
            self.kind,
            self.tool,
            meant.unwrap_or_default()
        );
        let mut listed = known[..known.len().min(NAMED)].join(", ");
        if known.len() > NAMED {
            listed.push_str(", ...");
        }
        let hint = format!(
            "set `tool` of [workers.{}] in the config file to one that it has: {listed}",
            self.kind
        );
        Err(Problem::new(ErrorKind::NotFound, message).with_hint(hint))
    }
}

impl Remote for McpTool {
    fn is_local(&self) -> bool {
        names(&self.arguments, "{repo}")
    }

    fn perform<'a>(
        &'a self,
        task: &'a Task,
        prompt: &'a str,
        deadline: Instant,
        events: Events,
    ) -> BoxFuture<'a, (End, String)> {
        async move {
            let arguments = fill_all(&self.arguments, prompt, task);
            let on_progress = Arc::new(move |it| events(step(it)));
            let called = self
                .client
                .call_watched(&self.tool, arguments, deadline, on_progress);
            match called.await {
                Ok(reply) => read(&self.tool, reply),
                Err(error) => (self.unanswered(&error).await, String::new()),
            }
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Problem>> {
        self.look(Instant::now() + PROBE).boxed()
    }
}

/// Returns what a tool's answer means, and its text: the structured content where it has no other.
fn read(tool: &str, reply: CallReply) -> (End, String) {
    let structured = || reply.structured.as_ref().map(|it| format!("{it:#}"));
    let text = match reply.text.trim() {
        "" => structured().unwrap_or_default(),
        _ => reply.text.clone(),
    };
    if !reply.is_error {
        return (End::Succeeded, text);
    }
    let said = one_line(&text, SAID_CHARS);
    let message = if said.is_empty() {
        format!("tool {tool} failed and did not say why")
    } else {
        format!("tool {tool} failed: {said}")
    };
    let problem = Problem::new(ErrorKind::Failed, message)
        .with_hint("read_output has all that the tool said; resume_workflow runs it again");
    (End::Failed(problem), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reply(is_error: bool, text: &str, structured: Option<Value>) -> CallReply {
        CallReply {
            is_error,
            text: text.to_owned(),
            structured,
        }
    }

    #[test]
    fn structured_content_is_the_text_where_there_is_no_other() {
        let structured = Some(json!({"n": 1}));
        let (end, text) = read("t", reply(false, " \n", structured.clone()));
        assert_eq!((end, text.as_str()), (End::Succeeded, "{\n  \"n\": 1\n}"));
        assert_eq!(read("t", reply(false, "words", structured)).1, "words");
        assert_eq!(read("t", reply(false, "", None)).1, "");
    }

    #[test]
    fn an_error_is_told_in_the_tools_own_words() {
        let (end, text) = read("t", reply(true, "no such\n language", None));
        let End::Failed(problem) = end else {
            panic!("{end:?}")
        };
        assert_eq!(problem.message, "tool t failed: no such language");
        assert_eq!(text, "no such\n language");
        let End::Failed(silent) = read("t", reply(true, "", None)).0 else {
            panic!("it failed")
        };
        assert!(silent.message.contains("did not say why"));
        let End::Failed(long) = read("t", reply(true, &"é".repeat(9_000), None)).0 else {
            panic!("it failed")
        };
        assert!(long.message.chars().count() < 400);
    }
}
