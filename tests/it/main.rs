//! The integration tests: one binary, one module per subject.

mod architecture;
mod clients;
mod examples;
mod face;
mod home;
mod kinds;
mod mcp_client;
mod memory;
mod memory_server;
mod process;
mod proxy;
mod repo;
mod search;
mod server;
mod session_buddy;
mod store;
mod support;
mod workflow;
