//! The worker kinds.

use super::super::document::KeyPath;
use super::super::error::ConfigError;
use super::super::file::{PeerEntry, WorkerEntry};
use super::super::{
    AGENT_PRESETS, AgentConfig, Allow, CommandConfig, McpConfig, PeerConfig, SessionBuddyConfig,
    WorkerConfig, WorkerKind, preset,
};
use super::{Check, Checked};
use crate::error::nearest;
use std::collections::BTreeMap;
use std::time::Duration;

impl Check<'_> {
    pub(super) fn worker(
        &self,
        path: &KeyPath,
        name: &str,
        entry: WorkerEntry,
    ) -> Checked<WorkerConfig> {
        let timeout_at = path.key("timeout");
        let at_least = Duration::from_millis(1)..=Duration::MAX;
        let timeout = match entry.timeout.as_deref() {
            Some(text) => {
                Some(self.duration(&timeout_at, Some(text), Duration::ZERO, &at_least)?)
            }
            None => None,
        };
        let kind = match entry.kind.as_deref() {
            Some(kind) => kind.to_owned(),
            None if is_kind(name) => name.to_owned(),
            None => "command".to_owned(),
        };
        let kind = match kind.as_str() {
            "command" => self.command(path, entry).map(WorkerKind::Command),
            "mcp" => self.mcp(path, entry).map(WorkerKind::Mcp),
            "session-buddy" => self
                .session_buddy(path, entry)
                .map(WorkerKind::SessionBuddy),
            other => match preset(other) {
                Some(preset) => self.command(path, entry).map(|command| {
                    WorkerKind::Agent(AgentConfig {
                        preset,
                        command: command.command,
                        allow: command.allow,
                        env_pass: command.env_pass,
                        env: command.env,
                    })
                }),
                None => Err(self.unknown_kind(path, other)),
            },
        }?;
        Ok(WorkerConfig { kind, timeout })
    }

    fn unknown_kind(&self, path: &KeyPath, kind: &str) -> ConfigError {
        let message = match kind {
            "nats" => "is nats, workers on other machines, which is not there yet".to_owned(),
            "agent" => "is agent; name the agent program instead".to_owned(),
            _ => match nearest(kind, kinds()) {
                Some(meant) => format!("is {kind:?}, which is no kind; did you mean {meant:?}?"),
                None => format!("is {kind:?}, which is no kind"),
            },
        };
        let allowed: Vec<&str> = kinds().collect();
        self.document
            .refuse(&path.key("kind"), message, allowed.join(", "))
    }

    fn command(&self, path: &KeyPath, entry: WorkerEntry) -> Checked<CommandConfig> {
        self.absent(path, "server", entry.server.is_some())?;
        self.absent(path, "tool", entry.tool.is_some())?;
        self.absent(path, "arguments", entry.arguments.is_some())?;
        let command_at = path.key("command");
        let command = match entry.command {
            Some(argv) => Some(self.argv(&command_at, argv)?),
            None => None,
        };
        let allow = Allow::parse(&entry.allow).map_err(|index| {
            let message = format!("is {:?}, not a program", entry.allow[index]);
            self.document
                .refuse(&path.key("allow").index(index), message, Allow::ALLOWED)
        })?;
        for (index, name) in entry.env_pass.iter().enumerate() {
            self.variable(&path.key("env_pass").index(index), name, "")?;
        }
        for (name, value) in &entry.env {
            self.variable(&path.key("env").key(name), name, value)?;
        }
        Ok(CommandConfig {
            command,
            allow,
            env_pass: entry.env_pass,
            env: entry.env,
        })
    }

    fn mcp(&self, path: &KeyPath, entry: WorkerEntry) -> Checked<McpConfig> {
        self.no_program(path, &entry)?;
        let missing = |key: &str, allowed: &str| {
            self.document
                .refuse(&path.key(key), "is missing for kind mcp", allowed)
        };
        let server = entry
            .server
            .ok_or_else(|| missing("server", "a table with url or command"))?;
        let tool = entry
            .tool
            .filter(|tool| !tool.is_empty())
            .ok_or_else(|| missing("tool", "the name of one of the server's tools"))?;
        Ok(McpConfig {
            server: self.peer(&path.key("server"), server)?,
            tool,
            arguments: entry.arguments.unwrap_or_default(),
        })
    }

    fn session_buddy(&self, path: &KeyPath, entry: WorkerEntry) -> Checked<SessionBuddyConfig> {
        self.no_program(path, &entry)?;
        self.absent(path, "tool", entry.tool.is_some())?;
        self.absent(path, "arguments", entry.arguments.is_some())?;
        let server = entry
            .server
            .map(|server| self.peer(&path.key("server"), server))
            .transpose()?;
        Ok(SessionBuddyConfig { server })
    }

    pub(super) fn session_buddy_workers_have_a_server(
        &self,
        workers: &BTreeMap<String, WorkerConfig>,
        shared: bool,
    ) -> Checked<()> {
        let lonely = workers.iter().find(|(_, worker)| {
            matches!(&worker.kind, WorkerKind::SessionBuddy(kind) if kind.server.is_none())
        });
        match lonely {
            Some((name, _)) if !shared => {
                let path = KeyPath::default().key("workers").key(name).key("server");
                let allowed = "a table with url or command, or a [session_buddy] table";
                Err(self.document.refuse(&path, "is missing", allowed))
            }
            _ => Ok(()),
        }
    }

    /// Refuses the keys that only programs of this machine have.
    fn no_program(&self, path: &KeyPath, entry: &WorkerEntry) -> Checked<()> {
        self.absent(path, "command", entry.command.is_some())?;
        self.absent(path, "allow", !entry.allow.is_empty())?;
        self.absent(path, "env_pass", !entry.env_pass.is_empty())?;
        self.absent(path, "env", !entry.env.is_empty())
    }

    fn absent(&self, path: &KeyPath, key: &str, is_there: bool) -> Checked<()> {
        if is_there {
            let message = "does not belong to a worker of this kind";
            let allowed = "nothing: remove it, or set another `kind`";
            Err(self.document.refuse(&path.key(key), message, allowed))
        } else {
            Ok(())
        }
    }

    pub(super) fn peer(&self, path: &KeyPath, entry: PeerEntry) -> Checked<PeerConfig> {
        match (entry.url, entry.command) {
            (Some(url), None) => self.url(&path.key("url"), url),
            (None, Some(argv)) => Ok(PeerConfig::Stdio {
                command: self.argv(&path.key("command"), argv)?,
            }),
            (Some(_), Some(_)) => Err(self.document.refuse(
                path,
                "has both url and command",
                "one of the two: remove the other",
            )),
            (None, None) => Err(self.document.refuse(
                path,
                "has neither url nor command",
                "url = \"http://...\" or command = [\"program\", ...]",
            )),
        }
    }

    fn variable(&self, path: &KeyPath, name: &str, value: &str) -> Checked<()> {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let message = "is no environment variable";
            let allowed = "a name without `=`, and no NUL characters";
            Err(self.document.refuse(path, message, allowed))
        } else {
            Ok(())
        }
    }
}

fn kinds() -> impl Iterator<Item = &'static str> + Clone {
    ["command", "mcp", "session-buddy"]
        .into_iter()
        .chain(AGENT_PRESETS.iter().map(|preset| preset.name))
}

fn is_kind(name: &str) -> bool {
    kinds().any(|kind| kind == name)
}
