//! Tells a transaction pooler between this process and the server, which breaks what a connection remembers: prepared
//! statements, settings, LISTEN.

use lap_core::error::{Error, ErrorKind, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _};

use crate::error::{Answer, Failure};

/// A busy pooler gives another connection sooner or later.
const READS: u32 = 20;

/// Refuses a pooler. Two connections are made: behind an idle pooler the second is the first one's server connection
/// and sees its setting; behind a busy one the first loses its setting within a few reads. Plain text queries only,
/// because a pooler may break prepared ones.
///
/// # Errors
/// `Unsupported` when there is one.
pub(crate) async fn refuse(options: &PgConnectOptions, mark: &str) -> Answer<()> {
    refuse_host(options.get_host()).map_err(Failure::Refused)?;
    let mut first = options.connect().await?;
    let mut second = options.connect().await?;
    let found = is_pooled(&mut first, &mut second, mark).await;
    // Nothing can be lost by connections that only looked.
    let _ = (first.close().await, second.close().await);
    if found? {
        return Err(Failure::Refused(refusal(options.get_host())));
    }
    Ok(())
}

/// Refuses a host whose name says that it is a pooler.
pub(crate) fn refuse_host(host: &str) -> Result<()> {
    if is_pooled_host(host) {
        return Err(refusal(host));
    }
    Ok(())
}

async fn is_pooled(first: &mut PgConnection, second: &mut PgConnection, mark: &str) -> Answer<bool> {
    // The mark is made of digits and letters by this crate.
    let set = format!("SELECT set_config('lap.mark', '{mark}', false)");
    first.execute(sqlx::raw_sql(AssertSqlSafe(set))).await?;
    for read in 0..READS {
        if seen(first).await?.as_deref() != Some(mark) {
            return Ok(true);
        }
        if read == 0 && seen(second).await?.as_deref() == Some(mark) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn seen(connection: &mut PgConnection) -> Answer<Option<String>> {
    let rows = connection
        .fetch_all(sqlx::raw_sql("SELECT current_setting('lap.mark', true)"))
        .await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok(row.try_get(0)?)
}

/// Neon's pooled hosts say so in their names.
fn is_pooled_host(host: &str) -> bool {
    host.split('.')
        .next()
        .is_some_and(|name| name.ends_with("-pooler"))
}

/// What to do instead.
fn refusal(host: &str) -> Error {
    let direct = host.replacen("-pooler.", ".", 1);
    let advice = if direct == host {
        "name the server itself, or set the pooler to session mode (PgBouncer: pool_mode = session)"
            .to_owned()
    } else {
        format!("name the direct host {direct}")
    };
    let message = format!(
        "the database address {host} leads to a transaction pooler, which does not keep a connection's prepared \
         statements and notifications; {advice}"
    );
    Error::new(ErrorKind::Unsupported, "connect store", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neons_pooled_host_is_told_from_its_direct_host() {
        let pooled = "ep-cool-night-123456-pooler.eu-central-1.aws.neon.tech";
        let direct = "ep-cool-night-123456.eu-central-1.aws.neon.tech";
        assert!(is_pooled_host(pooled) && !is_pooled_host(direct) && !is_pooled_host("localhost"));
        assert!(refusal(pooled).message().contains(direct));
    }
}
