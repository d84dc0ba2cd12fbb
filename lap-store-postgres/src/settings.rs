//! What each connection of the store is told.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Executor as _, PgPool};

use crate::error::Answer;

/// How long a transaction may do nothing. Its locks would stop others.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(15);

/// Every statement of this crate names its rows by key. So its plan need not depend on statistics, and must not: a
/// plan made while a table was empty scans it whole for as long as the connection lives. Plans are made once per connection
/// and use indexes and nested loops. Measured with 100,000 warm sandboxes against planning each time: a warm open takes
/// half as long.
const PLANS: &str = "SELECT set_config('plan_cache_mode', 'force_generic_plan', false), \
                     set_config('enable_seqscan', 'off', false), \
                     set_config('enable_hashjoin', 'off', false), \
                     set_config('enable_mergejoin', 'off', false), \
                     set_config('jit', 'off', false), \
                     set_config('default_transaction_isolation', 'read committed', false), \
                     set_config('statement_timeout', $1, false), \
                     set_config('idle_in_transaction_session_timeout', $2, false)";

pub(crate) async fn apply(
    connection: &mut PgConnection,
    statement_timeout: Duration,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(PLANS)
        .bind(statement_timeout.as_millis().to_string())
        .bind(IDLE_IN_TRANSACTION.as_millis().to_string())
        .persistent(false);
    connection.execute(query).await.map(drop)
}

/// What the server lets this user have.
pub(crate) struct Limits {
    connections: i64,
}

impl Limits {
    /// Asks with one statement.
    pub(crate) async fn read(connection: &mut PgConnection) -> Answer<Self> {
        let text = "SELECT least(\
                        current_setting('max_connections')::bigint \
                            - current_setting('superuser_reserved_connections')::bigint, \
                        (SELECT CASE WHEN rolconnlimit < 0 THEN 1000000 ELSE rolconnlimit END::bigint \
                         FROM pg_roles WHERE rolname = current_user), \
                        (SELECT CASE WHEN datconnlimit < 0 THEN 1000000 ELSE datconnlimit END::bigint \
                         FROM pg_database WHERE datname = current_database()))";
        let connections = sqlx::query_scalar(text)
            .persistent(false)
            .fetch_one(connection)
            .await?;
        Ok(Self { connections })
    }

    /// Ten processes of this size fit, and a process never has fewer than 4 nor, without being told, more than 20.
    pub(crate) fn size(&self) -> u32 {
        u32::try_from(self.connections / 10).unwrap_or(0).clamp(4, 20)
    }
}

/// A host's connections must run each statement on what is committed when it starts.
pub(crate) async fn isolation(pool: &PgPool) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("SELECT current_setting('default_transaction_isolation')")
        .persistent(false)
        .fetch_one(pool)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_a_tenth_of_the_server() {
        let size = |connections| Limits { connections }.size();
        assert_eq!([size(97), size(10), size(1000), size(150)], [9, 4, 20, 15]);
    }
}
