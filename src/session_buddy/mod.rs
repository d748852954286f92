//! Session-Buddy, a memory server for agents: what its two front doors take and what their answers mean.
//!
//! Written against Session-Buddy 0.23.0. Its answers are texts for people, so success is recognised by its own prefix
//! and never by the absence of an error mark. Knows nothing of the outbox or of the local store; transport matters
//! belong to `mcp_client`.

mod client;
mod content;
mod default_door;
mod error;
mod full_door;
mod task_pool;

pub use client::{
    Door, Listing, Outgoing, PeerHit, PeerInfo, PeerItem, Presence, SessionBuddy, Stored,
};
pub use content::{Marker, Prepared, prepare};
pub use error::PeerError;
pub use task_pool::TaskPool;
