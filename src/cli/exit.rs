//! The exit status of `mahavishnu call`: one match on the answer.

use crate::error::ErrorKind;
use serde_json::Value;

/// The list of statuses in the help.
pub(super) const HELP: &str = "\
Exit status: 0 done, 1 the work failed or part of it did, 2 bad arguments, 3 not possible now, 4 not done yet, \
5 a defect or no server, 130 interrupted by Ctrl-C or a signal (resume_workflow goes on).";

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Failed,
    BadArguments,
    NotNow,
    NotDone,
    Broken,
    Interrupted,
}

impl Outcome {
    /// Returns the process's exit status.
    pub(super) fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::BadArguments => 2,
            Self::NotNow => 3,
            Self::NotDone => 4,
            Self::Broken => 5,
            Self::Interrupted => 130,
        }
    }

    /// Returns how a call with this answer ended.
    pub(super) fn of(answer: &Value) -> Self {
        if let Some(error) = answer.get("error").filter(|error| error.is_object()) {
            let kind = serde_json::from_value(error["kind"].clone());
            return kind.map_or(Self::Broken, Self::of_error);
        }
        // Of apply_changes: the items that were not applied, or with `undo` not undone.
        if answer["refused_count"]
            .as_u64()
            .is_some_and(|count| count > 0)
        {
            return Self::Failed;
        }
        match answer.get("status").and_then(Value::as_str) {
            Some("running") => Self::NotDone,
            Some("partial" | "failed" | "cancelled" | "interrupted" | "fault") => Self::Failed,
            _ => Self::Done,
        }
    }

    fn of_error(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidArgument
            | ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Forbidden => Self::BadArguments,
            ErrorKind::Busy | ErrorKind::Unavailable | ErrorKind::TimedOut => Self::NotNow,
            ErrorKind::Cancelled | ErrorKind::Interrupted | ErrorKind::Failed => Self::Failed,
            ErrorKind::Internal => Self::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_status_follows_from_the_answer() {
        let cases = [
            (json!({"status": "succeeded"}), Outcome::Done),
            (json!({"status": "planned"}), Outcome::Done),
            (json!({"pools": []}), Outcome::Done),
            (json!({"status": "partial"}), Outcome::Failed),
            (json!({"status": "interrupted"}), Outcome::Failed),
            (json!({"status": "running"}), Outcome::NotDone),
            (
                json!({"refused_count": 1, "items": [{"applied": true}, {"applied": false}]}),
                Outcome::Failed,
            ),
            (
                json!({"refused_count": 0, "items": [{"applied": false, "undone": true}]}),
                Outcome::Done,
            ),
            (
                json!({"error": {"kind": "invalid_argument"}}),
                Outcome::BadArguments,
            ),
            (json!({"error": {"kind": "busy"}}), Outcome::NotNow),
            (json!({"error": {"kind": "a new one"}}), Outcome::Broken),
        ];
        for (answer, outcome) in cases {
            assert_eq!(Outcome::of(&answer), outcome, "{answer}");
        }
    }
}
