//! Other MCP servers, and the environment of programs.

use super::key::{Checked, Key};
use crate::config::PeerConfig;
use crate::config::file::PeerEntry;
use reqwest::header::{HeaderName, HeaderValue};
use std::collections::BTreeMap;

/// Checks how another MCP server is reached.
pub(super) fn peer(at: &Key<'_>, entry: PeerEntry) -> Checked<PeerConfig> {
    match (entry.url, entry.command) {
        (Some(url), None) => {
            let keys = [
                ("env_pass", !entry.env_pass.is_empty()),
                ("env", !entry.env.is_empty()),
            ];
            only_with(at, &keys, "command")?;
            headers(&at.key("headers"), &entry.headers)?;
            Ok(PeerConfig::Http {
                url: at.key("url").url(url)?,
                headers: entry.headers,
            })
        }
        (None, Some(argv)) => {
            only_with(at, &[("headers", !entry.headers.is_empty())], "url")?;
            environment(at, &entry.env_pass, &entry.env)?;
            Ok(PeerConfig::Stdio {
                command: at.key("command").argv(argv)?,
                env_pass: entry.env_pass,
                env: entry.env,
            })
        }
        (Some(_), Some(_)) => Err(at.refuse(
            "has both url and command",
            "one of the two: remove the other",
        )),
        (None, None) => Err(at.refuse(
            "has neither url nor command",
            "url = \"http://...\" or command = [\"program\", ...]",
        )),
    }
}

/// Refuses keys that only go with another one.
fn only_with(at: &Key<'_>, keys: &[(&str, bool)], with: &str) -> Checked<()> {
    let allowed = format!("nothing here: remove it, or give {with}");
    at.absent(keys, &format!("goes with {with} only"), &allowed)
}

fn headers(at: &Key<'_>, headers: &BTreeMap<String, String>) -> Checked<()> {
    for (name, value) in headers {
        let good =
            HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_str(value).is_ok();
        if !good {
            // The message leaves out the value, which may be a secret.
            let allowed = "a name of letters, digits and -, and a value without line breaks";
            return Err(at.key(name).refuse("is no HTTP header", allowed));
        }
    }
    Ok(())
}

/// Checks the variables that a program gets: those passed on and those set.
pub(super) fn environment(
    at: &Key<'_>,
    passed: &[String],
    set: &BTreeMap<String, String>,
) -> Checked<()> {
    let passed_at = at.key("env_pass");
    for (index, name) in passed.iter().enumerate() {
        variable(&passed_at.index(index), name, "")?;
    }
    let set_at = at.key("env");
    set.iter()
        .try_for_each(|(name, value)| variable(&set_at.key(name), name, value))
}

fn variable(at: &Key<'_>, name: &str, value: &str) -> Checked<()> {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        let allowed = "a name without `=`, and no NUL characters";
        return Err(at.refuse("is no environment variable", allowed));
    }
    Ok(())
}
