//! The pools as the memory room sees them.

use super::Core;
use super::memory::{BuddyPool, Collect, PoolNames};
use crate::model::PoolName;
use std::sync::Arc;

impl PoolNames for Core {
    fn exists(&self, name: &str) -> bool {
        self.pools.get(name).is_some()
    }

    fn all(&self) -> Vec<PoolName> {
        self.pools.names()
    }

    /// Returns what asks the server of a pool of kind `session-buddy`. No other kind has a tool that lists memories:
    /// what its attempts left is in the store.
    fn collector(&self, name: &PoolName) -> Option<Arc<dyn Collect>> {
        let pool = self.pools.get(name.as_str())?;
        let (buddy, source) = self.peers.of_kind(&pool.spec.worker)?;
        Some(Arc::new(BuddyPool {
            pool: name.clone(),
            buddy,
            source,
        }))
    }
}
