//! Whether anything was committed since the last look: a read of shared memory, not of the file, so that it may be done
//! on a runtime's thread.

use super::{Store, StoreError};
use rusqlite::Connection;
use std::time::Duration;

impl Store {
    /// Returns a number that changes with every commit to the store, whichever process or connection made it.
    ///
    /// Only its change means anything (`PRAGMA data_version` of a connection that never writes). The first call opens that
    /// connection; later ones take some microseconds.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading; one that would have to wait for another process fails instead.
    pub async fn version(&self) -> Result<i64, StoreError> {
        let inner = &self.inner;
        if let Some(connection) = &*inner.watch.lock() {
            inner.files.check()?;
            return version(connection);
        }
        let files = inner.files.clone();
        let opened = self.read("watch the store", move |_| {
            let connection = files.reader()?;
            connection.busy_timeout(Duration::ZERO)?;
            Ok(connection)
        });
        let connection = opened.await?;
        let version = version(&connection)?;
        // Of two that open at once the later one stays; its numbers are taken for a change at worst.
        *inner.watch.lock() = Some(connection);
        Ok(version)
    }
}

fn version(connection: &Connection) -> Result<i64, StoreError> {
    let mut statement = connection.prepare_cached("PRAGMA data_version")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}
