//! How many files and sockets this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process's limit of open files towards `wanted`, as far as the system lets it.
///
/// Programs that it starts from then on inherit the limit.
///
/// # Errors
///
/// The system refused; the limit is what it was.
pub fn raise_open_files(wanted: u64) -> std::io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    // No number means no limit.
    let (Some(now), most) = (limit.current, limit.maximum) else {
        return Ok(());
    };
    let raised = most.map_or(wanted, |most| most.min(wanted));
    if raised <= now {
        return Ok(());
    }
    let limit = Rlimit {
        current: Some(raised),
        maximum: most,
    };
    Ok(setrlimit(Resource::Nofile, limit)?)
}
