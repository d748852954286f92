//! The workers of a pool, whatever their kind.
//!
//! One trait, one file per kind, one registration line each (`kinds`). A worker runs one attempt's task, reports events
//! while it works, and returns one [`Outcome`]; it knows nothing of workflows, pools or the journal.

mod command;
mod contract;
pub(crate) mod kinds;
mod mcp;
mod outcome;
mod programs;
mod prompt;
pub(crate) mod remote;
mod template;

pub(crate) use contract::{Capabilities, Event, Events, Task, Worker};
pub(crate) use outcome::{End, Outcome};
pub(crate) use programs::{Host, Programs, Run};
