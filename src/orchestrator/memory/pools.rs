//! What the memory room needs to know of pools.

use crate::error::{ErrorKind, Problem, nearest};
use crate::model::{At, NewMemory, PoolName};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use tokio::time::Instant;

/// The names of the pools, and what collects the memories of each.
pub trait PoolNames: Sync {
    /// Returns whether there is such a pool.
    fn exists(&self, name: &str) -> bool;

    /// Returns all pools in a stable order; a memory stored by hand belongs to the first unless the call names another.
    fn all(&self) -> Vec<PoolName>;

    /// Returns the collector for a pool whose memories are at its own server; none if they are in the store already.
    fn collector(&self, name: &PoolName) -> Option<Arc<dyn Collect>> {
        let _ = name;
        None
    }
}

/// Collects the memories that a pool's own server holds.
pub trait Collect: Send + Sync {
    /// Returns the server's memories of the pool since `since`, by `deadline`; known ones may be among them.
    fn collect(
        &self,
        since: Option<At>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Vec<NewMemory>, Problem>>;
}

/// Returns the refusal of a pool that does not exist.
pub(super) fn unknown_pool(
    field: &str,
    name: &PoolName,
    names: &(impl PoolNames + ?Sized),
) -> Problem {
    const LISTED: usize = 10;
    let all = names.all();
    let mut allowed: Vec<&str> = all.iter().take(LISTED).map(PoolName::as_str).collect();
    if all.len() > LISTED {
        allowed.push("...");
    }
    let problem = Problem {
        field: Some(field.to_owned()),
        allowed: Some(allowed.join(", ")),
        ..Problem::new(ErrorKind::NotFound, format!("there is no pool {name}"))
    };
    match nearest(name.as_str(), all.iter().map(PoolName::as_str)) {
        Some(near) => problem.with_hint(format!("did you mean {near}? list_pools lists all pools")),
        None => problem.with_hint("list_pools lists all pools"),
    }
}
