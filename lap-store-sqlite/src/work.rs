//! The work queue.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lap_core::error::Result;
use lap_core::id::{SandboxId, SessionId, WorkerId};
use lap_core::sandbox::Place;
use lap_core::store::{Hold, NewWork, Take, WORKER_LAPSE, Work, WorkItem, WorkKind, Worker};
use lap_core::time::Timestamp;
use sqlx::sqlite::SqliteRow;

use crate::error::Answer;
use crate::idempotency;
use crate::link::{Link, Statement, sql};
use crate::row::{Columns as _, json_list, place_text, stored};
use crate::store::SqliteStore;
use crate::writer::Tx;

#[async_trait]
impl Work for SqliteStore {
    async fn enqueue(&self, items: Vec<NewWork>) -> Result<()> {
        self.write("enqueue work", move |tx| enqueue_all(tx, items).boxed())
            .await
    }

    async fn take(&self, take: Take) -> Result<Vec<WorkItem>> {
        self.write("take work", move |tx| take_due(tx, take).boxed())
            .await
    }

    async fn done(&self, item: &WorkItem) -> Result<bool> {
        let item = item.clone();
        self.write("finish work", move |tx| done(tx, item).boxed()).await
    }

    async fn again(&self, item: &WorkItem, after: Duration) -> Result<bool> {
        let hold = item.hold.clone();
        self.write("repeat work", move |tx| rearm(tx, hold, after, true).boxed())
            .await
    }

    async fn fail(&self, item: &WorkItem, after: Duration) -> Result<bool> {
        let hold = item.hold.clone();
        self.write("fail work", move |tx| rearm(tx, hold, after, false).boxed())
            .await
    }

    async fn held(&self, worker: WorkerId) -> Result<Vec<WorkItem>> {
        self.read("list held work", move |link| held_by(link, worker).boxed())
            .await
    }

    async fn beat(&self, worker: &Worker) -> Result<u64> {
        let worker = worker.clone();
        self.write("beat", move |tx| beat(tx, worker).boxed()).await
    }

    async fn retire(&self, worker: WorkerId) -> Result<()> {
        self.write("retire worker", move |tx| retire(tx, worker).boxed())
            .await
    }
}

fn item(row: &SqliteRow) -> Answer<WorkItem> {
    Ok(WorkItem {
        hold: Hold {
            kind: row.named("kind", WorkKind::from_name)?,
            key: row.text("key")?,
            worker: row.id("owner")?,
            fence: row.number("fence")?,
        },
        generation: row.number("generation")?,
        attempts: row.count("attempts")?,
        place: row.maybe_place("place")?,
    })
}

