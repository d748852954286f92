//! What is known of peers: written by the server that found it out, read by all servers of this state directory.

use super::column::Json;
use super::query::Query;
use super::{Store, StoreError};
use crate::error::RedactedProblem;
use crate::model::{PeerName, PeerState, Reconciled, SenderState};
use rusqlite::{Connection, Row, params};
use serde::de::DeserializeOwned;
use std::time::Duration;

impl Store {
    /// Returns what is known of a peer; the default where nothing was ever sent to it.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn peer_state(&self, peer: PeerName) -> Result<PeerState, StoreError> {
        self.read("read a peer's state", move |db| state(db, &peer))
            .await
    }

    /// Notes the state of sending. The caller holds the peer's lock.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn note_sender(&self, peer: PeerName, sender: SenderState) -> Result<(), StoreError> {
        self.write("note the state of sending", move |db| {
            note_sender(db, &peer, &sender)
        })
        .await
    }

    /// Notes what a comparison with the peer found, or why it failed; the last findings stay then.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn note_reconciled(
        &self,
        peer: PeerName,
        found: Result<Reconciled, RedactedProblem>,
    ) -> Result<(), StoreError> {
        self.write("note what a peer has", move |db| {
            note_reconciled(db, &peer, &found)
        })
        .await
    }
}

fn state(db: &Connection, peer: &PeerName) -> Result<PeerState, StoreError> {
    let state = db.first("SELECT * FROM peers WHERE peer = ?1", [peer], |row| {
        let slowest_ms = row.get::<_, i64>("slowest_ms")?.unsigned_abs();
        Ok(PeerState {
            sender: SenderState {
                down_since: row.get("down_since_ms")?,
                error: json(row, "error")?,
                limit: row.get("in_flight_limit")?,
                slowest: Duration::from_millis(slowest_ms),
            },
            reconciled: json(row, "reconciled")?,
            reconcile_error: json(row, "reconcile_error")?,
        })
    });
    Ok(state?.unwrap_or_default())
}

fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    let value: Option<Json<T>> = row.get(column)?;
    Ok(value.map(|value| value.0))
}

fn note_sender(db: &Connection, peer: &PeerName, sender: &SenderState) -> Result<(), StoreError> {
    let slowest_ms = i64::try_from(sender.slowest.as_millis()).unwrap_or(i64::MAX);
    db.run(
        "INSERT INTO peers (peer, down_since_ms, error, in_flight_limit, slowest_ms) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (peer) DO UPDATE SET down_since_ms = ?2, error = ?3, in_flight_limit = ?4, slowest_ms = ?5",
        params![
            peer,
            sender.down_since,
            sender.error.as_ref().map(Json),
            sender.limit,
            slowest_ms,
        ],
    )?;
    Ok(())
}

fn note_reconciled(
    db: &Connection,
    peer: &PeerName,
    found: &Result<Reconciled, RedactedProblem>,
) -> Result<(), StoreError> {
    let (found, error) = (found.as_ref().ok(), found.as_ref().err());
    db.run(
        "INSERT INTO peers (peer, reconciled, reconcile_error) VALUES (?1, ?2, ?3)
         ON CONFLICT (peer) DO UPDATE SET reconciled = ifnull(?2, reconciled), reconcile_error = ?3",
        params![peer, found.map(Json), error.map(Json)],
    )?;
    Ok(())
}
