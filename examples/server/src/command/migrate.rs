//! `migrate`: the schema of the database, without a start.

use std::process::ExitCode;
use std::sync::Arc;

use lap_core::error::{Result, chain};
use lap_core::time::SystemClock;
use lap_store_postgres::{PostgresOptions, PostgresStore};

use super::print;
use crate::assemble::open_store;
use crate::config::{Config, Database};

/// Brings the schema up to this version. A rolling deploy may run it while servers of the version before work.
pub(crate) async fn run(config: Config) -> ExitCode {
    match migrate(&config.database).await {
        Ok(done) => {
            print::line(done);
            ExitCode::SUCCESS
        }
        Err(error) => {
            print::error(format!("lap-server: {}", chain(&error)));
            ExitCode::FAILURE
        }
    }
}

async fn migrate(database: &Database) -> Result<String> {
    match database {
        Database::Postgres(address) => {
            let migrated = PostgresStore::migrate(&PostgresOptions::new(address.clone())).await?;
            Ok(if migrated.from == migrated.to {
                format!("the schema has version {}; nothing was to be done", migrated.to)
            } else {
                format!(
                    "the schema had version {} and has version {} now",
                    migrated.from, migrated.to
                )
            })
        }
        Database::Sqlite(path) => {
            // Opening it is all there is to do.
            drop(open_store(database, Arc::new(SystemClock)).await?);
            Ok(format!("the schema of {} is up to date", path.display()))
        }
    }
}
