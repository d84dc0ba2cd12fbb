//! Requests that are remembered.

use std::str::FromStr;

use lap_core::store::{IDEMPOTENCY_TTL, Idempotency};

use crate::error::Answer;
use crate::link::sql;
use crate::row::Columns as _;
use crate::writer::Tx;

/// What is known about a request.
pub(crate) enum Seen<T> {
    /// Nothing.
    New,
    /// It was done before, with this result.
    Before(T),
    /// The key was used with another body.
    KeyReused,
}

pub(crate) async fn seen<T>(tx: &mut Tx, request: &Idempotency) -> Answer<Seen<T>>
where
    T: FromStr<Err = lap_core::Error>,
{
    let select = "SELECT body_hash, result FROM lap_idempotency \
                  WHERE principal = ?1 AND operation = ?2 AND parent = ?3 AND key = ?4 AND expires_at > ?5";
    let select = sql(select)
        .bind(request.principal.clone())
        .bind(request.operation)
        .bind(request.parent.clone())
        .bind(request.key.clone())
        .bind(tx.now.unix_millis());
    let Some(row) = tx.first(select).await? else {
        return Ok(Seen::New);
    };
    if row.text("body_hash")? != request.body_hash {
        return Ok(Seen::KeyReused);
    }
    row.id("result").map(Seen::Before)
}

/// Remembers the request. Its row was not there or has expired.
pub(crate) async fn remember(tx: &mut Tx, request: &Idempotency, result: impl ToString) -> Answer<()> {
    let insert = "INSERT OR REPLACE INTO lap_idempotency \
                  (principal, operation, parent, key, body_hash, result, expires_at) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let insert = sql(insert)
        .bind(request.principal.clone())
        .bind(request.operation)
        .bind(request.parent.clone())
        .bind(request.key.clone())
        .bind(request.body_hash.clone())
        .bind(result.to_string())
        .bind((tx.now + IDEMPOTENCY_TTL).unix_millis());
    tx.run(insert).await.map(drop)
}

/// Forgets what has expired.
pub(crate) async fn forget(tx: &mut Tx) -> Answer<()> {
    let delete = sql("DELETE FROM lap_idempotency WHERE expires_at <= ?1").bind(tx.now.unix_millis());
    tx.run(delete).await.map(drop)
}
