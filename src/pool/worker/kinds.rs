//! The registration of worker kinds: one line each.

use super::Worker;
use super::command::{CommandWorker, Host, Prompt};
use crate::config::{WorkerConfig, WorkerKind};
use crate::error::{ErrorKind, Problem};
use std::sync::Arc;

/// Makes the worker that `config` describes, on this machine's `host`.
///
/// # Errors
///
/// The kind cannot be run by this build.
pub fn make(name: &str, config: &WorkerConfig, host: &Host) -> Result<Arc<dyn Worker>, Problem> {
    match &config.kind {
        WorkerKind::Command(command) => {
            let prompt = command.command.as_deref().map(Prompt::template);
            Ok(Arc::new(CommandWorker::new(
                host.clone(),
                prompt,
                true,
                &command.allow,
                &command.env_pass,
                &command.env,
            )))
        }
        WorkerKind::Agent(agent) => {
            let prompt = match &agent.command {
                Some(argv) => Prompt::template(argv),
                None => Prompt::preset(agent.preset),
            };
            Ok(Arc::new(CommandWorker::new(
                host.clone(),
                Some(prompt),
                false,
                &agent.allow,
                &agent.env_pass,
                &agent.env,
            )))
        }
        WorkerKind::Mcp(_) | WorkerKind::SessionBuddy(_) => Err(Problem::new(
            ErrorKind::Unavailable,
            format!("worker kind {name} cannot be run by this version"),
        )),
    }
}
