//! The one writer: a task that owns the one writing connection and runs jobs in the order of their arrival.
//!
//! A job is a whole method of the contract. Once it was handed over it runs to its end, so a caller that
//! leaves never leaves a half-done transaction behind. Jobs that wait together share one transaction, each in a savepoint
//! of its own, because a commit costs a flush of the disk; nobody gets an answer before the commit.

use std::ops::{Deref, DerefMut};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use lap_core::error::{Error, ErrorKind, Result};
use lap_core::time::{Clock, Timestamp};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Answer, closed, from_sqlx};
use crate::link::{Counters, Link, Statement, sql};
use crate::lock::FileLock;

/// How many jobs may share a transaction. It bounds how long the first of them waits for the others.
const BATCH: usize = 64;
/// How many jobs may wait before callers wait to hand theirs over.
const QUEUE: usize = 1024;

/// A write transaction, and the time at which it happens.
#[derive(Debug)]
pub(crate) struct Tx {
    link: Link,
    pub(crate) now: Timestamp,
}

// Forwarded by hand, because a statement may bind `tx.now` while `tx` runs it.
impl Tx {
    pub(crate) async fn run(&mut self, statement: Statement<'_>) -> Answer<u64> {
        self.link.run(statement).await
    }

    pub(crate) async fn first(&mut self, statement: Statement<'_>) -> Answer<Option<SqliteRow>> {
        self.link.first(statement).await
    }

    pub(crate) async fn one(&mut self, statement: Statement<'_>) -> Answer<SqliteRow> {
        self.link.one(statement).await
    }

    pub(crate) async fn all(&mut self, statement: Statement<'_>) -> Answer<Vec<SqliteRow>> {
        self.link.all(statement).await
    }
}

impl Deref for Tx {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Link {
        &mut self.link
    }
}

/// Something to do inside the transaction.
#[async_trait]
trait Job: Send {
    /// Does it. `false`: its changes must not stay.
    async fn run(&mut self, tx: &mut Tx) -> bool;

    /// Answers the caller, after the commit or its failure.
    fn settle(self: Box<Self>, commit: std::result::Result<(), String>);
}

struct Pending<T, F> {
    operation: &'static str,
    work: Option<F>,
    answer: Option<Result<T>>,
    caller: oneshot::Sender<Result<T>>,
}

#[async_trait]
impl<T, F> Job for Pending<T, F>
where
    T: Send,
    F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Answer<T>> + Send,
{
    async fn run(&mut self, tx: &mut Tx) -> bool {
        let Some(work) = self.work.take() else {
            return false;
        };
        let answer = AssertUnwindSafe(work(tx))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                // The panic hook has told where. The writer must survive it, or one defect would stop everything.
                Err(sqlx::Error::Protocol("a write broke off".to_owned()))
            });
        let keep = answer.is_ok();
        self.answer = Some(answer.map_err(|error| from_sqlx(self.operation, error)));
        keep
    }

    fn settle(self: Box<Self>, commit: std::result::Result<(), String>) {
        let unsure = |reason: String| {
            Error::new(
                ErrorKind::Unavailable,
                self.operation,
                "the write was not committed",
            )
            .with_source(reason)
        };
        let answer = match (self.answer, commit) {
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(answer)), Ok(())) => Ok(answer),
            (_, Err(reason)) => Err(unsure(reason)),
            (None, Ok(())) => Err(unsure("it did not run".to_owned())),
        };
        // The caller may have left.
        let _ = self.caller.send(answer);
    }
}

/// The way to the writer.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Command>,
}

enum Command {
    Job(Box<dyn Job>),
    Close(oneshot::Sender<()>),
}

/// What the writer's task owns.
pub(crate) struct Desk {
    pub(crate) link: Link,
    pub(crate) connect: SqliteConnectOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) counters: Arc<Counters>,
    /// Kept until the last job is done.
    pub(crate) lock: FileLock,
}

impl Writer {
    /// Starts the task. It ends when the writer is closed or dropped.
    pub(crate) fn start(desk: Desk) -> Self {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(serve(desk, waiting));
        Self { jobs }
    }

