//! The store's threads: one that writes, some that read.
//!
//! SQLite blocks, so it stays off the runtime's threads. All writes of this process go through one thread, which puts
//! the waiting jobs into one transaction (group commit): under load the cost of a commit is shared by all callers that
//! wait for one, and a lone caller never waits for others. Each job has a savepoint of its own, so that a failing one
//! rolls back alone; only what the transaction owes as a whole, or its commit, fails all. Callers are answered after the
//! commit, and after another look at the files that the commit went to.

use super::job::{Done, Job};
use super::{StoreError, schema, wal};
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Waiting writes; when as many wait, callers wait for room.
const WRITE_QUEUE: usize = 1_024;
/// Waiting reads; when as many wait, callers wait for room.
const READ_QUEUE: usize = 256;
/// The most jobs of one transaction, and the longest it may have run before it takes no more: about half of what the
/// first caller of a group can be made to wait for the last, and other processes for the lock, because as long again is
/// needed for the index's words and the commit. With less, the index is merged from more and smaller parts.
const GROUP_JOBS: usize = 256;
const GROUP_TIME: Duration = Duration::from_millis(25);
/// After as long a time without a gap the writing thread makes one, in which another process can take the lock: several
/// of its tries.
const TURN_TIME: Duration = Duration::from_millis(50);
const GAP: Duration = Duration::from_millis(2);
/// After as long without a write the log is moved into the database.
const IDLE: Duration = Duration::from_secs(2);
/// A file that could not be opened is tried again after this, at the next call.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// A job for the writing thread.
pub(super) enum Write {
    /// Runs in a transaction, with others.
    Grouped(Job),
    /// Runs between transactions: checkpoints.
    Between(Job),
    /// As [`Write::Between`], then the thread ends; jobs behind it are refused.
    Last(Job),
}

/// Where a thread's connection comes from.
pub(super) trait Source: Send + 'static {
    /// Opens it.
    fn open(&self) -> Result<Connection, StoreError>;

    /// Refuses one that must not be used any more.
    fn check(&self, db: &Connection) -> Result<(), StoreError>;

    /// Writes what a transaction owes as a whole, after its last job; with an error all of it is lost.
    fn before_commit(_: &Connection) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A connection that is opened when it is first needed.
struct Slot<S> {
    source: S,
    connection: Option<Connection>,
    refused: Option<(Instant, StoreError)>,
}

impl<S: Source> Slot<S> {
    fn new(source: S) -> Self {
        Self {
            source,
            connection: None,
            refused: None,
        }
    }

    fn get(&mut self) -> Result<&mut Connection, StoreError> {
        match &self.connection {
            Some(connection) => self.source.check(connection)?,
            None => self.connection = Some(self.open()?),
        }
        self.connection.as_mut().ok_or(StoreError::Closed)
    }

    fn open(&mut self) -> Result<Connection, StoreError> {
        if let Some((at, error)) = &self.refused
            && at.elapsed() < REOPEN_AFTER
        {
            return Err(error.clone());
        }
        self.source.open().inspect_err(|error| {
            tracing::error!(%error, "cannot open the store");
            self.refused = Some((Instant::now(), error.clone()));
        })
    }
}

/// Starts the writing thread, which opens its connection at once.
pub(super) fn writer(source: impl Source) -> std::io::Result<Sender<Write>> {
    let (sender, jobs) = channel(WRITE_QUEUE);
    std::thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || write_all(jobs, Slot::new(source)))?;
    Ok(sender)
}

/// Starts `count` reading threads over one queue; each opens its connection at its first job.
pub(super) fn readers<S: Source + Clone>(count: usize, source: &S) -> std::io::Result<Sender<Job>> {
    let (sender, jobs) = channel(READ_QUEUE);
    // The thread that holds it sleeps in the queue, and there is nothing else for the others to do.
    let jobs = Arc::new(Mutex::new(jobs));
    for number in 0..count {
        let (jobs, source) = (Arc::clone(&jobs), source.clone());
        std::thread::Builder::new()
            .name(format!("store-reader-{number}"))
            .spawn(move || read_all(&jobs, Slot::new(source)))?;
    }
    Ok(sender)
}