/// A statement whose first four values are the hold's:
/// `WHERE kind = ?1 AND key = ?2 AND owner = ?3 AND fence = ?4`.
fn under(text: &'static str, hold: &Hold) -> Statement<'static> {
    sql(text)
        .bind(hold.kind.as_str())
        .bind(hold.key.clone())
        .bind(hold.worker.to_string())
        .bind(stored(hold.fence))
}

/// Whether the item is held, of this kind and about this session.
pub(crate) async fn holds(link: &mut Link, hold: &Hold, kind: WorkKind, session: SessionId) -> Answer<bool> {
    Ok(hold.kind == kind && hold.key == session.to_string() && is_held(link, hold).await?)
}

/// Whether the item is held.
pub(crate) async fn is_held(link: &mut Link, hold: &Hold) -> Answer<bool> {
    let select = "SELECT 1 FROM lap_work WHERE kind = ?1 AND key = ?2 AND owner = ?3 AND fence = ?4";
    Ok(link.first(under(select, hold)).await?.is_some())
}

async fn enqueue_all(tx: &mut Tx, items: Vec<NewWork>) -> Answer<()> {
    for item in items {
        enqueue(tx, item).await?;
    }
    Ok(())
}

pub(crate) async fn enqueue(tx: &mut Tx, new: NewWork) -> Answer<()> {
    let upsert = "INSERT INTO lap_work (kind, key, place, due, generation) VALUES (?1, ?2, ?3, ?4, 1) \
                  ON CONFLICT (kind, key) DO UPDATE SET place = excluded.place, \
                  due = min(due, excluded.due), generation = generation + 1";
    let upsert = sql(upsert)
        .bind(new.kind.as_str())
        .bind(new.key)
        .bind(new.place.map(place_text))
        .bind((tx.now + new.after).unix_millis());
    tx.run(upsert).await.map(drop)
}

/// Enqueues the removal of what is left of a sandbox.
pub(crate) async fn enqueue_cleanup(tx: &mut Tx, sandbox: SandboxId, place: Place) -> Answer<()> {
    let new = NewWork {
        kind: WorkKind::Cleanup,
        key: sandbox.to_string(),
        place: Some(place),
        after: Duration::ZERO,
    };
    enqueue(tx, new).await
}

/// The next value of the installation's one sequence.
async fn draw_fence(tx: &mut Tx) -> Answer<u64> {
    tx.one(sql("UPDATE lap_fence SET last = last + 1 RETURNING last"))
        .await?
        .number("last")
}

async fn take_due(tx: &mut Tx, take: Take) -> Answer<Vec<WorkItem>> {
    // The plus keeps SQLite from looking through every item of the kinds instead of through those that are due.
    let select = "SELECT kind, key FROM lap_work WHERE owner IS NULL AND due <= ?1 \
                  AND +kind IN (SELECT value FROM json_each(?2)) \
                  AND (place IS NULL OR place IN (SELECT value FROM json_each(?3))) \
                  ORDER BY due, kind, key LIMIT ?4";
    let select = sql(select)
        .bind(tx.now.unix_millis())
        .bind(json_list(&take.kinds)?)
        .bind(json_list(take.places.iter().copied().map(place_text))?)
        .bind(i64::from(take.limit));
    let due = tx.all(select).await?;
    let mut items = Vec::with_capacity(due.len());
    for row in due {
        let update = "UPDATE lap_work SET owner = ?3, fence = ?4, due = ?5, attempts = attempts + 1 \
                      WHERE kind = ?1 AND key = ?2 RETURNING *";
        let fence = draw_fence(tx).await?;
        let update = sql(update)
            .bind(row.text("kind")?)
            .bind(row.text("key")?)
            .bind(take.worker.to_string())
            .bind(stored(fence))
            .bind(Timestamp::NEVER.unix_millis());
        items.push(item(&tx.one(update).await?)?);
    }
    Ok(items)
}

/// Work that comes into being together with what it is about.
pub(crate) struct Born {
    pub(crate) kind: WorkKind,
    pub(crate) session: SessionId,
    pub(crate) place: Place,
    /// Who holds it from the start; otherwise it is due for whoever reaches the place.
    pub(crate) holder: Option<WorkerId>,
}

/// Enqueues the item, and takes it in the same commit for its first holder. `None` when it has none, or when
/// somebody holds the item already: then its end re-arms it.
pub(crate) async fn bear(tx: &mut Tx, born: Born) -> Answer<Option<WorkItem>> {
    let Some(worker) = born.holder else {
        let (key, place) = (born.session.to_string(), Some(born.place));
        enqueue(
            tx,
            NewWork {
                kind: born.kind,
                key,
                place,
                after: Duration::ZERO,
            },
        )
        .await?;
        return Ok(None);
    };
    let fence = draw_fence(tx).await?;
    let upsert = "INSERT INTO lap_work (kind, key, place, due, owner, fence, generation, attempts) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, 1) \
                  ON CONFLICT (kind, key) DO UPDATE SET place = excluded.place, generation = generation + 1, \
                  due = iif(owner IS NULL, excluded.due, min(due, ?7)), \
                  fence = iif(owner IS NULL, excluded.fence, fence), \
                  attempts = iif(owner IS NULL, attempts + 1, attempts), \
                  owner = ifnull(owner, excluded.owner) RETURNING *";
    let upsert = sql(upsert)
        .bind(born.kind.as_str())
        .bind(born.session.to_string())
        .bind(place_text(born.place))
        .bind(Timestamp::NEVER.unix_millis())
        .bind(worker.to_string())
        .bind(stored(fence))
        .bind(tx.now.unix_millis());
    let item = item(&tx.one(upsert).await?)?;
    Ok(Some(item).filter(|item| item.hold.fence == fence))
}

/// Ends a held item as part of a write that has seen everything the item is for. An enqueue meanwhile asked
/// for nothing that is left.
pub(crate) async fn complete(tx: &mut Tx, hold: &Hold) -> Answer<()> {
    let delete = "DELETE FROM lap_work WHERE kind = ?1 AND key = ?2 AND owner = ?3 AND fence = ?4";
    tx.run(under(delete, hold)).await.map(drop)
}

/// Frees an item that was enqueued while it was held. It is due when that asked for it.
async fn release(tx: &mut Tx, hold: &Hold) -> Answer<bool> {
    let update = "UPDATE lap_work SET owner = NULL, attempts = 0 \
                  WHERE kind = ?1 AND key = ?2 AND owner = ?3 AND fence = ?4";
    Ok(tx.run(under(update, hold)).await? > 0)
}

/// A held item goes on with the next turn of its session.
pub(crate) async fn go_on(tx: &mut Tx, hold: &Hold) -> Answer<()> {
    let update =
        "UPDATE lap_work SET attempts = 1 WHERE kind = ?1 AND key = ?2 AND owner = ?3 AND fence = ?4";
    tx.run(under(update, hold)).await.map(drop)
}

/// Removes every item about a session that has ended. Whoever holds one finds that it is lost.
pub(crate) async fn remove_of_session(tx: &mut Tx, session: SessionId) -> Answer<()> {
    let delete = "DELETE FROM lap_work WHERE key = ?1 AND kind IN ('bring_up', 'turn', 'reap')";
    tx.run(sql(delete).bind(session.to_string())).await.map(drop)
}

/// Whoever goes on with a held item has to reach this place.
pub(crate) async fn move_to(tx: &mut Tx, hold: &Hold, place: Place) -> Answer<()> {
    let update = "UPDATE lap_work SET place = ?5 WHERE kind = ?1 AND key = ?2 AND owner = ?3 AND fence = ?4";
    tx.run(under(update, hold).bind(place_text(place)))
        .await
        .map(drop)
}

async fn done(tx: &mut Tx, item: WorkItem) -> Answer<bool> {
    let delete = "DELETE FROM lap_work \
                  WHERE kind = ?1 AND key = ?2 AND owner = ?3 AND fence = ?4 AND generation = ?5";
    if tx
        .run(under(delete, &item.hold).bind(stored(item.generation)))
        .await?
        > 0
    {
        return Ok(true);
    }
    release(tx, &item.hold).await
}

/// Due after this long, or earlier when it was asked for meanwhile.
async fn rearm(tx: &mut Tx, hold: Hold, after: Duration, forget_attempts: bool) -> Answer<bool> {
    let update = "UPDATE lap_work SET owner = NULL, due = min(due, ?5), \
                  attempts = iif(?6, 0, attempts) \
                  WHERE kind = ?1 AND key = ?2 AND owner = ?3 AND fence = ?4";
    let update = under(update, &hold)
        .bind((tx.now + after).unix_millis())
        .bind(forget_attempts);
    Ok(tx.run(update).await? > 0)
}

async fn held_by(link: &mut Link, worker: WorkerId) -> Answer<Vec<WorkItem>> {
    let select = sql("SELECT * FROM lap_work WHERE owner = ?1 ORDER BY fence").bind(worker.to_string());
    link.all(select).await?.iter().map(item).collect()
}

async fn beat(tx: &mut Tx, worker: Worker) -> Answer<u64> {
    let upsert = "INSERT INTO lap_workers (id, place, platform_hash, beat) VALUES (?1, ?2, ?3, ?4) \
                  ON CONFLICT (id) DO UPDATE SET place = excluded.place, platform_hash = excluded.platform_hash, \
                  beat = excluded.beat";
    let upsert = sql(upsert)
        .bind(worker.id.to_string())
        .bind(place_text(worker.place))
        .bind(worker.platform_hash.as_text().to_owned())
        .bind(tx.now.unix_millis());
    tx.run(upsert).await?;
    // A silent worker and a missing one mean the same, so the rows of the silent do not pile up.
    let delete =
        sql("DELETE FROM lap_workers WHERE beat <= ?1").bind(tx.now.minus(WORKER_LAPSE).unix_millis());
    tx.run(delete).await?;
    let free = "UPDATE lap_work SET owner = NULL, due = ?1 \
                WHERE owner IS NOT NULL AND owner NOT IN (SELECT id FROM lap_workers)";
    let freed = tx.run(sql(free).bind(tx.now.unix_millis())).await?;
    idempotency::forget(tx).await?;
    Ok(freed)
}

async fn retire(tx: &mut Tx, worker: WorkerId) -> Answer<()> {
    tx.run(sql("DELETE FROM lap_workers WHERE id = ?1").bind(worker.to_string()))
        .await?;
    let free = "UPDATE lap_work SET owner = NULL, due = ?2 WHERE owner = ?1";
    tx.run(sql(free).bind(worker.to_string()).bind(tx.now.unix_millis()))
        .await
        .map(drop)
}
