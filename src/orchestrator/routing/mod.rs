//! Routing: which pool takes the next task, always the least-loaded one.
//!
//! Least outstanding work per slot, exactly: load is `(in_flight + queued) / max_workers`, compared as fractions; ties
//! go to fewer outstanding tasks, then to the pool routed to least recently, one never routed to first. Choosing a
//! pool *takes* its slot in the same step, so that two choices in a row over equal loads go to two pools.
//!
//! ```text
//! pools (one lock, guards that give slots back) ─► router (counts, choice) ─► heap (order)
//!       └─► pool (worker, figures)                     └─► explain (why)
//! ```
//!
//! Not responsible for running anything: a slot is the right to run one task in a pool.

mod explain;
mod heap;
mod load;
pub(crate) mod pool;
pub(crate) mod pools;
pub(crate) mod quarantine;
mod router;
mod spec;
pub(crate) mod stats;
#[cfg(test)]
mod tests;

pub(crate) use explain::{Exclusion, Why};
pub(crate) use load::Availability;
pub use router::Router;
pub use spec::{PoolKey, PoolSpec};
