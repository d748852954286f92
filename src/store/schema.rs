//! Opening the one file: making it, checking it, bringing it to the present schema.

use super::StoreError;
use super::lock::open_lock_file;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long a statement waits for another process's write transaction, and how often it looks. SQLite's own waiting
/// looks ever more seldom, down to every 100 ms, and so hardly ever meets the gaps between a busy server's groups.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const BUSY_LOOK: Duration = Duration::from_micros(500);
/// Every statement of the store fits; one that does not is prepared again at each use.
const CACHED_STATEMENTS: usize = 128;
/// What a connection may keep of the file, in KiB (SQLite tells them from pages by the sign): the inner pages of a million
/// memories, and what one search reads or one large write changes. It is taken as it is needed.
const CACHE_KIB: i64 = -16_384;
/// A log of so many pages is moved into the file: what is changed again and again before, as the indexes are, is moved
/// once. About [`WAL_KEPT_BYTES`].
const CHECKPOINT_PAGES: i64 = 4_000;
/// The write-ahead log is cut back to this after a checkpoint that emptied it.
const WAL_KEPT_BYTES: i64 = 16 << 20;

/// The schema's history. A released entry never changes; the version is how many of them a file has seen.
const MIGRATIONS: [&str; 7] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
    include_str!("schema/5.sql"),
    include_str!("schema/6.sql"),
    include_str!("schema/7.sql"),
];
const KNOWN: i64 = MIGRATIONS.len() as i64;

/// How much an acknowledged write survives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// Every way the process can end, `kill -9` included. A power cut or a crash of the machine may roll the last
    /// moments back, never tear the file (SQLite's `synchronous = NORMAL` in WAL mode).
    #[default]
    Normal,
    /// A power cut too (`synchronous = FULL`): one flush of the disk per group of writes.
    Full,
}

/// Where the store's files are.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// The database.
    pub(super) database: PathBuf,
    /// Where lock files are; exists.
    pub(super) locks: PathBuf,
    /// Device and inode of the database, once it was opened.
    opened: Arc<OnceLock<(u64, u64)>>,
}

