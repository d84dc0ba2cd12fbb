//! The schema: what this version knows, what a file has, and the way from one to the other.

use lap_core::error::{Error, ErrorKind, Result};
use lap_core::time::Timestamp;
use sqlx::Row as _;

use crate::error::{Answer, from_sqlx};
use crate::link::{Link, sql};

const OPERATION: &str = "open store";

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

/// What a database says about its schema.
struct Present {
    version: i64,
    written_by: String,
}

async fn present(link: &mut Link) -> Answer<Option<Present>> {
    let table = link
        .first(sql("SELECT 1 FROM sqlite_schema WHERE name = 'lap_migrations'"))
        .await?;
    if table.is_none() {
        return Ok(None);
    }
    // This table keeps its shape for ever, because older versions read it.
    let row = link
        .first(sql(
            "SELECT version, written_by FROM lap_migrations ORDER BY version DESC LIMIT 1",
        ))
        .await?;
    row.map(|row| {
        Ok(Present {
            version: row.try_get(0)?,
            written_by: row.try_get(1)?,
        })
    })
    .transpose()
}

/// Refuses a schema that is newer than this version. Only reads.
pub(crate) async fn check(link: &mut Link, path: &str) -> Result<()> {
    let present = present(link).await.map_err(|error| from_sqlx(OPERATION, error))?;
    match present {
        Some(Present { version, written_by }) if version > newest() => {
            let message = format!(
                "the database {path} has schema {version}, written by lap-store-sqlite {written_by}; \
                 this is {}, which knows schema {}. Start that version or a later one, or restore a backup from \
                 before the upgrade. Nothing was changed",
                env!("CARGO_PKG_VERSION"),
                newest(),
            );
            Err(Error::new(ErrorKind::Corrupt, OPERATION, message))
        }
        _ => Ok(()),
    }
}

/// Brings the schema up to this version, in one transaction. Nothing is written when it is there already.
pub(crate) async fn run(link: &mut Link, now: Timestamp) -> Result<()> {
    migrate(link, now)
        .await
        .map_err(|error| from_sqlx(OPERATION, error))
}

async fn migrate(link: &mut Link, now: Timestamp) -> Answer<()> {
    link.run(sql("BEGIN IMMEDIATE")).await?;
    let applied = apply(link, now).await;
    link.run(sql(if applied.is_ok() { "COMMIT" } else { "ROLLBACK" }))
        .await?;
    applied
}

async fn apply(link: &mut Link, now: Timestamp) -> Answer<()> {
    let version = present(link).await?.map(|present| present.version);
    if version == Some(newest()) {
        return Ok(());
    }
    let table = "CREATE TABLE IF NOT EXISTS lap_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, \
                 applied_at INTEGER NOT NULL, written_by TEXT NOT NULL) STRICT";
    link.run(sql(table)).await?;
    for migration in MIGRATIONS
        .iter()
        .filter(|migration| migration.version > version.unwrap_or(0))
    {
        link.run(sql(migration.text).persistent(false)).await?;
        let insert =
            "INSERT INTO lap_migrations (version, name, applied_at, written_by) VALUES (?1, ?2, ?3, ?4)";
        let insert = sql(insert)
            .bind(migration.version)
            .bind(migration.name)
            .bind(now.unix_millis())
            .bind(env!("CARGO_PKG_VERSION"));
        link.run(insert).await?;
        tracing::info!(
            version = migration.version,
            name = migration.name,
            "migrated the database"
        );
    }
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
