//! Removes secrets from texts before anything is stored, logged or forwarded.
//!
//! A leaf: pure text in, pure text out. Secrets are recognised by their shape (the rules, modelled on the published rule
//! ids of gitleaks, <https://github.com/gitleaks/gitleaks>), and a secret without a shape of its own by the name it is
//! assigned to and by how random it looks. The rules are compiled when the first text is redacted.
//!
//! [`Redacted`] is the only text that the store accepts, and only this folder makes one: [`redact`] for a whole text,
//! `Scan` for a part of one.

mod detect;
mod redacted;
mod rules;
mod scan;

pub use redacted::Redacted;
pub use rules::RULES;
pub use scan::redact;
pub(crate) use scan::{CONTEXT_BYTES, Scan};

#[cfg(test)]
mod tests;
