//! `list_pools`, `set_pool`, `close_pool`.

use crate::error::Problem;
use crate::model::PoolName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much of each row to show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// What is needed to decide.
    #[default]
    Summary,
    /// All that is known.
    Full,
}

/// Arguments of `list_pools`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ListPools {
    /// Names of the pools to list. Default: all.
    pub pools: Vec<PoolName>,
    /// How much of each pool to show. Default: summary.
    pub detail: Option<Detail>,
    /// The `cursor` of the answer before, for the next page. Default: the first page.
    pub cursor: Option<String>,
}

/// Whether a pool can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Its worker answers.
    Healthy,
    /// It works with a fault that `error` names.
    Degraded,
    /// Its worker does not answer.
    Unreachable,
    /// It takes no new task; running ones end.
    Draining,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolRow {
    /// The pool's name.
    pub name: PoolName,
    /// The name of its worker kind.
    pub worker: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// How many tasks it runs at once.
    pub max_workers: u32,
    /// How many it runs now.
    pub in_flight: u32,
    /// How many wait for a slot.
    pub queued: u32,
    /// (in_flight + queued) / max_workers; the lowest is chosen.
    pub load: f64,
    /// Whether it can be used.
    pub health: Health,
    /// How many tasks succeeded since this server started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded: Option<u64>,
    /// How many tasks failed since this server started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    /// Median time of a task, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<u64>,
    /// 95th percentile of a task's time, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95_ms: Option<u64>,
    /// How many tasks other live servers run in their pool of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_servers_in_flight: Option<u32>,
    /// Whether this pool lasts only as long as this server, since it was made or changed by `set_pool`.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub temporary: bool,
    /// Why its status is not good or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// Result of `list_pools`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListPoolsResult {
    /// How many pools match in all.
    pub total: u64,
    /// The pools, by name.
    pub pools: Vec<PoolRow>,
    /// Give it back as `cursor` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Arguments of `set_pool`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
pub struct SetPool {
    /// The pool to make or change: 1 to 64 of a-z 0-9 _ . -, beginning with a letter or digit.
    pub name: PoolName,
    /// The worker kind, one that the config defines. Default: as it is; needed for a new pool.
    pub worker: Option<String>,
    /// How many tasks it runs at once, 1 to 10000. Default: as it is; needed for a new pool.
    pub max_workers: Option<i64>,
    /// Its labels, all of them. Default: as they are; none for a new pool.
    pub labels: Option<Vec<String>>,
    /// Whether it takes no new task while running ones end. Default: as it is; false for a new pool.
    pub draining: Option<bool>,
}

/// Arguments of `close_pool`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
pub struct ClosePool {
    /// The pool to close: it takes no new task, and tasks that have not ended after the grace period are stopped.
    pub name: PoolName,
    /// How long running tasks may take to end, in seconds, 0 to 30. Default: 10.
    pub grace_s: Option<f64>,
}
