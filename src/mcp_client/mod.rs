//! A client of another MCP server, over streamable HTTP or over the stdio of a child process.
//!
//! Built on rmcp's client; adds what a caller that must not lose or repeat work needs: a deadline for every call, a clear
//! word on whether a failed call may have been executed ([`ClientError`]), a new session when the server lost the old
//! one, one connection attempt for all who wait, and a breaker. Knows no server's texts: what a reply means is its
//! caller's business.

mod child;
mod client;
mod connect;
mod error;
mod http;
mod progress;

pub use child::Launcher;
pub use client::{CallReply, ClientSettings, McpClient, ServerInfo};
pub use connect::Endpoint;
pub use error::{ClientError, NotSent, Unclear};
pub use progress::{OnProgress, Step};