    /// Runs `work` in a write transaction. The answer comes after its commit.
    ///
    /// # Cancel safety
    /// If dropped, the whole of `work` happens or nothing of it.
    pub(crate) async fn write<T, F>(&self, operation: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Answer<T>> + Send + 'static,
    {
        let (caller, answer) = oneshot::channel();
        let job = Pending {
            operation,
            work: Some(work),
            answer: None,
            caller,
        };
        self.jobs
            .send(Command::Job(Box::new(job)))
            .await
            .map_err(|_| closed(operation))?;
        answer.await.map_err(|_| closed(operation))?
    }

    /// Ends the task after the jobs that wait already.
    pub(crate) async fn close(&self) {
        let (done, ended) = oneshot::channel();
        if self.jobs.send(Command::Close(done)).await.is_ok() {
            let _ = ended.await;
        }
    }
}

async fn serve(desk: Desk, mut waiting: mpsc::Receiver<Command>) {
    let Desk {
        link,
        connect,
        clock,
        counters,
        lock,
    } = desk;
    let mut tx = Tx {
        link,
        now: clock.now(),
    };
    let mut closing = None;
    while let Some(first) = waiting.recv().await {
        let mut batch = Vec::new();
        let mut next = Some(first);
        while let Some(command) = next.take() {
            match command {
                Command::Job(job) => batch.push(job),
                Command::Close(done) => closing = Some(done),
            }
            if closing.is_none() && batch.len() < BATCH {
                next = waiting.try_recv().ok();
            }
        }
        if !batch.is_empty() {
            counters.transactions.fetch_add(1, Ordering::Relaxed);
            counters.writes.fetch_add(batch.len() as u64, Ordering::Relaxed);
            tx.now = clock.now();
            let commit = commit(&mut tx, &connect, &counters, &mut batch).await;
            for job in batch {
                job.settle(commit.clone());
            }
        }
        if closing.is_some() {
            break;
        }
    }
    drop(waiting);
    if let Err(error) = sqlx::Connection::close(tx.link.connection).await {
        tracing::warn!(%error, "the database was not closed cleanly; it recovers when it is opened");
    }
    drop(lock);
    if let Some(done) = closing {
        let _ = done.send(());
    }
}

/// Runs the jobs in one transaction. `Err` when none of them may stay, with the reason.
async fn commit(
    tx: &mut Tx,
    connect: &SqliteConnectOptions,
    counters: &Arc<Counters>,
    batch: &mut [Box<dyn Job>],
) -> std::result::Result<(), String> {
    begin(tx, connect, counters)
        .await
        .map_err(|error| error.to_string())?;
    let outcome = match batch {
        [job] => alone(tx, job).await,
        jobs => together(tx, jobs).await,
    };
    if outcome.is_err() {
        // It fails where SQLite has rolled back by itself. `begin` mends what is left of it.
        let _ = step(tx, "ROLLBACK").await;
    }
    outcome.map_err(|error| error.to_string())
}

/// One job needs no savepoint: its failure is the transaction's.
async fn alone(tx: &mut Tx, job: &mut Box<dyn Job>) -> Answer<()> {
    let end = if job.run(tx).await { "COMMIT" } else { "ROLLBACK" };
    step(tx, end).await
}

async fn together(tx: &mut Tx, jobs: &mut [Box<dyn Job>]) -> Answer<()> {
    for job in jobs {
        step(tx, "SAVEPOINT lap").await?;
        if !job.run(tx).await {
            step(tx, "ROLLBACK TO lap").await?;
        }
        step(tx, "RELEASE lap").await?;
    }
    step(tx, "COMMIT").await
}

/// Begins, on a new connection when the old one does not serve any more.
async fn begin(tx: &mut Tx, connect: &SqliteConnectOptions, counters: &Arc<Counters>) -> Answer<()> {
    const BEGIN: &str = "BEGIN IMMEDIATE";
    let Err(error) = step(tx, BEGIN).await else {
        return Ok(());
    };
    tracing::warn!(%error, "no transaction could begin; connecting to the database anew");
    tx.link = Link::new(connect.connect().await?, Arc::clone(counters));
    step(tx, BEGIN).await
}

async fn step(tx: &mut Tx, text: &'static str) -> Answer<()> {
    sqlx::Executor::execute(&mut tx.link.connection, sql(text))
        .await
        .map(drop)
}
