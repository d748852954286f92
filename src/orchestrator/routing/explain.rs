//! Why a choice falls as it does: the best candidates and some of the pools that are none.

use super::load::{Availability, Load, Vacancy};
use super::router::{Routed, Router};
use crate::model::{Filter, PoolName};

/// Why a pool is no candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exclusion {
    /// It takes nothing new.
    Draining,
    /// Its worker cannot be used.
    Unhealthy,
    /// Its slots are all taken.
    Full,
    /// It lacks this label.
    Label(String),
    /// It is of another worker kind.
    Worker,
    /// Others were named.
    NotNamed,
}

impl Exclusion {
    /// Returns how far the pool is from being a candidate: 0 where it fits and cannot take the task now.
    fn distance(&self) -> usize {
        match self {
            Self::Draining | Self::Unhealthy | Self::Full => 0,
            Self::Label(_) | Self::Worker => 1,
            Self::NotNamed => 2,
        }
    }
}

/// The reasons of a choice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Why {
    /// The best candidates, best first: pools with a free slot or, where there is none, with room in their queue.
    pub(crate) candidates: Vec<(PoolName, Load)>,
    /// Some of the other pools by name: first those that fit but cannot take the task, then those that do not fit.
    pub(crate) excluded: Vec<(PoolName, Exclusion)>,
}

impl Router {
    /// Returns up to `limit` candidates, as [`Router::acquire_or_queue`] would choose among them, and up to `limit` pools
    /// that are none. Looks at every pool.
    pub(super) fn explain(&self, filter: &Filter, limit: usize) -> Why {
        // Where no pool has a free slot, those with room in their queue are the candidates.
        let wanted = self
            .best(filter)
            .map_or(Vacancy::Slot, |(rank, _)| rank.vacancy);
        let mut candidates = Vec::new();
        let mut excluded = [const { Vec::new() }; 3];
        for (name, &key) in &self.by_name {
            let Some(pool) = self.routed(key) else {
                continue;
            };
            match exclusion(pool, filter, wanted) {
                None => candidates.push((pool.rank(), name, pool.load())),
                Some(reason) => {
                    let rows = &mut excluded[reason.distance()];
                    if rows.len() < limit {
                        rows.push((name.clone(), reason));
                    }
                }
            }
        }
        candidates.sort_unstable_by_key(|&(rank, ..)| rank);
        let candidates = candidates.into_iter().take(limit);
        Why {
            candidates: candidates
                .map(|(_, name, load)| (name.clone(), load))
                .collect(),
            excluded: excluded.into_iter().flatten().take(limit).collect(),
        }
    }
}

/// Returns why a pool is no candidate, where those with this vacancy are.
fn exclusion(pool: &Routed, filter: &Filter, wanted: Vacancy) -> Option<Exclusion> {
    let spec = &pool.spec;
    if !filter.pools.is_empty() && !filter.pools.contains(&spec.name) {
        return Some(Exclusion::NotNamed);
    }
    if !filter.workers.is_empty() && !filter.workers.contains(&spec.worker) {
        return Some(Exclusion::Worker);
    }
    let mut labels = filter.labels.iter();
    if let Some(missing) = labels.find(|label| !spec.labels.contains(label)) {
        return Some(Exclusion::Label(missing.clone()));
    }
    match pool.availability {
        Availability::Draining | Availability::Closing => Some(Exclusion::Draining),
        Availability::Unhealthy => Some(Exclusion::Unhealthy),
        Availability::Open => {
            let vacancy = pool.load().vacancy();
            (vacancy != wanted || vacancy == Vacancy::Nothing).then_some(Exclusion::Full)
        }
    }
}
