//! The store's files: making the database, checking it, opening connections, and noticing when a file is taken away.
//!
//! Every file is looked at by its device and inode, because SQLite itself notices none of what is refused here: what is
//! written to a file that was removed or replaced would be gone at the next start.

use super::locks::open_lock_file;
use super::thread::pause;
use super::{StoreError, schema, tokens, wal};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a statement waits for another process's write transaction, and how often it tries. SQLite's own waiting
/// tries ever more seldom, down to every 100 ms, and so hardly ever meets the gaps between a busy server's groups.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const BUSY_RETRY: Duration = Duration::from_micros(500);
/// Every statement of the store fits; one that does not is prepared again at each use.
const CACHED_STATEMENTS: usize = 128;
/// What a connection may keep of the file, in KiB (SQLite tells them from pages by the sign): the inner pages of a million
/// memories, and what one search reads or one large write changes. It is taken as it is needed.
const CACHE_KIB: i64 = -16_384;

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// Every way the process can end, `kill -9` included. A power cut or a crash of the machine may roll the last
    /// moments back, never tear the file (SQLite's `synchronous = NORMAL` in WAL mode).
    #[default]
    Normal,
    /// A power cut too (`synchronous = FULL`): one flush of the disk per group of writes.
    Full,
}

/// The store's files; clones share what is known of them.
#[derive(Debug, Clone)]
pub(super) struct Files {
    database: PathBuf,
    locks: PathBuf,
    my_lock: PathBuf,
    // Held while a connection is opened, so that the first one finishes the checks before the second begins.
    opened: Arc<Mutex<Option<Opened>>>,
}

/// What must stay as it is while connections are open.
#[derive(Debug)]
struct Opened {
    /// The database, its log, the log's index and this server's lock, each with its device and inode.
    places: Vec<(PathBuf, Option<(u64, u64)>)>,
    /// Never closed before the connections: closing any descriptor of the database would free the locks that SQLite
    /// holds on it for this process, and another process could then remove the log in use
    /// (<https://sqlite.org/howtocorrupt.html>, section 2.2).
    _database: File,
}

impl Files {
    /// Names the files of the state directory `dir`, whose folder `locks` with the file `my_lock` exists.
    pub(super) fn new(dir: &Path, locks: PathBuf, my_lock: PathBuf) -> Self {
        Self {
            database: dir.join("mahavishnu.db"),
            locks,
            my_lock,
            opened: Arc::default(),
        }
    }

    pub(super) fn database(&self) -> &Path {
        &self.database
    }

