//! The worker kinds.

use super::key::{Checked, Key};
use super::peer::{environment, peer};
use crate::config::error::ConfigError;
use crate::config::file::WorkerEntry;
use crate::config::{
    AGENT_PRESETS, AgentConfig, Allow, CommandConfig, McpConfig, SessionBuddyConfig, WorkerConfig,
    WorkerKind, preset,
};
use crate::error::nearest;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Checks the worker kind `name`.
pub(super) fn worker(at: &Key<'_>, name: &str, entry: WorkerEntry) -> Checked<WorkerConfig> {
    let at_least = Duration::from_millis(1)..=Duration::MAX;
    let timeout = at
        .key("timeout")
        .duration(entry.timeout.as_deref(), &at_least)?;
    let kind = match entry.kind.as_deref() {
        Some(kind) => kind.to_owned(),
        None if kinds().any(|kind| kind == name) => name.to_owned(),
        None => "command".to_owned(),
    };
    let kind = match kind.as_str() {
        "command" => WorkerKind::Command(command(at, entry)?),
        "mcp" => WorkerKind::Mcp(mcp(at, entry)?),
        "session-buddy" => WorkerKind::SessionBuddy(session_buddy(at, entry)?),
        other => match preset(other) {
            Some(preset) => WorkerKind::Agent(AgentConfig {
                preset,
                program: command(at, entry)?,
            }),
            None => return Err(unknown_kind(&at.key("kind"), other)),
        },
    };
    Ok(WorkerConfig { kind, timeout })
}

fn unknown_kind(at: &Key<'_>, kind: &str) -> ConfigError {
    let message = match kind {
        "nats" => "is nats, workers on other machines, which this version does not have".to_owned(),
        "agent" => "is agent; name the agent program instead".to_owned(),
        _ => match nearest(kind, kinds()) {
            Some(meant) => format!("is {kind:?}, which is no kind; did you mean {meant:?}?"),
            None => format!("is {kind:?}, which is no kind"),
        },
    };
    at.refuse(message, kinds().collect::<Vec<_>>().join(", "))
}

/// Checks the settings of a program of this machine.
fn command(at: &Key<'_>, entry: WorkerEntry) -> Checked<CommandConfig> {
    does_not_have(
        at,
        &[
            ("server", entry.server.is_some()),
            ("tool", entry.tool.is_some()),
            ("arguments", entry.arguments.is_some()),
        ],
    )?;
    let command = entry.command.map(|argv| at.key("command").argv(argv));
    environment(at, &entry.env_pass, &entry.env)?;
    Ok(CommandConfig {
        command: command.transpose()?,
        allow: allow(&at.key("allow"), &entry.allow)?,
        env_pass: entry.env_pass,
        env: entry.env,
    })
}

fn allow(at: &Key<'_>, programs: &[String]) -> Checked<Allow> {
    Allow::parse(programs).map_err(|index| {
        let message = format!("is {:?}, not a program", programs[index]);
        at.index(index).refuse(message, Allow::ALLOWED)
    })
}

fn mcp(at: &Key<'_>, entry: WorkerEntry) -> Checked<McpConfig> {
    has_no_program(at, &entry)?;
    let missing = |key: &str, allowed: &str| at.key(key).refuse("is missing for kind mcp", allowed);
    let tool = entry.tool.filter(|tool| !tool.is_empty());
    let arguments = entry.arguments.unwrap_or_default();
    for (name, value) in &arguments {
        placeholders(&at.key("arguments").key(name), value)?;
    }
    let server = entry
        .server
        .ok_or_else(|| missing("server", "a table with url or command"))?;
    Ok(McpConfig {
        server: peer(&at.key("server"), server)?,
        tool: tool.ok_or_else(|| missing("tool", "the name of one of the server's tools"))?,
        arguments,
        allow: allow(&at.key("allow"), &entry.allow)?,
    })
}

const PLACEHOLDERS: [&str; 4] = ["repo", "task", "item", "workflow_id"];

/// Refuses a word in braces that is nearly a placeholder, such as `{tasks}`: it would be sent as it is.
fn placeholders(at: &Key<'_>, value: &Value) -> Checked<()> {
    match value {
        Value::String(text) => match misspelt(text) {
            Some((word, meant)) => {
                let message =
                    format!("has {{{word}}}, which is no placeholder; did you mean {{{meant}}}?");
                let allowed = PLACEHOLDERS.map(|name| format!("{{{name}}}")).join(", ");
                Err(at.refuse(message, allowed))
            }
            None => Ok(()),
        },
        Value::Array(list) => list
            .iter()
            .enumerate()
            .try_for_each(|(index, value)| placeholders(&at.index(index), value)),
        Value::Object(map) => map
            .iter()
            .try_for_each(|(name, value)| placeholders(&at.key(name), value)),
        _ => Ok(()),
    }
}

/// Returns the first word in braces that is nearly a placeholder, and which.
fn misspelt(text: &str) -> Option<(&str, &'static str)> {
    let words = text.split('{').skip(1).filter_map(|rest| {
        let (word, _) = rest.split_once('}')?;
        let is_word = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '-';
        word.chars().all(is_word).then_some(word)
    });
    words
        .filter(|word| !PLACEHOLDERS.contains(word))
        .find_map(|word| Some((word, nearest(word, PLACEHOLDERS)?)))
}

fn session_buddy(at: &Key<'_>, entry: WorkerEntry) -> Checked<SessionBuddyConfig> {
    has_no_program(at, &entry)?;
    does_not_have(
        at,
        &[
            ("allow", !entry.allow.is_empty()),
            ("tool", entry.tool.is_some()),
            ("arguments", entry.arguments.is_some()),
        ],
    )?;
    let server = entry.server.map(|server| peer(&at.key("server"), server));
    Ok(SessionBuddyConfig {
        server: server.transpose()?,
    })
}

/// Refuses a worker that uses the server of `[session_buddy]` where there is none.
pub(super) fn session_buddies_have_a_server(
    top: &Key<'_>,
    workers: &BTreeMap<String, WorkerConfig>,
    has_shared: bool,
) -> Checked<()> {
    let mut without = workers.iter().filter(|(_, worker)| {
        matches!(&worker.kind, WorkerKind::SessionBuddy(kind) if kind.server.is_none())
    });
    match without.next() {
        Some((name, _)) if !has_shared => {
            let at = top.key("workers").key(name).key("server");
            let allowed = "a table with url or command, or a [session_buddy] table";
            Err(at.refuse("is missing", allowed))
        }
        _ => Ok(()),
    }
}

/// Refuses the keys that only programs of this machine have.
fn has_no_program(at: &Key<'_>, entry: &WorkerEntry) -> Checked<()> {
    does_not_have(
        at,
        &[
            ("command", entry.command.is_some()),
            ("env_pass", !entry.env_pass.is_empty()),
            ("env", !entry.env.is_empty()),
        ],
    )
}

fn does_not_have(at: &Key<'_>, keys: &[(&str, bool)]) -> Checked<()> {
    let allowed = "nothing: remove it, or set another `kind`";
    at.absent(keys, "does not belong to a worker of this kind", allowed)
}

fn kinds() -> impl Iterator<Item = &'static str> + Clone {
    ["command", "mcp", "session-buddy"]
        .into_iter()
        .chain(AGENT_PRESETS.iter().map(|preset| preset.name))
}
