//! What a pool is: its key, its name, its worker kind, its size and its labels.

use crate::model::{Filter, PoolName};

/// A pool of a router. A removed pool's key is never given to another pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolKey(pub(super) u64);

/// A pool as it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSpec {
    /// Its name, unique in the router.
    pub name: PoolName,
    /// Its worker kind's name.
    pub worker: String,
    /// Its slots. A pool of none takes nothing.
    pub max_workers: u32,
    /// How many routed tasks may wait for a slot.
    pub queue: u32,
    /// Its labels; order and repetition mean nothing.
    pub labels: Vec<String>,
}

impl PoolSpec {
    /// Returns whether `filter` admits a pool like this, whatever it is able to take now.
    pub(super) fn fits(&self, filter: &Filter) -> bool {
        (filter.pools.is_empty() || filter.pools.contains(&self.name))
            && (filter.workers.is_empty() || filter.workers.contains(&self.worker))
            && filter
                .labels
                .iter()
                .all(|label| self.labels.contains(label))
    }
}
