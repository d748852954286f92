//! The MCP server: it lists the tools, decodes a call, asks [`crate::api::Tools`], and encodes the answer.
//!
//! The protocol itself is rmcp's. `handler` is the same over any transport: what belongs to stdin, stdout and
//! signals is in [`stdio`]. Not responsible for what the tools do.

mod answer;
mod cancels;
mod coerce;
mod decode;
mod handler;
mod hosts;
mod instructions;
mod progress;
mod resources;
mod schema;
pub mod stdio;
pub mod tools;

pub use answer::MAX_ANSWER_BYTES;
pub(crate) use hosts::CLI_CLIENT;
