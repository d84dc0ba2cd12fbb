//! How a method of the contract is performed: on a task of its own, within a deadline, and again after a lost race.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use lap_core::error::Result;
use tokio::time::{sleep, timeout};

use crate::error::{Answer, Failure, closed, silent};
use crate::link::{Core, Link, Tx};

/// How long a method may take in all, waiting included. The server's own limit per statement is shorter; this one is
/// for a server that does not answer at all.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often a method is tried when others are faster.
const ATTEMPTS: u32 = 12;

/// The inside of a method that is one statement, or only reads.
pub(crate) type Asking<I, T> = for<'l> fn(&'l mut Link, I) -> BoxFuture<'l, Answer<T>>;
/// The inside of a method that is one transaction.
pub(crate) type Writing<I, T> = for<'t> fn(&'t mut Tx, I) -> BoxFuture<'t, Answer<T>>;

enum Way<I, T> {
    Ask(Asking<I, T>),
    Write(Writing<I, T>),
}

impl Core {
    /// Runs `inside` on a connection, each statement a commit of its own.
    ///
    /// # Cancel safety
    /// If dropped, the whole of it happens, or nothing.
    pub(crate) async fn ask<I, T>(
        self: &Arc<Self>,
        operation: &'static str,
        input: I,
        inside: Asking<I, T>,
    ) -> Result<T>
    where
        I: Clone + Send + 'static,
        T: Send + 'static,
    {
        self.perform(operation, input, Way::Ask(inside)).await
    }

    /// Runs `inside` in a transaction. The answer comes after its commit.
    ///
    /// # Cancel safety
    /// If dropped, the whole of it happens, or nothing.
    pub(crate) async fn write<I, T>(
        self: &Arc<Self>,
        operation: &'static str,
        input: I,
        inside: Writing<I, T>,
    ) -> Result<T>
    where
        I: Clone + Send + 'static,
        T: Send + 'static,
    {
        self.perform(operation, input, Way::Write(inside)).await
    }

    /// On a task of its own, so that a caller who leaves breaks off nothing.
    async fn perform<I, T>(self: &Arc<Self>, operation: &'static str, input: I, way: Way<I, T>) -> Result<T>
    where
        I: Clone + Send + 'static,
        T: Send + 'static,
    {
        let core = Arc::clone(self);
        let task = tokio::spawn(async move {
            match timeout(DEADLINE, core.until_it_wins(input, way)).await {
                Ok(answer) => answer.map_err(|failure| failure.explain(operation)),
                Err(_) => Err(silent(operation)),
            }
        });
        task.await
            .unwrap_or_else(|error| Err(closed(operation).with_source(error)))
    }

    async fn until_it_wins<I: Clone, T>(self: Arc<Self>, input: I, way: Way<I, T>) -> Answer<T> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let answer = match &way {
                Way::Ask(inside) => self.ask_once(input.clone(), *inside).await,
                Way::Write(inside) => self.write_once(input.clone(), *inside).await,
            };
            match answer {
                Err(failure) if failure.is_lost_race() && attempt < ATTEMPTS => {
                    self.counters.repetitions.fetch_add(1, Ordering::Relaxed);
                    // Whoever won is about to commit. A little patience that grows keeps two losers apart.
                    sleep(Duration::from_millis(u64::from(attempt * attempt))).await;
                }
                answer => return answer,
            }
        }
    }

    async fn ask_once<I, T>(self: &Arc<Self>, input: I, inside: Asking<I, T>) -> Answer<T> {
        let mut link = Link::take(self).await?;
        let answer = inside(&mut link, input).await;
        self.settle(link, answer)
    }

    async fn write_once<I, T>(self: &Arc<Self>, input: I, inside: Writing<I, T>) -> Answer<T> {
        let mut link = Link::take(self).await?;
        let now = match link.begin().await {
            Ok(now) => now,
            Err(failure) => return self.settle(link, Err(failure)),
        };
        let mut tx = Tx { link, now };
        let answer = inside(&mut tx, input).await;
        let mut link = tx.link;
        match answer {
            Ok(answer) => {
                let committed = link.commit().await;
                self.settle(link, committed.map(|()| answer))
            }
            Err(failure) if failure.is_disconnection() => self.settle(link, Err(failure)),
            Err(failure) => match link.roll_back().await {
                Ok(()) => self.settle(link, Err(failure)),
                // The connection is cut, which undoes the transaction as well.
                Err(_) => Err(failure),
            },
        }
    }

    /// Gives the connection back if it can serve the next.
    fn settle<T>(&self, link: Link, answer: Answer<T>) -> Answer<T> {
        match &answer {
            Err(failure) if failure.is_disconnection() || failure.is_read_only() => {
                self.connections.forget_idle();
                drop(link);
            }
            // The statement was prepared before a migration; a new connection prepares it anew.
            Err(Failure::Sql(sqlx::Error::Database(error))) if error.code().as_deref() == Some("0A000") => {
                self.connections.forget_idle();
                drop(link);
                return Err(Failure::Race);
            }
            _ => link.give_back(),
        }
        answer
    }
}
