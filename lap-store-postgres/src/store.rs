//! The store itself: connecting, closing, and what it was made of.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lap_core::blueprint::PlatformHash;
use lap_core::error::{Error, ErrorKind, Result};
use lap_core::id::{Entropy, SystemEntropy};
use lap_core::secret::Secret;
use lap_core::store::{Hint, HintStream, Hints};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, PgPool};

use crate::connections::{self, Connections, OwnConnections};
use crate::error::from_sqlx;
use crate::hints::Wire;
use crate::link::{Core, Counters, Counts};
use crate::migrate::{self, Migrated};
use crate::names::Names;
use crate::{pooler, settings};

const OPERATION: &str = "connect store";
/// Claims look back this far from the last one: sandboxes become visible a little after they became warm.
const LOOK_BACK: i64 = 5_000;
/// A heartbeat comes every two seconds; expired rows are removed about once a minute.
const TIDY_EVERY: u32 = 30;

/// What a [`PostgresStore`] is made of.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Where the database is: `postgres://user:password@host:port/database?sslmode=verify-full`.
    pub url: Secret,
    /// The schema with the store's tables, made when it is missing. Two installations may share a database.
    pub schema: String,
    /// How many connections this process uses, besides the one for hints; a tenth of what the server accepts, from 4 to
    /// 20, when it is not given.
    pub connections: Option<u32>,
    /// How long the server works on a statement before it gives up.
    pub statement_timeout: Duration,
    /// What the server's list of connections shows.
    pub application_name: String,
}

impl PostgresOptions {
    /// Options for this address, with the schema `lap`.
    pub fn new(url: Secret) -> Self {
        Self {
            url,
            schema: "lap".to_owned(),
            connections: None,
            statement_timeout: Duration::from_secs(15),
            application_name: "lap".to_owned(),
        }
    }

    /// Whether the options make sense, as far as that can be told without the server.
    ///
    /// # Errors
    /// `Invalid` when the address is none or the schema has no usable name; `Unsupported` when the host's name says
    /// that it is a transaction pooler.
    pub fn check(&self) -> Result<()> {
        Names::new(&self.schema)?;
        pooler::refuse_host(self.connect_options()?.get_host())
    }

    /// The parsed address. The message of a wrong one does not repeat it, because it holds a password.
    fn connect_options(&self) -> Result<PgConnectOptions> {
        let options = PgConnectOptions::from_str(self.url.expose()).map_err(|_| {
            let message = "this is not an address of a PostgreSQL database; \
                           it has the form postgres://user:password@host:port/database";
            Error::invalid(OPERATION, "url", message)
        })?;
        Ok(options
            .application_name(&self.application_name)
            // Nothing here depends on it, and poolers refuse it.
            .extra_float_digits(None)
            .statement_cache_capacity(200)
            .disable_statement_logging())
    }
}

/// Everything the engine keeps, in one PostgreSQL database that any number of processes use.
///
/// Every write is one commit. A write that was begun happens whole or not at all even when its caller leaves.
pub struct PostgresStore {
    core: Arc<Core>,
    wire: Wire,
    /// Since when the sandbox was warm that this process claimed last, per platform.
    last_claims: Mutex<HashMap<PlatformHash, i64>>,
    beats: AtomicU32,
}

impl PostgresStore {
    /// Connects, refuses what cannot serve, and brings the schema up to this version. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// `Unavailable` when the server does not answer or accept. `Unsupported` when the address leads to a transaction
    /// pooler. `Corrupt` when a newer version wrote the schema. `Invalid` when the options are wrong. Nothing was
    /// changed then.
    pub async fn connect(options: PostgresOptions) -> Result<Self> {
        let names = Names::new(&options.schema)?;
        let connect = options.connect_options()?;
        let process = process_name();
        let failed = |failure: crate::error::Failure| failure.explain(OPERATION);
        pooler::refuse(&connect, &process).await.map_err(failed)?;
        let mut first = connections::connect(&connect, options.statement_timeout)
            .await
            .map_err(|error| from_sqlx(OPERATION, error))?;
        let limits = settings::Limits::read(&mut first).await.map_err(failed)?;
        migrate::run(&mut first, &names).await?;
        close(first).await;
        let size = options.connections.unwrap_or_else(|| limits.size()).max(1);
        let own = OwnConnections::new(connect.clone(), size, options.statement_timeout);
        Ok(Self::over(names, Connections::Own(own), connect, process))
    }

    /// Uses a host's own pool. The schema is brought up to this version; the host's tables are not touched. One more
    /// connection with the pool's options is made for hints.
    ///
    /// The store sets nothing on these connections. Where the planner's statistics may be stale, set
    /// `plan_cache_mode = force_custom_plan` on the pool.
    ///
    /// # Errors
    /// As [`PostgresStore::connect`]; `Unsupported` also when transactions of the pool do not run at READ COMMITTED.
    pub async fn on_pool(pool: PgPool, schema: &str) -> Result<Self> {
        let names = Names::new(schema)?;
        let connect = pool.connect_options().as_ref().clone();
        let process = process_name();
        pooler::refuse(&connect, &process)
            .await
            .map_err(|failure| failure.explain(OPERATION))?;
        let isolation = settings::isolation(&pool)
            .await
            .map_err(|error| from_sqlx(OPERATION, error))?;
        if isolation != "read committed" {
            let message = format!(
                "the pool's transactions run at {isolation}, where concurrent work fails instead of waiting; set \
                 default_transaction_isolation to read committed"
            );
            return Err(Error::new(ErrorKind::Unsupported, OPERATION, message));
        }
        let mut first = pool
            .acquire()
            .await
            .map_err(|error| from_sqlx(OPERATION, error))?;
        migrate::run(&mut first, &names).await?;
        drop(first);
        Ok(Self::over(names, Connections::Host(pool), connect, process))
    }

