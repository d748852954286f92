//! What waits to be written to the client: one buffer, in order, emptied by one task with as few writes as there are
//! turns of the runtime, not as there are messages.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, watch};

/// The buffer that is kept for the next messages; what a larger one took is given back.
const KEPT_BYTES: usize = 64 << 10;

/// Messages on their way to the client; cloning shares them.
#[derive(Debug, Clone)]
pub(super) struct Outbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // A std mutex: held to append a message or to take all, never across an await.
    waiting: Mutex<Vec<u8>>,
    added: Notify,
    /// How many messages are not written yet; closed, with the writer, once nothing can be written any more.
    unwritten: watch::Sender<usize>,
}

impl Outbox {
    /// Returns an empty outbox. Nothing leaves it before [`empty_into`](Self::empty_into) runs.
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner {
            waiting: Mutex::default(),
            added: Notify::new(),
            unwritten: watch::Sender::new(0),
        }))
    }

    /// Adds a message, which `write` appends to what waits.
    ///
    /// # Errors
    ///
    /// What `write` says; nothing is added then.
    pub(super) fn add<T, E>(
        &self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut waiting = self.waiting();
        let before = waiting.len();
        let written = write(&mut waiting);
        match written {
            Ok(_) => {
                self.0.unwritten.send_modify(|count| *count += 1);
                self.0.added.notify_one();
            }
            Err(_) => waiting.truncate(before),
        }
        written
    }

    /// Waits until fewer than `count` messages wait.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub(super) async fn fewer_than(&self, count: usize) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self
            .0
            .unwritten
            .subscribe()
            .wait_for(|waiting| *waiting < count)
            .await;
    }

    /// Writes what is added, until the writer fails.
    ///
    /// # Errors
    ///
    /// The writer's; what waited then is lost.
    pub(super) async fn empty_into(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let mut batch = Vec::new();
        loop {
            let messages = self.take(&mut batch);
            if batch.is_empty() {
                self.0.added.notified().await;
                continue;
            }
            writer.write_all(&batch).await?;
            writer.flush().await?;
            self.0.unwritten.send_modify(|count| *count -= messages);
            batch.clear();
            batch.shrink_to(KEPT_BYTES);
        }
    }

    /// Swaps what waits with `batch`, which is empty; returns how many messages that is.
    fn take(&self, batch: &mut Vec<u8>) -> usize {
        let mut waiting = self.waiting();
        std::mem::swap(&mut *waiting, batch);
        // Nothing is being written now, so those are all.
        *self.0.unwritten.borrow()
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What rmcp writes by itself, a refusal of what is no message, gets in line too.
impl AsyncWrite for Outbox {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let added = self.add(|waiting| {
            waiting.extend_from_slice(bytes);
            io::Result::Ok(bytes.len())
        });
        Poll::Ready(added)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncReadExt;
    use tokio::task::JoinSet;

    fn add(outbox: &Outbox, text: &str) {
        let added = outbox.add(|waiting| {
            waiting.extend_from_slice(text.as_bytes());
            io::Result::Ok(())
        });
        added.expect("it cannot fail");
    }

    #[tokio::test]
    async fn messages_leave_in_order_and_who_waits_for_room_goes_on() {
        let outbox = Outbox::new();
        for text in ["a\n", "b\n", "c\n"] {
            add(&outbox, text);
        }
        let crowded = tokio::time::timeout(Duration::from_millis(20), outbox.fewer_than(3));
        assert!(crowded.await.is_err(), "three wait");
        let (mut writer, mut reader) = tokio::io::duplex(2);
        let writing = outbox.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { writing.empty_into(&mut writer).await });
        let mut read = [0; 8];
        reader
            .read_exact(&mut read[..6])
            .await
            .expect("it is written");
        add(&outbox, "d\n");
        reader
            .read_exact(&mut read[6..])
            .await
            .expect("it is written");
        assert_eq!(&read, b"a\nb\nc\nd\n");
        outbox.fewer_than(1).await;
        drop(reader);
        add(&outbox, "e\n");
        let ended = tasks.join_next().await.expect("it runs").expect("no panic");
        assert!(ended.is_err(), "nobody reads");
    }

    #[test]
    fn what_cannot_be_encoded_leaves_nothing_behind() {
        let outbox = Outbox::new();
        add(&outbox, "a\n");
        let failed: Result<(), _> = outbox.add(|waiting| {
            waiting.extend_from_slice(b"half");
            Err(io::ErrorKind::Other)
        });
        assert!(failed.is_err());
        assert_eq!(*outbox.waiting(), b"a\n");
    }
}
