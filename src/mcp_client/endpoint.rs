//! Where another MCP server is reached.

use crate::config::PeerConfig;
use crate::process::{Reach, base_env};
use std::ffi::OsString;

/// Where another MCP server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// It answers streamable HTTP at a URL.
    Http {
        /// The URL of the MCP endpoint.
        url: String,
        /// Headers sent with every request, as name and value.
        headers: Vec<(String, String)>,
    },
    /// It is started as a child process and speaks on its stdin and stdout.
    Stdio {
        /// The program and its arguments.
        command: Vec<String>,
        /// Its whole environment, as name and value.
        env: Vec<(String, String)>,
    },
}

impl Endpoint {
    /// Returns the endpoint that the config describes. A server that is started as a child gets those variables of `env`,
    /// this server's own environment, that every program gets and those that the config passes on.
    pub fn of(peer: &PeerConfig, env: &[(OsString, OsString)]) -> Self {
        let text = |part: &OsString| part.to_string_lossy().into_owned();
        match peer {
            PeerConfig::Http { url, headers } => Self::Http {
                url: url.clone(),
                headers: headers.clone().into_iter().collect(),
            },
            PeerConfig::Stdio {
                command,
                env_pass,
                env: set,
            } => {
                let set = set.iter().map(|(name, value)| (name.into(), value.into()));
                let set: Vec<(OsString, OsString)> = set.collect();
                let whole = base_env(env.iter().cloned(), Reach::Fenced, env_pass, &set);
                Self::Stdio {
                    command: command.clone(),
                    env: whole
                        .iter()
                        .map(|(name, value)| (text(name), text(value)))
                        .collect(),
                }
            }
        }
    }
}
