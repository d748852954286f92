//! The store: one SQLite file in the state directory, shared by several server processes.
//!
//! It keeps workflows with their items and attempts (the journal), which server owns them, what servers ask of each
//! other, and memories with the outbox to their peers. All writes of this process go through one thread that commits in
//! groups; reads have connections of their own. SQL is only here; callers see typed, asynchronous methods. Not
//! responsible for running anything: the orchestrator writes an item's start here first and then starts it.
//!
//! An acknowledged write survives every way the process can end. With [`Durability::Normal`] a power cut may roll the
//! last moments back; [`Durability::Full`] does not allow that either. A file that cannot be trusted is refused and left
//! as it is: damage, another program's file, another version, a link, or a file that was removed in use.

mod applied;
mod column;
mod error;
mod files;
mod filters;
mod forget;
mod fulltext;
mod handle;
mod health;
mod job;
mod journal;
mod locks;
mod lookup;
mod memories;
mod memory_row;
mod notices;
mod outbox;
mod ownership;
mod peer_lock;
mod peers;
mod query;
mod rank;
mod requests;
mod retention;
mod schema;
mod search;
mod stored;
mod thread;
mod tokens;
mod tombstones;
mod version;
mod wal;
mod word_index;
mod words;

pub use applied::AppliedNote;
pub use error::StoreError;
pub use files::Durability;
pub use forget::Forgotten;
pub use handle::{Store, StoreOptions};
pub use health::StoreHealth;
pub use journal::{Created, Entry};
pub use locks::OwnerState;
pub use lookup::{StoredWorkflow, WorkflowQuery, WorkflowSummary};
pub use notices::Notice;
pub use ownership::{Adopted, Unfinished};
pub use peer_lock::PeerLock;
pub use requests::{OwnerRequest, TakenRequest};
pub use retention::{Pruned, Retention};
