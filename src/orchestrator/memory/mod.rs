//! The memory tools: `remember`, `aggregate_memory`, `cross_pool_search`, `clear_cache`.
//!
//! The store holds the truth and is asked on every call; Session-Buddy holds a copy, is sent to in the background, and has
//! its search answers cached. Without a Session-Buddy everything here works and reports it as off. Not responsible for
//! ranking and storing memories (`store`), for sending them (`sync`), or for their form at the peer (`session_buddy`).

mod aggregate;
mod answers;
pub mod cache;
mod collect;
pub mod collector;
mod forget;
mod found;
pub mod fusion;
mod handle;
mod health;
mod ids;
mod outcome;
mod page;
mod peer_pool;
mod pools;
mod remember;
mod remote;
pub(crate) mod retention;
mod search;

pub use forget::forget;
pub use handle::{Memories, PEER, Parts};
pub(super) use outcome::outcome;
pub use peer_pool::BuddyPool;
pub use pools::{Collect, PoolNames};
