//! The registration of worker kinds: one line each.

use super::Worker;
use super::command::{CommandWorker, Takes};
use super::mcp::McpTool;
use super::programs::{Host, Programs};
use super::prompt::Prompt;
use super::remote::{Remote, RemoteWorker};
use crate::config::{Allow, PeerConfig, SessionBuddyConfig, WorkerConfig, WorkerKind};
use crate::mcp_client::McpClient;
use crate::process::Reach;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The other MCP servers that worker kinds use.
pub(crate) trait Servers {
    /// What hands tasks to a Session-Buddy.
    type Buddy: Remote + 'static;

    /// Returns the client of a server; the same session for the same server.
    fn client(&mut self, server: &PeerConfig) -> McpClient;

    /// Returns what hands the tasks of the worker kind `name` to a Session-Buddy.
    fn buddy(&mut self, name: &str, config: &SessionBuddyConfig) -> Self::Buddy;
}

/// Makes the worker that `config` describes, on this machine's `host`. Nothing is started or connected.
pub(crate) fn make(
    name: &str,
    config: &WorkerConfig,
    host: &Host,
    servers: &mut impl Servers,
) -> Arc<dyn Worker> {
    let programs = |reach, allow: &Allow, env_pass: &[String], env: &BTreeMap<String, String>| {
        Programs::new(host.clone(), reach, allow, env_pass, env)
    };
    match &config.kind {
        WorkerKind::Command(command) => Arc::new(CommandWorker::new(
            programs(Reach::User, &command.allow, &command.env_pass, &command.env),
            Takes::Commands(command.command.as_deref().map(Prompt::template)),
        )),
        WorkerKind::Agent(agent) => Arc::new(CommandWorker::new(
            programs(
                Reach::Fenced,
                &agent.program.allow,
                &agent.program.env_pass,
                &agent.program.env,
            ),
            Takes::Prompts(match &agent.program.command {
                Some(argv) => Prompt::template(argv),
                None => Prompt::preset(agent.preset),
            }),
        )),
        WorkerKind::Mcp(mcp) => {
            let client = servers.client(&mcp.server);
            let tool = McpTool::new(name, &client, &mcp.tool, &mcp.arguments);
            let programs = programs(Reach::User, &mcp.allow, &[], &BTreeMap::new());
            Arc::new(RemoteWorker::new(tool, programs))
        }
        WorkerKind::SessionBuddy(buddy) => {
            let buddy = servers.buddy(name, buddy);
            let programs = programs(Reach::User, &Allow::default(), &[], &BTreeMap::new());
            Arc::new(RemoteWorker::new(buddy, programs))
        }
    }
}
