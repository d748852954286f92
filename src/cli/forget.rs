//! `mahavishnu forget ID`: what a host must not do, since a model could be talked into it.

use crate::config::StoreConfig;
use crate::error::Problem;
use crate::model::MemoryId;
use crate::orchestrator::{memory, open_store};
use crate::store::Forgotten;
use std::io::Write;

/// The exit status where there never was such a memory.
const NO_SUCH_MEMORY: u8 = 1;

/// Removes a memory for good and reports it on stdout. Returns the exit status.
///
/// # Errors
///
/// Why it could not be removed, or not wholly.
pub async fn run(config: &StoreConfig, id: MemoryId) -> Result<u8, Problem> {
    let store = open_store(config)?;
    let forgotten = memory::forget(&store, id).await;
    store.close().await;
    let Some(forgotten) = forgotten? else {
        let _ = writeln!(
            std::io::stderr(),
            "mahavishnu: there is no memory {id} in {}\n  cross_pool_search gives the ids; a hit that only a peer has is to be removed there",
            config.dir.display()
        );
        return Ok(NO_SUCH_MEMORY);
    };
    // The work is done; a closed stdout leaves nowhere to report it to.
    let _ = std::io::stdout().write_all(report(id, &forgotten).as_bytes());
    Ok(0)
}

/// Returns the report for a person.
fn report(id: MemoryId, forgotten: &Forgotten) -> String {
    let mut text = if forgotten.before {
        format!("{id} was forgotten before.\n")
    } else {
        format!("{id} is forgotten.\n")
    };
    for peer in &forgotten.peers {
        text.push_str(&format!(
            "{peer} keeps the copy it was sent, or may have been; searches here do not show it. Remove it there if it must go.\n"
        ));
    }
    if forgotten.work_stays {
        text.push_str(
            "The prompt or command that it began with stays with its workflow: other items or attempts have it too, or it can still be resumed. It goes with the last of their memories, or with the workflow (store.retention).\n",
        );
    }
    text
}
