//! Requests: what one server asks of another that runs a workflow, and the answers.

use super::column::Json;
use super::journal::Head;
use super::query::Query;
use super::{Store, StoreError};
use crate::error::{ErrorKind, Problem, RedactedProblem};
use crate::model::{ItemIndex, WorkflowId};
use rusqlite::params;
use serde::{Deserialize, Serialize};

/// What one server asks of another that runs a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerRequest {
    /// Stop items.
    Cancel {
        /// Which ones; empty: all.
        items: Vec<ItemIndex>,
        /// How long they may take to end, in milliseconds.
        grace_ms: u64,
    },
    /// Run items again.
    Resume {
        /// The arguments, as the orchestrator wrote them.
        json: String,
    },
}

/// A request as its workflow's owner takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenRequest {
    /// The request's number, to answer it by.
    pub number: i64,
    /// The workflow it is about.
    pub id: WorkflowId,
    /// What is asked.
    pub request: OwnerRequest,
}

impl Store {
    /// Leaves a request for a workflow's owner, which watches for it; returns its number.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoWorkflow`] where there is none.
    pub async fn ask_owner(
        &self,
        id: WorkflowId,
        request: OwnerRequest,
    ) -> Result<i64, StoreError> {
        self.write("ask a workflow's owner", move |db| {
            let head = Head::load(db, id)?.ok_or(StoreError::NoWorkflow { id })?;
            db.run(
                "INSERT INTO requests (wf, json) VALUES (?1, ?2)",
                params![head.wf, Json(&request)],
            )?;
            Ok(db.last_insert_rowid())
        })
        .await
    }

    /// Takes what others asked of the workflows this server owns, oldest first.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing; the requests stay then.
    pub async fn take_requests(&self) -> Result<Vec<TakenRequest>, StoreError> {
        let me = self.server_id();
        self.write("take requests", move |db| {
            let requests = db.all(
                "SELECT request, id, json FROM requests JOIN workflows USING (wf)
                  WHERE owner = ?1 AND taken = 0 ORDER BY request",
                [me],
                |row| {
                    Ok(TakenRequest {
                        number: row.get(0)?,
                        id: row.get(1)?,
                        request: row.get::<_, Json<_>>(2)?.0,
                    })
                },
            )?;
            for TakenRequest { number, .. } in &requests {
                db.run("UPDATE requests SET taken = 1 WHERE request = ?1", [number])?;
            }
            Ok(requests)
        })
        .await
    }

    /// Answers a request that was taken.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn answer_request(
        &self,
        number: i64,
        answer: Result<(), RedactedProblem>,
    ) -> Result<(), StoreError> {
        self.write("answer a request", move |db| {
            let sql = "UPDATE requests SET reply = ?2 WHERE request = ?1";
            db.run(sql, params![number, Json(&answer)]).map(|_| ())
        })
        .await
    }

    /// Returns what the owner answered to request `number`; an interruption where it ended before it did.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn answer_to(&self, number: i64) -> Result<Option<Result<(), Problem>>, StoreError> {
        self.read("look for an answer", move |db| {
            let sql = "SELECT reply FROM requests WHERE request = ?1";
            let row = db.first(sql, [number], |row| row.get::<_, Option<Json<_>>>(0))?;
            // The request goes when its workflow changes hands.
            let Some(reply) = row else {
                return Ok(Some(Err(ended_before_it_answered())));
            };
            Ok(reply.map(|reply| reply.0))
        })
        .await
    }

    /// Removes request `number`, whose answer is not needed any more.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn withdraw_request(&self, number: i64) -> Result<(), StoreError> {
        self.write("withdraw a request", move |db| {
            db.run("DELETE FROM requests WHERE request = ?1", [number])
                .map(|_| ())
        })
        .await
    }
}

fn ended_before_it_answered() -> Problem {
    Problem::new(
        ErrorKind::Interrupted,
        "the server that ran the workflow ended before it answered",
    )
    .with_hint("get_workflow shows the workflow's state; then call again")
}
