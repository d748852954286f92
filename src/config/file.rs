//! The config file's shape as it is written. Its docs are the texts of `schemas/config.json`.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The config file of mahavishnu.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ConfigFile {
    /// Folders whose repositories tasks may run in; absolute, `~/...`, or relative to this file. Default: the folder
    /// the server was started in, unless that is `/` or the home folder.
    pub(super) roots: Vec<String>,
    /// The pools. Default: `local` for commands, and one of 2 workers for each agent program found on the PATH.
    pub(super) pools: Vec<PoolEntry>,
    /// The worker kinds that pools are made of, by name.
    pub(super) workers: BTreeMap<String, WorkerEntry>,
    /// The Session-Buddy server that memories are forwarded to. Default: none.
    pub(super) session_buddy: Option<PeerEntry>,
    /// Bounds of runs.
    pub(super) limits: LimitsEntry,
    /// The cache of remote search answers.
    pub(super) cache: CacheEntry,
    /// The state on disk.
    pub(super) store: StoreEntry,
    /// The log on stderr.
    pub(super) log: LogEntry,
}

/// One pool.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolEntry {
    /// Its name: 1 to 64 of a-z 0-9 _ . -, beginning with a letter or digit, without ten digits in a row; unique.
    pub(super) name: String,
    /// A worker of `[workers.NAME]`, or the name of an agent program's preset (claude, codex, ...).
    pub(super) worker: String,
    /// How many tasks it runs at once in one server, 1 to 10000. Default: 1.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10_000))]
    pub(super) max_workers: Option<i64>,
    /// Labels that calls may choose pools by.
    #[serde(default)]
    pub(super) labels: Vec<String>,
    /// How many routed tasks may wait for a slot, 0 to 100000. Default: 1000.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100_000))]
    pub(super) queue: Option<i64>,
}

/// One worker kind with its settings.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WorkerEntry {
    /// What runs a task: `command`, an agent program's preset (claude, codex, gemini, opencode, qwen, aider, goose,
    /// cursor-agent), `mcp` or `session-buddy`. Default: the worker's own name where that is a kind, else `command`.
    pub(super) kind: Option<String>,
    /// The program and its arguments for prompts; `{repo}`, `{task}`, `{item}` and `{workflow_id}` are replaced. Without
    /// `{task}` the prompt goes to stdin. For an agent: in place of the preset's.
    pub(super) command: Option<Vec<String>>,
    /// Names of the server's own environment variables that the program gets.
    pub(super) env_pass: Vec<String>,
    /// Environment variables with their values.
    pub(super) env: BTreeMap<String, String>,
    /// Which programs a call's `command`, `setup` and `verify` may name: names, absolute paths, or `["*"]` for any.
    /// Default: none.
    pub(super) allow: Vec<String>,
    /// How long one attempt may take, setup and verify included, unless the call sets another limit: `"30m"`. Default: no limit.
    pub(super) timeout: Option<String>,
    /// For `mcp` and `session-buddy`: the server.
    pub(super) server: Option<PeerEntry>,
    /// For `mcp`: the tool to call.
    pub(super) tool: Option<String>,
    /// For `mcp`: the tool's arguments; `{repo}`, `{task}`, `{item}` and `{workflow_id}` are replaced in texts, at any
    /// depth. A tool whose arguments name `{repo}` is taken to work on the files of this machine.
    pub(super) arguments: Option<Map<String, Value>>,
}

/// How another MCP server is reached: exactly one of `url` and `command`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PeerEntry {
    /// Its streamable HTTP endpoint, such as `http://127.0.0.1:8678/mcp`.
    pub(super) url: Option<String>,
    /// HTTP headers sent with every request, such as `Authorization`; with `url` only.
    pub(super) headers: BTreeMap<String, String>,
    /// The program and its arguments that speak MCP on stdio.
    pub(super) command: Option<Vec<String>>,
    /// Names of the server's own environment variables that the program gets; with `command` only.
    pub(super) env_pass: Vec<String>,
    /// Environment variables of the program with their values; with `command` only.
    pub(super) env: BTreeMap<String, String>,
}

/// Bounds of runs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LimitsEntry {
    /// The most items of one workflow, 1 to 100000. Default: 5000.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) max_items: Option<i64>,
    /// The most bytes kept on disk of one stream of one attempt, `"4KB"` to `"10GB"`. Default: `"64MB"`.
    pub(super) log_cap: Option<String>,
    /// The most bytes of a stream's end kept in an item's record, `"256B"` to `"8KiB"`. Default: `"2KiB"`.
    pub(super) output_tail: Option<String>,
    /// How long a program may take to end after SIGTERM, before SIGKILL, `"0s"` to `"10m"`. Default: `"5s"`.
    pub(super) grace: Option<String>,
    /// How long asking all pools may take, `"10ms"` to `"40s"`. Default: `"5s"`.
    pub(super) collect_deadline: Option<String>,
    /// How many bytes all worktrees together may take before no further one is made, `"1MB"` to `"1PB"`. Default: no
    /// limit.
    pub(super) worktrees_max_bytes: Option<String>,
}

/// The cache of remote search answers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CacheEntry {
    /// How long an answer is used again, `"1s"` to `"1day"`. Default: `"5m"`.
    pub(super) ttl: Option<String>,
    /// The most bytes held, `"0B"` to `"4GB"`. Default: `"32MB"`.
    pub(super) max_bytes: Option<String>,
}

/// The state on disk.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct StoreEntry {
    /// The state folder; absolute, `~/...`, or relative to this file. Default: the platform's state folder.
    pub(super) dir: Option<String>,
    /// What a finished write has survived: `full` (a loss of power) or `normal` (the end of the process). Default: `full`.
    pub(super) durability: Option<String>,
    /// How long finished workflows and their logs are kept, at least `"1h"`; one that has a worktree stays. Default: for ever.
    pub(super) retention: Option<String>,
    /// How long outcomes (the memories of what workers did) are kept, at least `"1h"`. Default: for ever.
    pub(super) retention_outcomes: Option<String>,
    /// How long lessons and notes are kept, at least `"1h"`. Default: for ever.
    pub(super) retention_notes: Option<String>,
}

/// The log on stderr.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LogEntry {
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a list such as `warn,mahavishnu=debug`. Default: `warn`.
    pub(super) filter: Option<String>,
}

/// Returns the JSON Schema of [`ConfigFile`], without `$ref` and without null, which TOML does not have.
pub(super) fn schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<ConfigFile>()
        .to_value();
    drop_null(&mut schema);
    schema
}

/// Writes "absent or a T" as T: in a schema of tables, what is not required may be absent.
fn drop_null(schema: &mut Value) {
    if let Value::Object(map) = schema {
        if map.get("default").is_some_and(Value::is_null) {
            map.remove("default");
        }
        if let Some(Value::Array(types)) = map.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                map.insert("type".to_owned(), only);
            }
        }
        let choice = match map.get_mut("anyOf") {
            Some(Value::Array(choices)) => {
                choices.retain(|choice| choice["type"] != "null");
                if choices.len() == 1 {
                    choices.pop()
                } else {
                    None
                }
            }
            _ => None,
        };
        if let Some(Value::Object(choice)) = choice {
            map.remove("anyOf");
            for (key, value) in choice {
                map.entry(key).or_insert(value);
            }
        }
        map.values_mut().for_each(drop_null);
    } else if let Value::Array(list) = schema {
        list.iter_mut().for_each(drop_null);
    }
}
