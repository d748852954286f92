//! A pool of workers inside a Session-Buddy.
//!
//! The pools of 0.23.0 are a mock: a worker takes a prompt, waits a tenth of a second and reports that it is done, without
//! any output. Those of 0.36.0 answer with JSON, but their default backend is a placeholder that does no work either. So a
//! task counts as done only where an answer has an output that a real backend made.

use super::content::fold;
use super::error::PeerError;
use crate::mcp_client::{CallReply, McpClient};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

const EXECUTE: &str = "execute_on_pool";
const CREATE: &str = "create_pool";
const LIST: &str = "list_pools";

/// How much longer than this side the server goes on with a task.
const MARGIN: Duration = Duration::from_secs(1);

/// One pool of a Session-Buddy, made when it is first used.
#[derive(Debug)]
pub struct TaskPool {
    client: McpClient,
    name: String,
    /// The client's count of lost sessions when the pool was last seen: pools live in the server's memory alone. A tokio
    /// mutex, held while the pool is looked for and made, so that it is made once.
    seen: Mutex<Option<u64>>,
}

impl TaskPool {
    /// Returns the pool `name` of the server that `client` reaches; nothing is connected or made.
    pub fn new(client: McpClient, name: &str) -> Self {
        Self {
            client,
            name: name.to_owned(),
            seen: Mutex::new(None),
        }
    }

    /// Makes the pool where it is not there.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; no task has been sent.
    pub async fn ready(&self, deadline: Instant) -> Result<(), PeerError> {
        let mut seen = self.seen.lock().await;
        if *seen == Some(self.client.losses()) {
            return Ok(());
        }
        if !self.is_listed(deadline).await? {
            // Its answer is an error even where the pool is made; only the list shows that.
            self.call(CREATE, json!({"pool_id": self.name}), deadline)
                .await?;
            if !self.is_listed(deadline).await? {
                let why = format!("pool {} could not be made", self.name);
                return Err(PeerError::Retry(why));
            }
        }
        *seen = Some(self.client.losses());
        Ok(())
    }

    /// Runs a prompt in the pool and returns its output.
    ///
    /// # Errors
    ///
    /// [`PeerError`], whose variant says whether the task may have been executed all the same. An answer without an
    /// output is [`PeerError::Permanent`]: nothing shows that any work was done.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the remote request is cancelled.
    pub async fn execute(&self, prompt: &str, deadline: Instant) -> Result<String, PeerError> {
        // A little more than is left, so that it is this side's deadline that ends it.
        let left = deadline.saturating_duration_since(Instant::now()) + MARGIN;
        let arguments = json!({
            "pool_id": self.name,
            "prompt": prompt,
            "timeout": left.as_secs_f64(),
        });
        let reply = self.call(EXECUTE, arguments, deadline).await?;
        let output = output(&reply);
        if matches!(&output, Err(PeerError::Retry(said)) if said.ends_with("not found")) {
            // The next task makes the pool again.
            *self.seen.lock().await = None;
        }
        output
    }

    /// Checks whether the server has pools at all; makes none.
    ///
    /// # Errors
    ///
    /// [`PeerError`]: it is down, or has another front door.
    pub async fn look(&self, deadline: Instant) -> Result<(), PeerError> {
        let tools = self.client.list_tools(deadline).await?;
        if tools.iter().any(|tool| tool.name == EXECUTE) {
            return Ok(());
        }
        Err(no_pools())
    }

    async fn is_listed(&self, deadline: Instant) -> Result<bool, PeerError> {
        let reply = self.call(LIST, json!({}), deadline).await;
        let reply = reply.map_err(|error| match error {
            // Listing changes nothing, so that what was to follow it was not sent.
            PeerError::Unclear(error) => PeerError::Down(error),
            other => other,
        })?;
        let pools = listed(&reply).ok_or_else(|| refusal(&reply))?;
        Ok(pools.contains(&self.name))
    }

    async fn call(
        &self,
        tool: &str,
        arguments: Value,
        deadline: Instant,
    ) -> Result<CallReply, PeerError> {
        let arguments = match arguments {
            Value::Object(arguments) => arguments,
            _ => Map::new(),
        };
        Ok(self.client.call(tool, arguments, deadline).await?)
    }
}

