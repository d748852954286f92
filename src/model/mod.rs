//! The words of the domain: ids, states, and the records that the layers hand to each other.
//!
//! A leaf: plain data without behaviour that needs a clock, a disk or a task. What is stored and what tools answer are
//! these same types, so that a name means one thing everywhere. Not responsible for how any of it is stored or shown.

mod at;
mod ids;
mod item;
mod labels;
mod memory;
mod peer;
mod risk;
mod words;
mod workflow;

pub use at::At;
pub use ids::{
    Attempt, BadPoolName, ItemIndex, MemoryId, PoolName, Revision, ServerId, WorkflowId,
};
pub use item::{
    CheckStatus, DiffStat, ItemRecord, ItemState, ItemWork, Stage, Usage, VerifyResult, Work,
};
pub use labels::Filter;
pub use memory::{
    CollectedBatch, DeadLetter, InsertReport, Memory, MemoryHit, MemoryKind, MemoryPage,
    MemoryQuery, NewMemory, Origin, OutboxCounts, OutboxEntry, PeerName, SendFailure,
};
pub use peer::{PeerState, Reconciled, SenderState};
pub use risk::{Risk, RiskKind};
pub use workflow::{
    BaseRef, Counts, Isolation, OnInterrupt, Settings, WorkflowRecord, WorkflowStatus,
};
