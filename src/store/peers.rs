//! What is known of peers: written by the server that found it out, read by all of this state directory.

use super::column::{from_json, json_of};
use super::{Store, StoreError};
use crate::error::Problem;
use crate::model::{At, PeerName, PeerState, Reconciled, SenderState};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};
use serde::de::DeserializeOwned;
use std::time::Duration;

impl Store {
    /// Returns what is known of a peer; the default where nobody ever sent to it.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn peer_state(&self, peer: PeerName) -> Result<PeerState, StoreError> {
        self.read("read a peer's state", move |db| state(db, &peer))
            .await
    }

    /// Notes how sending stands. The caller holds the peer's lock.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn note_sender(&self, peer: PeerName, sender: SenderState) -> Result<(), StoreError> {
        self.write("note how sending stands", move |db| {
            note_sender(db, &peer, &sender)
        })
        .await
    }

    /// Notes what a comparison with the peer found, or why it found nothing out; then the last findings stay.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn note_reconciled(
        &self,
        peer: PeerName,
        found: Result<Reconciled, Problem>,
    ) -> Result<(), StoreError> {
        self.write("note what a peer has", move |db| {
            note_reconciled(db, &peer, &found)
        })
        .await
    }
}

fn state(db: &Connection, peer: &PeerName) -> Result<PeerState, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT down_since_ms, error, in_flight_limit, slowest_ms, reconciled, reconcile_error
           FROM peers WHERE peer = ?1",
    )?;
    let found = statement.query_row([peer.as_str()], |row| {
        let sender = SenderState {
            down_since: row.get::<_, Option<i64>>(0)?.map(At::from_unix_ms),
            error: None,
            limit: row.get(2)?,
            slowest: Duration::from_millis(row.get::<_, i64>(3)?.unsigned_abs()),
        };
        let texts = (
            optional("a peer's error", row.get_ref(1)?),
            optional("a comparison", row.get_ref(4)?),
            optional("a comparison's error", row.get_ref(5)?),
        );
        Ok((sender, texts))
    });
    let Some((sender, (error, reconciled, reconcile_error))) = found.optional()? else {
        return Ok(PeerState::default());
    };
    Ok(PeerState {
        sender: SenderState {
            error: error?,
            ..sender
        },
        reconciled: reconciled?,
        reconcile_error: reconcile_error?,
    })
}

fn optional<T: DeserializeOwned>(
    what: &'static str,
    value: ValueRef<'_>,
) -> Result<Option<T>, StoreError> {
    match value {
        ValueRef::Null => Ok(None),
        value => from_json(what, value).map(Some),
    }
}

fn note_sender(db: &Connection, peer: &PeerName, sender: &SenderState) -> Result<(), StoreError> {
    let error = sender.error.as_ref();
    let error = error
        .map(|error| json_of("a peer's error", error))
        .transpose()?;
    db.prepare_cached(
        "INSERT INTO peers (peer, down_since_ms, error, in_flight_limit, slowest_ms) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (peer) DO UPDATE SET down_since_ms = ?2, error = ?3, in_flight_limit = ?4, slowest_ms = ?5",
    )?
    .execute(params![
        peer.as_str(),
        sender.down_since.map(At::unix_ms),
        error,
        sender.limit,
        i64::try_from(sender.slowest.as_millis()).unwrap_or(i64::MAX),
    ])?;
    Ok(())
}

fn note_reconciled(
    db: &Connection,
    peer: &PeerName,
    found: &Result<Reconciled, Problem>,
) -> Result<(), StoreError> {
    let (found, error) = match found {
        Ok(found) => (Some(json_of("a comparison", found)?), None),
        Err(error) => (None, Some(json_of("a comparison's error", error)?)),
    };
    db.prepare_cached(
        "INSERT INTO peers (peer, reconciled, reconcile_error) VALUES (?1, ?2, ?3)
         ON CONFLICT (peer) DO UPDATE SET reconciled = ifnull(?2, reconciled), reconcile_error = ?3",
    )?
    .execute(params![peer.as_str(), found, error])?;
    Ok(())
}
