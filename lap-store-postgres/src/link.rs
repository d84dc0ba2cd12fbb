//! One connection in use, transactions, and the few ways in which this crate uses them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lap_core::time::Timestamp;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{Arguments as _, Encode, Executor as _, Postgres, Type};
use tokio::time::Instant;

use crate::connections::{Connections, Live};
use crate::error::Answer;
use crate::names::Names;
use crate::row::Columns as _;

/// A statement with its values.
pub(crate) struct Statement {
    text: &'static str,
    values: Result<PgArguments, sqlx::error::BoxDynError>,
}

/// A statement without values yet. Tables are named `lap.<table>`, whatever the schema is.
pub(crate) fn sql(text: &'static str) -> Statement {
    Statement {
        text,
        values: Ok(PgArguments::default()),
    }
}

impl Statement {
    /// Adds the next value.
    pub(crate) fn bind<'t, T>(mut self, value: T) -> Self
    where
        T: Encode<'t, Postgres> + Type<Postgres>,
    {
        if let Ok(values) = &mut self.values
            && let Err(error) = values.add(value)
        {
            self.values = Err(error);
        }
        self
    }
}

/// How much a store has asked of its database since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Transactions of several statements, committed or not.
    pub transactions: u64,
    /// Statements, without begin and commit. One outside of a transaction is a round trip and a commit of its own.
    pub statements: u64,
    /// Attempts that were repeated because of a race or a deadlock.
    pub repetitions: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) transactions: AtomicU64,
    pub(crate) statements: AtomicU64,
    pub(crate) repetitions: AtomicU64,
}

impl Counters {
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            transactions: self.transactions.load(Ordering::Relaxed),
            statements: self.statements.load(Ordering::Relaxed),
            repetitions: self.repetitions.load(Ordering::Relaxed),
        }
    }
}

/// What every use of the database needs.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) names: Names,
    pub(crate) connections: Connections,
    pub(crate) counters: Counters,
}

/// A connection in use. Dropped with something open, it is cut, and the server undoes what was open.
#[derive(Debug)]
pub(crate) struct Link {
    live: Option<Live>,
    core: Arc<Core>,
}

impl Link {
    pub(crate) async fn take(core: &Arc<Core>) -> Answer<Self> {
        let asked = Instant::now();
        let live = core.connections.take().await?;
        metrics::histogram!("lap_store_connection_wait_seconds").record(asked.elapsed().as_secs_f64());
        Ok(Self {
            live: Some(live),
            core: Arc::clone(core),
        })
    }

    fn connection(&mut self) -> Answer<&mut PgConnection> {
        let live = self.live.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        Ok(live.get())
    }

    /// The connection has nothing open and serves the next.
    pub(crate) fn give_back(mut self) {
        if let Some(live) = self.live.take() {
            self.core.connections.give_back(live);
        }
    }

    /// Runs a statement; returns how many rows it changed.
    pub(crate) async fn run(&mut self, statement: Statement) -> Answer<u64> {
        let query = self.query(statement)?;
        let begun = Instant::now();
        let done = self.connection()?.execute(query).await?;
        metrics::histogram!("lap_store_statement_seconds").record(begun.elapsed().as_secs_f64());
        Ok(done.rows_affected())
    }

    /// Every row. They are all read, because an answer is known to be committed only at the statement's end.
    pub(crate) async fn all(&mut self, statement: Statement) -> Answer<Vec<PgRow>> {
        let query = self.query(statement)?;
        let begun = Instant::now();
        let rows = self.connection()?.fetch_all(query).await?;
        metrics::histogram!("lap_store_statement_seconds").record(begun.elapsed().as_secs_f64());
        Ok(rows)
    }

    /// The first row, if there is one.
    pub(crate) async fn first(&mut self, statement: Statement) -> Answer<Option<PgRow>> {
        Ok(self.all(statement).await?.into_iter().next())
    }

    /// The one row.
    pub(crate) async fn one(&mut self, statement: Statement) -> Answer<PgRow> {
        Ok(self.first(statement).await?.ok_or(sqlx::Error::RowNotFound)?)
    }

    fn query(&self, statement: Statement) -> Answer<sqlx::query::Query<'static, Postgres, PgArguments>> {
        self.core.counters.statements.fetch_add(1, Ordering::Relaxed);
        let values = statement.values.map_err(sqlx::Error::Encode)?;
        Ok(sqlx::query_with(self.core.names.render(statement.text), values))
    }

    /// Begins a transaction in one round trip; returns its time.
    pub(crate) async fn begin(&mut self) -> Answer<Timestamp> {
        self.core.counters.transactions.fetch_add(1, Ordering::Relaxed);
        let text = self
            .core
            .names
            .render("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT lap.now_ms() AS now");
        let rows = self.connection()?.fetch_all(sqlx::raw_sql(text)).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        row.time("now")
    }

    pub(crate) async fn commit(&mut self) -> Answer<()> {
        Ok(self.connection()?.execute("COMMIT").await.map(drop)?)
    }

    pub(crate) async fn roll_back(&mut self) -> Answer<()> {
        Ok(self.connection()?.execute("ROLLBACK").await.map(drop)?)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A host's pool must not get back what has something open.
        if let Some(Live::Host(connection)) = self.live.take() {
            drop(connection.detach());
        }
    }
}

/// A transaction, and the time at which it happens.
#[derive(Debug)]
pub(crate) struct Tx {
    pub(crate) link: Link,
    pub(crate) now: Timestamp,
}

// Forwarded by hand, because a statement may bind `tx.now` while `tx` runs it.
impl Tx {
    pub(crate) async fn run(&mut self, statement: Statement) -> Answer<u64> {
        self.link.run(statement).await
    }

    pub(crate) async fn first(&mut self, statement: Statement) -> Answer<Option<PgRow>> {
        self.link.first(statement).await
    }

    pub(crate) async fn one(&mut self, statement: Statement) -> Answer<PgRow> {
        self.link.one(statement).await
    }

    pub(crate) async fn all(&mut self, statement: Statement) -> Answer<Vec<PgRow>> {
        self.link.all(statement).await
    }
}
