//! The work queue.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lap_core::error::Result;
use lap_core::id::{SandboxId, SessionId, WorkerId};
use lap_core::sandbox::Place;
use lap_core::store::{Hold, NewWork, Take, WORKER_LAPSE, Work, WorkItem, WorkKind, Worker};
use lap_core::time::Timestamp;
use sqlx::postgres::PgRow;

use crate::error::{Answer, Failure};
use crate::idempotency;
use crate::link::{Link, Statement, Tx, sql};
use crate::row::{Columns as _, clean, millis, place_text, stored};
use crate::store::PostgresStore;

#[async_trait]
impl Work for PostgresStore {
    async fn enqueue(&self, items: Vec<NewWork>) -> Result<()> {
        self.core()
            .ask("enqueue work", items, |link, items| {
                enqueue_all(link, items).boxed()
            })
            .await
    }

    async fn take(&self, take: Take) -> Result<Vec<WorkItem>> {
        self.core()
            .ask("take work", take, |link, take| take_due(link, take).boxed())
            .await
    }

    async fn done(&self, item: &WorkItem) -> Result<bool> {
        self.core()
            .ask("finish work", item.clone(), |link, item| done(link, item).boxed())
            .await
    }

    async fn again(&self, item: &WorkItem, after: Duration) -> Result<bool> {
        let asked = (item.hold.clone(), after, true);
        self.core()
            .ask("repeat work", asked, |link, asked| rearm(link, asked).boxed())
            .await
    }

    async fn fail(&self, item: &WorkItem, after: Duration) -> Result<bool> {
        let asked = (item.hold.clone(), after, false);
        self.core()
            .ask("fail work", asked, |link, asked| rearm(link, asked).boxed())
            .await
    }

    async fn held(&self, worker: WorkerId) -> Result<Vec<WorkItem>> {
        self.core()
            .ask("list held work", worker, |link, worker| {
                held_by(link, worker).boxed()
            })
            .await
    }

    async fn beat(&self, worker: &Worker) -> Result<u64> {
        let freed = self
            .core()
            .ask("beat", worker.clone(), |link, worker| beat(link, worker).boxed())
            .await?;
        if self.is_tidying_due() {
            self.core()
                .ask("forget requests", (), |link, ()| {
                    idempotency::forget(link).boxed()
                })
                .await?;
        }
        Ok(freed)
    }

    async fn retire(&self, worker: WorkerId) -> Result<()> {
        self.core()
            .write("retire worker", worker, |tx, worker| retire(tx, worker).boxed())
            .await
    }
}

