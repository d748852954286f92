//! `mahavishnu forget`: removes one memory for good, with everything stored of the same attempt.

use crate::error::{ErrorKind, Fault, Problem};
use crate::model::{MemoryId, MemoryKind};
use crate::orchestrator::logs;
use crate::store::{Forgotten, Store};
use std::io;

/// Removes a memory, its attempt's log files where it is an outcome, and what the journal keeps of that attempt. Returns
/// nothing where there never was such a memory.
///
/// Running servers need no notification: their searches leave out forgotten memories, also from a peer and from caches.
///
/// # Errors
///
/// The logs cannot be removed, or the store cannot be written, or another program keeps reading it; calling this again
/// finishes it.
///
/// # Cancel safety
///
/// Calling this again finishes it.
pub async fn forget(store: &Store, id: MemoryId) -> Result<Option<Forgotten>, Problem> {
    let memory = store.memory(id).await?;
    let attempt = memory
        .filter(|memory| memory.kind == MemoryKind::Outcome)
        .and_then(|memory| Some((memory.workflow?, memory.item?, memory.attempt?)));
    // The logs go first: only the memory leads to them.
    if let Some((workflow, item, attempt)) = attempt {
        let folder = logs::of_attempt(store.state_dir(), workflow, item, attempt);
        match tokio::fs::remove_dir_all(&folder).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let message = format!("{} cannot be removed: {error}", folder.display());
                return Err(Problem::new(ErrorKind::Unavailable, message)
                    .with_hint("remove the folder yourself, then forget the memory again"));
            }
            _ => {}
        }
    }
    store.forget(id).await.map_err(|error| match error {
        crate::store::StoreError::Locked => Problem::new(
            ErrorKind::Busy,
            "the memory is gone, but its text may still stand in the store's log, which another program is reading",
        )
        .with_hint("run the same again in a moment, or when no server runs"),
        error => error.problem(),
    })
}
