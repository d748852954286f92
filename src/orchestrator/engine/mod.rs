//! The workflow engine: journal first, then start; items are bound to a pool when a slot frees.
//!
//! ```text
//! handle (runs, the dispatcher's task)
//!   └─► dispatch (which item next, in which slot) ─► attempt (one try at one item) ─► journal (begins and ends)
//!         └─► queue, run (items and their states)       └─► workspace, lines, cause     └─► ledger
//! ```
//!
//! A run is a workflow that this server works on now; everything else is read from the store. Not responsible for what
//! callers see of a run, nor for reading their arguments.
//!
//! Lock order: the map of runs or the dispatch queue, then run, then router. None is held across an await.

mod attempt;
mod cause;
mod clock;
mod dispatch;
mod handle;
mod interrupted;
mod item;
mod journal;
mod ledger;
mod lines;
mod live;
mod neighbours;
mod outcome;
mod queue;
mod run;
#[cfg(test)]
mod run_tests;
mod stop;
#[cfg(test)]
mod tests;
mod workspace;

pub(super) use cause::{groups, with_causes};
pub(super) use handle::{Engine, EngineParts};
pub(super) use neighbours::Neighbours;
pub(super) use run::{Run, RunStatus, View};
pub(super) use stop::Stop;
pub(super) use workspace::WROTE_IN_READ_ONLY;
