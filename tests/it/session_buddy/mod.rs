//! The clients against the real Session-Buddy 0.23.0.

mod doors;
mod faults;
mod forward;
mod memory_tools;
pub(crate) mod real;
