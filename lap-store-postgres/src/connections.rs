//! Connections to the server: the store's own few, or a host's pool.
//!
//! The own ones are not sqlx's pool, because that asks the server at every acquire or release, and the hottest
//! writes here are one round trip.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, PgPool, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::settings;

/// How long a new connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long to wait for a free connection before the caller is told to come again.
const WAIT: Duration = Duration::from_secs(5);
/// A connection that was idle for longer is asked whether it lives: something between may have dropped it.
const FRESH: Duration = Duration::from_secs(30);
/// How long that question may take.
const PING: Duration = Duration::from_secs(2);
/// Connections are replaced after this long, so that load spreads after a fail-over and memory of the server is freed.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

type Result<T> = std::result::Result<T, sqlx::Error>;

/// A connection in use.
#[derive(Debug)]
pub(crate) enum Live {
    Own(Own),
    Host(PoolConnection<Postgres>),
}

/// A connection of the store's own.
#[derive(Debug)]
pub(crate) struct Own {
    connection: PgConnection,
    born: Instant,
    used: Instant,
    permit: Option<OwnedSemaphorePermit>,
}

impl Live {
    pub(crate) fn get(&mut self) -> &mut PgConnection {
        match self {
            Self::Own(own) => &mut own.connection,
            Self::Host(connection) => connection,
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) enum Connections {
    Own(OwnConnections),
    Host(PgPool),
}

/// The store's own connections: opened when needed, at most `size`.
#[derive(Debug)]
pub(crate) struct OwnConnections {
    connect: PgConnectOptions,
    statement_timeout: Duration,
    size: u32,
    permits: Arc<Semaphore>,
    /// The one used last is used next, so that few stay warm.
    idle: Mutex<Vec<Own>>,
}

impl OwnConnections {
    pub(crate) fn new(connect: PgConnectOptions, size: u32, statement_timeout: Duration) -> Self {
        Self {
            connect,
            statement_timeout,
            size,
            permits: Arc::new(Semaphore::new(size as usize)),
            idle: Mutex::default(),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Own>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(&self) -> Result<Own> {
        let permit = match timeout(WAIT, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(sqlx::Error::PoolClosed),
            Err(_) => return Err(sqlx::Error::PoolTimedOut),
        };
        let mut own = match self.lively().await {
            Some(own) => own,
            None => self.connect().await?,
        };
        own.permit = Some(permit);
        Ok(own)
    }

    /// An idle connection that answers.
    async fn lively(&self) -> Option<Own> {
        loop {
            let mut own = self.idle().pop()?;
            if own.used.elapsed() < FRESH {
                return Some(own);
            }
            if own.born.elapsed() < LIFETIME
                && matches!(timeout(PING, own.connection.ping()).await, Ok(Ok(())))
            {
                return Some(own);
            }
        }
    }

    async fn connect(&self) -> Result<Own> {
        let connection = timeout(CONNECT, connect(&self.connect, self.statement_timeout)).await;
        let now = Instant::now();
        Ok(Own {
            connection: connection.unwrap_or(Err(sqlx::Error::PoolTimedOut))?,
            born: now,
            used: now,
            permit: None,
        })
    }
}

/// A connection with this crate's settings.
pub(crate) async fn connect(options: &PgConnectOptions, statement_timeout: Duration) -> Result<PgConnection> {
    let mut connection = options.connect().await?;
    settings::apply(&mut connection, statement_timeout).await?;
    Ok(connection)
}

impl Connections {
    pub(crate) async fn take(&self) -> Result<Live> {
        match self {
            Self::Own(own) => own.take().await.map(Live::Own),
            Self::Host(pool) => pool.acquire().await.map(Live::Host),
        }
    }

    /// Takes a connection back that has nothing open.
    pub(crate) fn give_back(&self, live: Live) {
        match (self, live) {
            (Self::Own(home), Live::Own(mut own)) => {
                // Freed after the connection is there for the next.
                let permit = own.permit.take();
                if own.born.elapsed() < LIFETIME && !home.permits.is_closed() {
                    own.used = Instant::now();
                    home.idle().push(own);
                }
                drop(permit);
            }
            (_, live) => drop(live),
        }
    }

    /// The server was lost: whatever is idle is lost too.
    pub(crate) fn forget_idle(&self) {
        if let Self::Own(own) = self {
            own.idle().clear();
        }
    }

    /// How many statements may run at once.
    pub(crate) fn size(&self) -> u32 {
        match self {
            Self::Own(own) => own.size,
            Self::Host(pool) => pool.options().get_max_connections(),
        }
    }

    /// Refuses new uses, waits for those that run, and disconnects. A host's pool stays open.
    pub(crate) async fn close(&self) {
        let Self::Own(own) = self else {
            return;
        };
        let running = own.permits.acquire_many(own.size).await;
        own.permits.close();
        drop(running);
        let idle = std::mem::take(&mut *own.idle());
        for own in idle {
            // Nothing can be lost by a connection that has nothing open.
            let _ = own.connection.close().await;
        }
    }
}
