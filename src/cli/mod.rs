//! The command line: what a person types, and what they see.
//!
//! `mahavishnu` serves MCP on stdio; `mahavishnu call TOOL` starts that same server as a host would and shows one answer.
//! Not responsible for anything that a host could not do as well.

mod args;
mod bar;
pub mod call;
mod exit;
mod flags;
mod schemas;
mod sections;

pub use args::{Invocation, parse};
pub use call::{Call, ServerProgram};
pub use schemas::{SchemasError, write as write_schemas};
pub use sections::with_section;

/// What ends the process with something to say and a status.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The server could not be started.
    #[error("start the server `{0}`")]
    Start(String, #[source] std::io::Error),
    /// The server did not speak MCP.
    #[error("greet the server")]
    Greet(#[source] Box<rmcp::service::ClientInitializeError>),
    /// The server went away in mid-call.
    #[error("call {0}")]
    Call(String, #[source] Box<rmcp::ServiceError>),
    /// stdout could not be written.
    #[error("write the answer")]
    Write(#[source] std::io::Error),
}
