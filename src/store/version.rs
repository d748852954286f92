//! Whether anything was committed since one last looked: a read of shared memory, not of the file, so that it may be done on
//! a runtime's thread.

use super::schema::Files;
use super::{Store, StoreError};
use rusqlite::Connection;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The connection that looks; opened when it is first needed.
#[derive(Debug, Default)]
// A std mutex: held for one look, some microseconds, never across an await.
pub(super) struct Lookout(Mutex<Option<Connection>>);

impl Lookout {
    fn connection(&self) -> MutexGuard<'_, Option<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the version, or nothing where there is no connection yet.
    fn look(&self, files: &Files) -> Result<Option<i64>, StoreError> {
        files.unmoved()?;
        match &*self.connection() {
            Some(connection) => version(connection).map(Some),
            None => Ok(None),
        }
    }
}

impl Store {
    /// Returns a number that changes with every commit to the store, whichever process or connection made it.
    ///
    /// Only its change means anything (`PRAGMA data_version` of a connection that never writes). The first call opens that
    /// connection; later ones take some microseconds and wait for nobody.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading; one that would have to wait for another process fails instead.
    pub async fn version(&self) -> Result<i64, StoreError> {
        let inner = &self.inner;
        if let Some(version) = inner.lookout.look(&inner.files)? {
            return Ok(version);
        }
        let files = inner.files.clone();
        let opened = self.read("watch the store", move |_| {
            let connection = files.reader()?;
            connection.busy_timeout(Duration::ZERO)?;
            Ok(connection)
        });
        let connection = opened.await?;
        let version = version(&connection)?;
        // Of two that open at once the later one looks from now on; the versions of the first mean nothing to it, and are
        // taken for a change at worst.
        *inner.lookout.connection() = Some(connection);
        Ok(version)
    }
}

fn version(connection: &Connection) -> Result<i64, StoreError> {
    let mut statement = connection.prepare_cached("PRAGMA data_version")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}
