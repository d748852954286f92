//! The store's handle: opening, closing, and handing jobs to the threads.

use super::files::{Durability, Files};
use super::job::{Job, Reply, job};
use super::locks::{Owners, make_private_dir};
use super::query::Query;
use super::thread::{self, Source, Write};
use super::{StoreError, wal, word_index};
use crate::model::ServerId;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc::Sender;

/// Connections that read at the same time.
const READERS: usize = 2;

/// Where the store is and how safe it is.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The state directory; made where it is missing.
    pub dir: PathBuf,
    /// What an acknowledged write survives.
    pub durability: Durability,
}

/// The store's handle; clones share its threads.
///
/// # Cancel safety
///
/// Dropping the future of a writing method before it is ready loses the answer, not the write: once queued, it is done.
#[derive(Clone)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    dir: PathBuf,
    pub(super) files: Files,
    pub(super) owners: Arc<Owners>,
    writes: Sender<Write>,
    reads: Sender<Job>,
    /// The connection that looks for commits; opened when it is first needed. Locked for one look, some microseconds,
    /// never across an await.
    pub(super) watch: Mutex<Option<Connection>>,
}

struct WriteFiles(Files, Durability);

impl Source for WriteFiles {
    fn open(&self) -> Result<Connection, StoreError> {
        self.0.writer(self.1)
    }

    fn check(&self, db: &Connection) -> Result<(), StoreError> {
        self.0.check_or_rescue(db)
    }

    fn before_commit(db: &Connection) -> Result<(), StoreError> {
        word_index::index_new(db)
    }
}

#[derive(Clone)]
struct ReadFiles(Files);

impl Source for ReadFiles {
    fn open(&self) -> Result<Connection, StoreError> {
        self.0.reader()
    }

    fn check(&self, _: &Connection) -> Result<(), StoreError> {
        self.0.check()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = f.debug_struct("Store");
        text.field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

impl Store {
    /// Makes the state directory and this server's ownership lock, and begins to open the file in the background.
    ///
    /// # Errors
    ///
    /// [`StoreError::Directory`] where the folder or the lock cannot be made. A file that cannot be opened is reported
    /// by every later call instead, and tried again at the next one.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let StoreOptions { dir, durability } = options;
        make_private_dir(&dir)?;
        let dir = dir
            .canonicalize()
            .map_err(|source| StoreError::directory(&dir, source))?;
        let locks = dir.join("locks");
        make_private_dir(&locks)?;
        let owners = Arc::new(Owners::new(locks.clone())?);
        let files = Files::new(&dir, locks, owners.my_file());
        let threads = |source| StoreError::directory(&dir, source);
        let writes = thread::writer(WriteFiles(files.clone(), durability)).map_err(threads)?;
        let reads = thread::readers(READERS, &ReadFiles(files.clone())).map_err(threads)?;
        Ok(Self {
            inner: Arc::new(Inner {
                dir,
                files,
                owners,
                writes,
                reads,
                watch: Mutex::default(),
            }),
        })
    }

    /// Returns this server's id, which its workflows carry as owner.
    pub fn server_id(&self) -> ServerId {
        self.inner.owners.me()
    }

    /// Returns the state directory.
    pub fn state_dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Returns another descriptor of this server's locked ownership file, for its guardian: the server counts as
    /// alive until every holder has closed it.
    ///
    /// # Errors
    ///
    /// The process has no descriptor left, or the store is closed.
    pub fn ownership_lock(&self) -> std::io::Result<OwnedFd> {
        self.inner.owners.share()
    }

    /// Returns this server's ownership file, which is locked until every holder of [`Self::ownership_lock`] has ended.
    pub fn ownership_file(&self) -> PathBuf {
        self.inner.owners.my_file()
    }

    /// Returns the ownership files of dead servers.
    pub fn dead_ownership_files(&self) -> Vec<PathBuf> {
        let owners = &self.inner.owners;
        owners
            .dead()
            .into_iter()
            .map(|owner| owners.file(owner))
            .collect()
    }

    /// Finishes what is queued, tidies the file and gives up the ownership lock; later calls fail.
    ///
    /// A failure to tidy is logged: the file is whole without it.
    pub async fn close(&self) {
        let me = self.server_id();
        let (last, reply) = job("close the store", move |db| {
            db.execute_batch("PRAGMA optimize")?;
            wal::truncate(db)?;
            let sql = "SELECT 1 FROM workflows WHERE owner = ?1 AND queued + running > 0";
            Ok(!db.any(sql, [me])?)
        });
        let finished = match self.submit(Write::Last(last), reply).await {
            Ok(finished) => finished,
            Err(StoreError::Closed) => false,
            Err(error) => {
                tracing::warn!(%error, "the store was closed without a checkpoint");
                false
            }
        };
        self.inner.owners.release(finished);
    }

    /// Runs `work` in a transaction, with that of other callers; `operation` completes "failed to ..." in its errors.
    pub(super) async fn write<T, F>(
        &self,
        operation: &'static str,
        work: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, reply) = job(operation, work);
        self.submit(Write::Grouped(job), reply).await
    }

    /// Runs `work` on the connection that writes, outside of a transaction.
    pub(super) async fn between<T, F>(
        &self,
        operation: &'static str,
        work: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, reply) = job(operation, work);
        self.submit(Write::Between(job), reply).await
    }

    async fn submit<T>(&self, write: Write, reply: Reply<T>) -> Result<T, StoreError> {
        let sent = self.inner.writes.send(write).await;
        sent.map_err(|_| StoreError::Closed)?;
        reply.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Runs `work` on a connection that only reads, in a transaction of its own.
    pub(super) async fn read<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, reply) = job(operation, work);
        let sent = self.inner.reads.send(job).await;
        sent.map_err(|_| StoreError::Closed)?;
        reply.await.unwrap_or(Err(StoreError::Closed))
    }
}
