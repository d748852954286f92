//! What a caller does about a peer that fails: how long to wait, and when to stop calling it.
//!
//! Neither part sleeps or starts anything. Not responsible for deciding which failures count, nor for deadlines.

mod backoff;
mod breaker;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerState, Pass, Refused};