fn item(row: &PgRow) -> Answer<WorkItem> {
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
/// `WHERE kind = $1 AND key = $2 AND owner = $3 AND fence = $4`.
fn under(text: &'static str, hold: &Hold) -> Statement {
    sql(text)
        .bind(hold.kind.as_str())
        .bind(clean(&hold.key))
        .bind(hold.worker.as_uuid())
        .bind(stored(hold.fence))
}

/// Whether the item is held, of this kind and about this session. It stays so until the transaction ends.
pub(crate) async fn holds(tx: &mut Tx, hold: &Hold, kind: WorkKind, session: SessionId) -> Answer<bool> {
    if hold.kind != kind || hold.key != session.to_string() {
        return Ok(false);
    }
    let select = "SELECT 1 FROM lap.work WHERE kind = $1 AND key = $2 AND owner = $3 AND fence = $4 \
                  FOR NO KEY UPDATE";
    Ok(tx.first(under(select, hold)).await?.is_some())
}

pub(crate) const ENQUEUE: &str = "\
INSERT INTO lap.work AS w (kind, key, place, due, generation) \
SELECT kind, key, place, lap.now_ms() + after, times \
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[]) AS n (kind, key, place, after, times) \
ON CONFLICT (kind, key) DO UPDATE SET place = excluded.place, due = least(w.due, excluded.due), \
    generation = w.generation + excluded.generation";

/// An item that occurs several times is written once, and all are written in the order of their keys, so that two
/// calls do not wait for each other.
async fn enqueue_all(link: &mut Link, items: Vec<NewWork>) -> Answer<()> {
    let mut unique = BTreeMap::new();
    for new in items {
        let key = (new.kind.as_str(), clean(&new.key));
        let (place, after, times) = unique.entry(key).or_insert((None, i64::MAX, 0_i64));
        *place = new.place.map(place_text);
        *after = millis(new.after).min(*after);
        *times += 1;
    }
    if unique.is_empty() {
        return Ok(());
    }
    let (mut kinds, mut keys) = (Vec::new(), Vec::new());
    let (mut places, mut afters, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for ((kind, key), (place, after, count)) in unique {
        kinds.push(kind);
        keys.push(key);
        places.push(place);
        afters.push(after);
        times.push(count);
    }
    let upsert = sql(ENQUEUE)
        .bind(kinds)
        .bind(keys)
        .bind(places)
        .bind(afters)
        .bind(times);
    link.run(upsert).await.map(drop)
}

pub(crate) async fn enqueue(tx: &mut Tx, new: NewWork) -> Answer<()> {
    enqueue_all(&mut tx.link, vec![new]).await
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

/// Items that others are about to take are passed over. The fence is drawn from the one sequence.
pub(crate) const TAKE: &str = "\
WITH due AS MATERIALIZED (\
    SELECT kind, key, due FROM lap.work WHERE owner IS NULL AND due <= lap.now_ms() AND kind = ANY($2) \
    AND (place IS NULL OR place = ANY($3)) ORDER BY due LIMIT $4 FOR UPDATE SKIP LOCKED), \
taken AS (\
    UPDATE lap.work w SET owner = $1, attempts = w.attempts + 1, fence = nextval('lap.fence'), \
        due = 9223372036854775807 \
    FROM due d WHERE w.kind = d.kind AND w.key = d.key RETURNING w.*, d.due AS was_due) \
SELECT * FROM taken ORDER BY was_due, kind, key";

async fn take_due(link: &mut Link, take: Take) -> Answer<Vec<WorkItem>> {
    let kinds: Vec<_> = take.kinds.iter().map(|kind| kind.as_str()).collect();
    let places: Vec<_> = take.places.iter().copied().map(place_text).collect();
    let statement = sql(TAKE)
        .bind(take.worker.as_uuid())
        .bind(kinds)
        .bind(places)
        .bind(i64::from(take.limit));
    link.all(statement).await?.iter().map(item).collect()
}

/// Work that comes into being together with what it is about.
pub(crate) struct Born {
    pub(crate) kind: WorkKind,
    pub(crate) session: SessionId,
    pub(crate) place: Place,
    /// Who holds it from the start; otherwise it is due for whoever reaches the place.
    pub(crate) holder: Option<WorkerId>,
}

const BEAR: &str = "\
WITH drawn AS MATERIALIZED (SELECT nextval('lap.fence') AS fence), \
born AS (\
    INSERT INTO lap.work AS w (kind, key, place, due, owner, fence, generation, attempts) \
    SELECT $1, $2, $3, 9223372036854775807, $4, fence, 1, 1 FROM drawn \
    ON CONFLICT (kind, key) DO UPDATE SET place = excluded.place, generation = w.generation + 1, \
        due = CASE WHEN w.owner IS NULL THEN excluded.due ELSE least(w.due, lap.now_ms()) END, \
        fence = CASE WHEN w.owner IS NULL THEN excluded.fence ELSE w.fence END, \
        attempts = CASE WHEN w.owner IS NULL THEN w.attempts + 1 ELSE w.attempts END, \
        owner = coalesce(w.owner, excluded.owner) RETURNING *) \
SELECT born.*, drawn.fence AS drawn FROM born, drawn";

/// Enqueues the item, and takes it in the same commit for its first holder. `None` when it has none, or when
/// somebody holds the item already: then its end re-arms it.
pub(crate) async fn bear(tx: &mut Tx, born: Born) -> Answer<Option<WorkItem>> {
    let Some(worker) = born.holder else {
        let new = NewWork {
            kind: born.kind,
            key: born.session.to_string(),
            place: Some(born.place),
            after: Duration::ZERO,
        };
        enqueue(tx, new).await?;
        return Ok(None);
    };
    let statement = sql(BEAR)
        .bind(born.kind.as_str())
        .bind(born.session.to_string())
        .bind(place_text(born.place))
        .bind(worker.as_uuid());
    let row = tx.one(statement).await?;
    let drawn = row.number("drawn")?;
    Ok(Some(item(&row)?).filter(|item| item.hold.fence == drawn))
}

/// Ends a held item as part of a write that has seen everything the item is for. An enqueue meanwhile asked
/// for nothing that is left.
pub(crate) async fn complete(tx: &mut Tx, hold: &Hold) -> Answer<()> {
    let delete = "DELETE FROM lap.work WHERE kind = $1 AND key = $2 AND owner = $3 AND fence = $4";
    tx.run(under(delete, hold)).await.map(drop)
}

/// Removes every item about a session that has ended. Whoever holds one finds that it is lost. The caller has the
/// session's lock, so whoever has locked an item that is newer than that waits for the caller: that is a race, found
/// here at once instead of by the database a second later.
pub(crate) async fn remove_of_session(tx: &mut Tx, session: SessionId) -> Answer<()> {
    let delete = "WITH free AS MATERIALIZED (\
                      SELECT kind, key FROM lap.work WHERE key = $1 AND kind IN ('bring_up', 'reap', 'turn') \
                      FOR UPDATE SKIP LOCKED), \
                  gone AS (DELETE FROM lap.work w USING free f WHERE w.kind = f.kind AND w.key = f.key) \
                  SELECT (SELECT count(*) FROM lap.work WHERE key = $1 AND kind IN ('bring_up', 'reap', 'turn')) \
                      = (SELECT count(*) FROM free) AS is_all";
    if tx
        .one(sql(delete).bind(session.to_string()))
        .await?
        .flag("is_all")?
    {
        Ok(())
    } else {
        Err(Failure::Race)
    }
}

/// Whoever goes on with a held item has to reach this place.
pub(crate) async fn move_to(tx: &mut Tx, hold: &Hold, place: Place) -> Answer<()> {
    let update = "UPDATE lap.work SET place = $5 WHERE kind = $1 AND key = $2 AND owner = $3 AND fence = $4";
    tx.run(under(update, hold).bind(place_text(place)))
        .await
        .map(drop)
}

/// Deletes the item only at the generation that was taken; otherwise it is free, and due when the enqueue meanwhile
/// asked for it. Both parts look at the row's newest state.
pub(crate) const DONE: &str = "\
WITH gone AS (\
    DELETE FROM lap.work WHERE kind = $1 AND key = $2 AND owner = $3 AND fence = $4 AND generation = $5 RETURNING 1), \
freed AS (\
    UPDATE lap.work SET owner = NULL, attempts = 0 \
    WHERE kind = $1 AND key = $2 AND owner = $3 AND fence = $4 AND NOT EXISTS (SELECT FROM gone) RETURNING 1) \
SELECT EXISTS (SELECT FROM gone) OR EXISTS (SELECT FROM freed) AS done";

async fn done(link: &mut Link, item: WorkItem) -> Answer<bool> {
    let statement = under(DONE, &item.hold).bind(stored(item.generation));
    link.one(statement).await?.flag("done")
}

pub(crate) const REARM: &str = "\
UPDATE lap.work SET owner = NULL, due = least(due, lap.now_ms() + $5), \
    attempts = CASE WHEN $6 THEN 0 ELSE attempts END \
WHERE kind = $1 AND key = $2 AND owner = $3 AND fence = $4";

/// Due after this long, or earlier when it was asked for meanwhile.
async fn rearm(link: &mut Link, (hold, after, forget_attempts): (Hold, Duration, bool)) -> Answer<bool> {
    let update = under(REARM, &hold).bind(millis(after)).bind(forget_attempts);
    Ok(link.run(update).await? > 0)
}

pub(crate) const HELD: &str = "SELECT * FROM lap.work WHERE owner = $1 ORDER BY fence";

async fn held_by(link: &mut Link, worker: WorkerId) -> Answer<Vec<WorkItem>> {
    let select = sql(HELD).bind(worker.as_uuid());
    link.all(select).await?.iter().map(item).collect()
}

/// The one statement of an idle process, every two seconds. A silent worker and a missing one mean the same, so the
/// rows of the silent do not pile up. `lost` is decided before any row is locked: an item that a new worker takes
/// meanwhile is not freed.
pub(crate) const BEAT: &str = "\
WITH beaten AS (\
    INSERT INTO lap.workers (id, place, platform_hash, beat) VALUES ($1, $2, $3, lap.now_ms()) \
    ON CONFLICT (id) DO UPDATE SET place = excluded.place, platform_hash = excluded.platform_hash, \
        beat = excluded.beat), \
silent AS (\
    DELETE FROM lap.workers WHERE id IN (\
        SELECT id FROM lap.workers WHERE beat <= lap.now_ms() - $4 AND id <> $1 FOR UPDATE SKIP LOCKED)), \
lost AS MATERIALIZED (\
    SELECT DISTINCT w.owner FROM lap.work w WHERE w.owner IS NOT NULL AND w.owner <> $1 AND NOT EXISTS (\
        SELECT FROM lap.workers x WHERE x.id = w.owner AND x.beat > lap.now_ms() - $4)), \
free AS MATERIALIZED (\
    SELECT w.kind, w.key FROM lost JOIN lap.work w ON w.owner = lost.owner \
    WHERE w.owner IS NOT NULL FOR UPDATE OF w SKIP LOCKED), \
freed AS (\
    UPDATE lap.work w SET owner = NULL, due = lap.now_ms() FROM free f \
    WHERE w.kind = f.kind AND w.key = f.key AND w.owner IN (SELECT owner FROM lost) RETURNING 1) \
SELECT count(*) AS freed FROM freed";

async fn beat(link: &mut Link, worker: Worker) -> Answer<u64> {
    let statement = sql(BEAT)
        .bind(worker.id.as_uuid())
        .bind(place_text(worker.place))
        .bind(worker.platform_hash.as_text().to_owned())
        .bind(millis(WORKER_LAPSE));
    link.one(statement).await?.number("freed")
}

async fn retire(tx: &mut Tx, worker: WorkerId) -> Answer<()> {
    tx.run(sql("DELETE FROM lap.workers WHERE id = $1").bind(worker.as_uuid()))
        .await?;
    let free = "UPDATE lap.work SET owner = NULL, due = lap.now_ms() WHERE owner = $1";
    tx.run(sql(free).bind(worker.as_uuid())).await.map(drop)
}

/// Held, and never due.
const _: () = assert!(Timestamp::NEVER.unix_millis() == 9_223_372_036_854_775_807);
