//! Who runs a workflow: taking over from the dead, and asking the living.

use super::column::{Text, from_json, json_of};
use super::journal::Head;
use super::lock::{OwnerState, Owners};
use super::{StoreError, memory};
use crate::error::{ErrorKind, Problem};
use crate::model::{
    At, ItemIndex, ItemRecord, ItemState, NewMemory, PeerName, ServerId, Work, WorkflowId,
};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// A workflow whose server died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The workflow.
    pub id: WorkflowId,
    /// Its title.
    pub title: String,
    /// How many items became `interrupted`.
    pub interrupted: u32,
}

/// What [`super::Store::adopt`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// This server owns the workflow, now or already.
    Ours,
    /// Another live server runs it; nothing changed.
    OwnedBy(ServerId),
    /// There is no such workflow.
    Missing,
}

impl std::fmt::Debug for Remains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remains")
            .field("forward_to", &self.forward_to)
            .finish_non_exhaustive()
    }
}

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
pub struct Asked {
    /// The request's number, to answer it by.
    pub number: i64,
    /// The workflow it is about.
    pub id: WorkflowId,
    /// What is asked.
    pub request: OwnerRequest,
}

/// What a caller could not be told when it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What to tell.
    pub text: String,
    /// The workflow it is about.
    pub workflow: Option<WorkflowId>,
    /// When it happened.
    pub at: At,
}

/// Notices beyond these are dropped, the oldest first: nobody reads a thousand.
const MAX_NOTICES: u32 = 1_000;

/// What is remembered of an item that was running when its server died; nothing where it leaves nothing.
pub type Remember = Arc<dyn Fn(WorkflowId, &ItemRecord, &Work) -> Option<NewMemory> + Send + Sync>;

/// What interrupted items leave behind, and where it goes on to.
#[derive(Clone, Default)]
pub struct Remains {
    /// How they are remembered; none: not at all.
    pub remember: Option<Remember>,
    /// The peer that gets it.
    pub forward_to: Option<PeerName>,
}

pub(super) fn recover(
    db: &Connection,
    owners: &Owners,
    remains: &Remains,
) -> Result<Vec<Recovered>, StoreError> {
    let mut recovered = Vec::new();
    for (id, title) in abandoned(db, owners)? {
        if let Some(mut head) = Head::load(db, id)? {
            let interrupted = interrupt(db, &mut head, id, remains)?;
            forget_requests(db, head.wf)?;
            head.save(db)?;
            // A server that could still say so itself has told of all its items.
            if !told(db, id)? {
                add_notice(db, &interrupted_notice(id, &title, interrupted), Some(id))?;
            }
            recovered.push(Recovered {
                id,
                title,
                interrupted,
            });
        }
    }
    Ok(recovered)
}

/// Returns what callers are told of a workflow whose server ended before it did.
pub(super) fn interrupted_notice(id: WorkflowId, title: &str, items: u32) -> String {
    format!(
        "workflow {id} ({title}) was interrupted: its server ended; {items} item(s) were not finished. resume_workflow {id} runs them."
    )
}

/// Returns whether a notice of this workflow waits already.
fn told(db: &Connection, id: WorkflowId) -> Result<bool, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT EXISTS (SELECT 1 FROM notices WHERE workflow = ?1)")?;
    Ok(statement.query_row([Text(id)], |row| row.get(0))?)
}

/// Marks what `me` journaled as queued or running, but does not run, `interrupted`; returns how many there were.
pub(super) fn give_up(
    db: &Connection,
    me: ServerId,
    id: WorkflowId,
    remains: &Remains,
) -> Result<u32, StoreError> {
    let mut head = Head::owned(db, id, me)?;
    let interrupted = interrupt(db, &mut head, id, remains)?;
    if interrupted > 0 {
        head.save(db)?;
    }
    Ok(interrupted)
}

/// Returns whether there is anything to recover, without a write transaction.
pub(super) fn needs_recovery(db: &Connection, owners: &Owners) -> Result<bool, StoreError> {
    Ok(!abandoned(db, owners)?.is_empty())
}

fn abandoned(db: &Connection, owners: &Owners) -> Result<Vec<(WorkflowId, String)>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT id, owner, json_extract(record, '$.title') FROM workflows
          WHERE queued + running > 0 AND owner <> ?1 ORDER BY id",
    )?;
    let mut rows = statement.query([Text(owners.me())])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if owners.state(row.get::<_, Text<ServerId>>(1)?.0) == OwnerState::Dead {
            found.push((row.get::<_, Text<WorkflowId>>(0)?.0, row.get(2)?));
        }
    }
    Ok(found)
}

/// Marks every queued and running item `interrupted`, with the memory of what had begun; returns how many there were.
fn interrupt(
    db: &Connection,
    head: &mut Head,
    id: WorkflowId,
    remains: &Remains,
) -> Result<u32, StoreError> {
    let mut count = 0;
    let mut memories = Vec::new();
    for (mut item, work) in unfinished(db, head.wf)? {
        let begun = item.status == ItemState::Running;
        item.status = ItemState::Interrupted;
        item.idle_s = None;
        item.doing = None;
        item.cause = Some("interrupted".to_owned());
        item.error = Some(
            Problem::new(
                ErrorKind::Interrupted,
                "the server that ran it ended before it did",
            )
            .with_hint("resume_workflow runs it again"),
        );
        head.put(db, &item)?;
        if let (true, Some(remember)) = (begun, &remains.remember) {
            memories.extend(remember(id, &item, &work));
        }
        count += 1;
    }
    let memories = memory::prepared(memories.into_iter().map(Cow::Owned))?;
    memory::insert(db, &memories, remains.forward_to.as_ref())?;
    Ok(count)
}

