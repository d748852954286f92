//! The store: one SQLite file in the state directory, shared by several server processes.
//!
//! It keeps workflows with their items and attempts (the journal), who owns them, what servers ask of each other, and
//! memories with their way to peers (the outbox).
//! All writes of this process go through one thread that commits in groups; reads have connections of their own. SQL
//! lives only here; callers see typed, asynchronous methods. Not responsible for running anything: the orchestrator
//! writes an item's start here first and then starts it.
//!
//! An acknowledged write survives every way the process can end. With [`Durability::Normal`] a power cut may roll the
//! last moments back; [`Durability::Full`] does not allow that either.

mod column;
mod error;
mod filters;
mod forget;
mod fulltext;
mod home;
mod job;
mod journal;
mod lock;
mod lookup;
mod memories;
mod memory;
mod outbox;
mod ownership;
mod peers;
mod rank;
mod schema;
mod search;
mod thread;
mod tokens;
mod upkeep;
mod version;
mod words;
mod workflows;

pub use error::StoreError;
pub use forget::Forgotten;
pub use home::HomeNote;
pub use journal::{Created, Entry};
pub use lock::OwnerState;
pub use lookup::{StoredWorkflow, WorkflowQuery, WorkflowSummary};
pub use memories::PeerLock;
pub use ownership::{Adopted, Asked, Notice, OwnerRequest, Recovered, Remains, Remember};
pub use schema::Durability;
pub use upkeep::{Pruned, Retention, StoreHealth};

use crate::model::{At, MemoryKind, ServerId};
use job::{Job, Reply, job};
use lock::Owners;
use rusqlite::Connection;
use schema::Files;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use thread::{Source, Write};
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
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    files: Files,
    owners: Arc<Owners>,
    writes: Sender<Write>,
    reads: Sender<Box<dyn Job>>,
    remains: OnceLock<Remains>,
    lookout: version::Lookout,
}

struct WriteFiles(Files, Durability);

impl Source for WriteFiles {
    fn open(&self) -> Result<Connection, StoreError> {
        self.0.writer(self.1)
    }

    fn check(&self) -> Result<(), StoreError> {
        self.0.unmoved()
    }

    fn before_commit(db: &Connection) -> Result<(), StoreError> {
        memory::index_new(db)
    }
}

#[derive(Clone)]
struct ReadFiles(Files);

impl Source for ReadFiles {
    fn open(&self) -> Result<Connection, StoreError> {
        self.0.reader()
    }

    fn check(&self) -> Result<(), StoreError> {
        self.0.unmoved()
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
        lock::make_private_dir(&dir)?;
        let dir = dir
            .canonicalize()
            .map_err(|source| StoreError::directory(&dir, source))?;
        let files = Files::new(&dir);
        lock::make_private_dir(&files.locks)?;
        let owners = Arc::new(Owners::new(files.locks.clone())?);
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
                remains: OnceLock::new(),
                lookout: version::Lookout::default(),
            }),
        })
    }

    /// Says what items leave behind that turn out to have been interrupted; the first word counts.
    pub fn remember_interrupted(&self, remains: Remains) {
        // A second word changes nothing, as said.
        let _ = self.inner.remains.set(remains);
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

    /// Returns a number that changes when another process has written: cheap, for polling.
    ///
    /// Only its change means anything (`PRAGMA data_version` of the one connection that writes here).
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn data_version(&self) -> Result<i64, StoreError> {
        self.between("look for changes", |db| {
            Ok(db
                .prepare_cached("PRAGMA data_version")?
                .query_row([], |row| row.get(0))?)
        })
        .await
    }

    /// Returns the store's figures and looks for damage, for some seconds at most.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening; damage that is found is a result.
    pub async fn integrity(&self) -> Result<StoreHealth, StoreError> {
        let files = self.inner.files.clone();
        self.read("check the store", move |_| {
            upkeep::health(files.reader()?, &files.database)
        })
        .await
    }

    /// Removes what `keep` does not keep, and returns what that was.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing; what was removed before stays removed.
    pub async fn prune(&self, keep: Retention) -> Result<Pruned, StoreError> {
        let mut pruned = Pruned::default();
        if let Some(age) = keep.workflows {
            let before = upkeep::ago(age);
            loop {
                let batch = self
                    .write("remove old workflows", move |db| {
                        upkeep::prune_workflows(db, before)
                    })
                    .await?;
                let last = batch.len() < upkeep::PRUNE_BATCH as usize;
                pruned.workflows.extend(batch);
                if last {
                    break;
                }
            }
        }
        let outcomes: &[_] = &[MemoryKind::Outcome];
        let kept: &[_] = &[MemoryKind::Lesson, MemoryKind::Note];
        for (kinds, age) in [(outcomes, keep.outcomes), (kept, keep.lessons_and_notes)] {
            if let Some(age) = age {
                pruned.memories += self.prune_memories(kinds, upkeep::ago(age)).await?;
            }
        }
        if pruned != Pruned::default() {
            self.between("shrink the store", upkeep::shrink).await?;
        }
        Ok(pruned)
    }

    async fn prune_memories(
        &self,
        kinds: &'static [MemoryKind],
        before: At,
    ) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let batch = self
                .write("remove old memories", move |db| {
                    forget::prune(db, kinds, before, upkeep::PRUNE_BATCH)
                })
                .await?;
            removed += u64::from(batch);
            if batch < upkeep::PRUNE_BATCH {
                return Ok(removed);
            }
        }
    }

    /// Finishes what is queued, tidies the file and gives up the ownership lock; later calls fail.
    ///
    /// A failure to tidy is logged: the file is whole without it.
    pub async fn close(&self) {
        let (last, reply) = job("close the store", |db: &Connection| {
            db.execute_batch("PRAGMA optimize")?;
            upkeep::checkpoint(db)
        });
        match self.submit(Write::Last(last), reply).await {
            Ok(_) | Err(StoreError::Closed) => {}
            Err(error) => tracing::warn!(%error, "the store was closed without a checkpoint"),
        }
        self.inner.owners.release();
    }

    async fn write<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, reply) = job(operation, work);
        self.submit(Write::Grouped(job), reply).await
    }

    async fn between<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
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

    async fn read<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
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
