//! One unit of work for a store thread, and the reply that its caller waits for.

use super::StoreError;
use crate::panic;
use rusqlite::Connection;
use tokio::sync::oneshot;

/// A unit of work whose result type only its caller knows. Given an error instead of a connection, it fails with it.
pub(super) type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Done + Send>;

/// A job that has run and whose caller is not answered yet.
pub(super) struct Done {
    /// Why the job failed, so that what it wrote must not be kept.
    pub(super) failure: Option<StoreError>,
    answer: Box<dyn FnOnce(Option<StoreError>) + Send>,
}

impl Done {
    /// Answers the caller with the job's result, or with `lost`, why it was not kept.
    pub(super) fn answer(self, lost: Option<StoreError>) {
        (self.answer)(lost);
    }
}

/// What a job's caller waits for.
pub(super) type Reply<T> = oneshot::Receiver<Result<T, StoreError>>;

/// Packs `work` as a job; `operation` completes "failed to ..." in its errors.
pub(super) fn job<T, F>(operation: &'static str, work: F) -> (Job, Reply<T>)
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
{
    let (sender, reply) = oneshot::channel();
    let run = move |db: Result<&Connection, StoreError>| {
        let result = db.and_then(|db| caught(operation, db, work));
        let result = result.map_err(|error| error.during(operation));
        Done {
            failure: result.as_ref().err().cloned(),
            answer: Box::new(move |lost| {
                // The job's own failure explains more than that of its transaction.
                let result = match lost {
                    Some(lost) if result.is_ok() => Err(lost.during(operation)),
                    _ => result,
                };
                // A caller that no longer waits has dropped its end; the work stays done.
                drop(sender.send(result));
            }),
        }
    };
    (Box::new(run), reply)
}

fn caught<T>(
    operation: &'static str,
    db: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    // The connection stays usable: the caller rolls back whatever a panic left half done.
    panic::catch_blocking(|| work(db)).unwrap_or_else(|panic| {
        Err(StoreError::Panicked {
            operation,
            detail: panic.0,
        })
    })
}
