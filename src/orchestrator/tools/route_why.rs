//! Why a single task went where it went, or nowhere: the router's grounds in the callers' words.

use crate::api::{Candidate, Excluded, RouteWhy};
use crate::error::{ErrorKind, Problem};
use crate::orchestrator::routing::{Exclusion, Why};

/// Returns the refusal of a single task that no pool has a slot or a place in its queue for.
pub(super) fn all_full(why: &Why) -> Problem {
    let mut message =
        "every pool that could take the task is full, draining or unhealthy".to_owned();
    let told: Vec<String> = why
        .excluded
        .iter()
        .filter(|(_, why)| {
            matches!(
                why,
                Exclusion::Full | Exclusion::Draining | Exclusion::Unhealthy
            )
        })
        .take(3)
        .map(|(name, why)| format!("{name} is {}", reason(why)))
        .collect();
    if !told.is_empty() {
        message.push_str(&format!(": {}", told.join(", ")));
    }
    Problem::new(ErrorKind::Busy, message).with_hint(
        "try again later, raise max_workers with set_pool, or start it with execute_workflow_parallel, which waits",
    )
}

/// Returns the grounds as callers see them.
pub(super) fn route_why(why: Why) -> RouteWhy {
    RouteWhy {
        rule: "least (in_flight + queued) / max_workers; then fewest outstanding tasks; then least recently routed to"
            .to_owned(),
        candidates: why
            .candidates
            .into_iter()
            .map(|(name, load)| Candidate {
                name,
                load: load.ratio(),
                in_flight: load.in_flight,
                queued: load.queued,
                max_workers: load.max_workers,
            })
            .collect(),
        excluded: why
            .excluded
            .into_iter()
            .map(|(name, exclusion)| Excluded {
                name,
                reason: reason(&exclusion),
            })
            .collect(),
    }
}

fn reason(exclusion: &Exclusion) -> String {
    match exclusion {
        Exclusion::Draining => "draining".to_owned(),
        Exclusion::Unhealthy => "unreachable".to_owned(),
        Exclusion::Full => "full".to_owned(),
        Exclusion::Label(label) => format!("lacks label {label}"),
        Exclusion::NotNamed => "not among `pools`".to_owned(),
        Exclusion::Worker => "its worker cannot take this".to_owned(),
    }
}
