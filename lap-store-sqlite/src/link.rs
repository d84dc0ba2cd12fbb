//! One connection, and the few ways in which this crate uses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Executor as _, Sqlite};

use crate::error::Answer;

/// A statement with its values.
pub(crate) type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// A statement without values yet.
pub(crate) fn sql(text: &'static str) -> Statement<'static> {
    sqlx::query(text)
}

/// How much a store has asked of its database since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Write transactions, committed or not. Several writes that waited together share one.
    pub transactions: u64,
    /// Writes: calls of methods that may change something.
    pub writes: u64,
    /// Statements of reads and writes, without begin and commit.
    pub statements: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) transactions: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) statements: AtomicU64,
}

impl Counters {
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            transactions: self.transactions.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            statements: self.statements.load(Ordering::Relaxed),
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: SqliteConnection,
    counters: Arc<Counters>,
}

impl Link {
    pub(crate) const fn new(connection: SqliteConnection, counters: Arc<Counters>) -> Self {
        Self { connection, counters }
    }

    fn count(&self) {
        self.counters.statements.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs a statement; returns how many rows it changed.
    pub(crate) async fn run(&mut self, statement: Statement<'_>) -> Answer<u64> {
        self.count();
        Ok(self.connection.execute(statement).await?.rows_affected())
    }

    /// The first row, if there is one.
    pub(crate) async fn first(&mut self, statement: Statement<'_>) -> Answer<Option<SqliteRow>> {
        self.count();
        self.connection.fetch_optional(statement).await
    }

    /// The one row.
    pub(crate) async fn one(&mut self, statement: Statement<'_>) -> Answer<SqliteRow> {
        self.first(statement).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// Every row.
    pub(crate) async fn all(&mut self, statement: Statement<'_>) -> Answer<Vec<SqliteRow>> {
        self.count();
        self.connection.fetch_all(statement).await
    }
}
