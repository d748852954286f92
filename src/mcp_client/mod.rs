//! A client of another MCP server, over streamable HTTP or over the stdio of a child process.
//!
//! Built on rmcp's client; adds what a caller needs that must neither lose nor repeat work: a deadline for every call, an
//! error that says whether a failed call may have been executed ([`ClientError`]), a new session when the server lost the
//! old one, and one connection attempt shared by all callers. Not responsible for what a reply means, nor for leaving a
//! failing server alone: both are the caller's business.

mod child;
mod client;
mod connect;
mod endpoint;
mod error;
mod failure;
mod http;
mod progress;
mod reply;
mod session;
mod settings;
mod throttle;

pub use child::Launcher;
pub use client::McpClient;
pub use endpoint::Endpoint;
pub use error::{ClientError, NotSent, Unclear};
pub use progress::{OnProgress, Step};
pub use reply::CallReply;
pub use settings::ClientSettings;
