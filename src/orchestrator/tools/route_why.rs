//! Why a single task went to its pool, or to none: the router's explanation as callers see it.

use crate::api::{Candidate, Excluded, RouteWhy};
use crate::error::{ErrorKind, Problem};
use crate::orchestrator::routing::{Exclusion, Why};

/// How many full pools the refusal of a task names.
const NAMED: usize = 3;

/// Returns the refusal of a single task for which no pool has a slot or a place in its queue.
pub(super) fn all_full(why: &Why) -> Problem {
    use Exclusion::{Draining, Full, Unhealthy};
    let busy = |(_, why): &&(_, Exclusion)| matches!(why, Full | Draining | Unhealthy);
    let pools = why.excluded.iter().filter(busy).take(NAMED);
    let pools: Vec<String> = pools
        .map(|(name, why)| format!("{name} is {}", reason(why)))
        .collect();
    let mut message =
        "every pool that could take the task is full, draining or unhealthy".to_owned();
    if !pools.is_empty() {
        message = format!("{message}: {}", pools.join(", "));
    }
    Problem::new(ErrorKind::Busy, message).with_hint(
        "try again later, raise max_workers with set_pool, or start it with execute_workflow_parallel, which queues it",
    )
}

/// Returns the explanation of a route.
pub(super) fn route_why(why: Why) -> RouteWhy {
    let candidates = why.candidates.into_iter().map(|(name, load)| Candidate {
        name,
        load: load.ratio(),
        in_flight: load.in_flight,
        queued: load.queued,
        max_workers: load.max_workers,
    });
    let excluded = why.excluded.into_iter().map(|(name, exclusion)| Excluded {
        name,
        reason: reason(&exclusion),
    });
    RouteWhy {
        rule: "least (in_flight + queued) / max_workers; then fewest outstanding tasks; then least recently routed to"
            .to_owned(),
        candidates: candidates.collect(),
        excluded: excluded.collect(),
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
