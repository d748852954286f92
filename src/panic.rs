//! Panics, caught where one piece of work must not take the rest of the process with it.
//!
//! A panic is a defect of this program: whoever catches one reports it and keeps nothing of what the work was changing.

use futures_util::FutureExt;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use tokio::task::JoinError;

/// A caught panic, with the message it was raised with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {0}")]
pub struct Panicked(pub String);

impl Panicked {
    fn new(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self(text.unwrap_or("no message").to_owned())
    }
}

/// Awaits `work`; a panic in it is an error.
///
/// State that `work` shares with others must be sound after a panic, since nothing here can check that.
///
/// # Errors
///
/// [`Panicked`] with the panic's message.
///
/// # Cancel safety
///
/// As safe as `work`.
pub async fn catch<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    let caught = AssertUnwindSafe(work).catch_unwind().await;
    caught.map_err(|payload| Panicked::new(payload.as_ref()))
}

/// Runs `work`; a panic in it is an error. The same conditions hold as for [`catch`].
///
/// # Errors
///
/// [`Panicked`] with the panic's message.
pub fn catch_blocking<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked::new(payload.as_ref()))
}

/// Returns the result of a joined task, or none where it was aborted; a panic in the task goes on here.
pub fn propagate<T>(joined: Result<T, JoinError>) -> Option<T> {
    joined.map_or_else(
        |error| match error.try_into_panic() {
            Ok(payload) => resume_unwind(payload),
            Err(_aborted) => None,
        },
        Some,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinSet;

    #[tokio::test]
    async fn a_caught_panic_keeps_its_message() {
        let number = 7;
        assert_eq!(catch(async { number }).await, Ok(number));
        let formatted = catch(async { panic!("boom {number}") }).await;
        assert_eq!(formatted, Err::<(), _>(Panicked("boom 7".into())));
        let literal = catch_blocking(|| panic!("boom"));
        assert_eq!(literal, Err::<(), _>(Panicked("boom".into())));
        let odd = catch_blocking(|| std::panic::panic_any(number));
        assert_eq!(odd, Err::<(), _>(Panicked("no message".into())));
    }

    #[tokio::test]
    async fn a_joined_panic_goes_on_and_an_abort_is_none() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async { panic!("in a task") });
        let joined = tasks.join_next().await.expect("one task");
        let raised = catch_blocking(|| propagate::<()>(joined));
        assert_eq!(raised, Err(Panicked("in a task".into())));
        tasks.spawn(std::future::pending());
        tasks.abort_all();
        let joined = tasks.join_next().await.expect("one task");
        assert_eq!(propagate(joined), None);
    }
}
