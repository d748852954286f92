//! The clients against the real Session-Buddy 0.23.0.

mod doors;
mod faults;
mod forward;
mod kills;
mod memory_tools;
mod outbox;
pub(crate) mod real;
