//! The stdio front: stdin, stdout, their end, and the signals that end the process.
//!
//! Everything here is about one client over the process's own streams; the core knows none of it, so that another front
//! can share it.

mod envelope;
mod messages;
mod serve;
mod streams;
mod transport;
mod watchdog;

pub use serve::{Ended, StdioError, serve};
