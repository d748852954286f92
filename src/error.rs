//! The one shape in which every layer's error reaches a caller.
//!
//! Each layer has its own `thiserror` enum and implements [`Fault`] for it; [`Problem`] is what the tools answer,
//! what an item's record keeps and what the journal stores. Not responsible for exit codes or for JSON-RPC errors.

use crate::redact::redact;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What sort of failure it was, for programs that branch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// An argument or a config key has a wrong value.
    InvalidArgument,
    /// The named thing does not exist.
    NotFound,
    /// It exists already, or another request got there first.
    Conflict,
    /// Not allowed by the config (`roots`, `allow`).
    Forbidden,
    /// No room now (queue full, no candidate); the same call may succeed later.
    Busy,
    /// A peer, a program or a disk could not be used.
    Unavailable,
    /// A deadline passed.
    TimedOut,
    /// It was asked to stop.
    Cancelled,
    /// The server or the machine stopped during the run.
    Interrupted,
    /// The task ran and failed.
    Failed,
    /// A defect of this program.
    Internal,
}

impl ErrorKind {
    /// Returns whether the same call may succeed later without any change.
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Self::Busy | Self::Unavailable | Self::TimedOut | Self::Interrupted
        )
    }
}

/// What a failure has for the caller beside its message.
pub trait Fault: std::error::Error {
    /// Returns the sort of failure.
    fn kind(&self) -> ErrorKind;

    /// Returns the next step, as a sentence the caller can act on.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Returns whether the same call may succeed later without any change.
    fn retryable(&self) -> bool {
        self.kind().retryable()
    }

    /// Returns the refused argument's name.
    fn field(&self) -> Option<String> {
        None
    }

    /// Returns what the refused argument may be.
    fn allowed(&self) -> Option<String> {
        None
    }

    /// Returns the whole failure in the shape that callers see: the message with its causes, and the rest.
    fn problem(&self) -> Problem {
        Problem {
            kind: self.kind(),
            message: with_causes(self),
            hint: self.hint(),
            retryable: self.retryable(),
            field: self.field(),
            allowed: self.allowed(),
        }
    }
}

/// A failure as callers see it, everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// What sort of failure it was.
    pub kind: ErrorKind,
    /// What went wrong, with the thing it went wrong with.
    pub message: String,
    /// The next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether the same call may succeed later without any change.
    pub retryable: bool,
    /// The refused argument.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What the refused argument may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
}

impl Problem {
    /// Returns a problem of `kind` with its default `retryable` and nothing else set.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            retryable: kind.retryable(),
            field: None,
            allowed: None,
        }
    }

    /// Returns the refusal of argument `field`: what was wrong with it and what it may be.
    pub fn argument(
        field: impl Into<String>,
        message: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self {
            field: Some(field.into()),
            allowed: Some(allowed.into()),
            ..Self::new(ErrorKind::InvalidArgument, message)
        }
    }

    /// Returns an error that is of no layer, such as the system's, as a problem; a problem as it is.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let known = error.downcast_ref::<Self>().cloned();
        known.unwrap_or_else(|| Self::new(ErrorKind::Unavailable, with_causes(error)))
    }

    /// Returns the same problem with the next step set.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A problem whose texts are without secrets: the only sort that the store takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RedactedProblem(Problem);

impl From<Problem> for RedactedProblem {
    fn from(problem: Problem) -> Self {
        let clean = |text: String| redact(&text).into_string();
        Self(Problem {
            message: clean(problem.message),
            hint: problem.hint.map(clean),
            allowed: problem.allowed.map(clean),
            ..problem
        })
    }
}

impl From<RedactedProblem> for Problem {
    fn from(problem: RedactedProblem) -> Self {
        problem.0
    }
}

impl std::ops::Deref for RedactedProblem {
    type Target = Problem;

    fn deref(&self) -> &Problem {
        &self.0
    }
}

impl<E: Fault> From<E> for Problem {
    fn from(error: E) -> Self {
        error.problem()
    }
}

/// Returns the error's message with those of its causes.
fn with_causes(error: &(impl std::error::Error + ?Sized)) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    message
}

/// Returns the known name nearest to `unknown`; none where no name is near enough to be what was meant.
///
/// Near enough is one edit for every three characters (insertion, deletion, substitution, transposition), or a longer
/// form of the same word. Letter case does not count.
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const SHORTEST_STEM: usize = 3;
    let unknown = unknown.to_lowercase();
    let length = unknown.chars().count();
    let distance = |name: &str| {
        let name = name.to_lowercase();
        let is_form = |stem: &str, word: &str| {
            stem.chars().count() >= SHORTEST_STEM && word.starts_with(stem)
        };
        let edits = strsim::osa_distance(&unknown, &name);
        let near = edits <= length.max(name.chars().count()) / 3;
        (near || is_form(&unknown, &name) || is_form(&name, &unknown)).then_some(edits)
    };
    known
        .into_iter()
        .filter_map(|name| Some((distance(name)?, name)))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_leaves_out_absent_fields() {
        let json = serde_json::to_value(Problem::new(ErrorKind::Busy, "full")).expect("serialises");
        assert_eq!(
            json,
            serde_json::json!({"kind": "busy", "message": "full", "retryable": true})
        );
    }

    #[test]
    fn the_nearest_name_is_found_and_nonsense_is_not() {
        let known = ["max_workers", "labels", "queue"];
        assert_eq!(nearest("max_worker", known), Some("max_workers"));
        assert_eq!(nearest("zzz", known), None);
        assert_eq!(nearest("Queu", known), Some("queue"));
        assert_eq!(nearest("repository", ["repo", "task"]), Some("repo"));
        let programs = ["ctrlaltdel", "clang", "cloud-init", "chage", "code"];
        assert_eq!(nearest("claude", programs), None);
        assert_eq!(nearest("gti", ["git", "gio", "tig"]), Some("git"));
    }
}
