//! What a person sees where the program cannot go on.

use crate::error::Problem;
use std::io::Write;

/// Prints on stderr what went wrong, what is allowed and the next step.
pub fn complain(problem: &Problem) {
    let mut text = format!("mahavishnu: {}\n", problem.message);
    if let Some(allowed) = &problem.allowed {
        text.push_str(&format!("  allowed: {allowed}\n"));
    }
    if let Some(hint) = &problem.hint {
        text.push_str(&format!("  {hint}\n"));
    }
    // A closed stderr leaves nowhere to report to.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