/// Returns the output of a task.
fn output(reply: &CallReply) -> Result<String, PeerError> {
    let Some(body) = reply
        .structured
        .as_ref()
        .filter(|body| body.get("success").is_some())
    else {
        return Err(match reply.text.starts_with("✅") && !reply.is_error {
            true => no_output(),
            false => refusal(reply),
        });
    };
    let result = &body["result"];
    let error = body["error"].as_str().or(result["error"].as_str());
    match (error, result["response"].as_str()) {
        (Some(""), _) => Err(PeerError::Retry(OUT_OF_TIME.to_owned())),
        (Some(error), _) => Err(PeerError::Retry(fold(error))),
        (None, Some(output)) if !output.is_empty() && result["backend"] != "placeholder" => {
            Ok(output.to_owned())
        }
        _ => Err(no_output()),
    }
}

/// Returns the names of the pools that run; none where the reply is no list.
fn listed(reply: &CallReply) -> Option<Vec<String>> {
    if reply.is_error {
        return None;
    }
    let rows = reply
        .structured
        .as_ref()
        .and_then(|body| body["pools"].as_array());
    if let Some(rows) = rows {
        let running = rows.iter().filter(|row| row["running"] == true);
        return Some(
            running
                .filter_map(|row| Some(row["pool_id"].as_str()?.to_owned()))
                .collect(),
        );
    }
    let is_list = reply.text.starts_with("📊 Pools (");
    is_list.then(|| reply.text.lines().filter_map(running).collect())
}

fn running(line: &str) -> Option<String> {
    let (name, rest) = line.trim().strip_prefix("- ")?.split_once(": ")?;
    rest.starts_with("running=True").then(|| name.to_owned())
}

fn refusal(reply: &CallReply) -> PeerError {
    let said: String = fold(&reply.text).chars().take(300).collect();
    if reply.is_error && said.contains("Unknown tool") {
        return no_pools();
    }
    match said.strip_prefix("❌ Failed to execute task:") {
        Some("") => PeerError::Retry(OUT_OF_TIME.to_owned()),
        Some(why) => PeerError::Retry(why.trim().to_owned()),
        None => PeerError::Retry(said),
    }
}

/// What an empty error means.
const OUT_OF_TIME: &str = "the task ran out of its time there";

fn no_output() -> PeerError {
    PeerError::Permanent(
        "its pools returned no output of the task, so that nothing shows that it was done"
            .to_owned(),
    )
}

fn no_pools() -> PeerError {
    PeerError::Permanent(
        "this front door has no pools; start Session-Buddy with the full tool profile".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(is_error: bool, text: &str) -> CallReply {
        CallReply {
            is_error,
            text: text.to_owned(),
            structured: None,
        }
    }

    fn structured(body: Value) -> CallReply {
        CallReply {
            structured: Some(body),
            ..reply(false, "{}")
        }
    }

    #[test]
    fn only_an_output_of_a_real_backend_is_success() {
        let done = json!({"success": true, "result": {"response": "done", "model": "m"}});
        assert_eq!(output(&structured(done)), Ok("done".to_owned()));
        for body in [
            json!({"success": true, "result": {"response": "Processed task: x", "backend": "placeholder"}}),
            json!({"success": true, "result": {"response": null, "error": "no gateway"}}),
            json!({"success": true, "result": {"response": ""}}),
            json!({"success": true}),
            json!({"success": false, "error": ""}),
            json!({"success": false, "error": "Pool nope not found"}),
        ] {
            assert!(output(&structured(body.clone())).is_err(), "{body}");
        }
        for text in [
            "✅ Task executed on pool p1 by worker p1-worker-0",
            "❌ Failed to execute task: ",
            "",
        ] {
            assert!(output(&reply(false, text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_names_the_running_pools() {
        let text = "📊 Pools (3 total):\n  - p1: running=True, workers=3\n  - p2: running=False, workers=3\n  - x.y-1: running=True, workers=3";
        let names = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(listed(&reply(false, text)), names(&["p1", "x.y-1"]));
        assert_eq!(listed(&reply(false, "📊 Pools (0 total):\n")), names(&[]));
        assert_eq!(listed(&reply(true, text)), None);
        assert_eq!(listed(&reply(false, "❌ no")), None);
        let body = json!({"success": true, "pools": [
            {"pool_id": "p1", "running": true}, {"pool_id": "p2", "running": false}
        ]});
        assert_eq!(listed(&structured(body)), names(&["p1"]));
    }

    #[test]
    fn a_refusal_says_why() {
        let why = |text: &str, is_error| refusal(&reply(is_error, text)).to_string();
        assert!(why("❌ Failed to execute task: ", false).contains("out of its time"));
        assert!(why("❌ Failed to execute task: Pool nope not found", false).contains("Pool nope"));
        assert!(why("Unknown tool: 'execute_on_pool'", true).contains("full tool profile"));
    }
}