fn read_all<S: Source>(jobs: &Mutex<Receiver<Job>>, mut slot: Slot<S>) {
    let next = || jobs.lock().blocking_recv();
    while let Some(job) = next() {
        // One transaction, so that several statements see one state of the file.
        let snapshot = slot.get().and_then(|connection| {
            let snapshot = connection.transaction()?;
            schema::refuse_newer(&snapshot)?;
            Ok(snapshot)
        });
        match snapshot {
            Ok(snapshot) => {
                let done = job(Ok(&snapshot));
                done.answer(snapshot.finish().err().map(StoreError::from));
            }
            Err(error) => job(Err(error)).answer(None),
        }
    }
}

fn write_all<S: Source>(mut jobs: Receiver<Write>, mut slot: Slot<S>) {
    // Opened before the first job asks; a failure is kept for it.
    drop(slot.get().map(|_| ()));
    let mut next = wait(&mut jobs, &mut slot, false);
    let mut turn = Instant::now();
    while let Some(write) = next.take() {
        match write {
            Write::Grouped(first) => {
                if turn.elapsed() >= TURN_TIME {
                    pause(GAP);
                    turn = Instant::now();
                }
                next = group(first, &mut jobs, &mut slot);
            }
            Write::Between(job) => between(job, &mut slot),
            Write::Last(job) => {
                jobs.close();
                between(job, &mut slot);
                refuse_rest(&mut jobs);
                return;
            }
        }
        if next.is_none() {
            let idle = Instant::now();
            next = wait(&mut jobs, &mut slot, true);
            if idle.elapsed() >= GAP {
                turn = Instant::now();
            }
        }
    }
}

/// Waits for the next job. Where none comes for a while after `written`, the log is moved into the database meanwhile, so
/// that a quiet store has no long log.
fn wait<S: Source>(jobs: &mut Receiver<Write>, slot: &mut Slot<S>, written: bool) -> Option<Write> {
    if written {
        if let Some(next) = recv_within(jobs, IDLE) {
            return next;
        }
        let tidied = slot.get().and_then(|connection| wal::truncate(connection));
        if let Err(error) = tidied {
            tracing::debug!(%error, "the log was not moved into the database");
        }
    }
    jobs.blocking_recv()
}

/// Returns what the queue gives within `limit`: nothing once all senders are gone, `None` where the time is up.
fn recv_within(jobs: &mut Receiver<Write>, limit: Duration) -> Option<Option<Write>> {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut next = pin!(jobs.recv());
    let end = Instant::now() + limit;
    loop {
        if let Poll::Ready(next) = next.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(next);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(left);
    }
}

fn refuse_rest(jobs: &mut Receiver<Write>) {
    while let Some(write) = jobs.blocking_recv() {
        let (Write::Grouped(job) | Write::Between(job) | Write::Last(job)) = write;
        job(Err(StoreError::Closed)).answer(None);
    }
}

fn between<S: Source>(job: Job, slot: &mut Slot<S>) {
    let connection = slot.get();
    let db = connection.as_ref().ok();
    let done = job(match &connection {
        Ok(connection) => Ok(connection),
        Err(error) => Err(error.clone()),
    });
    if let Some(db) = db
        && !db.is_autocommit()
    {
        drop(db.execute_batch("ROLLBACK"));
    }
    done.answer(None);
}

