//! Requests that are remembered.

use lap_core::store::{IDEMPOTENCY_TTL, Idempotency};
use uuid::Uuid;

use crate::error::{Answer, Failure};
use crate::link::{Link, Tx, sql};
use crate::row::{Columns as _, Id, clean, millis};

/// What is known about a request.
pub(crate) enum Seen<T> {
    /// Nothing.
    New,
    /// It was done before, with this result.
    Before(T),
    /// The key was used with another body.
    KeyReused,
}

pub(crate) async fn seen<T: Id>(tx: &mut Tx, request: &Idempotency) -> Answer<Seen<T>> {
    let select = "SELECT body_hash, result FROM lap.idempotency \
                  WHERE principal = $1 AND operation = $2 AND parent = $3 AND key = $4 AND expires_at > lap.now_ms()";
    let select = sql(select)
        .bind(clean(&request.principal))
        .bind(request.operation)
        .bind(clean(&request.parent))
        .bind(clean(&request.key));
    let Some(row) = tx.first(select).await? else {
        return Ok(Seen::New);
    };
    if row.text("body_hash")? != request.body_hash {
        return Ok(Seen::KeyReused);
    }
    row.id("result").map(Seen::Before)
}

/// Remembers the request. Its row was not there or has expired; when another process was faster, that is a race.
pub(crate) async fn remember(tx: &mut Tx, request: &Idempotency, result: Uuid) -> Answer<()> {
    let insert = "INSERT INTO lap.idempotency AS i \
                  (principal, operation, parent, key, body_hash, result, expires_at) \
                  VALUES ($1, $2, $3, $4, $5, $6, lap.now_ms() + $7) \
                  ON CONFLICT (principal, operation, parent, key) DO UPDATE \
                  SET body_hash = excluded.body_hash, result = excluded.result, expires_at = excluded.expires_at \
                  WHERE i.expires_at <= lap.now_ms()";
    let insert = sql(insert)
        .bind(clean(&request.principal))
        .bind(request.operation)
        .bind(clean(&request.parent))
        .bind(clean(&request.key))
        .bind(clean(&request.body_hash))
        .bind(result)
        .bind(millis(IDEMPOTENCY_TTL));
    if tx.run(insert).await? == 0 {
        return Err(Failure::Race);
    }
    Ok(())
}

/// How many rows one statement forgets, so that it holds up nobody.
const BATCH: i64 = 1000;
/// How many such statements follow one another.
const BATCHES: u32 = 20;

/// Forgets what has expired, in small batches. Rows that others use are left for the next time.
pub(crate) async fn forget(link: &mut Link) -> Answer<()> {
    let delete = "DELETE FROM lap.idempotency WHERE ctid = ANY(ARRAY(\
                  SELECT ctid FROM lap.idempotency WHERE expires_at <= lap.now_ms() \
                  ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED))";
    for _ in 0..BATCHES {
        if link.run(sql(delete).bind(BATCH)).await? < BATCH.unsigned_abs() {
            break;
        }
    }
    Ok(())
}
