//! The schema's versions, and which files this program opens.
//!
//! `application_id` in the file's header marks a store, and `user_version` is how many steps its schema has seen. Every
//! change of the schema is a new step: a released step never changes. Files without the mark that an unreleased
//! development version wrote (`user_version` 1 to 7) are refused, as are those of newer releases.

mod unreleased;

use super::StoreError;
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

/// The steps from an empty file to the present schema.
const STEPS: [&str; 1] = [include_str!("1.sql")];

/// Marks a file as a store of this program: "MHVS".
const APPLICATION_ID: i64 = 0x4d48_5653;

/// The version of the present schema.
pub(super) const KNOWN: i64 = STEPS.len() as i64;

/// Refuses a file that is not a store of this program, or whose version is newer than the present one.
///
/// # Errors
///
/// [`StoreError::Damaged`], [`StoreError::Unreleased`] or [`StoreError::Newer`].
pub(super) fn refuse_foreign(db: &Connection, path: &Path) -> Result<(), StoreError> {
    let application: i64 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if application == APPLICATION_ID {
        return refuse_newer(db);
    }
    if application == 0 && unreleased::is_one(db, version(db)?)? {
        return Err(StoreError::Unreleased {
            path: path.to_owned(),
            branches: unreleased::branches(db)?,
        });
    }
    Err(StoreError::Damaged {
        detail: "it is another program's database".to_owned(),
    })
}

/// Refuses a file that a newer release has migrated, perhaps while this server was using it.
pub(super) fn refuse_newer(db: &Connection) -> Result<(), StoreError> {
    let found = version(db)?;
    if found > KNOWN {
        return Err(StoreError::Newer {
            found,
            known: KNOWN,
        });
    }
    Ok(())
}

/// Returns the file's version.
pub(super) fn version(db: &Connection) -> Result<i64, StoreError> {
    let mut statement = db.prepare_cached("PRAGMA user_version")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

/// Brings a file to the present schema, each step in a transaction of its own.
pub(super) fn migrate(db: &mut Connection) -> Result<(), StoreError> {
    migrate_by(db, &STEPS)
}

fn migrate_by(db: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
    loop {
        let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version = version(&step)?;
        let next = usize::try_from(version).ok().and_then(|at| steps.get(at));
        let Some(sql) = next else {
            return Ok(());
        };
        step.execute_batch(sql)?;
        step.pragma_update(None, "application_id", APPLICATION_ID)?;
        step.pragma_update(None, "user_version", version + 1)?;
        step.commit()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDS: &str = "ALTER TABLE notices ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey'";

    fn at_version_one() -> Connection {
        let mut db = Connection::open_in_memory().expect("opened");
        migrate(&mut db).expect("migrated");
        db.execute("INSERT INTO notices (at_ms, text) VALUES (1, 'before')", [])
            .expect("inserted");
        db
    }

    #[test]
    fn a_new_step_keeps_the_content() {
        let mut db = at_version_one();
        assert_eq!(version(&db).expect("read"), 1);
        migrate_by(&mut db, &[STEPS[0], ADDS]).expect("migrated");
        assert_eq!(version(&db).expect("read"), 2);
        let row: (String, String) = db
            .query_row("SELECT text, colour FROM notices", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .expect("kept");
        assert_eq!(row, ("before".to_owned(), "grey".to_owned()));
        refuse_foreign(&db, Path::new("x")).expect_err("newer than this release");
    }

    #[test]
    fn a_failing_step_changes_nothing() {
        let mut db = at_version_one();
        let steps = [STEPS[0], &format!("{ADDS}; SELECT nonsense FROM nowhere")];
        migrate_by(&mut db, &steps).expect_err("it fails");
        assert_eq!(version(&db).expect("read"), 1);
        let columns: i64 = db
            .query_row(
                "SELECT count(*) FROM pragma_table_info('notices')",
                [],
                |row| row.get(0),
            )
            .expect("counted");
        assert_eq!(columns, 4);
    }
}
