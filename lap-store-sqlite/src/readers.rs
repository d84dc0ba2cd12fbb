//! A few reading connections, opened when they are first needed. Readers never wait for the writer (WAL).
//!
//! This is not sqlx's pool, because that has timers, and tests pause tokio's clock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use lap_core::error::Result;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;
use tokio::sync::Semaphore;

use crate::error::{Answer, closed, from_sqlx};
use crate::link::{Counters, Link};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Readers {
    idle: Mutex<Vec<Link>>,
    permits: Semaphore,
    count: u32,
    connect: SqliteConnectOptions,
    counters: Arc<Counters>,
}

impl Readers {
    pub(crate) fn new(connect: SqliteConnectOptions, count: u32, counters: Arc<Counters>) -> Self {
        let count = count.max(1);
        Self {
            idle: Mutex::default(),
            permits: Semaphore::new(count as usize),
            count,
            connect,
            counters,
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on a free connection.
    ///
    /// # Cancel safety
    /// If dropped, the connection is dropped too, with whatever it was doing.
    pub(crate) async fn read<T, F>(&self, operation: &'static str, work: F) -> Result<T>
    where
        F: for<'l> FnOnce(&'l mut Link) -> BoxFuture<'l, Answer<T>> + Send,
    {
        let _permit = self.permits.acquire().await.map_err(|_| closed(operation))?;
        let idle = self.idle().pop();
        let mut link = match idle {
            Some(link) => link,
            None => self
                .connect()
                .await
                .map_err(|error| from_sqlx(operation, error))?,
        };
        let answer = work(&mut link)
            .await
            .map_err(|error| from_sqlx(operation, error))?;
        self.idle().push(link);
        Ok(answer)
    }

    async fn connect(&self) -> Answer<Link> {
        Ok(Link::new(
            self.connect.connect().await?,
            Arc::clone(&self.counters),
        ))
    }

    /// Waits for the reads that run, refuses new ones, and disconnects.
    pub(crate) async fn close(&self) {
        let running = self.permits.acquire_many(self.count).await;
        self.permits.close();
        drop(running);
        let idle = std::mem::take(&mut *self.idle());
        for link in idle {
            // A reader has nothing to lose.
            let _ = sqlx::Connection::close(link.connection).await;
        }
    }
}
