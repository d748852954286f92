//! Session-Buddy, a memory server for agents: what its two front doors take and what their answers mean.
//!
//! Written against Session-Buddy 0.23.0. Its answers are texts for people, so success is recognised by its own prefix
//! and never by the absence of an error mark. Knows nothing of the outbox or of the local store; transport matters
//! belong to `mcp_client`.

mod client;
mod content;
mod default_door;
mod door;
mod error;
mod full_door;
mod item;
mod presence;
mod preview;
mod search;
mod task_pool;

pub use client::SessionBuddy;
pub use content::{Marker, prepare};
pub use door::{Door, PeerInfo};
pub use error::PeerError;
pub use item::{Outgoing, PeerHit, PeerItem, Presence};
pub use task_pool::TaskPool;