/// Runs `first` and the jobs that wait behind it in one transaction; returns the job that ended the group by its sort.
fn group<S: Source>(first: Job, jobs: &mut Receiver<Write>, slot: &mut Slot<S>) -> Option<Write> {
    let transaction = match slot.get().and_then(begin) {
        Ok(transaction) => transaction,
        Err(error) => {
            first(Err(error)).answer(None);
            return None;
        }
    };
    let started = Instant::now();
    let mut done = Vec::new();
    let mut next = Some(Write::Grouped(first));
    let ending = loop {
        let job = match next.take().or_else(|| jobs.try_recv().ok()) {
            Some(Write::Grouped(job)) => job,
            other => break other,
        };
        match in_savepoint(job, &transaction, &mut done) {
            Ok(()) => {}
            Err(lost) => {
                drop(transaction);
                answer(done, Some(lost));
                return None;
            }
        }
        if done.len() >= GROUP_JOBS || started.elapsed() >= GROUP_TIME {
            break None;
        }
    };
    let committed = commit::<S>(transaction).and_then(|()| slot.get().map(|_| ()));
    answer(done, committed.err());
    ending
}

/// Runs `job` so that its failure undoes nothing else; an error means that the whole transaction is lost.
fn in_savepoint(
    job: Job,
    transaction: &Connection,
    done: &mut Vec<Done>,
) -> Result<(), StoreError> {
    let run = |sql| transaction.prepare_cached(sql)?.execute([]);
    if let Err(error) = run("SAVEPOINT job") {
        let lost = StoreError::from(error);
        done.push(job(Err(lost.clone())));
        return Err(lost);
    }
    let ran = job(Ok(transaction));
    let failure = ran.failure.clone();
    done.push(ran);
    // Some failures (a full disk) make SQLite roll back the whole transaction, with all jobs before.
    if transaction.is_autocommit() {
        return Err(failure.unwrap_or(StoreError::Full));
    }
    if failure.is_some() {
        run("ROLLBACK TO job")?;
    }
    run("RELEASE job")?;
    Ok(())
}

fn begin(connection: &mut Connection) -> Result<Transaction<'_>, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    schema::refuse_newer(&transaction)?;
    Ok(transaction)
}

fn commit<S: Source>(transaction: Transaction<'_>) -> Result<(), StoreError> {
    S::before_commit(&transaction)?;
    Ok(transaction.commit()?)
}

