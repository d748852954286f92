//! mahavishnu: an MCP server that fans work out over pools of workers, always to the least-loaded one, keeps every
//! finished result, and finds again what any worker learned.
//!
//! Requests go down, results come up; no layer calls the one above it.
//!
//! ```text
//! stdio ─► server ─► orchestrator ─┬─► worker         (one file per worker kind, behind one trait)
//!                                  ├─► session_buddy  (the other MCP server's adapters)
//!                                  ├─► repo           (git: discovery, locks, worktrees, apply)
//!                                  └─► store          (SQLite: workflows, memory, outbox)
//! leaves, used by any layer: api, config, error, model, panic, shutdown, resilience, redact, text,
//!                                process, mcp_client
//! beside it: cli (what a person types; starts the server as a host would)
//! ```
//!
//! # Words
//!
//! - **Pool**: a named set of worker slots of one worker kind, with labels.
//! - **Worker kind**: how a task is run: a program, an agent program, a tool of another MCP server.
//! - **Task**: a prompt, or an argv (`command`). **Item**: one task on one repository; it may take several
//!   **attempts**. **Workflow**: one task over many repositories, journaled. A routed task is a workflow of one item.
//! - **Load**: `(in_flight + queued) / max_workers`; ties go to fewer outstanding tasks, then to the pool routed to
//!   least recently.
//! - **Memory**: what was learned, what an item did, or what a person kept.
//! - **Guardian**: the process that starts every program and ends them all when the server ends, however it does.
//!
//! # Invariants
//!
//! - An item is journaled as begun before anything of it starts; an item whose end is journaled never runs again.
//! - A slot is a guard: every path gives it back.
//! - A request only waits on a workflow; dropping it never touches the run.
//! - A server owns its runs by an operating system's file lock that its guardian holds too: a run is interrupted only
//!   after its processes are dead.
//! - A memory and its outbox row are one transaction; Session-Buddy is a copy.
//! - stdout carries the protocol only.

#![cfg(unix)]

pub mod api;
pub mod cli;
pub mod config;
pub mod error;
pub mod mcp_client;
pub mod model;
pub mod orchestrator;
pub mod panic;
pub mod process;
pub mod redact;
pub mod repo;
pub mod resilience;
pub mod server;
pub mod session_buddy;
pub mod shutdown;
pub mod store;
pub mod text;
mod worker;
