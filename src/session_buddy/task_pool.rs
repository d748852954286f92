//! A pool of workers inside a Session-Buddy with the full front door.
//!
//! Its pools are a mock (0.23.0): a worker takes a prompt, waits a tenth of a second and says that it is done. No output
//! of a task is ever returned, so that nothing but the fact is known of it.

use super::content::{compiled, fold};
use super::error::PeerError;
use crate::mcp_client::{CallReply, McpClient};
use regex::Regex;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;
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

    /// Sees to it that the pool is there, and makes it where it is not.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; no task has been handed over.
    pub async fn ready(&self, deadline: Instant) -> Result<(), PeerError> {
        let mut seen = self.seen.lock().await;
        if *seen == Some(self.client.losses()) {
            return Ok(());
        }
        if !self.is_listed(deadline).await? {
            // Its answer is an error even where the pool is made; only the list tells.
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

    /// Hands a prompt to the pool and returns the name of the worker that says it is done.
    ///
    /// # Errors
    ///
    /// [`PeerError`], which says whether the task may have been executed all the same.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the server is told that nobody waits any more.
    pub async fn execute(&self, prompt: &str, deadline: Instant) -> Result<String, PeerError> {
        // A little more than is left, so that it is this side's deadline that ends it.
        let left = deadline.saturating_duration_since(Instant::now()) + MARGIN;
        let arguments = json!({
            "pool_id": self.name,
            "prompt": prompt,
            "timeout": left.as_secs_f64(),
        });
        let reply = self.call(EXECUTE, arguments, deadline).await?;
        if let Some(worker) = executed(&reply) {
            return Ok(worker);
        }
        if reply.text.ends_with("not found") {
            // The next one makes it anew.
            *self.seen.lock().await = None;
        }
        Err(refusal(&reply))
    }

    /// Looks whether the server has pools at all; makes none.
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
        Ok(pools.contains(&self.name.as_str()))
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

/// Returns the worker that executed the task, or nothing when the reply is no success.
fn executed(reply: &CallReply) -> Option<String> {
    static DONE: LazyLock<Regex> =
        LazyLock::new(|| compiled(r"\A✅ Task executed on pool .* by worker (\S+)\s*\z"));
    let found = DONE.captures(&reply.text).filter(|_| !reply.is_error)?;
    Some(found[1].to_owned())
}

/// Returns the names of the pools that run, or nothing when the reply is no list.
fn listed(reply: &CallReply) -> Option<Vec<&str>> {
    if reply.is_error || !reply.text.starts_with("📊 Pools (") {
        return None;
    }
    Some(reply.text.lines().filter_map(running).collect())
}

fn running(line: &str) -> Option<&str> {
    let (name, rest) = line.trim().strip_prefix("- ")?.split_once(": ")?;
    rest.starts_with("running=True").then_some(name)
}

fn refusal(reply: &CallReply) -> PeerError {
    let said: String = fold(&reply.text).chars().take(300).collect();
    if reply.is_error && said.contains("Unknown tool") {
        return no_pools();
    }
    match said.strip_prefix("❌ Failed to execute task:") {
        Some("") => PeerError::Retry("the task ran out of its time there".to_owned()),
        Some(why) => PeerError::Retry(why.trim().to_owned()),
        None => PeerError::Retry(said),
    }
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

    #[test]
    fn only_its_own_prefix_is_success() {
        let done = "✅ Task executed on pool p1 by worker p1-worker-0";
        assert_eq!(
            executed(&reply(false, done)).as_deref(),
            Some("p1-worker-0")
        );
        assert_eq!(executed(&reply(true, done)), None);
        for other in [
            "",
            "❌ Failed to execute task: ",
            "✅ Executed 7 tasks on pool p1",
            "x ✅ Task executed on pool p1 by worker p1-worker-0",
        ] {
            assert_eq!(executed(&reply(false, other)), None, "{other}");
        }
    }

    #[test]
    fn a_list_names_the_pools_that_run() {
        let text = "📊 Pools (3 total):\n  - p1: running=True, workers=3\n  - p2: running=False, workers=3\n  - x.y-1: running=True, workers=3";
        assert_eq!(listed(&reply(false, text)), Some(vec!["p1", "x.y-1"]));
        assert_eq!(listed(&reply(false, "📊 Pools (0 total):\n")), Some(vec![]));
        assert_eq!(listed(&reply(true, text)), None);
        assert_eq!(listed(&reply(false, "❌ no")), None);
    }

    #[test]
    fn a_refusal_says_why() {
        let why = |text: &str, is_error| refusal(&reply(is_error, text)).to_string();
        assert!(why("❌ Failed to execute task: ", false).contains("out of its time"));
        assert!(why("❌ Failed to execute task: Pool nope not found", false).contains("Pool nope"));
        assert!(why("Unknown tool: 'execute_on_pool'", true).contains("full tool profile"));
    }
}
