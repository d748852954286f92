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
use serde_json::Value;
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
        let allow = self.allow(path, &entry.allow)?;
        self.environment(path, &entry.env_pass, &entry.env)?;
        Ok(CommandConfig {
            command,
            allow,
            env_pass: entry.env_pass,
            env: entry.env,
        })
    }

    fn allow(&self, path: &KeyPath, programs: &[String]) -> Checked<Allow> {
        Allow::parse(programs).map_err(|index| {
            let message = format!("is {:?}, not a program", programs[index]);
            self.document
                .refuse(&path.key("allow").index(index), message, Allow::ALLOWED)
        })
    }

    fn mcp(&self, path: &KeyPath, entry: WorkerEntry) -> Checked<McpConfig> {
        self.no_program(path, &entry)?;
        let allow = self.allow(path, &entry.allow)?;
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
        let arguments = entry.arguments.unwrap_or_default();
        for (name, value) in &arguments {
            self.placeholders(&path.key("arguments").key(name), value)?;
        }
        Ok(McpConfig {
            server: self.peer(&path.key("server"), server)?,
            tool,
            arguments,
            allow,
        })
    }

    /// Refuses what looks like a placeholder and is none, such as `{tasks}`: it would be sent as it is.
    fn placeholders(&self, path: &KeyPath, value: &Value) -> Checked<()> {
        match value {
            Value::String(text) => match misspelt(text) {
                Some((word, meant)) => {
                    let message = format!(
                        "has {{{word}}}, which is no placeholder; did you mean {{{meant}}}?"
                    );
                    let allowed = PLACEHOLDERS.map(|name| format!("{{{name}}}")).join(", ");
                    Err(self.document.refuse(path, message, allowed))
                }
                None => Ok(()),
            },
            Value::Array(list) => list
                .iter()
                .enumerate()
                .try_for_each(|(index, value)| self.placeholders(&path.index(index), value)),
            Value::Object(map) => map
                .iter()
                .try_for_each(|(name, value)| self.placeholders(&path.key(name), value)),
            _ => Ok(()),
        }
    }

    fn session_buddy(&self, path: &KeyPath, entry: WorkerEntry) -> Checked<SessionBuddyConfig> {
        self.no_program(path, &entry)?;
        self.absent(path, "allow", !entry.allow.is_empty())?;
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
            (Some(url), None) => {
                self.belongs(path, "env_pass", "command", entry.env_pass.is_empty())?;
                self.belongs(path, "env", "command", entry.env.is_empty())?;
                self.headers(&path.key("headers"), &entry.headers)?;
                Ok(PeerConfig::Http {
                    url: self.url(&path.key("url"), url)?,
                    headers: entry.headers,
                })
            }
            (None, Some(argv)) => {
                self.belongs(path, "headers", "url", entry.headers.is_empty())?;
                self.environment(path, &entry.env_pass, &entry.env)?;
                Ok(PeerConfig::Stdio {
                    command: self.argv(&path.key("command"), argv)?,
                    env_pass: entry.env_pass,
                    env: entry.env,
                })
            }
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

    /// Refuses a key that only goes with another one.
    fn belongs(&self, path: &KeyPath, key: &str, with: &str, is_empty: bool) -> Checked<()> {
        if is_empty {
            return Ok(());
        }
        let message = format!("goes with {with} only");
        let allowed = format!("nothing here: remove it, or give {with}");
        Err(self.document.refuse(&path.key(key), message, allowed))
    }

    fn headers(&self, path: &KeyPath, headers: &BTreeMap<String, String>) -> Checked<()> {
        use reqwest::header::{HeaderName, HeaderValue};
        for (name, value) in headers {
            let good = HeaderName::from_bytes(name.as_bytes()).is_ok()
                && HeaderValue::from_str(value).is_ok();
            if !good {
                // The value is not told: it may be a secret.
                let message = "is no HTTP header";
                let allowed = "a name of letters, digits and -, and a value without line breaks";
                return Err(self.document.refuse(&path.key(name), message, allowed));
            }
        }
        Ok(())
    }

    fn environment(
        &self,
        path: &KeyPath,
        passed: &[String],
        set: &BTreeMap<String, String>,
    ) -> Checked<()> {
        for (index, name) in passed.iter().enumerate() {
            self.variable(&path.key("env_pass").index(index), name, "")?;
        }
        for (name, value) in set {
            self.variable(&path.key("env").key(name), name, value)?;
        }
        Ok(())
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

const PLACEHOLDERS: [&str; 4] = ["repo", "task", "item", "workflow_id"];

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

fn kinds() -> impl Iterator<Item = &'static str> + Clone {
    ["command", "mcp", "session-buddy"]
        .into_iter()
        .chain(AGENT_PRESETS.iter().map(|preset| preset.name))
}

fn is_kind(name: &str) -> bool {
    kinds().any(|kind| kind == name)
}
