//! The MCP client against servers that do what no good server does.

mod http;
pub(crate) mod scripted;
mod stdio;

use serde_json::{Map, Value};
use std::time::{Duration, Instant};

/// A deadline that only a hang reaches.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn nothing() -> Map<String, Value> {
    Map::new()
}