    /// Opens the connection that writes.
    pub(super) fn writer(&self, durability: Durability) -> Result<Connection, StoreError> {
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let synchronous = match durability {
            Durability::Normal => "NORMAL",
            Durability::Full => "FULL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        wal::limit(&connection)?;
        // What a failing statement would be undone from: in a file it is five times what the memories themselves write.
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // What is deleted is overwritten too: `forget` promises that a text is gone from the file.
        connection.pragma_update(None, "secure_delete", true)?;
        Ok(connection)
    }

    /// Opens a connection that only reads.
    pub(super) fn reader(&self) -> Result<Connection, StoreError> {
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        tokens::prepare(&connection)?;
        Ok(connection)
    }

    /// Opens a file of the present schema, which it makes or migrates first; an existing file is never replaced.
    fn connect(&self, access: OpenFlags) -> Result<Connection, StoreError> {
        let mut opened = self.opened.lock();
        if let Some(opened) = &*opened {
            opened.check()?;
            return open(&self.database, access);
        }
        let database = self.find_or_create()?;
        self.refuse_truncated(&database)?;
        let connection = open(&self.database, access)?;
        schema::refuse_foreign(&connection, &self.database)?;
        if schema::version(&connection)? < schema::KNOWN {
            let _turn = self.turn()?;
            schema::migrate(&mut open(
                &self.database,
                OpenFlags::SQLITE_OPEN_READ_WRITE,
            )?)?;
        }
        let places = [
            self.database.clone(),
            self.log(),
            self.database.with_extension("db-shm"),
            self.my_lock.clone(),
        ];
        let places = places.map(|path| {
            let id = identity(&path);
            (path, id)
        });
        *opened = Some(Opened {
            places: places.into(),
            _database: database,
        });
        Ok(connection)
    }

    /// Refuses to go on once one of the open files is no longer the one in its place.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match &*self.opened.lock() {
            Some(opened) => opened.check(),
            None => Ok(()),
        }
    }

    /// As [`Self::check`]. Where the log was removed, it is moved into the database first, so that nothing acknowledged
    /// before is lost. Not where it was replaced: another process may be writing to that one.
    pub(super) fn check_or_rescue(&self, db: &Connection) -> Result<(), StoreError> {
        self.check().inspect_err(|error| {
            let removed = matches!(error, StoreError::Removed { path } if *path == self.log());
            if removed && !self.log().exists() {
                match wal::truncate(db) {
                    Ok(_) => tracing::error!(%error, "what the log held was saved"),
                    Err(cause) => tracing::error!(%error, %cause, "what the log held is lost"),
                }
            }
        })
    }

    /// Opens the database, and makes it first where there is none.
    fn find_or_create(&self) -> Result<File, StoreError> {
        if !self.is_there()? {
            let _turn = self.turn()?;
            if !self.is_there()? {
                self.create()?;
            }
        }
        let file = File::open(&self.database);
        file.map_err(|source| StoreError::directory(&self.database, source))
    }

    /// Returns whether the database exists. Refuses a link in its place: SQLite would follow it, to a place where another
    /// store's locks are, or to nowhere.
    fn is_there(&self) -> Result<bool, StoreError> {
        let mut there = false;
        for path in [&self.database, &self.log()] {
            let misplaced = |detail: &str| {
                Err(StoreError::Misplaced {
                    path: path.clone(),
                    detail: detail.to_owned(),
                })
            };
            let found = match path.symlink_metadata() {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(StoreError::directory(path, source)),
            };
            if found.is_symlink() {
                return misplaced("it is a symbolic link");
            }
            if !found.is_file() {
                return misplaced("it is not a file");
            }
            if found.nlink() > 1 {
                return misplaced("it is a hard link: the same file has another name");
            }
            there |= *path == self.database;
        }
        Ok(there)
    }

    /// Makes the file under another name first: one with the final name is whole, so an empty one is always damage.
    fn create(&self) -> Result<(), StoreError> {
        let unnamed = self.database.with_extension("new");
        let failed = |source| StoreError::directory(&unnamed, source);
        for leftover in ["new", "new-wal", "new-shm"] {
            match std::fs::remove_file(self.database.with_extension(leftover)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        // A log without its database would be taken for the new file's own, and its content would be lost.
        if self.is_logged() {
            return Err(StoreError::Damaged {
                detail: "its log (-wal) is there, but the file itself is gone".to_owned(),
            });
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unnamed)
            .map_err(failed)?;
        let mut connection = open(&unnamed, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
        schema::migrate(&mut connection)?;
        connection.close().map_err(|(_, error)| error)?;
        std::fs::rename(&unnamed, &self.database).map_err(failed)
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

    fn log(&self) -> PathBuf {
        self.database.with_extension("db-wal")
    }

    /// Returns whether the write-ahead log holds anything.
    fn is_logged(&self) -> bool {
        self.log().metadata().is_ok_and(|log| log.len() > 0)
    }

    /// Refuses a file that is shorter than its header promises, as long as no log could make up for that.
    ///
    /// SQLite itself would take an empty file for a new database, and notice other missing pages only when it needs
    /// them. Offsets: the database file format, section 1.3.
    fn refuse_truncated(&self, database: &File) -> Result<(), StoreError> {
        const MAGIC: &[u8; 16] = b"SQLite format 3\0";
        let failed = |source| StoreError::directory(&self.database, source);
        let damaged = |detail: String| Err(StoreError::Damaged { detail });
        // Asked before and after, because another process may be moving its log into the file just now.
        let logged = self.is_logged();
        let mut header = [0_u8; 100];
        let complete = database.read_exact_at(&mut header, 0);
        let length = database.metadata().map_err(failed)?.len();
        match complete {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return damaged(format!("it has only {length} bytes"));
            }
            Err(error) => return Err(failed(error)),
        }
        if !header.starts_with(MAGIC) {
            return damaged("it is no SQLite database".to_owned());
        }
        match promised_bytes(&header) {
            Some(promised) if length < promised && !logged && !self.is_logged() => {
                damaged(format!("it has {length} of {promised} bytes"))
            }
            _ => Ok(()),
        }
    }
}

impl Opened {
    fn check(&self) -> Result<(), StoreError> {
        let changed = |(path, id): &&(PathBuf, _)| identity(path) != *id;
        match self.places.iter().find(changed) {
            Some((path, _)) => Err(StoreError::Removed { path: path.clone() }),
            None => Ok(()),
        }
    }
}

/// Returns the device and inode of a file, where there is one.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = path.metadata().ok()?;
    Some((file.dev(), file.ino()))
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
    move |tries| {
        if tries == 0 {
            since = Instant::now();
        }
        pause(BUSY_RETRY);
        since.elapsed() < BUSY_TIMEOUT
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
