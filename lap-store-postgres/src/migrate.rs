//! The schema: what this version knows, what a database has, and the way from one to the other.
//!
//! Migrations are written so that the version before goes on working next to the new one (expand), and what it needs
//! is removed one release later (contract): a rolling deploy runs both at once.

use lap_core::error::{Error, ErrorKind, Result};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::error::{Answer, Failure};
use crate::names::Names;

const OPERATION: &str = "migrate store";

struct Migration {
    version: i64,
    name: &'static str,
    text: &'static str,
}

/// In order. A released migration never changes; a change of the schema is a new one.
const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "begin",
    text: include_str!("../migrations/0001_begin.sql"),
}];

/// The newest schema this version knows.
fn newest() -> i64 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// What a migration did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The schema before; 0 when there was none.
    pub from: i64,
    /// The schema now.
    pub to: i64,
}

/// Brings the schema up to this version, in one transaction. Any number of processes may do so at once: one of them
/// migrates, the others wait and find nothing to do.
pub(crate) async fn run(connection: &mut PgConnection, names: &Names) -> Result<Migrated> {
    match migrate(connection, names).await {
        Ok(migrated) => Ok(migrated),
        Err(failure) => Err(failure.explain(OPERATION)),
    }
}

async fn migrate(connection: &mut PgConnection, names: &Names) -> Answer<Migrated> {
    // Most starts find the schema as it should be, and take no lock.
    let from = version(connection, names).await?;
    if from == newest() {
        return Ok(Migrated { from, to: from });
    }
    let mut tx = connection.begin().await?;
    // A migration may take longer than a statement usually does, but must not queue up behind a long lock, because
    // everybody else then queues up behind it.
    tx.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '30s'")
        .await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(format!("lap migrations of {}", names.schema()))
        .execute(&mut *tx)
        .await?;
    let from = version(&mut tx, names).await?;
    if from == 0 {
        create_schema(&mut tx, names).await?;
    }
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > from) {
        apply(&mut tx, names, migration).await?;
    }
    tx.commit().await?;
    Ok(Migrated { from, to: newest() })
}

/// The schema's version; 0 when there is none.
pub(crate) async fn version(connection: &mut PgConnection, names: &Names) -> Answer<i64> {
    // Asked of the catalogue's tables: `to_regclass` may answer from a cache that is older than the lock.
    let text = "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                WHERE n.nspname = $1 AND c.relname = 'migrations')";
    let exists: bool = sqlx::query_scalar(text)
        .bind(names.schema())
        .persistent(false)
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok(0);
    }
    // This table keeps its shape for ever, because older versions read it.
    let text = names.render("SELECT version, written_by FROM lap.migrations ORDER BY version DESC LIMIT 1");
    let row: Option<(i64, String)> = sqlx::query_as(text)
        .persistent(false)
        .fetch_optional(&mut *connection)
        .await?;
    let Some((version, written_by)) = row else {
        return Ok(0);
    };
    if version > newest() {
        return Err(Failure::Refused(newer(names.schema(), version, &written_by)));
    }
    Ok(version)
}

fn newer(schema: &str, version: i64, written_by: &str) -> Error {
    let message = format!(
        "the database's schema {schema} has version {version}, written by lap-store-postgres {written_by}; this is {}, \
         which knows version {}. Start that version or a later one, or restore a backup from before the upgrade. \
         Nothing was changed",
        env!("CARGO_PKG_VERSION"),
        newest(),
    );
    Error::new(ErrorKind::Corrupt, OPERATION, message)
}

/// `IF NOT EXISTS` would ask for the right to create schemas even where a database administrator has made it already.
async fn create_schema(connection: &mut PgConnection, names: &Names) -> Answer<()> {
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
        .bind(names.schema())
        .persistent(false)
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        // The name was checked.
        let create = format!("CREATE SCHEMA \"{}\"", names.schema());
        connection.execute(sqlx::raw_sql(AssertSqlSafe(create))).await?;
    }
    let table = "CREATE TABLE IF NOT EXISTS lap.migrations (version bigint PRIMARY KEY, name text NOT NULL, \
                 applied_at timestamptz NOT NULL DEFAULT now(), written_by text NOT NULL)";
    connection.execute(sqlx::raw_sql(names.render(table))).await?;
    Ok(())
}

async fn apply(connection: &mut PgConnection, names: &Names, migration: &Migration) -> Answer<()> {
    connection
        .execute(sqlx::raw_sql(names.render(migration.text)))
        .await?;
    sqlx::query(names.render("INSERT INTO lap.migrations (version, name, written_by) VALUES ($1, $2, $3)"))
        .bind(migration.version)
        .bind(migration.name)
        .bind(env!("CARGO_PKG_VERSION"))
        .execute(&mut *connection)
        .await?;
    tracing::info!(
        version = migration.version,
        name = migration.name,
        schema = names.schema(),
        "migrated the database"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_order_without_gaps() {
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version, i64::try_from(index).unwrap() + 1);
        }
    }
}