    fn over(names: Names, connections: Connections, connect: PgConnectOptions, process: String) -> Self {
        tracing::debug!(
            schema = names.schema(),
            connections = connections.size(),
            "connected to PostgreSQL"
        );
        let core = Arc::new(Core {
            names,
            connections,
            counters: Counters::default(),
        });
        Self {
            wire: Wire::start(Arc::clone(&core), connect, process),
            core,
            last_claims: Mutex::default(),
            beats: AtomicU32::new(0),
        }
    }

    /// Brings the schema up to this version and does nothing else, for a deployment that migrates before it starts.
    ///
    /// # Errors
    /// As [`PostgresStore::connect`].
    pub async fn migrate(options: &PostgresOptions) -> Result<Migrated> {
        let names = Names::new(&options.schema)?;
        let connect = options.connect_options()?;
        pooler::refuse(&connect, &process_name())
            .await
            .map_err(|failure| failure.explain(OPERATION))?;
        let mut connection = connect
            .connect()
            .await
            .map_err(|error| from_sqlx(OPERATION, error))?;
        let migrated = migrate::run(&mut connection, &names).await?;
        close(connection).await;
        Ok(migrated)
    }

    /// Looks at the server without changing anything.
    ///
    /// # Errors
    /// As [`PostgresStore::connect`].
    pub async fn look(options: &PostgresOptions) -> Result<Seen> {
        let names = Names::new(&options.schema)?;
        let connect = options.connect_options()?;
        let failed = |failure: crate::error::Failure| failure.explain(OPERATION);
        pooler::refuse(&connect, &process_name()).await.map_err(failed)?;
        let mut connection = connect
            .connect()
            .await
            .map_err(|error| from_sqlx(OPERATION, error))?;
        let limits = settings::Limits::read(&mut connection).await.map_err(failed)?;
        let schema = migrate::version(&mut connection, &names).await.map_err(failed)?;
        let server: String = sqlx::query_scalar("SELECT current_setting('server_version')")
            .fetch_one(&mut connection)
            .await
            .map_err(|error| from_sqlx(OPERATION, error))?;
        close(connection).await;
        Ok(Seen {
            server,
            schema,
            connections: options.connections.unwrap_or_else(|| limits.size()),
        })
    }

    /// Ends the store after the calls that run, and disconnects. Later calls are refused. A host's pool stays open.
    pub async fn close(&self) {
        self.wire.stop();
        self.core.connections.close().await;
    }

    /// How much was asked of the database since the store was connected, for metrics and for tests of cost.
    pub fn counts(&self) -> Counts {
        self.core.counters.counts()
    }

    /// How many statements of this process may run at once.
    pub fn connections(&self) -> u32 {
        self.core.connections.size()
    }

    pub(crate) const fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// From when on to look for warm sandboxes of the platform. It is a hint: what is warm longer is found when
    /// nothing else is.
    pub(crate) fn warm_from(&self, platform: &PlatformHash) -> i64 {
        let claims = self.last_claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.get(platform).map_or(i64::MIN, |since| since - LOOK_BACK)
    }

    /// Whether this heartbeat is one of the few after which expired rows are removed.
    pub(crate) fn is_tidying_due(&self) -> bool {
        self.beats.fetch_add(1, Ordering::Relaxed) % TIDY_EVERY == TIDY_EVERY - 1
    }

    /// A sandbox was claimed that had been warm since then.
    pub(crate) fn claimed(&self, platform: PlatformHash, since: i64) {
        let mut claims = self.last_claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.insert(platform, since);
    }
}

/// What [`PostgresStore::look`] saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The server's version.
    pub server: String,
    /// The version of the schema; 0 when there is none yet.
    pub schema: i64,
    /// How many connections a process would use, besides the one for hints.
    pub connections: u32,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            server,
            schema,
            connections,
        } = self;
        write!(f, "PostgreSQL {server}, {connections} connections, ")?;
        match schema {
            0 => f.write_str("the schema will be made"),
            version => write!(f, "schema {version}"),
        }
    }
}

/// Distinguishes this process from all others.
fn process_name() -> String {
    let mut bytes = [0; 12];
    SystemEntropy::new().fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn close(connection: PgConnection) {
    // Nothing can be lost by a connection that has nothing open.
    let _ = connection.close().await;
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("schema", &self.core.names.schema())
            .finish_non_exhaustive()
    }
}

impl Hints for PostgresStore {
    fn hint(&self, hint: Hint) {
        self.wire.hint(hint);
    }

    fn hints(&self) -> HintStream {
        self.wire.hints()
    }
}