fn answer(done: Vec<Done>, lost: Option<StoreError>) {
    for done in done {
        done.answer(lost.clone());
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

#[cfg(test)]
mod tests {
    use super::super::job::job;
    use super::*;
    use std::sync::mpsc;

    struct InMemory;

    impl Source for InMemory {
        fn open(&self) -> Result<Connection, StoreError> {
            let connection = Connection::open_in_memory()?;
            connection.execute_batch("CREATE TABLE t (x UNIQUE)")?;
            Ok(connection)
        }

        fn check(&self, _: &Connection) -> Result<(), StoreError> {
            Ok(())
        }
    }

    struct Refused;

    impl Source for Refused {
        fn open(&self) -> Result<Connection, StoreError> {
            Err(StoreError::Newer { found: 9, known: 1 })
        }

        fn check(&self, _: &Connection) -> Result<(), StoreError> {
            Ok(())
        }
    }

    fn insert(db: &Connection, x: i64) -> Result<usize, StoreError> {
        Ok(db.execute("INSERT INTO t VALUES (?1)", [x])?)
    }

    fn rows(writes: &Sender<Write>) -> Vec<i64> {
        let (job, reply) = job("list", |db: &Connection| {
            let mut statement = db.prepare("SELECT x FROM t ORDER BY x")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<Vec<i64>, _>>()?)
        });
        assert!(writes.blocking_send(Write::Between(job)).is_ok());
        reply.blocking_recv().expect("answered").expect("listed")
    }

    #[test]
    fn a_failing_job_of_a_group_rolls_back_alone() {
        let writes = writer(InMemory).expect("a thread");
        let send = |write| assert!(writes.blocking_send(write).is_ok());
        // The first job holds the thread until all others wait behind it, in one group.
        let (go, wait) = mpsc::channel::<()>();
        let (first, mut first_reply) = job("wait", move |db: &Connection| {
            assert!(wait.recv().is_ok());
            insert(db, 1)
        });
        let (fails, failed) = job("fail", |db: &Connection| {
            insert(db, 2)?;
            insert(db, 2)
        });
        let (panics, panicked) = job("panic", |db: &Connection| {
            insert(db, 3)?;
            assert!(db.is_autocommit(), "on purpose");
            Ok(())
        });
        let (last, last_reply) = job("finish", |db: &Connection| insert(db, 4));
        for job in [first, fails, panics] {
            send(Write::Grouped(job));
        }
        send(Write::Grouped(last));
        assert!(
            first_reply.try_recv().is_err(),
            "answered before the commit"
        );
        go.send(()).expect("the thread waits");

        assert!(last_reply.blocking_recv().expect("answered").is_ok());
        // One group: the first was answered when the last was done.
        assert!(first_reply.try_recv().is_ok_and(|result| result.is_ok()));
        let failed = failed.blocking_recv().expect("answered");
        assert!(
            matches!(
                failed,
                Err(StoreError::Query {
                    operation: "fail",
                    ..
                })
            ),
            "{failed:?}"
        );
        let panicked = panicked.blocking_recv().expect("answered");
        assert!(
            matches!(&panicked, Err(StoreError::Panicked { detail, .. }) if detail.contains("on purpose")),
            "{panicked:?}"
        );
        assert_eq!(rows(&writes), [1, 4]);
    }

    #[test]
    fn a_lost_transaction_fails_every_job_of_its_group() {
        let writes = writer(InMemory).expect("a thread");
        let (go, wait) = mpsc::channel::<()>();
        let (first, first_reply) = job("wait", move |db: &Connection| {
            assert!(wait.recv().is_ok());
            insert(db, 1)
        });
        // What SQLite does by itself when the disk is full.
        let (loses, lost) = job("lose", |db: &Connection| {
            db.execute_batch("ROLLBACK")?;
            Err::<(), _>(StoreError::Full)
        });
        let (next, next_reply) = job("go on", |db: &Connection| insert(db, 2));
        for job in [first, loses, next] {
            assert!(writes.blocking_send(Write::Grouped(job)).is_ok());
        }
        go.send(()).expect("the thread waits");
        let first = first_reply.blocking_recv().expect("answered");
        assert!(matches!(first, Err(StoreError::Full)), "{first:?}");
        let lost = lost.blocking_recv().expect("answered");
        assert!(matches!(lost, Err(StoreError::Full)), "{lost:?}");
        assert!(next_reply.blocking_recv().expect("answered").is_ok());
        assert_eq!(rows(&writes), [2]);
    }

    #[test]
    fn jobs_behind_the_last_are_refused() {
        let writes = writer(InMemory).expect("a thread");
        let (go, wait) = mpsc::channel::<()>();
        let (last, _) = job("end", move |_: &Connection| {
            assert!(wait.recv().is_ok());
            Ok(())
        });
        let (late, refused) = job("insert", |db: &Connection| insert(db, 1));
        assert!(
            writes
                .blocking_send(Write::Grouped(job("x", |_: &Connection| Ok(())).0))
                .is_ok()
        );
        assert!(writes.blocking_send(Write::Last(last)).is_ok());
        // Either the queue is closed by now, or the job is answered from it.
        let queued = writes.blocking_send(Write::Grouped(late)).is_ok();
        go.send(()).expect("the thread waits");
        let answer = refused.blocking_recv();
        assert_eq!(queued, answer.is_ok());
        if let Ok(answer) = answer {
            assert!(matches!(answer, Err(StoreError::Closed)), "{answer:?}");
        }
    }

    #[test]
    fn a_failure_to_open_answers_every_job() {
        let writes = writer(Refused).expect("a thread");
        for _ in 0..3 {
            let (job, reply) = job("insert", |db: &Connection| insert(db, 1));
            assert!(writes.blocking_send(Write::Grouped(job)).is_ok());
            let answer = reply.blocking_recv().expect("answered");
            assert!(
                matches!(answer, Err(StoreError::Newer { .. })),
                "{answer:?}"
            );
        }
    }
}
