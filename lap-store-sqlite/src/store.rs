//! The store itself: opening, closing, and the two ways in.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use lap_core::error::{Error, ErrorKind, Result};
use lap_core::store::{Hint, HintBus, HintStream, Hints};
use lap_core::time::Clock;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use crate::error::{Answer, from_sqlx};
use crate::inspect::{self, Found};
use crate::link::{Counters, Counts, Link, sql};
use crate::lock::FileLock;
use crate::migrate;
use crate::readers::Readers;
use crate::writer::{Desk, Tx, Writer};

/// What a [`SqliteStore`] is made of.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// The database file. It and its folder are made when they are missing; a lock file `<path>.lock` is kept
    /// next to it.
    pub path: PathBuf,
    /// Decides what is due, lapsed or idle.
    pub clock: Arc<dyn Clock>,
    /// How many reads may run at once. Each is a connection with a thread.
    pub readers: u32,
    /// How long to wait for another server that is about to let go of the file.
    pub patience: Duration,
}

impl SqliteOptions {
    /// Options for this file, with 4 readers and 2 seconds of patience.
    pub fn new(path: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self {
            path: path.into(),
            clock,
            readers: 4,
            patience: Duration::from_secs(2),
        }
    }
}

/// Everything the engine keeps, in one SQLite file that one process uses.
///
/// Every write is one commit that is flushed to the disk before the answer (WAL with `synchronous=FULL`);
/// writes that wait together share a commit. A write that was begun happens whole even when its caller leaves.
pub struct SqliteStore {
    path: PathBuf,
    writer: Writer,
    readers: Readers,
    counters: Arc<Counters>,
    hints: HintBus,
}

impl SqliteStore {
    /// Opens the file, making or migrating it as needed. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// `Corrupt` when the file is no database, is damaged, or was written by a newer version; the file is
    /// unchanged then. `WrongState` when another server uses it. `Invalid` when the path cannot be used.
    /// `Unavailable` when the disk refuses.
    pub async fn open(options: SqliteOptions) -> Result<Self> {
        let SqliteOptions {
            path,
            clock,
            readers,
            patience,
        } = options;
        let (found, lock) = claim(path.clone(), patience).await?;
        let connect = connect_options(&path);
        if let Found::Database { checked } = found {
            inspect::refuse(&connect, &path, checked).await?;
        }
        let counters = Arc::new(Counters::default());
        let writing = connect
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // The log shrinks back to this after a checkpoint, so that one burst does not keep the disk.
            .pragma("journal_size_limit", "67108864");
        let connection = writing
            .connect()
            .await
            .map_err(|error| from_sqlx("open store", error))?;
        let mut link = Link::new(connection, Arc::new(Counters::default()));
        migrate::run(&mut link, clock.now()).await?;
        // The lock says that no other process uses the file, so workers it names have ended: their items are free
        // at the first heartbeat instead of after a lapse.
        let forget = link.run(sql("DELETE FROM lap_workers")).await;
        forget.map_err(|error| from_sqlx("open store", error))?;
        let link = Link::new(link.connection, Arc::clone(&counters));
        let desk = Desk {
            link,
            // A file that vanished must not come back empty.
            connect: writing.create_if_missing(false),
            clock,
            counters: Arc::clone(&counters),
            lock,
        };
        let readers = Readers::new(connect.read_only(true), readers, Arc::clone(&counters));
        Ok(Self {
            path,
            writer: Writer::start(desk),
            readers,
            counters,
            hints: HintBus::default(),
        })
    }

    /// Ends the store after the reads and writes that were begun, and frees the file. Later calls are refused.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// How much was asked of the database since it was opened, for metrics and for tests of cost.
    pub fn counts(&self) -> Counts {
        self.counters.counts()
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// See [`Writer::write`].
    pub(crate) async fn write<T, F>(&self, operation: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Answer<T>> + Send + 'static,
    {
        self.writer.write(operation, work).await
    }

    /// See [`Readers::read`].
    pub(crate) async fn read<T, F>(&self, operation: &'static str, work: F) -> Result<T>
    where
        F: for<'l> FnOnce(&'l mut Link) -> BoxFuture<'l, Answer<T>> + Send,
    {
        self.readers.read(operation, work).await
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Hints for SqliteStore {
    fn hint(&self, hint: Hint) {
        self.hints.hint(hint);
    }

    fn hints(&self) -> HintStream {
        self.hints.hints()
    }
}

/// The parts that block: the folder, the look at the file, and the lock. The folder comes first because the
/// lock is in it, and the look comes before the lock so that a path that is no database gets no lock file.
async fn claim(path: PathBuf, patience: Duration) -> Result<(Found, FileLock)> {
    let claimed = tokio::task::spawn_blocking(move || {
        inspect::look(&path)?;
        let lock = FileLock::take(&path, patience)?;
        // Again, because the file may have changed while the lock was another's.
        let found = inspect::look(&path)?;
        if found == Found::Nothing {
            inspect::create(&path)?;
        }
        Ok((found, lock))
    });
    claimed.await.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Internal, "open store", "looking at the file broke off").with_source(error))
    })
}

fn connect_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .statement_cache_capacity(256)
        .disable_statement_logging()
}
