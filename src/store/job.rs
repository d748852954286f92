//! One unit of work for a store thread, and the reply that its caller waits for.

use super::StoreError;
use rusqlite::Connection;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::sync::oneshot;

/// A unit of work whose result type only its caller knows.
pub(super) trait Job: Send {
    /// Does the work and keeps the result; returns whether it is to be kept in the file.
    fn run(&mut self, connection: &Connection) -> bool;

    /// Returns the error that the work ended with.
    fn error(&self) -> Option<StoreError>;

    /// Tells the caller the result, or `failure` instead.
    fn reply(self: Box<Self>, failure: Option<StoreError>);
}

/// What a job's caller waits for.
pub(super) type Reply<T> = oneshot::Receiver<Result<T, StoreError>>;

/// Packs `work` as a job; `operation` completes "failed to ..." in its errors.
pub(super) fn job<T, F>(operation: &'static str, work: F) -> (Box<dyn Job>, Reply<T>)
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
{
    let (sender, reply) = oneshot::channel();
    let job = Typed {
        operation,
        work: Some(work),
        result: None,
        sender,
    };
    (Box::new(job), reply)
}

struct Typed<T, F> {
    operation: &'static str,
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    sender: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Typed<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        let Some(work) = self.work.take() else {
            return false;
        };
        // Safe to go on with the connection: the caller rolls back whatever a panic left half done.
        let result = catch_unwind(AssertUnwindSafe(|| work(connection)))
            .unwrap_or_else(|panic| {
                Err(StoreError::Panicked {
                    operation: self.operation,
                    detail: message_of(&*panic),
                })
            })
            .map_err(|error| error.during(self.operation));
        self.result.insert(result).is_ok()
    }

    fn error(&self) -> Option<StoreError> {
        self.result.as_ref()?.as_ref().err().cloned()
    }

    fn reply(self: Box<Self>, failure: Option<StoreError>) {
        let result = match (self.result, failure) {
            // What went wrong with the job itself says more than what became of its group.
            (Some(Err(error)), _) => Err(error),
            (_, Some(failure)) => Err(failure.during(self.operation)),
            (Some(done), None) => done,
            (None, None) => Err(StoreError::Closed),
        };
        // A caller that no longer waits has dropped its end; the work stays done.
        drop(self.sender.send(result));
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
        .to_owned()
}