fn unfinished(db: &Connection, wf: i64) -> Result<Vec<(ItemRecord, Work)>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT record, json FROM items JOIN works USING (work)
          WHERE items.wf = ?1 AND state IN ('queued', 'running') ORDER BY item",
    )?;
    let mut rows = statement.query([wf])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push((
            from_json("an item", row.get_ref(0)?)?,
            from_json("a task", row.get_ref(1)?)?,
        ));
    }
    Ok(items)
}

pub(super) fn adopt(
    db: &Connection,
    owners: &Owners,
    id: WorkflowId,
    remains: &Remains,
) -> Result<Adopted, StoreError> {
    let Some(mut head) = Head::load(db, id)? else {
        return Ok(Adopted::Missing);
    };
    match owners.state(head.owner) {
        OwnerState::This => return Ok(Adopted::Ours),
        OwnerState::Other if head.unfinished() > 0 => return Ok(Adopted::OwnedBy(head.owner)),
        OwnerState::Other | OwnerState::Dead => {}
    }
    // What a dead server left unfinished must not look as if this one were at it.
    interrupt(db, &mut head, id, remains)?;
    forget_requests(db, head.wf)?;
    head.owner = owners.me();
    head.save(db)?;
    Ok(Adopted::Ours)
}

/// Drops what the former owner was asked: it was meant for a run that is over.
fn forget_requests(db: &Connection, wf: i64) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM requests WHERE wf = ?1")?
        .execute([wf])?;
    Ok(())
}

pub(super) fn ask(
    db: &Connection,
    id: WorkflowId,
    request: &OwnerRequest,
) -> Result<i64, StoreError> {
    let head = Head::load(db, id)?.ok_or(StoreError::NoWorkflow { id })?;
    db.prepare_cached("INSERT INTO requests (wf, json) VALUES (?1, ?2)")?
        .execute(params![head.wf, json_of("a request", request)?])?;
    Ok(db.last_insert_rowid())
}

pub(super) fn has_requests(db: &Connection, me: ServerId) -> Result<bool, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM requests JOIN workflows USING (wf) WHERE owner = ?1 AND taken = 0)",
    )?;
    Ok(statement.query_row([Text(me)], |row| row.get(0))?)
}

pub(super) fn take_requests(db: &Connection, me: ServerId) -> Result<Vec<Asked>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT request, id, json FROM requests JOIN workflows USING (wf)
          WHERE owner = ?1 AND taken = 0 ORDER BY request",
    )?;
    let mut rows = statement.query([Text(me)])?;
    let mut requests = Vec::new();
    while let Some(row) = rows.next()? {
        requests.push(Asked {
            number: row.get(0)?,
            id: row.get::<_, Text<WorkflowId>>(1)?.0,
            request: from_json("a request", row.get_ref(2)?)?,
        });
    }
    let mut take = db.prepare_cached("UPDATE requests SET taken = 1 WHERE request = ?1")?;
    for asked in &requests {
        take.execute([asked.number])?;
    }
    Ok(requests)
}

pub(super) fn answer(
    db: &Connection,
    number: i64,
    answer: &Result<(), Problem>,
) -> Result<(), StoreError> {
    let json = json_of("an answer", answer)?;
    db.prepare_cached("UPDATE requests SET reply = ?2 WHERE request = ?1")?
        .execute(params![number, json])?;
    Ok(())
}

/// Returns what was answered to a request: nothing yet, or that it is gone with the owner it was meant for.
pub(super) fn answered(
    db: &Connection,
    number: i64,
) -> Result<Option<Result<(), Problem>>, StoreError> {
    let mut statement = db.prepare_cached("SELECT reply FROM requests WHERE request = ?1")?;
    let mut rows = statement.query([number])?;
    match rows.next()? {
        None => Ok(Some(Err(Problem::new(
            ErrorKind::Interrupted,
            "the server that ran the workflow ended before it answered",
        )
        .with_hint("get_workflow tells how it stands; then call again")))),
        Some(row) if row.get_ref(0)?.as_str_or_null().ok().flatten().is_none() => Ok(None),
        Some(row) => from_json("an answer", row.get_ref(0)?).map(Some),
    }
}

/// Removes a request that nobody waits for any more.
pub(super) fn withdraw(db: &Connection, number: i64) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM requests WHERE request = ?1")?
        .execute([number])?;
    Ok(())
}

pub(super) fn add_notice(
    db: &Connection,
    text: &str,
    workflow: Option<WorkflowId>,
) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO notices (at_ms, workflow, text) VALUES (?1, ?2, ?3)")?
        .execute(params![At::now().unix_ms(), workflow.map(Text), text])?;
    db.prepare_cached(
        "DELETE FROM notices WHERE notice <= (SELECT max(notice) FROM notices) - ?1",
    )?
    .execute([MAX_NOTICES])?;
    Ok(())
}

pub(super) fn has_notices(db: &Connection) -> Result<bool, StoreError> {
    let mut statement = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM notices)")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

pub(super) fn take_notices(db: &Connection) -> Result<Vec<Notice>, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT text, workflow, at_ms FROM notices ORDER BY notice")?;
    let notices = statement.query_map([], |row| {
        Ok(Notice {
            text: row.get(0)?,
            workflow: row.get::<_, Option<Text<WorkflowId>>>(1)?.map(|id| id.0),
            at: At::from_unix_ms(row.get(2)?),
        })
    })?;
    let notices = notices.collect::<Result<Vec<_>, _>>()?;
    db.prepare_cached("DELETE FROM notices")?.execute([])?;
    Ok(notices)
}
