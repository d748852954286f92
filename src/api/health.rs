//! `check_health`.

use crate::error::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to try out beside looking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// Nothing: only look.
    #[default]
    None,
    /// Ask every worker kind whether it could run now.
    Workers,
    /// Call the other MCP servers.
    Peers,
}

/// Arguments of `check_health`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
pub struct CheckHealth {
    /// What to try out beside looking. Default: none.
    pub probe: Option<Probe>,
}

/// How a check came out; the worst of them is the whole's.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing to do.
    Info,
    /// Works, but something should be done.
    Warning,
    /// Does not work.
    Fault,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// How it came out.
    pub status: HealthStatus,
    /// What was found.
    pub detail: String,
    /// The next step, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    /// Returns a check with nothing to do.
    pub(crate) fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self::new(name, HealthStatus::Ok, detail)
    }

    /// Returns a check without a next step.
    pub(crate) fn new(name: &str, status: HealthStatus, detail: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            status,
            detail: detail.into(),
            fix: None,
        }
    }

    /// Returns a check that a problem was found in: its message, and its hint as the next step.
    pub(crate) fn of(name: &str, status: HealthStatus, problem: impl Into<Problem>) -> Self {
        let problem = problem.into();
        Self {
            fix: problem.hint,
            ..Self::new(name, status, problem.message)
        }
    }

    /// Returns the same check with its next step.
    pub(crate) fn with_fix(self, fix: impl Into<String>) -> Self {
        Self {
            fix: Some(fix.into()),
            ..self
        }
    }
}

/// Result of `check_health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckHealthResult {
    /// The worst status of all checks.
    pub status: HealthStatus,
    /// The checks, the worst first.
    pub checks: Vec<Check>,
    /// Whether checks or details were left out for size.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub truncated: bool,
}
