//! The registration of worker kinds: one line each.

use super::Worker;
use super::command::{CommandWorker, Host, Prompt};
use super::mcp::McpTool;
use super::remote::{Remote, RemoteWorker};
use crate::config::{PeerConfig, SessionBuddyConfig, WorkerConfig, WorkerKind};
use crate::mcp_client::McpClient;
use std::sync::Arc;

/// The other MCP servers that worker kinds use.
pub trait Servers {
    /// What hands tasks to a Session-Buddy.
    type Buddy: Remote + 'static;

    /// Returns the client of a server; the same session for the same server.
    fn client(&mut self, server: &PeerConfig) -> McpClient;

    /// Returns what hands the tasks of the worker kind `name` to a Session-Buddy.
    fn buddy(&mut self, name: &str, config: &SessionBuddyConfig) -> Self::Buddy;
}

/// Makes the worker that `config` describes, on this machine's `host`. Nothing is started or connected.
pub fn make(
    name: &str,
    config: &WorkerConfig,
    host: &Host,
    servers: &mut impl Servers,
) -> Arc<dyn Worker> {
    let host = host.clone();
    match &config.kind {
        WorkerKind::Command(command) => {
            let prompt = command.command.as_deref().map(Prompt::template);
            Arc::new(CommandWorker::new(
                host,
                prompt,
                true,
                &command.allow,
                &command.env_pass,
                &command.env,
            ))
        }
        WorkerKind::Agent(agent) => {
            let prompt = match &agent.command {
                Some(argv) => Prompt::template(argv),
                None => Prompt::preset(agent.preset),
            };
            Arc::new(CommandWorker::new(
                host,
                Some(prompt),
                false,
                &agent.allow,
                &agent.env_pass,
                &agent.env,
            ))
        }
        WorkerKind::Mcp(mcp) => {
            let client = servers.client(&mcp.server);
            let tool = McpTool::new(name, &client, &mcp.tool, &mcp.arguments);
            Arc::new(RemoteWorker::new(tool, host, mcp.allow.clone()))
        }
        WorkerKind::SessionBuddy(buddy) => {
            let buddy = servers.buddy(name, buddy);
            Arc::new(RemoteWorker::new(buddy, host, Default::default()))
        }
    }
}