impl Files {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            database: dir.join("mahavishnu.db"),
            locks: dir.join("locks"),
            opened: Arc::default(),
        }
    }

    /// Opens the connection that writes.
    pub(super) fn writer(&self, durability: Durability) -> Result<Connection, StoreError> {
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let synchronous = match durability {
            Durability::Normal => "NORMAL",
            Durability::Full => "FULL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        // What a failing statement would be undone from: in a file it is five times what the memories themselves write.
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // What is deleted is overwritten too: `forget` promises that a text is gone from the file.
        connection.pragma_update(None, "secure_delete", true)?;
        Ok(connection)
    }

    /// Opens a connection that only reads.
    pub(super) fn reader(&self) -> Result<Connection, StoreError> {
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        super::tokens::prepare(&connection)?;
        Ok(connection)
    }

    /// Opens a file of the present schema, which it makes or migrates first; an existing file is never replaced.
    fn connect(&self, access: OpenFlags) -> Result<Connection, StoreError> {
        if self.opened.get().is_some() {
            self.unmoved()?;
        } else if !self.database.exists() {
            let _turn = self.turn()?;
            if !self.database.exists() {
                self.create()?;
            }
        }
        self.refuse_truncated()?;
        let connection = open(&self.database, access)?;
        match version_of(&connection)? {
            KNOWN => {
                self.remember()?;
                return Ok(connection);
            }
            0 => {
                return Err(StoreError::Damaged {
                    detail: "it is another program's database".to_owned(),
                });
            }
            found if found > KNOWN => {
                return Err(StoreError::Newer {
                    found,
                    known: KNOWN,
                });
            }
            _ => {}
        }
        let _turn = self.turn()?;
        migrate(&mut open(
            &self.database,
            OpenFlags::SQLITE_OPEN_READ_WRITE,
        )?)?;
        self.remember()?;
        Ok(connection)
    }

    fn remember(&self) -> Result<(), StoreError> {
        let file = self.inode()?;
        self.opened.get_or_init(|| file);
        self.unmoved()
    }

    fn inode(&self) -> Result<(u64, u64), StoreError> {
        let file = self.database.metadata();
        let file = file.map_err(|source| StoreError::directory(&self.database, source))?;
        Ok((file.dev(), file.ino()))
    }

    /// Refuses to go on when the file that is open no longer is the one in the folder: what is written to it now
    /// would be gone at the next start. SQLite does not look in WAL mode.
    pub(super) fn unmoved(&self) -> Result<(), StoreError> {
        match self.opened.get() {
            Some(opened) if self.inode().ok().as_ref() != Some(opened) => {
                Err(StoreError::Damaged {
                    detail: "it was removed or replaced while this server used it".to_owned(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Makes the file under another name first: one with the final name is whole, so an empty one is always damage.
    fn create(&self) -> Result<(), StoreError> {
        let unborn = self.database.with_extension("new");
        let blame = |source| StoreError::directory(&unborn, source);
        for leftover in ["new", "new-wal", "new-shm"] {
            match std::fs::remove_file(self.database.with_extension(leftover)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(blame(error)),
                _ => {}
            }
        }
        // A log without its database would be taken for the new file's own, and its content would be lost.
        if self.logged() {
            return Err(StoreError::Damaged {
                detail: "its log (-wal) is there, but the file itself is gone".to_owned(),
            });
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unborn)
            .map_err(blame)?;
        let mut connection = open(&unborn, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
        migrate(&mut connection)?;
        connection.close().map_err(|(_, error)| error)?;
        std::fs::rename(&unborn, &self.database).map_err(blame)
    }

    /// Waits until no other process makes or migrates the file.
    fn turn(&self) -> Result<File, StoreError> {
        let path = self.locks.join("schema.lock");
        let wait = || {
            let file = open_lock_file(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        wait().map_err(|source| StoreError::directory(&path, source))
    }

    /// Returns whether the write-ahead log holds anything.
    fn logged(&self) -> bool {
        let log = self.database.with_extension("db-wal");
        log.metadata().is_ok_and(|log| log.len() > 0)
    }

    /// Refuses a file that is shorter than it says, as long as no log could make up for that.
    ///
    /// SQLite itself would take an empty file for a new database, and notice other missing pages only when it needs
    /// them. Offsets: the database file format, section 1.3.
    fn refuse_truncated(&self) -> Result<(), StoreError> {
        const MAGIC: &[u8; 16] = b"SQLite format 3\0";
        let blame = |source| StoreError::directory(&self.database, source);
        let damaged = |detail: String| Err(StoreError::Damaged { detail });
        // Asked before and after, because another process may be moving its log into the file just now.
        let logged = self.logged();
        let mut file = File::open(&self.database).map_err(blame)?;
        let mut header = [0_u8; 100];
        let complete = file.read_exact(&mut header);
        let length = file.metadata().map_err(blame)?.len();
        match complete {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return damaged(format!("it has only {length} bytes"));
            }
            Err(error) => return Err(blame(error)),
        }
        if !header.starts_with(MAGIC) {
            return damaged("it is no SQLite database".to_owned());
        }
        let promised = promised_bytes(&header);
        if promised.is_some_and(|promised| length < promised) && !logged && !self.logged() {
            return damaged(format!(
                "it has {length} of {} bytes",
                promised.unwrap_or_default()
            ));
        }
        Ok(())
    }
}

fn open(path: &Path, access: OpenFlags) -> Result<Connection, StoreError> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(wait_for_others()))?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    Ok(connection)
}

/// Returns what SQLite calls while another process is in its way, for as long as that answers `true`.
fn wait_for_others() -> impl FnMut(i32) -> bool {
    let mut since = Instant::now();
    move |looks| {
        if looks == 0 {
            since = Instant::now();
        }
        pause(BUSY_LOOK);
        since.elapsed() < BUSY_TIMEOUT
    }
}

/// Stops a thread of the store for a moment.
#[expect(
    clippy::disallowed_methods,
    reason = "called on the store's own threads only, where nothing asynchronous runs"
)]
pub(super) fn pause(moment: Duration) {
    std::thread::sleep(moment);
}

fn version_of(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    loop {
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version = version_of(&step)?;
        let Some(sql) = usize::try_from(version)
            .ok()
            .and_then(|at| MIGRATIONS.get(at))
        else {
            return Ok(());
        };
        step.execute_batch(sql)?;
        step.pragma_update(None, "user_version", version + 1)?;
        step.commit()?;
    }
}

/// Returns how long the file is by its header, where the header is up to date.
fn promised_bytes(header: &[u8; 100]) -> Option<u64> {
    let word = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    (word(24) == word(92)).then(|| u64::from(word(28)) * page_bytes)
}
