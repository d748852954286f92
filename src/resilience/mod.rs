//! What a caller does about a peer that fails: how long to wait, and when to stop asking.
//!
//! Pure: neither part sleeps, spawns or reads a clock; the caller passes the time in. Not responsible for deciding
//! which failures count, nor for deadlines.

mod backoff;
mod breaker;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerState, Permit, Refused};
