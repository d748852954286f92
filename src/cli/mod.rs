//! The command line: what a person types, and what they see.
//!
//! `mahavishnu` serves MCP on stdio; `mahavishnu call TOOL` starts that same server as a host would and prints one answer;
//! `mahavishnu forget ID` removes a memory, which is for people alone.

mod args;
mod bar;
pub mod call;
mod client;
mod complain;
mod exit;
mod flags;
pub mod forget;
mod schemas;
mod sections;
mod server;

pub use args::{Invocation, parse};
pub use client::{Call, Follow};
pub use complain::complain;
pub use schemas::{SchemasError, write as write_schemas};
pub use sections::with_section;
pub use server::ServerProgram;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The server could not be started.
    #[error("start the server `{0}`")]
    Start(String, #[source] std::io::Error),
    /// The server ended in mid-call.
    #[error("the server ended before it answered ({0}); what it wrote to stderr is above")]
    Ended(String),
    /// The server answered with an error of the protocol.
    #[error("the server refused the call: {0}")]
    Refused(String),
    /// stdout could not be written.
    #[error("write the answer")]
    Write(#[source] std::io::Error),
}
